"""Golden examples of who is studied: coded and flagged sepsis, labels, stays, the flow; tiny tables in, cohort out."""

from typing import Any

import duckdb
import pytest
from mimic_tables import Row, at, hospital, patient

from client.cohort import FlowStep, select_cohort
from client.row_checks import CHECKED, check_rows
from shared_model.errors import ConfigError, EmptyCohortError
from shared_model.study import EARLY, Cohort, Label, Study

MINUTE = 1 / 60
PAPER = Study(profile="paper")
CODED = patient(2, stay=200)  # somebody is always left


def chosen(connection: duckdb.DuckDBPyConnection, cohort: Cohort, study: Study = EARLY, **options: Any) -> list[int]:
    select_cohort(connection, cohort, study, **options)
    return [stay for (stay,) in connection.execute("SELECT stay_id FROM cohort").fetchall()]


def code(icd: str, version: int, admission: int = 1000) -> Row:
    return {"subject_id": 1, "hadm_id": admission, "icd_code": icd, "icd_version": version}


def coded(*codes: Row, people: tuple[dict[str, Row], ...] = (patient(1, stay=100),)) -> list[int]:
    """The stays of cohort ``icd``; patient 2 is coded as septic."""
    return chosen(hospital(*people, CODED, diagnoses_icd=[*codes, code("A419", 10, 2000)]), "icd", stays="all")


def bed(stay: int, start: float, end: float, admission: int = 1000) -> dict[str, Row]:
    """One more ICU stay of patient 1."""
    return {"icustays": patient(1, stay=stay, start=start, end=end)["icustays"] | {"hadm_id": admission}}


def flagged(table: str, key: str, flags: dict[int, str | None]) -> duckdb.DuckDBPyConnection:
    """Patient 1 with stays 100 and 101 of admission 1000 and stay 102 of admission 1020, patient 2 with stay 200;
    the column ``septic`` of ``table`` says what ``flags`` gives each key."""
    again = patient(1, stay=102, start=300, end=360)
    later = {name: again[name] for name in ("admissions", "icustays")}
    connection = hospital(patient(1, stay=100, dischtime=at(170)), bed(101, 100, 160), later, CODED)
    connection.execute(f"ALTER TABLE {table} ADD COLUMN septic VARCHAR")
    for number, word in flags.items():
        connection.execute(f"UPDATE {table} SET septic = ? WHERE {key} = ?", [word, number])
    for name in CHECKED:
        connection.execute(f"ALTER TABLE {name} RENAME TO {name}_raw; CREATE VIEW {name} AS FROM {name}_raw")
    check_rows(connection, f"{table}.septic")
    return connection


def marked(connection: duckdb.DuckDBPyConnection) -> list[int]:
    return [stay for (stay,) in connection.execute("SELECT stay_id FROM flagged ORDER BY stay_id").fetchall()]


@pytest.mark.parametrize(
    ("icd", "version"),
    [
        *(("99591", 9), ("99592", 9), ("78552", 9), ("995.91", 9), ("785.52", 9)),
        *(("A419", 10), ("A40", 10), ("R6520", 10), ("R65.21", 10), ("a41.9", 10), ("t81.44xa", 10), (" A41.51 ", 10)),
    ],
)
def test_an_explicit_sepsis_code_counts_however_it_is_written(icd: str, version: int) -> None:
    assert coded(code(icd, version)) == [100, 200]


@pytest.mark.parametrize(
    ("icd", "version"),
    [
        *(("0389", 9), ("038.9", 9), ("99590", 9), ("99593", 9), ("9959", 9), ("78551", 9)),
        *(("A39", 10), ("R6510", 10), ("R652", 10), ("A", 10), ("", 10), ("XA419", 10)),
    ],
)
def test_septicemia_alone_and_near_misses_are_not_sepsis(icd: str, version: int) -> None:
    assert coded(code(icd, version)) == [200]


@pytest.mark.parametrize(("icd", "version"), [("A419", 9), ("99591", 10), ("78552", 10), ("R6521", 9)])
def test_a_code_under_the_other_version_means_something_else(icd: str, version: int) -> None:
    assert coded(code(icd, version)) == [200]


def test_septicemia_beside_an_explicit_code_counts_once() -> None:
    assert coded(code("038.9", 9), code("995.91", 9), code("995.91", 9)) == [100, 200]


def test_a_code_of_another_admission_does_not_count() -> None:
    again = patient(1, stay=102, start=300, end=360)
    later = {name: again[name] for name in ("admissions", "icustays")}
    people = (patient(1, stay=100), bed(101, 100, 160), later)
    assert coded(code("A419", 10, 1020), people=people) == [102, 200]
    assert coded(code("A419", 10, 1000), people=people) == [100, 101, 200]
    assert coded(code("A419", 10, 9990), people=people) == [200]


