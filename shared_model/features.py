"""What the model sees, declared once, and the preprocessing plan that all sites share.

A feature is a concept and a statistic over the observed past: from ``LOOKBACK_HOURS`` before ICU admission to the
prediction time, by charttime and storetime. NaN means "not measured"; nothing here imputes. Which of the features a
run uses follows from its ``Study`` (shared_model/study.py).

The plan is fitted once for the federation from merged moments of training patients and travels with the model.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from shared_model.errors import ContractError
from shared_model.mergeable import Moments

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
    """A static feature that is no statistic of a concept. ``retrospective``: known only after the stay, so in the
    profile ``paper`` alone."""

    name: str
    unit: str
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
    "vasopressor": ("max",),
    "urine": ("sum",),
    "weight": ("last",),
    "height": ("last",),
}
SERIES_CONCEPTS: tuple[str, ...] = tuple(c for c in MEASURED if c not in {"urine", "weight", "height"})
AGGREGATES: tuple[Aggregate, ...] = tuple(Aggregate(c, s) for c, ss in MEASURED.items() for s in ss)

# Names are those of Wu 2024's Figure 2 where it has the feature. client/sql/derived.sql computes them.
DERIVED: tuple[Derived, ...] = (
    Derived(name="age", unit="years", meaning="at admission to hospital; 91 stands for 90 and older"),
    Derived(name="male", unit="0/1", meaning="administrative sex (Figure 2: gender)"),
    Derived(name="emergency", unit="0/1", meaning="admission type is an emergency or urgent one"),
    Derived(name="sofa_score", unit="points", meaning="SOFA of the last known hour, each organ's worst in 24 hours"),
    Derived(name="sapsii", unit="points", meaning="SAPS II of the first 24 h, from what was known"),
    Derived(name="sapsii_prob", unit="probability", meaning="hospital mortality that SAPS II predicts"),
    Derived(name="charlson_score", unit="points", meaning="Charlson index with age, from known diagnosis codes"),
    Derived(name="metastatic_solid_tumor", unit="0/1", meaning="among the known diagnosis codes"),
    Derived(name="vent_status", unit="0/1", meaning="invasively ventilated at some known time"),
    Derived(name="antibiotic_num", unit="count", meaning="different systemic antibiotics since a day before admission"),
    Derived(name="specimen_count", unit="count", meaning="cultures since a day before admission"),
    Derived(name="positive_culture", unit="0/1", meaning="a culture with a known organism"),
    Derived(name="cul_anti_period", unit="hours", meaning="from culture to antibiotic, first suspected infection"),
    Derived(name="sus_anti_period", unit="hours", meaning="from suspected infection to its antibiotic"),
    Derived(name="los_icu", unit="days", meaning="length of the ICU stay", retrospective=True),
    Derived(name="los_hospital", unit="days", meaning="length of the admission", retrospective=True),
)


def digest_of(document: object) -> str:
    """SHA-256 of a JSON document in canonical form (sorted keys, no spaces), as 64 hex digits."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class PreprocessingPlan:
    """How raw features become inputs: (value - mean) / scale, bounded to +-``bound``; a missing value becomes 0, its
    mean.

    Fitted from moments that were merged over the sites (never from pooled rows). A feature that no site measures, or
    that never varies, has scale 1. ``series_fill`` says what stands in a window without a measurement: the last value
    (``forward``), or a straight line between the measurements around it (``linear``; after the last one, the last).
    ``digest`` is what both sides compare.
    """

    static: tuple[str, ...]
    series: tuple[str, ...]
    static_mean: tuple[float, ...]
    static_scale: tuple[float, ...]
    series_mean: tuple[float, ...]
    series_scale: tuple[float, ...]
    bound: float
    series_fill: SeriesFill
    patients: int
    deaths: int
    contract: str

    @property
    def digest(self) -> str:
        """SHA-256 over every field."""
        return digest_of(asdict(self))

    def to_json(self) -> str:
        """Canonical JSON; ``from_json`` reads it."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, *, digest: str) -> "PreprocessingPlan":
        """Read a plan and check that it is the one ``digest`` names. Raises ContractError."""
        try:
            fields: dict[str, Any] = json.loads(text)
            typed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
            plan = cls(**typed)
        except (ValueError, TypeError, AttributeError) as error:
            raise ContractError("plan: not a preprocessing plan of this version; update this side") from error
        if plan.digest != digest:
            raise ContractError(
                f"plan: digest is {plan.digest[:12]}, the message names {digest[:12]}; they do not belong together"
            )
        plan._check_lengths()
        return plan

    def _check_lengths(self) -> None:
        for names, values in (
            (self.static, (self.static_mean, self.static_scale)),
            (self.series, (self.series_mean, self.series_scale)),
        ):
            if any(len(held) != len(names) for held in values):
                raise ContractError("plan: has not one mean and one scale for each feature")


def fit_plan(
    static: Mapping[str, Moments],
    series: Mapping[str, Moments],
    *,
    patients: int,
    deaths: int,
    contract: str,
    bound: float = 5.0,
    series_fill: SeriesFill = "forward",
) -> PreprocessingPlan:
    """The plan from merged moments by feature, in tensor order."""
    return PreprocessingPlan(
        static=tuple(static),
        series=tuple(series),
        static_mean=tuple(m.mean for m in static.values()),
        static_scale=tuple(_scale(m) for m in static.values()),
        series_mean=tuple(m.mean for m in series.values()),
        series_scale=tuple(_scale(m) for m in series.values()),
        bound=bound,
        series_fill=series_fill,
        patients=patients,
        deaths=deaths,
        contract=contract,
    )


def _scale(moments: Moments) -> float:
    return moments.sd if moments.sd > 1e-6 else 1.0
