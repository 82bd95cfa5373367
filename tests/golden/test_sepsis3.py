"""Golden examples of the Sepsis-3 rules: tiny tables in, table out, one edge each."""

from typing import Any

import pytest
from mimic_tables import (
    Row,
    antibiotic,
    at,
    chart,
    culture,
    heart_rates,
    hospital,
    infusion,
    lab,
    output,
    patient,
)

from client.cohort import FlowStep, derive_sepsis3, select_cohort
from shared_model.errors import ConfigError, EmptyCohortError
from shared_model.study import Study

MINUTE = 1 / 60
PLATELETS, CREATININE, URINE, IRRIGANT = 51265, 50912, 226559, 227488
EYES, VERBAL, MOTOR = 220739, 223900, 223901


def derived(query: str, *patients: dict[str, Row], **events: list[Row]) -> list[Any]:
    connection = hospital(*patients, **events)
    derive_sepsis3(connection)
    return connection.execute(query).fetchall()


def by_hour(column: str, chartevents: list[Row] | None = None, **events: list[Row]) -> dict[int, Any]:
    """The hours 0 to 59 at which a column of sofa_hourly is known."""
    query = f"SELECT hr, {column} FROM sofa_hourly WHERE {column} IS NOT NULL ORDER BY hr"
    return dict(derived(query, chartevents=heart_rates(0, 59) + (chartevents or []), **events))


@pytest.mark.parametrize(
    ("hours", "suspected"),
    [
        (-72, -72),
        (-72 - MINUTE, None),
        (0, None),  # the reference asks for strictly before or strictly after
        (MINUTE, 0),
        (24, 0),
        (24 + MINUTE, None),
    ],
)
def test_culture_pairs_with_antibiotic(hours: float, suspected: float | None) -> None:
    query = "SELECT suspected_infection, suspected_time, culture_time FROM suspicion"
    rows = derived(query, prescriptions=[antibiotic(30)], microbiologyevents=[culture(30 + hours)])
    expected = (0, None, None) if suspected is None else (1, at(30 + suspected), at(30 + hours))
    assert rows == [expected]


@pytest.mark.parametrize(("days", "suspected"), [(-4, 0), (-3, 1), (0, 1), (1, 1), (2, 0)])
def test_date_only_culture_counts_days(days: int, suspected: int) -> None:
    cultures = [culture(24 * days, timed=False)]
    query = "SELECT suspected_infection FROM suspicion"
    assert derived(query, prescriptions=[antibiotic(13)], microbiologyevents=cultures) == [(suspected,)]


def test_earliest_culture_before_the_antibiotic_wins() -> None:
    cultures = [culture(31, 1), culture(20, 2, org_name="E. COLI", org_itemid=80002), culture(10, 3)]
    query = "SELECT culture_time, suspected_time, positive_culture FROM suspicion"
    rows = derived(query, prescriptions=[antibiotic(30)], microbiologyevents=cultures)
    assert rows == [(at(10), at(10), 0)]


@pytest.mark.parametrize(
    ("organism", "itemid", "positive"),
    [
        ("E. COLI", 80002, 1),
        ("", 80002, 0),
        (None, None, 0),
        ("NEG", 90856, 0),
        ("X", 90760, 0),
        ("CANCELLED", 1, 0),
    ],
)
def test_positive_culture(organism: str | None, itemid: int | None, positive: int) -> None:
    cultures = [culture(29, org_name=organism, org_itemid=itemid)]
    query = "SELECT positive_culture FROM suspicion"
    assert derived(query, prescriptions=[antibiotic(30)], microbiologyevents=cultures) == [(positive,)]


def test_only_systemic_antibiotics_count() -> None:
    given = [
        antibiotic(1),
        antibiotic(2, route="TP"),
        antibiotic(3, route="LEFT EYE"),
        antibiotic(4, route="both ears"),
        antibiotic(5, route=None),
        antibiotic(6, drug_type="BASE"),
        antibiotic(7, drug="Erythromycin Ophth Oint"),
        antibiotic(8, drug="Clindamycin Gel"),
        antibiotic(9, drug="Penicillin Desensitization"),
        antibiotic(10, drug="Heparin"),
        antibiotic(60, drug="CefePIME"),  # the stay ends at hour 60: no longer in the ICU
    ]
    rows = derived("SELECT antibiotic, stay_id FROM antibiotic ORDER BY starttime", prescriptions=given)
    assert rows == [("Vancomycin", 100), ("CefePIME", None)]


def test_hours_are_open_at_the_start_and_closed_at_the_end() -> None:
    labs = [lab(PLATELETS, 5, 40), lab(PLATELETS, 5 + MINUTE, 60)]
    assert by_hour("platelet_min", labevents=labs) == {5: 40, 6: 60}


