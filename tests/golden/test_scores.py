"""Golden examples of Charlson and SAPS II: tiny tables in, table out, both sides of every threshold."""

from itertools import pairwise
from typing import Any

import duckdb
import pytest

from client.icd_codes import CHARLSON, SAPSII_CONDITIONS, SEPSIS
from client.scores import derive_charlson, derive_sapsii

Code = tuple[str, int]  # as coded, ICD version

DATABASE = duckdb.connect(config={"threads": 1})
SAPSII_COLUMNS = (
    *("age", "heart_rate_min", "heart_rate_max", "sbp_min", "sbp_max", "temperature_max"),
    *("pafi_ventilated_min", "urine_24h", "bun_max", "wbc_min", "wbc_max", "potassium_min", "potassium_max"),
    *("sodium_min", "sodium_max", "bicarbonate_min", "bilirubin_max", "gcs_min"),
)
COMPONENTS = (
    *("age", "heart_rate", "sbp", "temperature", "pafi", "urine", "bun", "wbc", "potassium", "sodium"),
    *("bicarbonate", "bilirubin", "gcs", "comorbidity", "admission"),
)


def coded(*codes: Code, stay: int = 1) -> duckdb.DuckDBPyConnection:
    """One database serves all tests, as opening one takes longer than a test; nothing is left from the last."""
    DATABASE.execute("DROP TABLE IF EXISTS charlson; DROP TABLE IF EXISTS sapsii")
    DATABASE.execute("CREATE OR REPLACE TABLE stay_code (stay_id BIGINT, icd_code VARCHAR, icd_version INTEGER)")
    for code, version in codes:
        DATABASE.execute("INSERT INTO stay_code VALUES (?, ?, ?)", [stay, code, version])
    return DATABASE


def table(connection: duckdb.DuckDBPyConnection, name: str) -> list[dict[str, Any]]:
    cursor = connection.execute(f"FROM {name} ORDER BY stay_id")
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def charlson(*codes: Code, age: float | None = 40) -> dict[str, Any]:
    connection = coded(*codes)
    connection.execute("CREATE OR REPLACE TABLE cohort AS SELECT 1::BIGINT AS stay_id, ?::DOUBLE AS age", [age])
    derive_charlson(connection)
    [row] = table(connection, "charlson")
    return row


def conditions(*codes: Code) -> set[str]:
    row = charlson(*codes)
    return {condition.name for condition in CHARLSON if row[condition.name] == 1}


def sapsii(*codes: Code, kind: str | None = None, measured: dict[str, float] | None = None) -> dict[str, Any]:
    connection = coded(*codes)
    columns = ", ".join(f"{name} DOUBLE" for name in SAPSII_COLUMNS)
    connection.execute(f"CREATE OR REPLACE TABLE sapsii_input (stay_id BIGINT, {columns}, admission_kind VARCHAR)")
    row = {"stay_id": 1, "admission_kind": kind} | (measured or {})
    insert = f"INSERT INTO sapsii_input ({', '.join(row)}) VALUES ({', '.join('?' for _ in row)})"
    connection.execute(insert, list(row.values()))
    derive_sapsii(connection)
    [scored] = table(connection, "sapsii")
    return scored


def assert_points(row: dict[str, Any], component: str, points: int) -> None:
    assert (row[f"{component}_points"], row["sapsii"]) == (points, points)


def test_lists_are_prefixes_of_normalised_codes() -> None:
    lists = [codes for each in (*CHARLSON, *SAPSII_CONDITIONS, SEPSIS) for codes in (each.icd9, each.icd10)]
    for codes in lists:
        assert all(len(code) >= 3 and code.isalnum() and code == code.upper() for code in codes)
        assert not [pair for pair in pairwise(sorted(codes)) if pair[1].startswith(pair[0])]


def test_septicemia_is_not_sepsis() -> None:
    assert set(SEPSIS.icd9) == {"99591", "99592", "78552"}  # no 038
    assert {"A40", "A41", "R6520", "R6521", "T8144", "T8112", "A5486"} <= set(SEPSIS.icd10)


