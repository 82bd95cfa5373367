"""The preprocessing plan that all sites share: what each feature is filled, bounded and scaled with, and which stay.

Fitted once for the federation from merged distributions of training patients (never from pooled rows), it travels with
the model, and its digest is in every message. Method: Wu 2024 (doi 10.12677/mos.2024.136583), sections 3 to 5 of its
preparation: missing rate, imputation and scaling by normality, the box-plot rule, selection by mutual information and
correlation with the label.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any, Literal

import numpy as np

from shared_model.association import correlation, mutual_information
from shared_model.distribution import Distribution, Outcomes, ValueGrid
from shared_model.errors import ContractError
from shared_model.features import SeriesFill, digest_of

Imputation = Literal["normality", "mean", "median"]
Scaling = Literal["normality", "zscore", "minmax"]
NORMAL_SKEWNESS, NORMAL_KURTOSIS = 2.0, 4.0  # Kim 2013 (doi 10.5395/rde.2013.38.1.52), n > 300; kurtosis in excess of 3


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """How a plan is fitted. ``missing_limit``: a feature that a larger share of patients lacks is dropped.
    ``outlier_iqr``: values are bounded so many interquartile ranges beyond the quartiles (0: at the dictionary's range
    alone). ``select_features``: so many static features are kept, by relevance (0: all)."""

    missing_limit: float = 1.0
    outlier_iqr: float = 0.0
    imputation: Imputation = "normality"
    scaling: Scaling = "zscore"
    select_features: int = 0
    series_fill: SeriesFill = "forward"


@dataclass(frozen=True, kw_only=True)
class FeaturePlan:
    """One feature: what is known of it, and (bounded value - ``centre``) / ``scale`` as input; a missing one is
    ``fill``. ``missing`` is the share of patients without it; the moments and quartiles are in the feature's unit;
    ``mutual_information`` with death in nats, ``correlation`` point-biserial. ``reason``: why it is dropped, or empty.
    """

    name: str
    missing: float
    mean: float
    sd: float
    skewness: float
    kurtosis: float
    quartiles: tuple[float, float, float]
    normal: bool
    mutual_information: float
    correlation: float
    imputation: str
    scaling: str
    fill: float
    lower: float
    upper: float
    centre: float
    scale: float
    reason: str = ""

    @property
    def kept(self) -> bool:
        """Whether the model sees it."""
        return not self.reason


@dataclass(frozen=True, kw_only=True)
class PreprocessingPlan:
    """Every feature of the study, in tensor order, kept or dropped. Inputs are bounded to +-``bound`` after scaling.

    ``series_fill`` says what stands in a window without a measurement: the last value (``forward``), or a straight line
    between the measurements around it (``linear``; after the last one, the last). ``prevalence`` is the share of deaths
    among the ``patients`` of sites that tell it; 0 where none does. ``digest`` is what both sides compare.
    """

    static_features: tuple[FeaturePlan, ...]
    series_features: tuple[FeaturePlan, ...]
    bound: float = 5.0
    series_fill: SeriesFill
    patients: int
    prevalence: float
    contract: str

    @property
    def static(self) -> tuple[FeaturePlan, ...]:
        """The kept static features, in the order of the model's inputs."""
        return tuple(feature for feature in self.static_features if feature.kept)

    @property
    def series(self) -> tuple[FeaturePlan, ...]:
        """The kept channels, in the order of the model's inputs."""
        return tuple(feature for feature in self.series_features if feature.kept)

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
            for kind in ("static_features", "series_features"):
                fields[kind] = tuple(_feature(feature) for feature in fields[kind])
            plan = cls(**fields)
            found, usable = plan.digest, all(map(_usable, (*plan.static_features, *plan.series_features)))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ContractError("plan: not a preprocessing plan of this version; update this side") from error
        if found != digest:
            raise ContractError(
                f"plan: digest is {found[:12]}, the message names {digest[:12]}; they do not belong together"
            )
        if not usable:
            raise ContractError("plan: a feature's numbers are not finite, or its scale is not positive")
        return plan


def fit_plan(
    static: Mapping[str, tuple[ValueGrid, Outcomes]],
    series: Mapping[str, tuple[ValueGrid, Outcomes]],
    *,
    patients: int,
    prevalence: float,
    contract: str,
    settings: PlanSettings,
) -> PreprocessingPlan:
    """The plan from merged distributions by feature, in tensor order."""
    fitted = [
        [_fit(name, grid, held, patients, settings) for name, (grid, held) in part.items()] for part in (static, series)
    ]
    return PreprocessingPlan(
        static_features=tuple(_select(fitted[0], settings.select_features)),
        series_features=tuple(fitted[1]),
        series_fill=settings.series_fill,
        patients=patients,
        prevalence=prevalence,
        contract=contract,
    )


def localised(plan: PreprocessingPlan, own: PreprocessingPlan) -> PreprocessingPlan:
    """The federation's plan with a site's own filling, bounds and scale for what the site measures: local input
    normalisation. What is kept, and so the model's shape, stays the federation's."""

    def features(shared: tuple[FeaturePlan, ...], site: tuple[FeaturePlan, ...]) -> tuple[FeaturePlan, ...]:
        pairs = zip(shared, site, strict=True)
        return tuple(replace(o, reason=s.reason) if o.missing < 1 and o.sd > 0 else s for s, o in pairs)

    return replace(
        plan,
        static_features=features(plan.static_features, own.static_features),
        series_features=features(plan.series_features, own.series_features),
    )


