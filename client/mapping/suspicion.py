"""Whether the values of a concept look as if they were in another unit than the mapping says.

Five quantiles are compared with those of open ICU data (reference.json, by tests/reference_quantiles.py), once as they
are and once converted from each other unit that hospitals use. The distance is the middle one of the five, in widths of
the reference's 5 % to 95 % span, on a log scale where all values are positive: a sicker population moves by a fraction
of that width, a wrong unit by more, and another unit brings it back.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from client.mapping.targets import TARGETS
from client.mapping.units import conversion, other_units, per_weight

LEVELS = ("p05", "p25", "p50", "p75", "p95")
FEWEST = 20
# From the data in the tests: real ICUs lie within 0.22 of the reference, or within 0.46 where only the first day's
# worst value is known; the least of the wrong units at 0.32.
OFF, NEARER, FAR = 0.25, 0.4, 1.0
_LINEAR = {"temperature"}
_KILOGRAMS = 80.0  # of a patient, for rates that are not per kg
_ZERO = {"urine"}  # has true zeros
Quantiles = Mapping[str, float]


@dataclass(frozen=True)
class UnitSuspicion:
    """``looks_like``: the unit that would explain the values, or None. The medians are in the concept's unit."""

    concept: str
    looks_like: str | None
    observed_median: float
    reference_median: float
    message: str


def suspect_unit(concept: str, observed: Quantiles, count: int) -> UnitSuspicion | None:
    """A suspicion on ``count`` values with the quantiles ``observed`` (p05, p25, p50, p75, p95), or None."""
    reference = _reference().get(concept)
    if reference is None or count < FEWEST or TARGETS[concept].unit == "points":
        return None
    off = _distance(concept, observed, reference)
    candidates = [
        (_distance(concept, _as_if(concept, observed, unit), reference), unit) for unit in other_units(concept)
    ]
    nearest, unit = min(candidates, default=(math.inf, ""))
    if off > OFF and nearest < NEARER * off:
        return _suspicion(concept, unit, observed, reference)
    return _suspicion(concept, None, observed, reference) if off > FAR else None


def _suspicion(concept: str, unit: str | None, observed: Quantiles, reference: Quantiles) -> UnitSuspicion:
    own = TARGETS[concept].unit
    looks = f"look like {unit}" if unit else "are far from what intensive care units measure"
    message = (
        f"{concept}: the values {looks}: median {observed['p50']:.3g}, where {reference['p50']:.3g} {own} is usual;"
        " check the unit of its codes"
    )
    return UnitSuspicion(concept, unit, observed["p50"], reference["p50"], message)


def _as_if(concept: str, observed: Quantiles, unit: str) -> Quantiles:
    factor, shift = usual_conversion(concept, unit)
    return {level: observed[level] * factor + shift for level in LEVELS}


def usual_conversion(concept: str, unit: str) -> tuple[float, float]:
    """Factor and shift from another unit, of a patient of usual weight where it is not per kg."""
    weighed = per_weight(concept, unit)
    found = conversion(concept, unit) or (weighed and (weighed[0] / _KILOGRAMS, 0.0))
    return found or (1.0, 0.0)  # a test converts every one


def _distance(concept: str, observed: Quantiles, reference: Quantiles) -> float:
    width = _scaled(concept, reference["p95"]) - _scaled(concept, reference["p05"])
    apart = sorted(abs(_scaled(concept, observed[level]) - _scaled(concept, reference[level])) for level in LEVELS)
    return apart[len(LEVELS) // 2] / width


def _scaled(concept: str, value: float) -> float:
    if concept in _LINEAR:
        return value
    return math.log(max(value, 0.0) + 1.0) if concept in _ZERO else math.log(max(value, 1e-9))


@cache
def _reference() -> dict[str, dict[str, Any]]:
    text = files("client.mapping").joinpath("reference.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)["quantiles"]
    return found