CONDITIONS = (
    ("myocardial_infarct", "41071", "I214", 1),
    ("congestive_heart_failure", "42823", "I5023", 1),
    ("peripheral_vascular_disease", "4439", "I739", 1),
    ("cerebrovascular_disease", "43491", "I639", 1),
    ("dementia", "3312", "F0390", 1),
    ("chronic_pulmonary_disease", "496", "J449", 1),
    ("rheumatic_disease", "7140", "M069", 1),
    ("peptic_ulcer_disease", "53140", "K254", 1),
    ("mild_liver_disease", "5712", "K7030", 1),
    ("diabetes_without_cc", "25000", "E119", 1),
    ("diabetes_with_cc", "25040", "E1122", 2),
    ("paraplegia", "34290", "G8191", 2),
    ("renal_disease", "5856", "N186", 2),
    ("malignant_cancer", "1629", "C3490", 2),
    ("severe_liver_disease", "5724", "K767", 3),
    ("metastatic_solid_tumor", "1970", "C7800", 6),
    ("aids", "042", "B20", 6),
)


@pytest.mark.parametrize(("name", "icd9", "icd10", "weight"), CONDITIONS)
def test_condition(name: str, icd9: str, icd10: str, weight: int) -> None:
    for code in ((icd9, 9), (icd10, 10)):
        assert conditions(code) == {name}
        assert charlson(code)["charlson_score"] == weight
    assert conditions((icd9, 10), (icd10, 9)) == set()  # a code of the other version means something else


@pytest.mark.parametrize(
    ("code", "version"),
    [
        *(("41110", 9), ("4139", 9), ("I200", 10), ("I2510", 10)),  # angina, coronary disease
        *(("4253", 9), ("40200", 9), ("4010", 9), ("I119", 10), ("I421", 10)),
        *(("4430", 9), ("4470", 9), ("I730", 10), ("429", 9), ("I10", 10), ("36235", 9)),
        *(("2948", 9), ("F050", 10), ("G310", 10)),
        *(("486", 9), ("5060", 9), ("J189", 10), ("J4A0", 10), ("J680", 10)),
        *(("7105", 9), ("71430", 9), ("M350", 10), ("530", 9), ("535", 9), ("K29", 10)),
        *(("5731", 9), ("5721", 9), ("07030", 9), ("K754", 10), ("K720", 10)),
        *(("E66", 10), ("E6601", 10), ("2510", 9), ("E162", 10)),  # obesity, hypoglycemia
        *(("3448", 9), ("G838", 10), ("5839", 9), ("5849", 9), ("N179", 10), ("40300", 9)),
        *(("17300", 9), ("C4401", 10), ("C4A0", 10), ("2099", 9), ("D050", 10), ("C860", 10)),  # skin
        *(("V08", 9), ("Z21", 10), ("B23", 10), ("045", 9)),
        *(("41", 9), ("", 9), ("C", 10)),
    ],
)
def test_near_miss_is_no_condition(code: str, version: int) -> None:
    assert conditions((code, version)) == set()


@pytest.mark.parametrize(
    ("name", "version", "codes"),
    [
        ("congestive_heart_failure", 9, "4254 4259"),
        ("congestive_heart_failure", 10, "I425 I429"),
        ("cerebrovascular_disease", 9, "430 438"),
        ("cerebrovascular_disease", 10, "I60 I69"),
        ("chronic_pulmonary_disease", 9, "490 505"),
        ("chronic_pulmonary_disease", 10, "J40 J47 J60 J67"),
        ("diabetes_without_cc", 10, "E1010 E101"),  # the misprint of the reference
        ("renal_disease", 9, "5830 5837"),
        ("malignant_cancer", 9, "1400 1729 1740 179 185 1950 1958 20000 20892"),
        ("malignant_cancer", 10, "C000 C26 C30 C34 C37 C41 C43 C45 C58 C60 C76 C81 C859 C880 C90 C97"),
        ("severe_liver_disease", 9, "5722 5728 45600"),
        ("metastatic_solid_tumor", 9, "1960 1999"),
    ],
)
def test_range_holds_its_ends(name: str, version: int, codes: str) -> None:
    for code in codes.split():
        assert conditions((code, version)) == {name}, code


@pytest.mark.parametrize("code", ["I50.23", "i5023", " I 50.23 ", "i25.5\t", " i-25.5"])
def test_spelling_of_a_code(code: str) -> None:
    assert conditions((code, 10)) == {"congestive_heart_failure"}


def test_one_code_may_name_two_conditions() -> None:
    assert conditions(("40403", 9)) == {"congestive_heart_failure", "renal_disease"}