def _fit(name: str, grid: ValueGrid, held: Outcomes, patients: int, settings: PlanSettings) -> FeaturePlan:
    whole = held.whole
    missing = max(patients - whole.patients, 0) / patients if patients else 1.0
    mean, sd, skewness, kurtosis = _moments(whole, grid)
    quartiles = _quartiles(whole, grid)
    binary = (grid.low, grid.high) == (0.0, 1.0) and sum(whole.bins[1:-1]) == 0
    normal = not binary and abs(skewness) <= NORMAL_SKEWNESS and abs(kurtosis) <= NORMAL_KURTOSIS
    lower, upper = (grid.low, grid.high) if binary else _bounds(quartiles, grid, settings.outlier_iqr)
    imputation = "mode" if binary else _imputation(normal, settings.imputation)
    fill = {"mode": float(round(mean)), "mean": mean, "median": quartiles[1]}[imputation]
    scaling = ("zscore" if normal else "minmax") if settings.scaling == "normality" else settings.scaling
    centre, width = (mean, sd) if scaling == "zscore" else (lower, upper - lower)
    return FeaturePlan(
        name=name,
        missing=missing,
        mean=mean,
        sd=sd,
        skewness=skewness,
        kurtosis=kurtosis,
        quartiles=quartiles,
        normal=normal,
        mutual_information=mutual_information(held),
        correlation=correlation(held),
        imputation=imputation,
        scaling=scaling,
        fill=min(max(fill, lower), upper),
        lower=lower,
        upper=upper,
        centre=centre,
        scale=width if width > 1e-6 else 1.0,
        reason=_reason(missing, settings.missing_limit),
    )


def _reason(missing: float, limit: float) -> str:
    if missing >= 1.0:
        return "measured in no patient, or in too few at any site"
    return f"missing in {missing:.1%} of patients, the limit is {limit:.0%}" if missing > limit else ""


def _imputation(normal: bool, rule: Imputation) -> str:
    if rule == "normality":
        return "mean" if normal else "median"
    return rule


def _moments(whole: Distribution, grid: ValueGrid) -> tuple[float, float, float, float]:
    """Mean and SD in the feature's unit, skewness, and kurtosis in excess of 3; 0 where they are not defined."""
    if not whole.count:
        return 0.0, 0.0, 0.0, 0.0
    n, s1, s2, s3, s4 = whole.sums
    # Central sums times powers of n stay integers: no digit is lost where the mean is large and the SD small.
    m2 = n * s2 - s1**2
    m3 = n**2 * s3 - 3 * n * s1 * s2 + 2 * s1**3
    m4 = n**3 * s4 - 4 * n**2 * s1 * s3 + 6 * n * s1**2 * s2 - 3 * s1**4
    mean, sd = grid.low + grid.step * (s1 / n), grid.step * (m2 / n**2) ** 0.5
    if not m2:
        return mean, 0.0, 0.0, 0.0
    return mean, sd, m3 / n**3 / (m2 / n**2) ** 1.5, m4 / m2**2 - 3.0


def _quartiles(whole: Distribution, grid: ValueGrid) -> tuple[float, float, float]:
    """Quartiles by straight lines within the bins; 0 where nothing was measured."""
    if not whole.count:
        return 0.0, 0.0, 0.0
    bins = np.asarray(whole.bins, float)
    reached = np.concatenate([[0.0], np.cumsum(bins)]) / bins.sum()
    held = np.concatenate([[True], bins > 0])  # a flat piece has no inverse
    first, median, third = np.interp([0.25, 0.5, 0.75], reached[held], grid.edges[held])
    return float(first), float(median), float(third)


def _bounds(quartiles: tuple[float, float, float], grid: ValueGrid, factor: float) -> tuple[float, float]:
    """The box plot's whiskers within the dictionary's range."""
    first, _, third = quartiles
    if not factor or third <= first:
        return grid.low, grid.high
    reach = factor * (third - first)
    return max(first - reach, grid.low), min(third + reach, grid.high)


def _select(features: list[FeaturePlan], keep: int) -> list[FeaturePlan]:
    """The ``keep`` most relevant of the kept ones: by the sum of their ranks in mutual information and in size of the
    correlation; earlier ones win ties."""
    candidates = [feature for feature in features if feature.kept]
    if not keep or len(candidates) <= keep:
        return features
    by_information = sorted(candidates, key=lambda feature: -feature.mutual_information)
    by_correlation = sorted(candidates, key=lambda feature: -abs(feature.correlation))
    ranks = {feature.name: by_information.index(feature) + by_correlation.index(feature) for feature in candidates}
    chosen = set(sorted(ranks, key=ranks.__getitem__)[:keep])
    why = f"not among the {keep} most relevant"
    return [replace(f, reason=why) if f.kept and f.name not in chosen else f for f in features]


def _usable(feature: FeaturePlan) -> bool:
    numbers = (feature.fill, feature.lower, feature.upper, feature.centre, feature.scale)
    return all(map(isfinite, numbers)) and feature.scale > 0 and feature.lower <= feature.upper


def _feature(document: dict[str, Any]) -> FeaturePlan:
    return FeaturePlan(**document | {"quartiles": tuple(document["quartiles"])})
