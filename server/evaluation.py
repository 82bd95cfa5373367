"""Held-out evaluation from predictions, and the sites' validation from merged score histograms."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from server.noised import Noised
from server.results import (
    SMALLEST_SUBGROUP,
    CalibrationBin,
    Curve,
    Estimate,
    Evaluation,
    FederatedValidation,
    LeftOutSite,
    SiteValidation,
    SubgroupEvaluation,
    UnitEvaluation,
)
from shared_model.batch import PatientData
from shared_model.mergeable import Validation
from shared_model.metrics import METRICS, Interval, evaluate_counts, evaluate_scores, precision_recall_curve, roc_curve
from shared_model.noised import score_cells

CURVE_POINTS = 300
AGE_BANDS = {"under 18": (0, 18), "18-44": (18, 45), "45-64": (45, 65), "65-79": (65, 80), "80+": (80, np.inf)}

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def evaluate_predictions(
    scores_N: Floats, data: PatientData, *, threshold: float, resamples: int, seed: int, static: tuple[str, ...] = ()
) -> Evaluation:
    """Metrics with patient-clustered 95 % intervals, curves, calibration, and AUROC by unit, sex and age.

    ``threshold`` must come from validation patients; it is reported as given. ``static`` names the static features of
    ``data`` in tensor order; groups whose feature is not among them are left out.
    """
    label_N = data.label_N.numpy()
    held = _Held(scores_N, label_N, data.patient_N.numpy(), threshold, resamples, seed)
    return Evaluation(
        patients=data.patients,
        deaths=data.deaths,
        threshold=threshold,
        metrics=held.metrics(np.ones(len(data), dtype=bool)),
        roc=_curve(roc_curve, scores_N, label_N),
        precision_recall=_curve(precision_recall_curve, scores_N, label_N),
        calibration=_calibration(scores_N, label_N),
        by_unit=list(_by_unit(held, data)),
        subgroups=[_subgroup(held, *group) for group in _groups(data, static) if group[-1].any()],
    )


def evaluate_validation(
    merged: Validation,
    sites: Mapping[str, Validation],
    *,
    threshold: float,
    resamples: int,
    seed: int,
    personal: Mapping[str, Validation] | None = None,
    noised: Noised | None = None,
) -> FederatedValidation:
    """The same from histograms: of the federation (``merged``), and the AUROC of each site in the order given.

    ``personal`` has the histograms of the models that sites personalised, on the same patients. In a private run
    ``noised`` is ``merged`` with its noise, which the intervals then span, too.
    """
    settings: _Bootstrap = {"resamples": resamples, "seed": seed}
    score_C, label_C, count_C = merged.cells if noised is None else score_cells(noised.validation)
    scores_N, label_N = np.repeat(score_C, count_C), np.repeat(label_C, count_C)
    chance = {} if noised is None else {"redraw": noised.redraw(seed)}
    found = evaluate_counts(score_C, label_C, count_C, threshold=threshold, **settings, **chance)
    return FederatedValidation(
        patients=merged.count,
        deaths=merged.deaths,
        threshold=threshold,
        metrics={name: as_estimate(interval) for name, interval in found.items()},
        roc=_curve(roc_curve, scores_N, label_N),
        precision_recall=_curve(precision_recall_curve, scores_N, label_N),
        calibration=_calibration(scores_N, label_N),
        sites=[
            SiteValidation(
                site=site,
                patients=held.count,
                deaths=held.deaths,
                auroc=_auroc(held, settings),
                personal_auroc=_auroc(personal[site], settings) if personal and site in personal else None,
            )
            for site, held in sites.items()
        ],
        noise=None if noised is None else noised.noise,
    )


def evaluate_left_out(
    outside: Mapping[str, Validation], inside: Mapping[str, Validation], *, resamples: int, seed: int
) -> list[LeftOutSite]:
    """AUROC at each site of the model that the others trained (``outside``, all of its patients), and of the one that
    all trained (``inside``, its validation patients)."""
    settings: _Bootstrap = {"resamples": resamples, "seed": seed}
    return [
        LeftOutSite(
            site=site,
            patients=held.count,
            deaths=held.deaths,
            auroc=_auroc(held, settings),
            inside_auroc=_auroc(inside[site], settings) if site in inside else None,
        )
        for site, held in outside.items()
    ]


class _Bootstrap(TypedDict):
    resamples: int
    seed: int


def _auroc(held: Validation, settings: _Bootstrap) -> Estimate:
    """AUROC of a score histogram with its 95 % interval over patients."""
    return as_estimate(evaluate_counts(*held.cells, threshold=0.5, **settings)["auroc"])


def as_estimate(interval: Interval) -> Estimate:
    """The document form of an interval."""
    return Estimate(**asdict(interval))


@dataclass(frozen=True)
class _Held:
    """Scored stays, and how their metrics are estimated."""

    score_N: Floats
    label_N: Bools
    patient_N: NDArray[np.int64]
    threshold: float
    resamples: int
    seed: int

    def metrics(self, chosen_N: Bools) -> dict[str, Estimate]:
        """Every metric of the chosen stays."""
        found = evaluate_scores(
            self.score_N[chosen_N],
            self.label_N[chosen_N],
            self.patient_N[chosen_N],
            threshold=self.threshold,
            resamples=self.resamples,
            seed=self.seed,
        )
        return {name: as_estimate(interval) for name, interval in found.items()}

    def counts(self, chosen_N: Bools) -> dict[str, int]:
        """Distinct patients, and those who died."""
        died_N = chosen_N & self.label_N
        return {name: len(np.unique(self.patient_N[n])) for name, n in (("patients", chosen_N), ("deaths", died_N))}


def _by_unit(held: _Held, data: PatientData) -> Iterator[UnitEvaluation]:
    unit_N = data.unit_N.numpy()
    for number, unit in enumerate(data.units):
        here_N = unit_N == number
        if here_N.any():
            yield UnitEvaluation(unit=unit, auroc=held.metrics(here_N)["auroc"], **held.counts(here_N))


def _groups(data: PatientData, static: tuple[str, ...]) -> Iterator[tuple[str, str, Bools]]:
    """Group, name and stays by sex and by age, each with those of whom it is not known."""
    if "male" in static:
        male_N = data.static_NF[:, static.index("male")].numpy()
        yield from (("sex", "female", male_N == 0), ("sex", "male", male_N == 1), ("sex", "unknown", np.isnan(male_N)))
    if "age" in static:
        age_N = data.static_NF[:, static.index("age")].numpy()
        for name, (first, end) in AGE_BANDS.items():
            yield "age", name, (age_N >= first) & (age_N < end)
        yield "age", "unknown", np.isnan(age_N)


def _subgroup(held: _Held, group: str, name: str, chosen_N: Bools) -> SubgroupEvaluation:
    counts, found = held.counts(chosen_N), dict.fromkeys(METRICS, Estimate(value=None))
    if counts["patients"] >= SMALLEST_SUBGROUP:
        found = held.metrics(chosen_N)
    told = {metric: found[metric] for metric in ("auroc", "sensitivity", "specificity")}
    return SubgroupEvaluation.model_validate({"group": group, "name": name, **counts, **told})


def _curve(curve: Callable[[Floats, Bools], tuple[Floats, Floats]], scores_N: Floats, label_N: Bools) -> Curve:
    """At most ``CURVE_POINTS`` points: a drawing needs no more, and one point a patient would publish the ranks.
    Empty without both classes."""
    if label_N.all() or not label_N.any():
        return Curve(x=[], y=[])
    x, y = curve(scores_N, label_N)
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).round().astype(int))
    return Curve(x=x[kept].round(5).tolist(), y=y[kept].round(5).tolist())


def _calibration(scores_N: Floats, label_N: Bools, groups: int = 10) -> list[CalibrationBin]:
    """Tenths of predicted risk; fewer where there are not ten patients. Patients of one score stay together, in the
    tenth of their middle one: which of them came first says nothing."""
    if not len(scores_N):
        return []
    _, place_N, tied_S = np.unique(scores_N, return_inverse=True, return_counts=True)
    middle_S = (np.cumsum(tied_S) - tied_S / 2) / len(scores_N)
    group_N = (groups * middle_S).astype(int)[place_N]
    parts = (group_N == group for group in np.unique(group_N))
    return [
        CalibrationBin(
            predicted=float(scores_N[part].mean()), observed=float(label_N[part].mean()), count=int(part.sum())
        )
        for part in parts
    ]
