"""What the model sees, declared once, and the preprocessing plan that all sites share.

A feature is a concept and a statistic over the observed past: the window from ``LOOKBACK_HOURS`` before ICU admission
to the prediction time, by charttime and storetime (profile ``early``). NaN means "not measured"; nothing here imputes.

The plan is fitted once for the federation from merged moments of training patients and travels with the model.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from shared_model.concepts import BY_NAME
from shared_model.errors import ContractError
from shared_model.mergeable import Moments

PROFILE = "early"
WINDOW_HOURS = 1.0
LOOKBACK_HOURS = 6.0

Statistic = Literal["min", "max", "mean", "last", "sum"]
Cohort = Literal["sepsis3", "all_icu"]


@dataclass(frozen=True)
class Aggregate:
    """A static feature: one statistic of one concept over the observed past."""

    concept: str
    statistic: Statistic

    @property
    def name(self) -> str:
        """Column name, for example ``heart_rate_max``."""
        return f"{self.concept}_{self.statistic}"


# The concepts of the hourly series, in channel order.
SERIES: tuple[str, ...] = (
    "heart_rate",
    "resp_rate",
    "sbp",
    "dbp",
    "mbp",
    "temperature",
    "spo2",
    "fio2",
    "gcs_eyes",
    "gcs_verbal",
    "gcs_motor",
    "glucose",
    "lactate",
    "ph",
    "pao2",
    "paco2",
    "creatinine",
    "bun",
    "bilirubin",
    "platelets",
    "wbc",
    "hemoglobin",
    "hematocrit",
    "sodium",
    "potassium",
    "chloride",
    "bicarbonate",
    "aniongap",
    "inr",
    "vasopressor",
)

_BOTH: tuple[Statistic, ...] = ("min", "max")
_STATISTICS: dict[str, tuple[Statistic, ...]] = {
    "heart_rate": ("mean", "max"),
    "resp_rate": ("mean", "max"),
    "sbp": ("min", "mean", "max"),
    "dbp": ("min", "mean", "max"),
    "mbp": ("min", "mean"),
    "temperature": _BOTH,
    "spo2": ("min", "mean", "max"),
    "fio2": ("max",),
    "gcs_eyes": ("min", "last"),
    "gcs_verbal": ("min", "last"),
    "gcs_motor": ("min", "last"),
    "glucose": _BOTH,
    "lactate": ("max", "last"),
    "ph": ("min",),
    "pao2": ("min",),
    "paco2": ("max",),
    "creatinine": _BOTH,
    "bun": _BOTH,
    "bilirubin": ("max",),
    "platelets": ("min",),
    "wbc": _BOTH,
    "hemoglobin": _BOTH,
    "hematocrit": _BOTH,
    "sodium": _BOTH,
    "potassium": _BOTH,
    "chloride": _BOTH,
    "bicarbonate": _BOTH,
    "aniongap": _BOTH,
    "inr": ("max",),
    "vasopressor": ("max",),
    "urine": ("sum",),
    "weight": ("last",),
}
AGGREGATES: tuple[Aggregate, ...] = tuple(Aggregate(c, s) for c, ss in _STATISTICS.items() for s in ss)

# Static features that are no aggregate of a concept; client/windows.py computes them.
DEMOGRAPHICS: tuple[str, ...] = ("age", "male", "emergency", "antibiotic_count", "culture_count")
STATIC: tuple[str, ...] = DEMOGRAPHICS + tuple(a.name for a in AGGREGATES)


def digest_of(document: object) -> str:
    """SHA-256 of a JSON document in canonical form (sorted keys, no spaces), as 64 hex digits."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def features_digest() -> str:
    """Digest of every declaration that decides what a feature means: names, item ids, units, ranges, windows."""
    return digest_of(
        {
            "profile": PROFILE,
            "window_hours": WINDOW_HOURS,
            "lookback_hours": LOOKBACK_HOURS,
            "static": STATIC,
            "series": SERIES,
            "concepts": {name: asdict(c) for name, c in sorted(BY_NAME.items())},
        }
    )


@dataclass(frozen=True, kw_only=True)
class PreprocessingPlan:
    """How raw features become inputs: (value - mean) / scale, bounded to +-``bound``; a missing value becomes 0, its
    mean.

    Fitted from moments that were merged over the sites (never from pooled rows). A feature that no site measures, or
    that never varies, has scale 1. ``digest`` is what both sides compare.
    """

    static: tuple[str, ...]
    series: tuple[str, ...]
    static_mean: tuple[float, ...]
    static_scale: tuple[float, ...]
    series_mean: tuple[float, ...]
    series_scale: tuple[float, ...]
    bound: float
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
        if plan.static != STATIC or plan.series != SERIES:
            raise ContractError("plan: lists other features than this version declares; update this side")
        return plan


def fit_plan(
    static: Sequence[Moments],
    series: Sequence[Moments],
    *,
    patients: int,
    deaths: int,
    contract: str,
    bound: float = 5.0,
) -> PreprocessingPlan:
    """The plan from merged moments, one for each feature in the order of ``STATIC`` and ``SERIES``."""
    return PreprocessingPlan(
        static=STATIC,
        series=SERIES,
        static_mean=tuple(m.mean for m in static),
        static_scale=tuple(_scale(m) for m in static),
        series_mean=tuple(m.mean for m in series),
        series_scale=tuple(_scale(m) for m in series),
        bound=bound,
        patients=patients,
        deaths=deaths,
        contract=contract,
    )


def _scale(moments: Moments) -> float:
    return moments.sd if moments.sd > 1e-6 else 1.0