def test_nobody_coded_is_told_by_its_step() -> None:
    with pytest.raises(EmptyCohortError, match=r"coded sepsis.*diagnoses_icd"):
        select_cohort(hospital(diagnoses_icd=[code("0389", 9)]), "icd")


@pytest.mark.parametrize(
    ("table", "key", "number", "stays"),
    [
        ("patients", "subject_id", 1, [100, 101, 102]),
        ("admissions", "hadm_id", 1000, [100, 101]),
        ("icustays", "stay_id", 101, [101]),
    ],
)
def test_a_flag_marks_every_stay_of_its_row(table: str, key: str, number: int, stays: list[int]) -> None:
    connection = flagged(table, key, {number: "1"})
    assert marked(connection) == stays
    assert chosen(connection, "flag", stays="all") == stays
    assert connection.execute("SELECT * FROM rejected_rows").fetchall() == []


@pytest.mark.parametrize("word", ["1", "1.0", "true", "T", "Yes", " y "])
def test_a_flag_may_be_any_word_for_yes(word: str) -> None:
    connection = flagged("icustays", "stay_id", {101: word})
    assert marked(connection) == [101]
    assert connection.execute("SELECT * FROM rejected_rows").fetchall() == []


@pytest.mark.parametrize("word", ["0", "0.0", "FALSE", "f", "No", " n ", "", None])
def test_no_and_a_missing_flag_are_a_no(word: str | None) -> None:
    connection = flagged("icustays", "stay_id", {100: "1", 101: word})
    assert marked(connection) == [100]
    assert connection.execute("SELECT * FROM rejected_rows").fetchall() == []


def test_a_word_that_is_neither_yes_nor_no_is_a_no_and_counted() -> None:
    connection = flagged("admissions", "hadm_id", {1000: "perhaps", 1020: "2", 2000: "yes"})
    assert marked(connection) == [200]
    told = "SELECT source, rule, action, row_text FROM rejected_rows"
    assert connection.execute(told).fetchall() == [("admissions", "septic: neither yes nor no", "kept", None)] * 2


def test_a_flag_on_a_stay_that_was_dropped_marks_nobody() -> None:
    connection = hospital(patient(1, stay=100, end=-1), CODED)
    connection.execute("ALTER TABLE icustays ADD COLUMN septic VARCHAR DEFAULT 'yes'")
    for name in CHECKED:
        connection.execute(f"ALTER TABLE {name} RENAME TO {name}_raw; CREATE VIEW {name} AS FROM {name}_raw")
    check_rows(connection, "icustays.septic")
    assert marked(connection) == [200]


def test_the_cohort_flag_without_a_flag_or_without_anybody_is_told() -> None:
    with pytest.raises(ConfigError, match=r"TABLE\.COLUMN"):
        select_cohort(hospital(), "flag")
    with pytest.raises(EmptyCohortError, match="flagged by the site"):
        select_cohort(flagged("patients", "subject_id", {1: "no"}), "flag")


@pytest.mark.parametrize(
    ("death", "in_icu"), [(59, True), (60, True), (60 + MINUTE, False), (64, False)]
)  # the stay ends at hour 60
def test_a_death_in_the_ward_is_one_in_hospital_and_not_in_the_icu(death: float, in_icu: bool) -> None:
    connection = hospital(patient(1, stay=100, deathtime=at(death), hospital_expire_flag=1))
    for label, expected in (("in_hospital", True), ("in_icu", in_icu)):
        select_cohort(connection, "all_icu", Study(label=label))
        assert connection.execute("SELECT label FROM cohort").fetchall() == [(expected,)]


@pytest.mark.parametrize("label", ["in_hospital", "in_icu"])
def test_a_survivor_has_the_label_no(label: Label) -> None:
    connection = hospital()
    select_cohort(connection, "all_icu", Study(label=label))
    assert connection.execute("SELECT label FROM cohort").fetchall() == [(False,)]


def test_a_death_without_a_time_is_unknown_in_the_icu_and_leaves_at_the_known_outcome() -> None:
    connection = hospital(patient(1, stay=100, hospital_expire_flag=1), CODED)
    flow = select_cohort(connection, "all_icu", Study(label="in_icu"))
    assert [(step.step, step.stays) for step in flow[1:3]] == [
        ("adults (age 18 or older)", 2),
        ("with a known outcome", 1),
    ]
    assert chosen(connection, "all_icu", Study(label="in_icu")) == [200]
    assert chosen(connection, "all_icu", EARLY) == [100, 200]


