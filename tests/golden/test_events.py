"""Golden examples of mapping and windows: tiny tables in, events, rejects and features out, one edge each."""

from typing import Any

import duckdb
import numpy as np
import pytest
from mimic_tables import Row, antibiotic, at, chart, culture, hospital, infusion, lab, output, patient

from client.cohort import select_cohort
from client.events import map_events
from client.known import cut_to_known
from client.windows import build_features
from shared_model.study import EARLY, Study

HEART_RATE, CELSIUS, FAHRENHEIT, FIO2, EYES = 220045, 223762, 223761, 223835, 220739
CREATININE, SODIUM = 50912, 50983
FOLEY, NEPHROSTOMY, IRRIGANT = 226559, 226564, 227488
NOREPINEPHRINE, EPINEPHRINE, PHENYLEPHRINE, DOPAMINE, VASOPRESSIN, DOBUTAMINE = (
    221906,
    221289,
    221749,
    221662,
    222315,
    221653,
)
MINUTE = 1 / 60
OUT_OF_RANGE, NOT_A_NUMBER = "outside plausible range", "not a number"


def mapped(*patients: dict[str, Row], hours: float = 24, **events: list[Row]) -> duckdb.DuckDBPyConnection:
    connection = hospital(*patients, **events)
    study = Study(prediction_hours=hours)
    select_cohort(connection, "all_icu", study)
    cut_to_known(connection, study)
    map_events(connection)
    return connection


def events(**rows: list[Row]) -> list[tuple[str, float]]:
    return mapped(**rows).execute("SELECT concept, round(value, 6) FROM events ORDER BY ALL").fetchall()


def rejects(**rows: list[Row]) -> list[tuple[Any, ...]]:
    return mapped(**rows).execute("SELECT concept, value, rule FROM rejects ORDER BY ALL").fetchall()


def checks(**rows: list[Row]) -> list[tuple[Any, ...]]:
    return mapped(**rows).execute("SELECT * FROM event_check ORDER BY ALL").fetchall()


def values(**rows: list[Row]) -> list[float]:
    return [value for _, value in events(**rows)]


