"""Units of laboratories and bedsides: known factors, spellings, and texts that are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.mapping.suspicion import usual_conversion
from client.mapping.targets import TARGETS
from client.mapping.units import conversion, other_units, per_weight

# Published factors (SI to conventional): creatinine 1 mg/dL = 88.4 umol/L, glucose 18.02 mg/dL = 1 mmol/L, bilirubin
# 1 mg/dL = 17.1 umol/L, urea nitrogen 1 mg/dL = 0.357 mmol/L urea, lactate 1 mmol/L = 9.01 mg/dL, 1 kPa = 7.5 mmHg.
FACTORS = [
    ("creatinine", "umol/L", 1 / 88.4),
    ("creatinine", "µmol/l", 1 / 88.4),
    ("creatinine", "mg/L", 0.1),
    ("glucose", "mmol/L", 18.02),
    ("bilirubin", "umol/L", 1 / 17.1),
    ("bun", "mmol/l", 1 / 0.357),
    ("bun", "mg/dl Harnstoff", 0.467),
    ("lactate", "mg/dL", 1 / 9.01),
    ("hemoglobin", "mmol/l", 1.611),
    ("hemoglobin", "g/L", 0.1),
    ("hematocrit", "L/L", 100),
    ("fio2", "fraction", 100),
    ("pao2", "kPa", 7.5006),
    ("paco2", "mm[Hg]", 1),
    ("platelets", "Gpt/l", 1),
    ("platelets", "G/l", 1),
    ("platelets", "10*3/uL", 1),
    ("platelets", "/nl", 1),
    ("wbc", "/µl", 0.001),
    ("wbc", "x10^9/L", 1),
    ("sodium", "mEq/L", 1),
    ("crp", "mg/dl", 10),
    ("pct", "µg/l", 1),
    ("weight", "lbs", 0.45359),
    ("weight", "g", 0.001),
    ("height", "inch", 2.54),
    ("height", "m", 100),
    ("norepinephrine", "ng/kg/min", 0.001),
    ("norepinephrine", "mcg/kg/min", 1),
    ("norepinephrine", "mg/kg/h", 1000 / 60),
    ("vasopressin", "units/min", 60),
    ("vasopressin", "IE/h", 1),
    ("heart_rate", "bpm", 1),
    ("resp_rate", "insp/min", 1),
    ("urine", "l", 1000),
    ("ph", "units", 1),
    ("inr", "INR", 1),
]


@pytest.mark.parametrize(("concept", "unit", "factor"), FACTORS)
def test_a_unit_has_its_published_factor(concept: str, unit: str, factor: float) -> None:
    found = conversion(concept, unit)
    assert found is not None
    assert found == pytest.approx((factor, 0.0), rel=2e-3)


def test_temperatures_have_a_shift() -> None:
    for spelled in ("°F", "degF", "F", "Fahrenheit", "[degF]"):
        factor, shift = conversion("temperature", spelled) or (0.0, 0.0)
        assert factor * 98.6 + shift == pytest.approx(37.0)
    assert conversion("temperature", "Grad C") == (1.0, 0.0)
    factor, shift = conversion("temperature", "K") or (0.0, 0.0)
    assert factor * 310.15 + shift == pytest.approx(37.0)


def test_no_unit_is_the_concepts_own_and_the_sites_own_factors_win() -> None:
    assert all(conversion(name, "") == (1.0, 0.0) for name in TARGETS)
    assert all(conversion(name, target.unit) == (1.0, 0.0) for name, target in TARGETS.items())
    assert conversion("creatinine", "mg/dL", {"creatinine": {"mg/dL": 2.0}}) == (2.0, 0.0)


@pytest.mark.parametrize(
    ("concept", "unit"),
    [
        ("creatinine", "mmHg"),
        ("platelets", "g/dL"),
        ("ph", "mol/L"),
        ("crp", "mmol/L"),
        ("weight", "cm"),
        ("sodium", "?"),
    ],
)
def test_what_is_no_unit_of_the_concept_has_no_conversion(concept: str, unit: str) -> None:
    assert conversion(concept, unit) is None


def test_a_rate_without_weight_is_told_apart() -> None:
    assert conversion("norepinephrine", "ug/min") is None
    assert per_weight("norepinephrine", "µg/min") == pytest.approx((1.0, 0.0))
    assert per_weight("dopamine", "mg/h") == pytest.approx((1000 / 60, 0.0))
    assert per_weight("norepinephrine", "ug/kg/min") is None
    assert per_weight("vasopressin", "U/h") is None
    assert per_weight("creatinine", "mg/h") is None


def test_every_other_unit_has_a_conversion() -> None:
    assert all(usual_conversion(name, unit) != (1.0, 0.0) for name in TARGETS for unit in other_units(name))
    assert sum(bool(other_units(name)) for name in TARGETS) > 20


@given(
    concept=st.sampled_from(sorted(TARGETS)),
    unit=st.one_of(st.text(max_size=60), st.from_regex(r"[0-9e*/^.mgLu]{1,20}")),
)
def test_any_text_has_a_finite_conversion_or_none(concept: str, unit: str) -> None:
    for found in (conversion(concept, unit), per_weight(concept, unit)):
        assert found is None or (found[0] > 0 and abs(found[0]) < 1e12 and abs(found[1]) < 1e6)