def test_grid_runs_from_first_to_last_heart_rate_on_clock_hours() -> None:
    query = "SELECT min(hr), max(hr), min(starttime), max(endtime) FROM sofa_hourly"
    rows = derived(query, chartevents=heart_rates(0.5, 9.25))
    assert rows == [(0, 9, at(0), at(10))]


def test_worst_of_24_hours_reaches_back_before_the_stay() -> None:
    labs = [lab(PLATELETS, -3, 90), lab(PLATELETS, 30, 140)]
    score = by_hour("coagulation_24hours", labevents=labs)
    assert {hour for hour, value in score.items() if value == 2} == set(range(21))
    assert {hour for hour, value in score.items() if value == 1} == set(range(30, 54))


def test_emergency_department_lab_without_admission_counts() -> None:
    assert by_hour("creatinine_max", labevents=[lab(CREATININE, 0, 3.6, hadm_id=None)]) == {0: 3.6}


def test_glasgow_coma_scale_carries_parts_and_credits_intubation() -> None:
    rows = [
        *(chart(EYES, 0, 2), chart(VERBAL, 0, 3), chart(MOTOR, 0, 4)),  # 9
        chart(MOTOR, 5, 5),  # eyes and voice of 5 hours ago: 2 + 3 + 5
        chart(MOTOR, 11, 5),  # 6 hours is too old: 4 + 5 + 5
        *(chart(EYES, 12, 1), chart(VERBAL, 12, "No Response-ETT", valuenum=1), chart(MOTOR, 12, 1)),  # 15
        chart(MOTOR, 13, 1),  # still intubated
        *(chart(VERBAL, 14, "No Response-ETT", valuenum=1), chart(EYES, 14, 1)),
        chart(VERBAL, 15, 4),  # after intubation the missing parts are normal: 4 + 4 + 6
    ]
    score = dict(derived("SELECT charttime, gcs FROM gcs", chartevents=rows))
    assert score == dict(zip(map(at, (0, 5, 11, 12, 13, 14, 15)), (9, 10, 14, 15, 15, 15, 14), strict=True))


def test_urine_counts_between_22_and_30_observed_hours() -> None:
    two_hourly = [output(URINE, hour, 10) for hour in range(2, 29, 2)]
    total = by_hour("uo_24hr", outputevents=two_hourly)
    assert {hour: round(value, 6) for hour, value in total.items()} == {22: 120, 24: 120, 26: 120, 28: 120}
    assert by_hour("renal_24hours", outputevents=two_hourly)[22] == 4
    assert not by_hour("uo_24hr", outputevents=[output(URINE, 31, 100)])


def test_irrigant_that_went_in_is_subtracted() -> None:
    rows = [output(URINE, 24, 700), output(IRRIGANT, 24, 300)]
    assert by_hour("uo_24hr", outputevents=rows) == {24: 400}


def test_infusion_counts_in_hours_that_end_within_it() -> None:
    assert by_hour("rate_dopamine", inputevents=[infusion(221662, 3, 5, 2.0)]) == {4: 2, 5: 2}
    assert by_hour("rate_dopamine", inputevents=[infusion(221662, 3.1, 3.9, 2.0)]) == {}


def test_norepinephrine_in_milligrams() -> None:
    rows = [
        infusion(221906, 1, 2, 0.05),
        infusion(221906, 3, 4, 0.06, rateuom="mg/kg/min", patientweight=1.0),
        infusion(221906, 5, 6, 0.0002, rateuom="mg/kg/min"),
        infusion(221906, 7, 8, 0.0),
    ]
    assert by_hour("rate_norepinephrine", inputevents=rows) == {2: 0.05, 4: 0.06, 6: 0.2, 8: 0}
    score = by_hour("cardiovascular_24hours", inputevents=rows)
    assert (score[1], score[2], score[6]) == (0, 3, 4)
    assert by_hour("cardiovascular_24hours", inputevents=rows[3:])[8] == 3  # a recorded rate of 0 counts


def blood_gas(hours: float, pao2: float, fio2: float | None = None) -> list[Row]:
    rows = [lab(52033, hours, "ART."), lab(50821, hours, pao2)]
    return rows if fio2 is None else [*rows, lab(50816, hours, fio2)]


def test_respiration_3_and_4_need_invasive_ventilation() -> None:
    gas = blood_gas(10, 80, 100)
    tube = [chart(226732, hour, "Endotracheal tube ") for hour in (8, 12)]
    assert by_hour("respiration_24hours", labevents=gas)[10] == 2
    assert by_hour("respiration_24hours", tube, labevents=gas)[10] == 4
    mask = [chart(226732, hour, "CPAP mask ") for hour in (8, 12)]
    assert by_hour("respiration_24hours", mask, labevents=gas)[10] == 2