@pytest.mark.parametrize(
    ("codes", "flags", "score"),
    [
        ("K7030 K767", {"mild_liver_disease", "severe_liver_disease"}, 3),
        ("E119 E1122", {"diabetes_without_cc", "diabetes_with_cc"}, 2),
        ("C3490 C7800", {"malignant_cancer", "metastatic_solid_tumor"}, 6),
        ("I214 I214 I219", {"myocardial_infarct"}, 1),  # a condition counts once
    ],
)
def test_graver_stage_replaces_the_milder(codes: str, flags: set[str], score: int) -> None:
    known = [(code, 10) for code in codes.split()]
    assert (conditions(*known), charlson(*known)["charlson_score"]) == (flags, score)


AGES = [(18, 0), (50, 0), (50.01, 1), (60, 1), (60.01, 2), (70, 2), (70.01, 3), (80, 3), (80.01, 4), (None, 0)]


@pytest.mark.parametrize(("age", "points"), AGES)
def test_age_points_of_charlson(age: float | None, points: int) -> None:
    row = charlson(("I214", 10), age=age)
    assert (row["age_score"], row["charlson_score"]) == (points, points + 1)


def test_all_conditions_at_high_age() -> None:
    everything = [(icd10, 10) for _, _, icd10, _ in CONDITIONS]
    assert charlson(*everything, age=90)["charlson_score"] == 8 + 3 + 2 + 2 + 2 + 6 + 6 + 4


def test_every_stay_of_the_cohort_has_a_row() -> None:
    connection = coded(("I214", 10), stay=2)
    connection.execute("INSERT INTO stay_code VALUES (3, NULL, 10), (3, 'B20', NULL), (9, 'B20', 10)")
    connection.execute("CREATE OR REPLACE TABLE cohort AS SELECT unnest([1, 2, 3]) AS stay_id, 75 AS age")
    for _ in range(2):  # existing tables are replaced
        derive_charlson(connection)
    rows = table(connection, "charlson")
    assert [(row["stay_id"], row["charlson_score"]) for row in rows] == [(1, 3), (2, 4), (3, 3)]
    assert list(rows[0]) == ["stay_id", *(name for name, *_ in CONDITIONS), "age_score", "charlson_score"]
    assert list(rows[0].values()) == [1, *[0] * 17, 3, 3]


# Component -> (value, points) on both sides of each threshold; minimum and maximum take the same value.
EDGES: dict[str, list[tuple[float, int]]] = {
    "age": [(39, 0), (40, 7), (59, 7), (60, 12), (69, 12), (70, 15), (74, 15), (75, 16), (79, 16), (80, 18)],
    "heart_rate": [(39, 11), (40, 2), (69, 2), (70, 0), (119, 0), (120, 4), (159, 4), (160, 7)],
    "sbp": [(69, 13), (70, 5), (99, 5), (100, 0), (199, 0), (200, 2)],
    "temperature": [(38.9, 0), (39, 3)],
    "pafi": [(99.9, 11), (100, 9), (199.9, 9), (200, 6), (500, 6)],
    "urine": [(0, 11), (499.9, 11), (500, 4), (999.9, 4), (1000, 0)],
    "bun": [(27.9, 0), (28, 6), (83.9, 6), (84, 10)],
    "wbc": [(0.9, 12), (1, 0), (19.9, 0), (20, 3)],
    "potassium": [(2.9, 3), (3, 0), (4.9, 0), (5, 3)],
    "sodium": [(124, 5), (125, 0), (144, 0), (145, 1)],
    "bicarbonate": [(14.9, 6), (15, 3), (19.9, 3), (20, 0)],
    "bilirubin": [(3.9, 0), (4, 4), (5.9, 4), (6, 9)],
    "gcs": [(2, 0), (3, 26), (5, 26), (6, 13), (8, 13), (9, 7), (10, 7), (11, 5), (13, 5), (14, 0), (15, 0)],
}


@pytest.mark.parametrize(
    ("component", "value", "points"),
    [(component, *edge) for component, edges in EDGES.items() for edge in edges],
)
def test_both_sides_of_a_threshold(component: str, value: float, points: int) -> None:
    inputs = [name for name in SAPSII_COLUMNS if name.startswith(component)]
    assert_points(sapsii(measured=dict.fromkeys(inputs, value)), component, points)


