"""Averages over seeds with intervals that are honest about both seeds and patients.

Each seed has its own held-out patients, and a patient can be held out under several seeds. So the interval comes from a
bootstrap over both (the pigeonhole bootstrap; Owen, Annals of Applied Statistics 2007): each resample draws the
patients of all held-out sets with replacement, draws the seeds with replacement, and takes the mean over the drawn
seeds of the metric on the drawn patients. The variance of crossed factors that it shows is, if anything, too large. All
models meet the same resamples, so that differences are paired.

Shape legend: N stays held out under a seed, P patients held out under any, S seeds, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.results import Estimate
from shared_model.metrics import Bools, Floats, ranking

METRICS = ("auroc", "auprc")


@dataclass(frozen=True)
class HeldOut:
    """The stays that one seed held out, and the score that each model gives them."""

    patient_N: NDArray[np.int64]
    label_N: Bools
    unit_N: NDArray[np.str_]
    scores: dict[str, Floats]


@dataclass(frozen=True)
class Average:
    """A mean over seeds, and the same in every resample; NaN where it is not defined."""

    value: float
    draws_R: Floats

    def __sub__(self, other: "Average") -> "Average":
        """The paired difference."""
        return Average(self.value - other.value, self.draws_R - other.draws_R)

    def estimate(self) -> Estimate:
        """With the 95 % percentile interval."""
        defined = self.draws_R[np.isfinite(self.draws_R)]
        if not np.isfinite(self.value) or not defined.size:
            return Estimate(value=self.value if np.isfinite(self.value) else None)
        low, high = np.percentile(defined, [2.5, 97.5])
        return Estimate(value=self.value, low=float(low), high=float(high))


def mean_of(averages: Sequence[Average]) -> Average:
    """The mean over models."""
    return Average(
        float(np.mean([average.value for average in averages])), np.mean([a.draws_R for a in averages], axis=0)
    )


class Crossed:
    """The resamples of seeds and patients, and averages over them."""

    def __init__(self, seeds: Sequence[HeldOut], *, resamples: int, seed: int) -> None:
        rng, self._seeds = np.random.default_rng(seed), seeds
        self._patients = np.unique(np.concatenate([held.patient_N for held in seeds]))
        many, count = len(self._patients), len(seeds)
        self._drawn_RP = rng.multinomial(many, np.full(many, 1 / many), size=resamples)
        self._weight_RS = rng.multinomial(count, np.full(count, 1 / count), size=resamples)

    def averages(self, model: str, unit: str | None = None) -> dict[str, Average]:
        """AUROC and AUPRC of a model, on all held-out stays or those of one unit."""
        found = [self._of_seed(held, model, unit) for held in self._seeds]
        return {metric: self._mean([one[number] for one in found]) for number, metric in enumerate(METRICS)}

    def _of_seed(self, held: HeldOut, model: str, unit: str | None) -> tuple[Floats, Floats]:
        """Each metric on the stays as they are, then in every resample: shape [1 + R]."""
        chosen_N = np.ones(len(held.label_N), bool) if unit is None else held.unit_N == unit
        drawn_RN = self._drawn_RP[:, np.searchsorted(self._patients, held.patient_N[chosen_N])]
        weight_RN = np.concatenate([np.ones((1, drawn_RN.shape[1])), drawn_RN])
        if not weight_RN.size:
            nothing = np.full(len(weight_RN), np.nan)
            return nothing, nothing
        return ranking(held.scores[model][chosen_N], held.label_N[chosen_N], weight_RN)

    def _mean(self, of_seeds: list[Floats]) -> Average:
        """Over the seeds (the drawn ones, in a resample) under which the metric is defined."""
        value_RS = np.stack(of_seeds, axis=1)
        weight_RS = np.concatenate([np.ones((1, len(of_seeds))), self._weight_RS]) * np.isfinite(value_RS)
        with np.errstate(invalid="ignore"):
            mean_R = (weight_RS * np.nan_to_num(value_RS)).sum(axis=1) / weight_RS.sum(axis=1)
        return Average(float(mean_R[0]), mean_R[1:])
