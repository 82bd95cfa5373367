"""Wrong units are suspected, other populations are not."""

from pathlib import Path

import duckdb
import pytest
from open_data import EICU_DEMO, PHYSIONET_2012, open_data

from client.mapping.suspicion import FEWEST, LEVELS, _reference, suspect_unit, usual_conversion
from client.mapping.units import other_units
from tests.reference_quantiles import PHYSIONET

APACHE = {
    "wbc": "wbc",
    "temperature": "temperature",
    "resp_rate": "respiratoryrate",
    "sodium": "sodium",
    "heart_rate": "heartrate",
    "mbp": "meanbp",
    "ph": "ph",
    "hematocrit": "hematocrit",
    "creatinine": "creatinine",
    "pao2": "pao2",
    "paco2": "pco2",
    "bun": "bun",
    "glucose": "glucose",
    "bilirubin": "bilirubin",
}
PAIRS = [(concept, unit) for concept in _reference() for unit in other_units(concept)]


@pytest.mark.parametrize(("concept", "unit"), PAIRS)
def test_values_in_another_unit_are_suspected_and_the_unit_is_named(concept: str, unit: str) -> None:
    reference = _reference()[concept]
    factor, shift = usual_conversion(concept, unit)
    found = suspect_unit(concept, {level: (reference[level] - shift) / factor for level in LEVELS}, 1000)
    assert found is not None and found.looks_like == unit
    assert unit in found.message and concept in found.message


@pytest.mark.parametrize("concept", sorted(_reference()))
def test_the_reference_and_a_sicker_population_are_not_suspected(concept: str) -> None:
    reference = _reference()[concept]
    assert suspect_unit(concept, reference, 1000) is None
    assert suspect_unit(concept, {level: 1.08 * reference[level] for level in LEVELS}, 1000) is None or concept in (
        "temperature",
        "ph",
        "sodium",
        "spo2",
        "chloride",
    )


def test_values_that_no_unit_explains_are_suspected_without_one() -> None:
    found = suspect_unit("sodium", dict.fromkeys(LEVELS, 1.0), 1000)
    assert found is not None and found.looks_like is None


def test_a_few_values_prove_nothing() -> None:
    far = dict.fromkeys(LEVELS, 1e6)
    assert suspect_unit("creatinine", far, FEWEST - 1) is None
    assert suspect_unit("creatinine", far, FEWEST) is not None


def _quantiles(query: str) -> tuple[dict[str, float], int]:
    wanted = [float(level[1:]) / 100 for level in LEVELS]
    [(values, count)] = duckdb.execute(f"SELECT quantile_cont(v, {wanted}), count(*) FROM ({query})").fetchall()
    return dict(zip(LEVELS, values, strict=True)), int(count)


@pytest.mark.parametrize("concept", sorted(APACHE))
def test_two_hundred_hospitals_of_eicu_are_not_suspected(concept: str) -> None:
    file, column = open_data(EICU_DEMO) / "apacheApsVar.csv.gz", APACHE[concept]
    values, count = _quantiles(f"SELECT {column} AS v FROM read_csv('{file}') WHERE {column} <> -1")
    assert suspect_unit(concept, values, count) is None


@pytest.fixture(scope="module")
def challenge() -> Path:
    return open_data(PHYSIONET_2012)


@pytest.mark.parametrize("unit", [1, 2, 3, 4])
def test_no_care_unit_of_the_challenge_is_suspected(unit: int, challenge: Path) -> None:
    rows = f"read_csv('{challenge}/set-*.csv.gz')"
    members = f"SELECT RecordID FROM {rows} WHERE Parameter = 'ICUType' AND Value = {unit}"
    duckdb.execute(f"CREATE OR REPLACE TABLE unit_rows AS FROM {rows} WHERE RecordID IN ({members}) AND Value > -1")
    for concept, parameters in PHYSIONET.items():
        names = ", ".join(f"'{p}'" for p in parameters)
        values, count = _quantiles(f"SELECT Value AS v FROM unit_rows WHERE Parameter IN ({names})")
        assert suspect_unit(concept, values, count) is None, concept
