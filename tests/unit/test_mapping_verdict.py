"""What keeps a site from being ready: each case is an extract that a hospital could have, and the sentence about it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from mapped_extract import DOCUMENT, STAYS, Document

from client.check import check_site
from client.mapping.report import MappingReport
from client.site import load_site

HEAD = "stay;at;code;value;unit;kg\n"
STAY = "P{n};F{n};{n};MICU;{sex};1950;2150-03-10 00:00:00;{out};{died}\n"
HEART = "".join(
    f"{n};2150-03-1{h // 24} {h % 24:02}:00:00;HF;{80 + n % 9};;\n" for n in range(40) for h in (0, 20, 40, 70)
)


def report(
    folder: Path,
    labs: str = HEART,
    change: Callable[[Document], None] = lambda document: None,
    *,
    died: Callable[[int], bool] = lambda n: n % 5 == 0,
    out: str = "2150-03-13 00:00:00",
) -> MappingReport:
    """Of forty stays of three days."""
    (folder / "extract").mkdir()
    stays = "".join(STAY.format(n=n, sex="mw"[n % 2], out=out, died=died(n)) for n in range(40))
    (folder / "extract" / "stays.csv").write_text(STAYS.splitlines()[0] + "\n" + stays, encoding="utf-8")
    (folder / "extract" / "labs.csv").write_text(HEAD + labs, encoding="utf-8")
    document: Document = yaml.safe_load(yaml.safe_dump(DOCUMENT))
    document |= {"site": "Mercy", "store": "store", "cohort": "all_icu", "encoder": "none"}
    change(document)
    (folder / "site.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return check_site(load_site(folder / "site.yaml"))


def rows(code: str, value: object, *, unit: str = "", hour: int = 1, kg: object = "", day: int = 10) -> str:
    return "".join(f"{n};2150-03-{day} {hour:02}:00:00;{code};{value};{unit};{kg}\n" for n in range(40))


def test_a_sound_extract_is_not_held_up(tmp_path: Path) -> None:
    found = report(tmp_path, HEART + rows("KREA", "1,1"))
    assert found.verdict == "ready with gaps"
    assert [reason.split(":")[0] for reason in found.reasons] == ["not measured"]


def test_a_code_whose_rows_are_all_rejected_is_named_with_the_reason(tmp_path: Path) -> None:
    found = report(tmp_path, HEART + rows("KREA", "1,1", unit="mystery"))
    said = "events[0].codes.creatinine: KREA 40 of 40 rows are rejected, most often: unit 'mystery' has no conversion"
    assert found.verdict == "not ready" and any(reason.startswith(said) for reason in found.reasons)


def test_a_code_that_is_partly_rejected_is_a_gap(tmp_path: Path) -> None:
    found = report(tmp_path, HEART + rows("KREA", "1,1") + rows("KREA", "see letter", hour=2))
    said = "events[0].codes.creatinine: KREA 40 of 80 rows are rejected, most often: value: not a number"
    assert found.verdict == "ready with gaps" and said in found.reasons


@pytest.mark.parametrize(
    ("died", "said"),
    [(lambda n: n % 5 != 0, "is hospital_expire_flag the other way round?"), (lambda n: False, "")],
    ids=["the other way round", "nobody"],
)
def test_deaths_that_cannot_be_are_told(died: Callable[[int], bool], said: str, tmp_path: Path) -> None:
    found = report(tmp_path, died=died)
    assert any("end in death" in reason and said in reason for reason in found.reasons) == bool(said)
    assert (found.verdict == "not ready") == bool(said)


def test_seconds_taken_for_milliseconds_are_told(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["events"][0]["time"] = {"column": "at", "offset": "milliseconds"}

    labs = "".join(f"{n};{h * 3600};HF;80;;\n" for n in range(40) for h in range(0, 70, 7))
    found = report(tmp_path, labs, change)
    assert found.verdict == "not ready"
    assert any("is the unit of `offset` right?" in reason for reason in found.reasons)


def test_laboratory_values_that_fall_into_no_stay_are_told(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["events"][0] |= {"from": "later", "patient": "patient"}
        del document["events"][0]["stay"]
        document["relations"]["later"] = {"from": "labs", "add": {"patient": "'P' || stay"}}

    found = report(tmp_path, rows("KREA", 1, day=28), change)
    assert "labevents: 40 of 40 ICU stays have none of their patient's laboratory values" in found.reasons
    assert found.verdict == "not ready"


def test_stays_without_an_end_are_told(tmp_path: Path) -> None:
    found = report(tmp_path, out="2152-01-01 00:00:00")
    assert "icustays: 40 ICU stays last longer than 180 days" in found.reasons


def test_a_rate_in_another_unit_is_told(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["events"][0]["codes"]["norepinephrine"] = {"code": "NOR", "unit": "mcg/kg/min"}

    found = report(tmp_path, HEART + rows("NOR", 8) + rows("NOR", 12, hour=2) + rows("NOR", "5,5", hour=3), change)
    assert any(reason.startswith("norepinephrine: the values look like mcg/min") for reason in found.reasons)
    assert found.verdict == "not ready"


def test_identifiers_written_in_two_ways_are_told(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["relations"]["people"] = {"from": "stays", "add": {"other": "'0' || pat"}}
        document["tables"]["patients"] |= {"from": "people"}
        document["tables"]["patients"]["columns"]["subject_id"] = "other"

    found = report(tmp_path, change=change)
    assert "icustays: 40 of 40 stays have a subject_id that is not in patients" in found.reasons


def test_words_and_relations_that_say_nothing_are_told(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["events"][0]["codes"] |= {"oxygen_device": "O2", "specimen_type": "PROBE"}
        document["relations"]["spare"] = {"file": "labs.csv"}

    found = report(tmp_path, HEART + rows("O2", "Brille") + rows("PROBE", "art."), change)
    assert "oxygen_device: 100% of its words say nothing; give its codes a `map`" in found.reasons
    assert "relations.spare: nothing reads it" in found.reasons
    assert any(reason.startswith("specimen_type: of 40 samples none is arterial") for reason in found.reasons)


def test_lost_patients_are_not_a_detail(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["tables"]["patients"]["columns"]["anchor_year"] = {"column": "born", "map": {"1951": 1951}}
        document["tables"]["patients"]["columns"]["gender"] = {"expr": "if(pat < 'P2', 'M', 'D')"}

    found = report(tmp_path, change=change)
    assert found.verdict == "not ready"
    assert any(reason.startswith("tables.patients[0]: ") and "rows are rejected" in reason for reason in found.reasons)


def test_patients_of_one_sex_are_told(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["tables"]["patients"]["columns"]["gender"]["map"] = {"m": "M", "w": "M"}

    assert "patients: all 40 have the same sex, or none" in report(tmp_path, change=change).reasons


def test_an_admission_taken_for_the_stay_is_told(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["events"][0]["time"] = {"expr": 'CAST("at" AS TIMESTAMP) + INTERVAL 36 HOUR'}

    found = report(tmp_path, change=change, out="2150-03-20 00:00:00")
    assert any("comes 36.0 h after ICU admission (median): are `intime`" in reason for reason in found.reasons)
    assert found.verdict == "not ready"


def test_rows_that_stand_twice_are_told(tmp_path: Path) -> None:
    found = report(tmp_path, HEART + HEART)
    assert any(reason.startswith("chartevents: 160 of 320 rows are there twice") for reason in found.reasons)


def test_what_the_report_shows_of_a_file_fits_every_terminal(tmp_path: Path) -> None:
    found = report(tmp_path, HEART + rows("\x1b[31mPWNED\x07" + "x" * 300, 1))
    [code] = found.unmapped
    assert code.code.startswith("\\x1b[31mPWNED\\x07") and code.code.isprintable() and len(code.code) <= 80
