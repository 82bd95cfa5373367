"""Validation of a model as a mergeable: zero, merge, result.

Why mergeables: sites, shards and secure aggregation all combine the same objects, so merging must not depend on order
or grouping (tests/property). The features' mergeables are in shared_model/distribution.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCORE_BINS = 200


@dataclass(frozen=True)
class Validation:
    """Label-split histogram of scores in [0, 1] with the summed loss: AUROC exact to the bin, without the scores.

    ``negatives`` and ``positives`` have ``SCORE_BINS`` counts each; bin k holds scores in [k, k+1) / SCORE_BINS.
    """

    negatives: tuple[int, ...] = (0,) * SCORE_BINS
    positives: tuple[int, ...] = (0,) * SCORE_BINS
    loss_sum: float = 0.0

    @classmethod
    def of(cls, scores: NDArray[np.float64], labels: NDArray[np.bool_], *, loss_sum: float) -> "Validation":
        """Of one site's validation patients; ``scores`` and ``labels`` have shape [N]."""
        bins = np.minimum((scores * SCORE_BINS).astype(int), SCORE_BINS - 1)
        return cls(
            tuple(np.bincount(bins[~labels], minlength=SCORE_BINS).tolist()),
            tuple(np.bincount(bins[labels], minlength=SCORE_BINS).tolist()),
            loss_sum,
        )

    def merge(self, other: "Validation") -> "Validation":
        """Of the union of both patient sets."""
        return Validation(
            tuple(a + b for a, b in zip(self.negatives, other.negatives, strict=True)),
            tuple(a + b for a, b in zip(self.positives, other.positives, strict=True)),
            self.loss_sum + other.loss_sum,
        )

    @property
    def count(self) -> int:
        """Patients."""
        return sum(self.negatives) + sum(self.positives)

    @property
    def deaths(self) -> int:
        """Patients who died."""
        return sum(self.positives)

    @property
    def cells(self) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
        """Score, death and patients of each filled bin of each class; the score is the middle of the bin."""
        count_C = np.array([self.negatives, self.positives], dtype=np.int64).ravel()
        score_C = np.tile((np.arange(SCORE_BINS) + 0.5) / SCORE_BINS, 2)
        filled = count_C > 0
        return score_C[filled], (np.arange(2 * SCORE_BINS) >= SCORE_BINS)[filled], count_C[filled]

    @property
    def loss(self) -> float | None:
        """Mean loss; None when nobody was scored."""
        return self.loss_sum / self.count if self.count else None

    @property
    def auroc(self) -> float | None:
        """Probability that a death is in a higher bin than a survival (ties half); None without both classes."""
        negatives, positives = np.asarray(self.negatives, float), np.asarray(self.positives, float)
        pairs = negatives.sum() * positives.sum()
        if not pairs:
            return None
        below = np.cumsum(negatives) - negatives
        return float((positives * (below + negatives / 2)).sum() / pairs)

    @property
    def standard_error(self) -> float:
        """Of the AUROC (Hanley and McNeil 1982, doi 10.1148/radiology.143.1.7063747); 0 where there is none."""
        area, deaths, others = self.auroc, self.deaths, self.count - self.deaths
        if area is None:
            return 0.0
        two_deaths, two_others = area / (2 - area), 2 * area**2 / (1 + area)
        spread = area * (1 - area) + (deaths - 1) * (two_deaths - area**2) + (others - 1) * (two_others - area**2)
        return float(np.sqrt(max(spread, 0.0) / (deaths * others)))

    def nearly(self, best: "Validation") -> bool:
        """Whether this is as good as ``best``, but for a standard error of that."""
        if self.auroc is None or best.auroc is None:
            return self.at_least(best)
        return self.auroc >= best.auroc - best.standard_error

    def at_least(self, other: "Validation") -> bool:
        """Whether a model with this validation replaces one with the other: an unknown AUROC is worse than any."""
        if self.auroc is None:
            return other.auroc is None
        return other.auroc is None or self.auroc >= other.auroc

    @property
    def best_threshold(self) -> float:
        """The bin edge with the largest Youden index (sensitivity + specificity - 1); 0.5 without both classes."""
        negatives, positives = np.asarray(self.negatives, float), np.asarray(self.positives, float)
        if not negatives.sum() or not positives.sum():
            return 0.5
        missed = np.concatenate([[0.0], np.cumsum(positives)]) / positives.sum()
        spared = np.concatenate([[0.0], np.cumsum(negatives)]) / negatives.sum()
        return float(np.argmax(spared - missed) / SCORE_BINS)


def merge_validations(sites: Sequence[Validation]) -> Validation:
    """Merge over sites; zero when there are none."""
    total = Validation()
    for site in sites:
        total = total.merge(site)
    return total