def test_first_or_all_stays_of_a_patient() -> None:
    connection = hospital(bed(103, 200, 260, 1010), patient(1, stay=101), bed(102, 100, 160, 1010), CODED)
    assert chosen(connection, "all_icu", stays="first") == [101, 200]
    assert chosen(connection, "all_icu", stays="all") == [101, 102, 103, 200]


def test_the_first_stay_is_chosen_before_its_length_counts() -> None:
    connection = hospital(patient(1, stay=100, end=3), bed(101, 100, 160), CODED)
    assert chosen(connection, "all_icu", stays="first") == [200]
    assert chosen(connection, "all_icu", stays="all") == [101, 200]


def test_the_members_of_a_cohort_are_chosen_among_first_stays() -> None:
    """A later stay that is coded does not stand in for a first one that is not."""
    again = patient(1, stay=102, start=300, end=360)
    later = {name: again[name] for name in ("admissions", "icustays")}
    connection = hospital(patient(1, stay=100), later, CODED)
    rows = connection.execute("INSERT INTO diagnoses_icd VALUES (1, 1020, 'A419', 10), (2, 2000, 'A419', 10)")
    assert chosen(rows, "icd", stays="first") == [200]
    assert chosen(rows, "icd", stays="all") == [102, 200]


@pytest.mark.parametrize("hours", [0.5, 6, 24, 48, 59])
def test_a_stay_that_ends_or_dies_before_the_prediction_time_leaves(hours: float) -> None:
    dies = {"hospital_expire_flag": 1}
    connection = hospital(
        patient(1, stay=100, end=hours),
        patient(2, stay=200, end=hours - MINUTE),
        patient(3, stay=300, deathtime=at(hours), **dies),
        patient(4, stay=400, deathtime=at(hours + MINUTE), **dies),
    )
    assert chosen(connection, "all_icu", Study(prediction_hours=hours)) == [100, 400]
    times = connection.execute("SELECT DISTINCT prediction_time, cutoff FROM cohort").fetchall()
    assert times == [(at(hours), at(hours))]


def test_the_prediction_time_counts_from_the_icu_admission() -> None:
    connection = hospital(patient(1, stay=100, start=7.5, end=60))
    select_cohort(connection, "all_icu", Study(prediction_hours=1.25))
    assert connection.execute("SELECT prediction_time FROM cohort").fetchall() == [(at(8.75),)]


def test_the_retrospective_profile_reads_to_the_end_of_the_stay() -> None:
    connection = hospital(patient(1, stay=100, end=60), patient(2, stay=200, end=23))
    assert chosen(connection, "all_icu", PAPER) == [100]  # the same stays as early
    times = connection.execute("SELECT prediction_time, cutoff, outtime FROM cohort").fetchall()
    assert times == [(at(24), at(60), at(60))]


def test_the_flow_counts_patients_and_stays_at_each_step() -> None:
    dead = {"hospital_expire_flag": 1, "deathtime": at(10)}
    connection = hospital(
        patient(1, stay=100),
        bed(101, 100, 160),
        patient(2, stay=200, anchor_age=17.0),
        patient(3, stay=300, hospital_expire_flag=None),
        patient(4, stay=400, **dead),
        patient(5, stay=500, end=-1),
        patient(6, stay=600),
        diagnoses_icd=[code("A419", 10)],
    )

    def told(stays: str) -> list[tuple[str, int, int]]:
        return [(s.step, s.patients, s.stays) for s in select_cohort(connection, "icd", stays=stays)]

    everyone = [
        ("ICU stays with valid times", 5, 6),
        ("adults (age 18 or older)", 4, 5),
        ("with a known outcome", 3, 4),
    ]
    first = [
        ("first ICU stay of each patient", 3, 3),
        ("in the ICU and alive 24 h after admission to it", 2, 2),
        ("coded sepsis (ICD-9, ICD-10)", 1, 1),
    ]
    every = [
        ("in the ICU and alive 24 h after admission to it", 2, 3),
        ("coded sepsis (ICD-9, ICD-10)", 1, 2),
    ]
    assert told("first") == everyone + first
    assert told("all") == everyone + every


def test_the_flow_names_the_prediction_time_and_the_flag() -> None:
    flow = select_cohort(flagged("patients", "subject_id", {1: "y"}), "flag", Study(prediction_hours=0.5))
    assert flow[-2:] == [
        FlowStep(step="in the ICU and alive 0.5 h after admission to it", patients=2, stays=2),
        FlowStep(step="flagged by the site", patients=1, stays=1),
    ]