@pytest.mark.parametrize(
    ("component", "low", "high", "points"),
    [
        *(("heart_rate", 39, 165, 11), ("heart_rate", 60, 165, 7), ("heart_rate", 60, 130, 4)),
        *(("heart_rate", 60, 100, 2), ("heart_rate", 70, 119, 0)),
        *(("sbp", 60, 210, 13), ("sbp", 90, 210, 5), ("sbp", 110, 210, 2)),
        *(("wbc", 0.5, 25, 12), ("wbc", 5, 25, 3), ("wbc", 0.5, 10, 12)),
        *(("potassium", 2, 6, 3), ("potassium", 2, 4, 3), ("potassium", 4, 6, 3)),
        *(("sodium", 120, 150, 5), ("sodium", 130, 150, 1), ("sodium", 120, 140, 5)),
    ],
)
def test_worse_of_minimum_and_maximum(component: str, low: float, high: float, points: int) -> None:
    assert_points(sapsii(measured={f"{component}_min": low, f"{component}_max": high}), component, points)


@pytest.mark.parametrize(
    ("codes", "points"),
    [
        *(([("042", 9)], 17), ([("B20", 10)], 17), ([("B24", 10)], 17), ([(" b 22.0", 10)], 17)),
        *(([("B23", 10)], 0), ([("Z21", 10)], 0), ([("042", 10)], 0)),
        *(([("20280", 9)], 10), ([("203.02", 9)], 10), ([("20382", 9)], 10), ([("20522", 9)], 10)),
        *(([("2386", 9)], 10), ([("2733", 9)], 10), ([("C8110", 10)], 10), ([("C960", 10)], 10)),
        *(([("20530", 9)], 0), ([("20710", 9)], 0), ([("D45", 10)], 0), ([("1629", 9)], 0)),
        *(([("1970", 9)], 9), ([("1991", 9)], 9), ([("20979", 9)], 9), ([("78951", 9)], 9)),
        *(([("C787", 10)], 9), ([("C800", 10)], 9), ([("C801", 10)], 0), ([("1992", 9)], 0)),
        ([("1970", 9), ("C8110", 10)], 10),
        ([("1970", 9), ("C8110", 10), ("B20", 10)], 17),
    ],
)
def test_gravest_comorbidity_counts_once(codes: list[Code], points: int) -> None:
    assert_points(sapsii(*codes), "comorbidity", points)


KINDS = [("scheduled_surgical", 0), ("medical", 6), ("unscheduled_surgical", 8), (None, 0)]


@pytest.mark.parametrize(("kind", "points"), KINDS)
def test_kind_of_admission(kind: str | None, points: int) -> None:
    assert_points(sapsii(kind=kind), "admission", points)


def test_unknown_kind_of_admission_is_refused() -> None:
    with pytest.raises(duckdb.Error, match="elective"):
        sapsii(kind="elective")


def test_nothing_measured_scores_0() -> None:
    row = sapsii()
    assert list(row) == ["stay_id", *(f"{name}_points" for name in COMPONENTS), "sapsii", "sapsii_prob"]
    assert [row[f"{name}_points"] for name in COMPONENTS] == [0] * 15


WORST: dict[str, float] = {
    **{"age": 80, "heart_rate_min": 39, "sbp_min": 69, "temperature_max": 39, "pafi_ventilated_min": 99},
    **{"urine_24h": 0, "bun_max": 84, "wbc_min": 0.5, "potassium_max": 5, "sodium_min": 124},
    **{"bicarbonate_min": 14, "bilirubin_max": 6, "gcs_min": 3},
}


def test_score_and_probability() -> None:
    # 40 and 52 points stand for about 25 and 50 % in Le Gall's figures; the scale ends at 163.
    middle: dict[str, float] = {"age": 60, "gcs_min": 9, "sbp_min": 90, "bun_max": 30, "urine_24h": 700}
    grave = sapsii(kind="medical", measured=middle)
    assert (grave["sapsii"], grave["sapsii_prob"]) == (40, pytest.approx(0.2474, abs=1e-4))
    graver = sapsii(kind="medical", measured=middle | {"wbc_min": 0.5})
    assert (graver["sapsii"], graver["sapsii_prob"]) == (52, pytest.approx(0.5070, abs=1e-4))
    assert sapsii()["sapsii_prob"] == pytest.approx(0.000425, abs=1e-6)
    worst = sapsii(("B20", 10), kind="unscheduled_surgical", measured=WORST)
    assert (worst["sapsii"], worst["sapsii_prob"]) == (163, pytest.approx(0.99991, abs=1e-5))
