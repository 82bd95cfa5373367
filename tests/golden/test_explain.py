"""Golden examples of a stay's explanation: what it says, and above all what it never says."""

import os
import re
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import duckdb
import pytest
from mimic_tables import Row, antibiotic, chart, culture, hospital, lab, output, patient, read_demo
from rich.console import Console

from client.cohort import derive_sepsis3
from client.explain import Explanation, explain, render
from client.sepsis_rules import RULES_VERSION
from shared_model.errors import DataError

DATA = Path(os.environ.get("CONSILIUM_DATA", Path(__file__).parents[3] / "shared" / "data"))
DEMO = DATA / "mimic-iv-demo-2.2"
ADMITTED = 6.5  # hours after midnight, so that hours since admission and since midnight differ
SUBJECT, STAY, HADM = 7654321, 31234567, 312345670
HEART_RATE, PRESSURE, EYES, VERBAL, MOTOR, DEVICE = 220045, 220052, 220739, 223900, 223901, 226732
PLATELETS, CREATININE, URINE = 51265, 50912, 226559
WHO = {"subject_id": SUBJECT}
SECRETS = (
    "Vancomycin",
    "CefePIME",
    "BLOOD CULTURE",
    "SPUTUM",
    "E. COLI",
    "MICU",
    "Endotracheal",
    "177",
    "63.7",
    "2.83",
)


def charted(itemid: int, hours: float, value: float | str) -> Row:
    return chart(itemid, hours, value) | WHO | {"stay_id": STAY}


def given(hours: float, **more: Any) -> Row:
    return antibiotic(hours, **WHO, hadm_id=HADM, **more)


def drawn(hours: float, number: int = 1, **more: Any) -> Row:
    return culture(hours, number, **WHO, org_name="E. COLI", org_itemid=80002, **more)


def rates(first: int = 7, last: int = 60) -> list[Row]:
    return [charted(HEART_RATE, hour, 177) for hour in (first, last)]


def septic(**changed: list[Row]) -> dict[str, list[Row]]:
    """Antibiotic at +4.0 h, culture at +2.0 h, renal SOFA 2 at hour 20 of the grid, which ends at +20.5 h."""
    events = {
        "chartevents": rates(),
        "labevents": [lab(CREATININE, 26.5, 2.83, **WHO)],
        "prescriptions": [given(10.5)],
        "microbiologyevents": [drawn(8.5)],
    }
    return events | changed


def derived(*patients: dict[str, Row], **events: list[Row]) -> duckdb.DuckDBPyConnection:
    stay = patient(SUBJECT, stay=STAY, start=ADMITTED, end=70)
    connection = hospital(*(patients or (stay,)), **events)
    derive_sepsis3(connection)
    return connection


def explained(**events: list[Row]) -> Explanation:
    return explain(derived(**events), STAY)


def printed(explanation: Explanation, *, all_hours: bool = False) -> str:
    """As a terminal of 120 columns shows it, without the stay id and the rules' version that its first line tells."""
    file = StringIO()
    Console(file=file, width=120).print(render(explanation, all_hours=all_hours))
    head, body = file.getvalue().split("\n", 1)
    assert head == f"Stay {explanation.stay_id}: how Sepsis-3 was decided ({RULES_VERSION})"
    return body


def text(explanation: Explanation, *, all_hours: bool = False) -> str:
    """What is printed, blanks in a row taken as one; nobody's data in any example."""
    body = re.sub(r"[ \n]+", " ", printed(explanation, all_hours=all_hours))
    assert not [secret for secret in (*SECRETS, str(SUBJECT), str(HADM)) if secret in body]
    assert not re.search(r"\d{4}|\d-\d\d-\d|\d:\d\d", body)
    return body


