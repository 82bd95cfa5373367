"""What the model sees, declared once.

A feature is a concept and a statistic over the observed past: from ``LOOKBACK_HOURS`` before ICU admission to the
prediction time, by charttime and storetime. NaN means "not measured"; nothing here imputes. Which of the features a
run uses follows from its ``Study`` (shared_model/study.py).
How they become inputs is the preprocessing plan's matter (shared_model/plan.py).
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

LOOKBACK_HOURS = 6.0

Statistic = Literal["min", "max", "mean", "last", "sum"]
SeriesFill = Literal["forward", "linear"]


@dataclass(frozen=True)
class Aggregate:
    """A static feature: one statistic of one concept over the observed past."""

    concept: str
    statistic: Statistic

    @property
    def name(self) -> str:
        """Column name, for example ``heart_rate_max``."""
        return f"{self.concept}_{self.statistic}"


@dataclass(frozen=True, kw_only=True)
class Derived:
    """A static feature that is no statistic of a concept, and the range of its histogram. ``retrospective``: known only
    after the stay, so in the profile ``paper`` alone."""

    name: str
    unit: str
    low: float
    high: float
    meaning: str
    retrospective: bool = False


# Every measured concept with its static statistics. Those of Wu 2024's Figure 2 are among them.
MEASURED: dict[str, tuple[Statistic, ...]] = {
    "heart_rate": ("mean", "max"),
    "resp_rate": ("mean", "max"),
    "sbp": ("min", "mean", "max"),
    "dbp": ("min", "mean", "max"),
    "mbp": ("min", "mean"),
    "temperature": ("min", "max"),
    "spo2": ("min", "mean", "max"),
    "fio2": ("max",),
    "gcs": ("min", "last"),
    "gcs_eyes": ("min", "last"),
    "gcs_verbal": ("min", "last"),
    "gcs_motor": ("min", "last"),
    "ventilation": ("max", "last"),
    "glucose": ("min", "max"),
    "lactate": ("max", "last"),
    "ph": ("min",),
    "pao2": ("min",),
    "paco2": ("max",),
    "pao2fio2": ("min",),
    "creatinine": ("min", "max"),
    "bun": ("min", "max"),
    "bilirubin": ("max",),
    "platelets": ("min",),
    "wbc": ("min", "max"),
    "hemoglobin": ("min", "max"),
    "hematocrit": ("min", "max"),
    "sodium": ("min", "max"),
    "potassium": ("min", "max"),
    "chloride": ("min", "max"),
    "bicarbonate": ("min", "max"),
    "aniongap": ("min", "max"),
    "inr": ("max",),
    "crp": ("max",),
    "pct": ("max",),
    "albumin": ("min",),
    "alp": ("max",),
    "alt": ("max",),
    "ast": ("max",),
    "magnesium": ("min", "max"),
    "vasopressor": ("max",),
    "urine": ("sum",),
    "weight": ("last",),
    "height": ("last",),
}
SERIES_CONCEPTS: tuple[str, ...] = tuple(c for c in MEASURED if c not in {"urine", "weight", "height"})
AGGREGATES: tuple[Aggregate, ...] = tuple(Aggregate(c, s) for c, ss in MEASURED.items() for s in ss)

# Names are those of Wu 2024's Figure 2 where it has the feature. client/sql/derived.sql computes them.
DERIVED: tuple[Derived, ...] = (
    Derived(name="age", unit="years", low=0, high=120, meaning="at admission to hospital; 91 stands for 90 and older"),
    Derived(name="male", unit="0/1", low=0, high=1, meaning="administrative sex (Figure 2: gender)"),
    Derived(name="emergency", unit="0/1", low=0, high=1, meaning="admission type is an emergency or urgent one"),
    Derived(
        name="sofa_score",
        unit="points",
        low=0,
        high=24,
        meaning="SOFA of the last known hour, each organ's worst in 24 hours",
    ),
    Derived(name="sapsii", unit="points", low=0, high=163, meaning="SAPS II of the first 24 h, from what was known"),
    Derived(name="sapsii_prob", unit="probability", low=0, high=1, meaning="hospital mortality that SAPS II predicts"),
    Derived(
        name="charlson_score",
        unit="points",
        low=0,
        high=40,
        meaning="Charlson index with age, from known diagnosis codes",
    ),
    Derived(name="metastatic_solid_tumor", unit="0/1", low=0, high=1, meaning="among the known diagnosis codes"),
    Derived(name="vent_status", unit="0/1", low=0, high=1, meaning="invasively ventilated at some known time"),
    Derived(
        name="antibiotic_num",
        unit="count",
        low=0,
        high=32,
        meaning="different systemic antibiotics since a day before admission",
    ),
    Derived(name="specimen_count", unit="count", low=0, high=64, meaning="cultures since a day before admission"),
    Derived(name="positive_culture", unit="0/1", low=0, high=1, meaning="a culture with a known organism"),
    Derived(
        name="cul_anti_period",
        unit="hours",
        low=-24,
        high=72,
        meaning="from culture to antibiotic, first suspected infection",
    ),
    Derived(
        name="sus_anti_period", unit="hours", low=-24, high=72, meaning="from suspected infection to its antibiotic"
    ),
    Derived(name="los_icu", unit="days", low=0, high=128, meaning="length of the ICU stay", retrospective=True),
    Derived(name="los_hospital", unit="days", low=0, high=256, meaning="length of the admission", retrospective=True),
)


def seed_of(*parts: object) -> int:
    """A 32-bit seed that follows from ``parts`` alone."""
    return int(digest_of(list(parts))[:8], 16)


def digest_of(document: object) -> str:
    """SHA-256 of a JSON document in canonical form (sorted keys, no spaces), as 64 hex digits."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
