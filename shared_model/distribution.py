"""Distributions of features as mergeables: what one round of statistics brings from each site for the plan.

Why integers: a value is placed on a fixed grid of ``LEVELS`` steps over the range that the dictionary gives, and what
is added up are integers, so merging is exact: any split of the patients over sites gives the same plan, to the last
bit. Every value's part in a sum is bounded, too, which differential privacy will need.

Two resolutions: power sums over the grid (mean, SD, skewness, kurtosis, correlation), and histograms of ``BINS`` bins,
of all (quartiles) and by outcome (mutual information). Where most values lie near the low end, bins are narrow there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared_model.concepts import BY_NAME
from shared_model.features import AGGREGATES, DERIVED

LEVELS = 2**14
BINS = 64
POWERS = 5  # sums of level^0 .. level^4
_EXACT_ROWS = 2 ** (62 - 14 * 4)  # so many 4th powers of a level fit a 64-bit integer
_CROWDING = 3.0

Floats = NDArray[np.float64]
Bins = tuple[int, ...]


@dataclass(frozen=True)
class ValueGrid:
    """The range of a feature; a value beyond it counts at its end."""

    low: float
    high: float
    crowded: bool = False

    @property
    def step(self) -> float:
        """A level's width, in the feature's unit."""
        return (self.high - self.low) / LEVELS

    @property
    def edges(self) -> Floats:
        """[BINS + 1] edges of the histogram's bins, in the feature's unit."""
        share = np.linspace(0.0, 1.0, BINS + 1) ** (_CROWDING if self.crowded else 1.0)
        return np.asarray(self.low + share * (self.high - self.low))

    def levels(self, values: Floats) -> NDArray[np.int64]:
        """The level of each value; values must be finite."""
        return np.clip(np.rint((values - self.low) / self.step), 0, LEVELS).astype(np.int64)


@dataclass(frozen=True)
class Distribution:
    """One feature in one group: distinct patients, ``sums[p]`` of level^p over its values, values in each bin."""

    patients: int = 0
    sums: tuple[int, ...] = (0,) * POWERS
    bins: Bins = (0,) * BINS

    @classmethod
    def of(cls, values_R: Floats, patient_R: NDArray[np.int64], grid: ValueGrid) -> "Distribution":
        """Of one array; NaN is "not measured" and does not count."""
        seen_R = np.isfinite(values_R)
        values_R, patient_R = values_R[seen_R], patient_R[seen_R]
        if not values_R.size:
            return cls()
        bin_R = np.clip(np.searchsorted(grid.edges, values_R, side="right") - 1, 0, BINS - 1)
        bins = np.bincount(bin_R, minlength=BINS)
        return cls(len(np.unique(patient_R)), _power_sums(grid.levels(values_R)), tuple(bins.tolist()))

    def merge(self, other: "Distribution") -> "Distribution":
        """Of the union of both groups, which share no patient."""
        return Distribution(
            self.patients + other.patients,
            tuple(map(add, self.sums, other.sums)),
            tuple(map(add, self.bins, other.bins)),
        )

    @property
    def count(self) -> int:
        """Values."""
        return self.sums[0]

    @property
    def possible(self) -> bool:
        """Whether some values can have brought this about; a reply from outside need not be honest."""
        count, most = self.sums[0], [LEVELS**power for power in range(POWERS)]
        within = all(0 <= total <= count * limit for total, limit in zip(self.sums, most, strict=True))
        return within and count == sum(self.bins) and 0 <= self.patients <= count and min(self.bins) >= 0


@dataclass(frozen=True)
class Outcomes:
    """One feature's values, and by outcome of the stay; the latter lack the blocks of patients, or sites, of which so
    few died or survived that it is withheld."""

    whole: Distribution = field(default_factory=Distribution)
    survived: Distribution = field(default_factory=Distribution)
    died: Distribution = field(default_factory=Distribution)

    @classmethod
    def of(
        cls, values_R: Floats, died_R: NDArray[np.bool_], patient_R: NDArray[np.int64], grid: ValueGrid
    ) -> "Outcomes":
        """Of one array of values, with the outcome and the patient of each."""
        survived, died = (Distribution.of(values_R[chosen], patient_R[chosen], grid) for chosen in (~died_R, died_R))
        return cls(survived.merge(died), survived, died)

    def merge(self, other: "Outcomes") -> "Outcomes":
        """Of the union of both patient sets."""
        return Outcomes(self.whole.merge(other.whole), self.survived.merge(other.survived), self.died.merge(other.died))

    @property
    def possible(self) -> bool:
        """Whether some values can have brought this about."""
        parts = self.whole.possible and self.survived.possible and self.died.possible
        return parts and self.survived.count + self.died.count <= self.whole.count


def merge_outcomes(sites: Sequence[Sequence[Outcomes]]) -> list[Outcomes]:
    """Merge feature by feature over sites; each inner sequence has one entry a feature."""
    merged = list(sites[0])
    for site in sites[1:]:
        merged = [a.merge(b) for a, b in zip(merged, site, strict=True)]
    return merged


def static_grids() -> dict[str, ValueGrid]:
    """The grid of every static feature."""
    derived = {d.name: ValueGrid(d.low, d.high) for d in DERIVED}
    return derived | {a.name: grid_of(a.concept, a.statistic) for a in AGGREGATES}


def grid_of(concept: str, statistic: str) -> ValueGrid:
    """The grid of a statistic of a concept, from the concept's plausible range."""
    held = BY_NAME[concept]
    if statistic == "sd":
        return ValueGrid(0.0, (held.high - held.low) / 2, crowded=True)
    if statistic == "sum":
        return ValueGrid(held.low, 4 * held.high)
    return ValueGrid(held.low, held.high, held.crowded)


def _power_sums(level_R: NDArray[np.int64]) -> tuple[int, ...]:
    """Exact sums of level^0 .. level^4: of blocks in 64 bits, then in Python's integers."""
    starts = np.arange(0, len(level_R), _EXACT_ROWS)
    powers: list[Any] = [np.add.reduceat(level_R**power, starts).tolist() for power in range(POWERS)]
    return tuple(sum(blocks) for blocks in powers)