def test_septic_stay_from_antibiotic_to_onset() -> None:
    found = explained(**septic())
    [suspicion] = found.suspicions
    assert (suspicion.antibiotic, suspicion.culture, suspicion.side, suspicion.day_only) == (4.0, 2.0, "before", False)
    assert (suspicion.suspected, suspicion.highest_sofa, suspicion.first_sofa_hour) == (2.0, 2, 20)
    assert [(hour.hour, hour.end) for hour in found.hours[:2]] == [(0, 0.5), (1, 1.5)]
    verdict = found.verdict
    assert (verdict.sepsis3, verdict.suspicion, verdict.sofa_hour, verdict.sofa) == (True, 1, 20, 2)
    assert (verdict.onset, verdict.reasons, found.rules_version) == (2.0, (), RULES_VERSION)
    shown = text(found)
    assert "1 +4.0 h +2.0 h before +2.0 h 2 first in hour 20" in shown
    assert "hours 1-19: unchanged +19.5 h 20 +20.5 h 2* 2 confirms suspicion 1" in shown
    assert "Sepsis-3: yes, onset at +2.0 h" in shown


def test_times_before_admission_are_negative() -> None:
    """The last hour of the window ends at +20.5 h, and so does the SOFA hour."""
    found = explained(**septic(prescriptions=[given(7.25)], microbiologyevents=[drawn(3)]))
    assert (found.suspicions[0].antibiotic, found.suspicions[0].culture, found.verdict.onset) == (0.8, -3.5, -3.5)
    assert "+0.8 h -3.5 h before -3.5 h 2 first in hour 20" in text(found)


def test_the_first_suspicion_with_sofa_in_its_window_is_confirmed() -> None:
    drugs = [given(7), given(30, drug="CefePIME"), given(30)]
    found = explained(**septic(prescriptions=drugs, microbiologyevents=[drawn(-60), drawn(29, 2)]))
    assert [row.suspected for row in found.suspicions] == [-66.5, 22.5, 22.5]
    assert (found.verdict.suspicion, found.verdict.sofa_hour, found.verdict.onset) == (2, 20, 22.5)
    shown = text(found)
    assert "1 +0.5 h -66.5 h before -66.5 h no SOFA hours never" in shown
    assert "Suspicion 2 is the earliest" in shown


def test_antibiotic_without_culture() -> None:
    found = explained(**septic(microbiologyevents=[drawn(10.5 - 72.1), drawn(10.5 + 24.1, 2)]))
    [suspicion] = found.suspicions
    assert (suspicion.side, suspicion.culture, suspicion.suspected, suspicion.highest_sofa) == (None, None, None, None)
    shown = text(found)
    assert "1 +4.0 h none within 72 h before or 24 h after no" in shown
    assert "Sepsis-3: no. because no suspected infection: no antibiotic has a culture" in shown


def test_culture_after_the_antibiotic() -> None:
    """The suspected infection is then the antibiotic's time."""
    shown = text(explained(**septic(microbiologyevents=[drawn(18.6)])))
    assert "1 +4.0 h +12.1 h after +4.0 h 2 first in hour 20" in shown
    assert "onset at +4.0 h" in shown


@pytest.mark.parametrize(
    ("cultures", "words"),
    [
        ([drawn(10, timed=False)], "-6.5 h before, day only -6.5 h"),
        ([drawn(30, timed=False)], "+17.5 h after, day only +4.0 h"),
        ([drawn(0)], "-6.5 h before -6.5 h"),  # a culture at midnight sharp has a time
        ([drawn(10, timed=False), drawn(0, 2)], "-6.5 h before -6.5 h"),
        # 82.5 h before: only the dated culture of that day pairs
        ([drawn(-72, timed=False), drawn(-72, 2)], "-78.5 h before, day only -78.5 h"),
    ],
    ids=["the same day", "the next day", "midnight", "dated and midnight", "dated, midnight too old"],
)
def test_culture_with_a_date_and_no_time(cultures: list[Row], words: str) -> None:
    shown = text(explained(**septic(microbiologyevents=cultures)))
    assert f"1 +4.0 h {words} " in shown
    assert ("Day only: the culture has a date and no time" in shown) == ("day only" in words)