def features(*patients: dict[str, Row], hours: float = 24, **rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
    connection = mapped(*patients, hours=hours, **rows)
    return build_features(connection, Study(prediction_hours=hours))


def static(name: str, *patients: dict[str, Row], **rows: list[Row]) -> float:
    return round(float(features(*patients, **rows)[0][0, EARLY.static.index(name)]), 4)


def hourly(name: str, hours: float = 24, **rows: list[Row]) -> dict[int, float]:
    """The windows that hold a value."""
    series_T = features(hours=hours, **rows)[1][0, :, EARLY.series.index(name)]
    return {hour: round(float(value), 4) for hour, value in enumerate(series_T) if not np.isnan(value)}


@pytest.mark.parametrize(
    ("itemid", "value", "celsius"), [(FAHRENHEIT, 98.6, 37.0), (FAHRENHEIT, 104, 40.0), (CELSIUS, 37.2, 37.2)]
)
def test_temperature_is_in_celsius(itemid: int, value: float, celsius: float) -> None:
    assert events(chartevents=[chart(itemid, 2, value)]) == [("temperature", celsius)]


@pytest.mark.parametrize(
    ("itemid", "value", "rule"),
    [(CELSIUS, 98.6, "Fahrenheit in a Celsius item"), (FAHRENHEIT, 37.0, "Celsius in a Fahrenheit item")],
)
def test_a_temperature_under_the_other_units_item_is_converted_and_counted(
    itemid: int, value: float, rule: str
) -> None:
    rows = [chart(itemid, 2, value), chart(itemid, 3, value)]
    assert events(chartevents=rows) == [("temperature", 37.0)] * 2
    assert checks(chartevents=rows) == [("chartevents", f"temperature: {rule}", "converted", 2)]


@pytest.mark.parametrize(("itemid", "value"), [(CELSIUS, 70), (CELSIUS, 109), (FAHRENHEIT, 50), (FAHRENHEIT, 20)])
def test_a_temperature_that_fits_neither_unit_is_rejected(itemid: int, value: float) -> None:
    assert rejects(chartevents=[chart(itemid, 2, value)]) == [("temperature", value, OUT_OF_RANGE)]


@pytest.mark.parametrize(("value", "percent"), [(0.4, 40), (0.21, 21), (1.0, 100), (21, 21), (60, 60), (100, 100)])
def test_a_fraction_of_oxygen_is_a_percentage(value: float, percent: float) -> None:
    assert events(chartevents=[chart(FIO2, 2, value)]) == [("fio2", percent)]


@pytest.mark.parametrize("value", [0.1, 0, 1.5, 10, 101, -0.4])
def test_an_impossible_fraction_of_oxygen_is_rejected_as_it_was_written(value: float) -> None:
    assert events(chartevents=[chart(FIO2, 2, value)]) == []
    assert rejects(chartevents=[chart(FIO2, 2, value)]) == [("fio2", value, OUT_OF_RANGE)]


@pytest.mark.parametrize("value", [4000, 300.1, -1, float("inf"), float("-inf")])
def test_an_impossible_heart_rate_is_rejected_with_its_reason(value: float) -> None:
    assert events(chartevents=[chart(HEART_RATE, 2, value)]) == []
    assert rejects(chartevents=[chart(HEART_RATE, 2, value)]) == [("heart_rate", value, OUT_OF_RANGE)]


@pytest.mark.parametrize("value", [0, 300])
def test_the_bounds_of_the_plausible_range_are_plausible(value: float) -> None:
    assert events(chartevents=[chart(HEART_RATE, 2, value)]) == [("heart_rate", value)]


def test_text_in_place_of_a_number_is_rejected_with_its_reason() -> None:
    assert rejects(labevents=[lab(CREATININE, 2, "ERROR")]) == [("creatinine", None, NOT_A_NUMBER)]
    assert rejects(labevents=[lab(CREATININE, 2, "") | {"value": None}]) == [("creatinine", None, "empty")]
    assert rejects(chartevents=[chart(HEART_RATE, 2, "ERROR")]) == [("heart_rate", None, NOT_A_NUMBER)]


def test_every_value_is_an_event_or_a_reject_and_both_are_counted() -> None:
    connection = hospital(
        chartevents=[chart(HEART_RATE, 1, 80), chart(HEART_RATE, 2, 4000), chart(HEART_RATE, 3, 4001)],
        labevents=[lab(CREATININE, 2, 1.2), lab(SODIUM, 2, "ERROR")],
    )
    select_cohort(connection, "all_icu")
    cut_to_known(connection, EARLY)
    assert map_events(connection) == {"creatinine": 1, "heart_rate": 1}
    assert connection.execute("FROM event_check ORDER BY ALL").fetchall() == [
        ("chartevents", "heart_rate: outside plausible range", "dropped", 2),
        ("labevents", "sodium: not a number", "dropped", 1),
    ]


@pytest.mark.parametrize(("hours", "used"), [(-5, True), (-6, True), (-6 - MINUTE, False), (-30, False)])
def test_an_emergency_laboratory_value_without_admission_is_used_within_the_lookback(hours: float, used: bool) -> None:
    assert bool(events(labevents=[lab(CREATININE, hours, 1.2, hadm_id=None)])) is used


def test_a_laboratory_value_of_another_patient_is_not_used() -> None:
    assert events(labevents=[lab(CREATININE, 2, 1.2, subject_id=2, hadm_id=None)]) == []


@pytest.mark.parametrize(("hours", "used"), [(24, True), (24 + MINUTE, False)])
def test_a_value_is_used_up_to_the_prediction_time(hours: float, used: bool) -> None:
    assert bool(events(chartevents=[chart(HEART_RATE, hours, 80)])) is used
    assert bool(events(chartevents=[chart(HEART_RATE, 3, 80, storetime=at(hours))])) is used


def test_a_value_without_storetime_was_known_when_charted() -> None:
    assert events(chartevents=[chart(HEART_RATE, 3, 80, storetime=None)]) == [("heart_rate", 80)]
    assert events(chartevents=[chart(HEART_RATE, 25, 80, storetime=None)]) == []


def test_irrigant_counts_against_urine_whatever_its_sign() -> None:
    urine = [output(FOLEY, 2, 500), output(IRRIGANT, 3, 200), output(IRRIGANT, 4, -100)]
    assert sorted(values(outputevents=urine)) == [-200, -100, 500]
    assert static("urine_sum", outputevents=urine) == 200


def test_equal_urine_from_two_sources_at_one_time_adds_up() -> None:
    both = [output(FOLEY, 2, 100), output(NEPHROSTOMY, 2, 100)]
    assert static("urine_sum", outputevents=both) == 200


@pytest.mark.parametrize(
    ("itemid", "rate", "unit", "equivalent"),
    [
        (NOREPINEPHRINE, 0.12, "mcg/kg/min", 0.12),
        (NOREPINEPHRINE, 0.00012, "mg/kg/min", 0.12),
        (EPINEPHRINE, 0.2, "mcg/kg/min", 0.2),
        (PHENYLEPHRINE, 2.0, "mcg/kg/min", 0.2),
        (DOPAMINE, 10.0, "mcg/kg/min", 0.1),
        (VASOPRESSIN, 2.4, "units/hour", 0.1),
        (VASOPRESSIN, 0.04, "units/min", 0.1),
    ],
)
def test_vasopressors_are_norepinephrine_equivalents(itemid: int, rate: float, unit: str, equivalent: float) -> None:
    assert events(inputevents=[infusion(itemid, 2, 3, rate, rateuom=unit)]) == [("vasopressor", equivalent)]


def test_mg_per_kg_with_a_weight_of_one_is_really_mcg() -> None:
    rows = [infusion(NOREPINEPHRINE, 2, 3, 0.12, rateuom="mg/kg/min", patientweight=1.0)]
    assert values(inputevents=rows) == [0.12]


@pytest.mark.parametrize(
    ("itemid", "unit"),
    [(NOREPINEPHRINE, "mL/hour"), (NOREPINEPHRINE, "units/hour"), (VASOPRESSIN, "mL/min"), (EPINEPHRINE, None)],
)
def test_a_rate_in_an_unknown_unit_is_rejected(itemid: int, unit: str | None) -> None:
    rows = [infusion(itemid, 2, 3, 2.0, rateuom=unit)]
    assert events(inputevents=rows) == []
    assert rejects(inputevents=rows) == [("vasopressor", 2.0, "unit has no conversion")]


def test_a_bolus_without_rate_and_a_drug_that_is_no_vasopressor_are_no_events() -> None:
    assert rejects(inputevents=[infusion(NOREPINEPHRINE, 2, 3, 0) | {"rate": None}]) == [
        ("vasopressor", None, "no rate")
    ]
    assert events(inputevents=[infusion(DOBUTAMINE, 2, 3, 5.0)]) == []


def test_a_row_that_was_exported_twice_counts_once() -> None:
    rows = [chart(HEART_RATE, 2, 60)] * 3 + [chart(HEART_RATE, 2.5, 120)]
    assert values(chartevents=rows) == [60, 120]
    assert hourly("heart_rate", chartevents=rows) == {2: 90}
    assert static("urine_sum", outputevents=[output(FOLEY, 2, 100)] * 2) == 100
    assert values(labevents=[lab(CREATININE, 2, 1.2)] * 2) == [1.2]


@pytest.mark.parametrize("table", ["admissions", "patients", "icustays"])
def test_a_patient_whose_row_was_exported_twice_is_one_stay(table: str) -> None:
    one = patient(1, stay=100)
    static_NF, series_NTC = features(one, {table: one[table]}, chartevents=[chart(HEART_RATE, 2, 60)])
    assert (len(static_NF), len(series_NTC)) == (1, 1)


def test_hours_are_half_open_and_begin_at_admission() -> None:
    rows = [chart(HEART_RATE, hour, 60 + n) for n, hour in enumerate([-MINUTE, 0, 59 * MINUTE, 1, 23 + 59 * MINUTE])]
    assert hourly("heart_rate", chartevents=rows) == {0: 61.5, 1: 63, 23: 64}
    assert static("heart_rate_mean", chartevents=rows) == 62


def test_hours_count_from_the_admission_and_not_from_the_clock() -> None:
    rows = [chart(HEART_RATE, 0.75, 60), chart(HEART_RATE, 1.25, 80), chart(HEART_RATE, 1.5, 100)]
    series_T = features(patient(1, stay=100, start=0.5), chartevents=rows)[1][0, :, EARLY.series.index("heart_rate")]
    assert series_T[:2].tolist() == [70, 100]


def test_a_value_at_the_prediction_time_is_known_but_in_no_window() -> None:
    rows = [chart(HEART_RATE, 24, 99)]
    assert static("heart_rate_max", chartevents=rows) == 99
    assert hourly("heart_rate", chartevents=rows) == {}


def test_the_series_ends_with_the_window_of_the_prediction_time() -> None:
    rows = [chart(HEART_RATE, hour, 80) for hour in (0, 1, 2, 2.5, 3)]
    assert features(hours=2.5, chartevents=rows)[1].shape == (1, 3, len(EARLY.series))
    assert hourly("heart_rate", hours=2.5, chartevents=rows) == {0: 80, 1: 80, 2: 80}


def test_the_statistics_of_a_stay() -> None:
    rows = [chart(EYES, 5, 2), chart(EYES, 1, 4), chart(EYES, 3, 1)]
    assert static("gcs_eyes_min", chartevents=rows) == 1
    assert static("gcs_eyes_last", chartevents=rows) == 2
    rows = [chart(HEART_RATE, 1, 60), chart(HEART_RATE, 1.2, 61), chart(HEART_RATE, 2, 200)]
    assert static("heart_rate_mean", chartevents=rows) == 107
    assert static("heart_rate_max", chartevents=rows) == 200


@pytest.mark.parametrize("backwards", [False, True])
def test_the_last_of_several_values_of_one_time_is_the_one_stored_last_then_the_greatest(backwards: bool) -> None:
    same = [chart(EYES, 3, value, storetime=at(4)) for value in (2, 3, 1)]
    later = [chart(EYES, 3, 4, storetime=at(3)), chart(EYES, 3, 1, storetime=at(5))]
    order = -1 if backwards else 1
    assert static("gcs_eyes_last", chartevents=same[::order]) == 3
    assert static("gcs_eyes_last", chartevents=later[::order]) == 1


def test_what_was_not_measured_is_nan_and_not_zero() -> None:
    static_NF, series_NTC = features(chartevents=[chart(HEART_RATE, 3, 80)])
    measured = {name for name, value in zip(EARLY.static, static_NF[0], strict=True) if not np.isnan(value)}
    counts = {"antibiotic_num", "specimen_count", "positive_culture", "vent_status"}
    scores = {"sofa_score", "sapsii", "sapsii_prob"}  # what is missing scores 0 in them
    assert measured == {"age", "male", "emergency"} | counts | scores | {"heart_rate_mean", "heart_rate_max"}
    assert np.isfinite(series_NTC).sum() == 1


@pytest.mark.parametrize(("anchor", "year", "age"), [(60, 2150, 60), (60, 2140, 70), (91, 2150, 91), (89, 2140, 91)])
def test_age_is_that_at_admission_and_capped(anchor: int, year: int, age: int) -> None:
    assert static("age", patient(1, stay=100, anchor_age=anchor, anchor_year=year)) == age


@pytest.mark.parametrize(
    ("kind", "emergency"),
    [("EW EMER.", 1), ("DIRECT EMER.", 1), ("URGENT", 1), ("ELECTIVE", 0), ("OBSERVATION ADMIT", 0), (None, 0)],
)
def test_emergencies_are_told_by_the_admission_type(kind: str | None, emergency: int) -> None:
    rows = patient(1, stay=100)
    rows["admissions"]["admission_type"] = kind
    assert static("emergency", rows) == emergency


def test_sex_is_one_for_men() -> None:
    assert static("male", patient(1, stay=100, gender="M")) == 1
    assert static("male", patient(1, stay=100)) == 0


def test_antibiotics_are_counted_by_name_until_the_prediction_time() -> None:
    known = [antibiotic(3), antibiotic(9), antibiotic(-23, drug="Cefepime"), antibiotic(24, drug="Meropenem")]
    other = [antibiotic(25, drug="Linezolid"), antibiotic(-24, drug="Ampicillin"), antibiotic(3, drug="Propofol")]
    eye = [antibiotic(4, drug="Ciprofloxacin", route="OU")]
    assert static("antibiotic_num", prescriptions=known + other + eye) == 3


def test_cultures_are_counted_by_specimen_until_the_prediction_time() -> None:
    known = [culture(2, 1), culture(2, 1), culture(-23, 2), culture(24, 3)]
    assert static("specimen_count", microbiologyevents=[*known, culture(25, 4), culture(-24, 5)]) == 3
    assert static("specimen_count", microbiologyevents=[culture(2, 1, subject_id=2)]) == 0


def test_stays_are_rows_in_the_order_of_patient_and_admission() -> None:
    people = [patient(3, stay=1), patient(1, stay=100), patient(2, stay=50)]
    rows = [chart(HEART_RATE, 2, 70, subject_id=n, stay_id=stay) for n, stay in ((3, 1), (1, 100))]
    column = features(*people, chartevents=[*rows, chart(HEART_RATE, 2, 90, stay_id=50)])[0]
    assert column[:, EARLY.static.index("heart_rate_max")].tolist() == [70, 90, 70]
