"""How strongly a feature goes with death, from its distributions by outcome alone."""

from math import sqrt

import numpy as np

from shared_model.distribution import Outcomes

GROUPS = 10


def mutual_information(held: Outcomes) -> float:
    """Mutual information with death in nats, over tenths of the feature's values; 0 where an outcome is unknown.

    Tenths and not all bins: the estimate's bias grows with cells over values (Miller 1955), and a small site's bins are
    coarsened before they leave it.
    """
    table = np.array([held.survived.bins, held.died.bins], dtype=float)
    if not table.sum(axis=1).all():
        return 0.0
    reached = np.cumsum(table.sum(axis=0)) / table.sum()
    tenth = np.minimum((np.concatenate([[0.0], reached[:-1]]) * GROUPS).astype(int), GROUPS - 1)
    joint = np.array([np.bincount(tenth, weights=side, minlength=GROUPS) for side in table]) / table.sum()
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return max(float((joint[seen] * np.log(joint[seen] / expected[seen])).sum()), 0.0)


def correlation(held: Outcomes) -> float:
    """Point-biserial correlation with death, of the values; 0 where it is not defined."""
    (n0, x0, xx0, *_), (n1, x1, xx1, *_) = held.survived.sums, held.died.sums
    count, total = n0 + n1, x0 + x1
    spread, labels = count * (xx0 + xx1) - total**2, n0 * n1
    if not spread or not labels:
        return 0.0
    return (count * x1 - n1 * total) / sqrt(spread) / sqrt(labels)