def test_stay_without_antibiotic_but_with_one_on_the_ward() -> None:
    found = explained(**septic(prescriptions=[given(5)]))
    assert (found.suspicions, found.antibiotic_elsewhere) == ((), True)
    shown = text(found)
    assert "No systemic antibiotic starts in this ICU stay. Antibiotics of this admission that start outside" in shown
    assert "because no suspected infection: no systemic antibiotic starts in this ICU stay" in shown
    assert not explained(**septic(prescriptions=[])).antibiotic_elsewhere


def test_no_heart_rate_no_sofa_hours() -> None:
    found = explained(**septic(chartevents=[charted(MOTOR, 12, 1)]))
    assert (found.hours, found.verdict.sepsis3, found.suspicions[0].highest_sofa) == ((), False, None)
    shown = text(found)
    assert "+2.0 h no SOFA hours never" in shown
    assert "Sepsis-3: no. because no heart rate is charted, so there are no SOFA hours" in shown


@pytest.mark.parametrize(("creatinine_at", "highest"), [(32.1, 0), (32, 2)])
def test_sofa_below_2_in_the_window(creatinine_at: float, highest: int) -> None:
    """The window ends 24 h after the suspected infection, at +26.0 h; the last SOFA hour in it ends at +25.5 h."""
    found = explained(**septic(labevents=[lab(CREATININE, creatinine_at, 2.83, **WHO)]))
    assert (found.suspicions[0].highest_sofa, found.verdict.sepsis3) == (highest, highest == 2)
    if highest < 2:
        assert "because SOFA is never 2 or more from 48 h before to 24 h after the suspected infection" in text(found)


def test_measured_hours_are_starred_and_a_tube_is_marked() -> None:
    ill = [charted(PRESSURE, 12, 63.7), *(charted(EYES, 15, 1), charted(MOTOR, 15, 1))]
    tube = [charted(VERBAL, 15, "No Response-ETT"), *(charted(DEVICE, hour, "Endotracheal tube") for hour in (14, 17))]
    labs = [lab(PLATELETS, 3, 177, **WHO), lab(PLATELETS, 20, 63.7, **WHO)]
    found = explained(chartevents=rates() + ill + tube, labevents=labs, outputevents=[output(URINE, 20, 177)])
    by_hour = {hour.hour: hour for hour in found.hours}
    assert by_hour[4].scores == (None,) * 6  # platelets of before the grid scored 0
    assert (by_hour[5].scores[3], by_hour[5].measured[3], by_hour[6].measured[3]) == (1, True, False)
    assert (by_hour[8].scores[4], by_hour[8].intubated, by_hour[9].intubated) == (0, True, False)
    assert (by_hour[28].scores[3], by_hour[29].scores[3]) == (1, None)
    assert found.invasive_ventilation == ((7.5, 10.5),)
    shown = text(found, all_hours=True)
    assert "5 +5.5 h 1* 1 6 +6.5 h 1 1" in shown
    assert "8 +8.5 h 1 0*t 1" in shown
    assert "Invasive ventilation (without it respiration scores at most 2): +7.5 h to +10.5 h." in shown


def test_folding_keeps_every_change_and_all_hours_unfolds() -> None:
    rows = [charted(PRESSURE, hour, 63.7) for hour in (12, 14)] + [charted(PRESSURE, 13, 77.7)]
    found = explained(**septic(chartevents=rates() + rows))
    shown = text(found)
    assert "5 +5.5 h 1* 1 hours 6-19: unchanged +19.5 h * 20 +20.5 h" in shown
    everything = text(found, all_hours=True)
    assert "unchanged" not in everything
    assert all(f" {hour.hour} {hour.end:+.1f} h " in everything for hour in found.hours)


@pytest.mark.parametrize("all_hours", [False, True])
def test_the_confirming_hour_is_never_folded(all_hours: bool) -> None:
    """SOFA is 2 from before the grid on; the window begins with hour 3, in the middle of hours that are alike."""
    labs, late = [lab(CREATININE, 6, 2.83, **WHO)], [drawn(57.5)]
    events = septic(labevents=labs, prescriptions=[given(60)], microbiologyevents=late)
    found = explained(**events)
    assert (found.verdict.sofa_hour, found.hours[3].end) == (3, 3.5)
    assert "3 +3.5 h 2 2 confirms suspicion 1" in text(found, all_hours=all_hours)