def test_charted_oxygen_fraction_counts_for_4_hours() -> None:
    charted = [chart(223835, 6, 0.5), chart(223835, 20, 15)]
    gases = blood_gas(10, 90) + blood_gas(10 + MINUTE, 90) + blood_gas(21, 90) + [lab(52033, 30, "VEN.")]
    assert by_hour("pao2fio2_novent", charted, labevents=gases) == {10: 180}


def test_ventilation_spells() -> None:
    modes = [(1, "CMV/ASSIST"), (5, "SIMV"), (18.5, "SIMV"), (33, "PSV/SBT")]
    charted = [chart(223849, hour, mode) for hour, mode in modes]
    device = [chart(223834, 20, 6), chart(226732, 20, "Nasal cannula"), chart(226732, 25, "Nasal cannula")]
    query = "SELECT status, starttime, endtime FROM ventilation ORDER BY starttime"
    # The cannula of hour 25 has no flow; single time points (hours 20 and 33) are no spell.
    rows = derived(query, chartevents=charted + device)
    assert rows == [("InvasiveVent", at(1), at(20))]


def septic(stay: int = 100, subject: int = 1) -> dict[str, list[Row]]:
    owner = {"subject_id": subject}
    return {
        "chartevents": [row | owner | {"stay_id": stay} for row in heart_rates(0, 59)],
        "labevents": [lab(CREATININE, 26, 2.5) | owner],
        "prescriptions": [antibiotic(4, subject_id=subject, hadm_id=stay * 10)],
        "microbiologyevents": [culture(2, subject_id=subject)],
    }


def test_onset_is_the_first_sofa_hour_in_the_window() -> None:
    query = "SELECT suspected_time, antibiotic_time, sofa_time, sofa_score, renal, sepsis3 FROM sepsis3"
    assert derived(query, **septic()) == [(at(2), at(4), at(26), 2, 2, True)]
    late = septic() | {"labevents": [lab(CREATININE, 26 + MINUTE, 2.5)]}
    assert derived(query, **late) == []


def test_stay_without_heart_rate_has_no_sofa() -> None:
    events = septic() | {"chartevents": [chart(MOTOR, 3, 1)]}
    assert derived("SELECT stay_id FROM sofa_hourly UNION ALL SELECT stay_id FROM sepsis3", **events) == []


def test_flow_of_the_cohort() -> None:
    connection = hospital(
        patient(1, stay=100, hospital_expire_flag=1, deathtime=at(50)),
        patient(2, stay=200, end=-1),  # out before in
        patient(3, stay=300, anchor_age=17),
        patient(4, stay=400, end=23.9),
        patient(5, stay=500, deathtime=at(24)),
        patient(6, stay=600, end=24),
        patient(7, stay=700, hospital_expire_flag=None),
        **septic(),
    )
    later = "101 AS stay_id, intime + INTERVAL 90 HOUR AS intime, outtime + INTERVAL 90 HOUR AS outtime"
    connection.execute(f"INSERT INTO icustays SELECT * REPLACE ({later}) FROM icustays WHERE stay_id = 100")
    everyone = select_cohort(connection, "all_icu")
    assert [(step.patients, step.stays) for step in everyone] == [(6, 7), (5, 6), (4, 5), (4, 4), (2, 2)]
    assert connection.execute("SELECT stay_id, onset_time FROM cohort").fetchall() == [
        (100, None),
        (600, None),
    ]
    flow = select_cohort(connection, "sepsis3")
    assert flow[-1] == FlowStep(step="Sepsis-3", patients=1, stays=1)
    query = "SELECT subject_id, hadm_id, unit, prediction_time, age, label, onset_time FROM cohort"
    assert connection.execute(query).fetchall() == [(1, 1000, "MICU", at(24), 60.0, True, at(2))]


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({"minimum_age": 90}, "adults"),
        ({"study": Study(prediction_hours=100)}, "alive 100 h"),
        ({"cohort": "sepsis3"}, "Sepsis-3"),
    ],
)
def test_empty_cohort_names_its_step(options: dict[str, Any], step: str) -> None:
    with pytest.raises(EmptyCohortError, match=step):
        select_cohort(hospital(chartevents=heart_rates(0, 59)), **{"cohort": "all_icu"} | options)


@pytest.mark.parametrize("options", [{"cohort": "icu"}, {"stays": "last"}])
def test_unusable_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(options.values())))):
        select_cohort(hospital(), **{"cohort": "all_icu"} | options)