def test_another_stay_of_the_patient_is_not_told() -> None:
    other = {"start": 80, "end": 99}
    stays = [patient(SUBJECT, stay=STAY, start=ADMITTED, end=70), patient(SUBJECT, stay=STAY + 1, **other)]
    found = explain(derived(*stays, **septic()), STAY + 1)
    assert (found.suspicions, found.hours, found.verdict.sepsis3) == ((), (), False)


def test_unknown_stay() -> None:
    with pytest.raises(DataError, match=r"^stay 5: not in icustays$"):
        explain(derived(), 5)


def test_stay_without_admission_time() -> None:
    stay = patient(SUBJECT, stay=STAY, intime=None)
    with pytest.raises(DataError, match=rf"^stay {STAY}: icustays.intime is empty"):
        explain(derived(stay), STAY)


@pytest.fixture(scope="module")
def demo() -> duckdb.DuckDBPyConnection:
    if not DEMO.is_dir():
        pytest.skip(f"no MIMIC-IV demo at {DEMO}; set CONSILIUM_DATA")
    connection = read_demo(DEMO)
    derive_sepsis3(connection)
    return connection


def test_mimic_demo_verdicts_are_those_of_the_table(demo: duckdb.DuckDBPyConnection) -> None:
    columns = "intime, suspected_time, antibiotic_time, sofa_time, sofa_score, sepsis3"
    rows = demo.execute(f"SELECT stay_id, {columns} FROM icustays LEFT JOIN sepsis3 USING (stay_id)").fetchall()
    assert len(rows) == 140

    def hours(since: datetime, time: datetime) -> float:
        return (time - since) / timedelta(hours=1)

    for stay_id, intime, suspected, given_at, sofa_time, score, sepsis3 in rows:
        found = explain(demo, stay_id)
        verdict = found.verdict
        assert verdict.sepsis3 == bool(sepsis3)
        assert verdict.sepsis3 != bool(verdict.reasons)
        confirmable = [row for row in found.suspicions if row.first_sofa_hour is not None]
        assert verdict.sepsis3 == bool(confirmable)
        if verdict.suspicion is None or verdict.sofa_hour is None:
            continue
        suspicion, sofa = found.suspicions[verdict.suspicion - 1], found.hours[verdict.sofa_hour]
        assert (suspicion.suspected, suspicion.first_sofa_hour) == (verdict.onset, verdict.sofa_hour)
        assert verdict.onset == min(row.suspected for row in confirmable if row.suspected is not None)
        times = (verdict.onset, suspicion.antibiotic, sofa.end)
        exact = [hours(intime, time) for time in (suspected, given_at, sofa_time)]
        assert times == pytest.approx(exact, abs=0.0501)
        assert (sofa.total, verdict.sofa) == (score, score)


def test_mimic_demo_tells_nobody(demo: duckdb.DuckDBPyConnection) -> None:
    words = {word for (word,) in demo.execute("SELECT DISTINCT antibiotic FROM antibiotic").fetchall()}
    words |= {word for (word,) in demo.execute("SELECT DISTINCT spec_type_desc FROM microbiologyevents").fetchall()}
    words |= {word for (word,) in demo.execute("SELECT DISTINCT org_name FROM microbiologyevents").fetchall()}
    words |= {word for (word,) in demo.execute("SELECT DISTINCT first_careunit FROM icustays").fetchall()}
    spoken = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in words if word and word != "CANCELLED"))
    for (stay_id,) in demo.execute("SELECT stay_id FROM icustays").fetchall():
        body = printed(explain(demo, stay_id), all_hours=stay_id % 10 == 0)
        assert not re.search(r"\d{4}|\d-\d\d-\d|\d:\d\d", body)
        assert not spoken.search(body)
