"""What epsilon is at least, by how well an auditor guesses which canaries were in the training: one run is enough.

Steinke, Nasr and Jagielski 2023 (arXiv 2305.08846), Theorem 5.2. Each of m canaries is in the data with probability
1/2. From what was released the auditor guesses for r of them, r fixed beforehand, and abstains for the others. If the
mechanism is (epsilon, delta)-private with respect to one record added or removed, then the number of right guesses is,
but for the part of delta, at most that of r tosses of a coin that is right with probability e^epsilon /
(1 + e^epsilon). More right guesses than that refute epsilon.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
SHARES = (0.1, 0.3, 1.0)  # of the canaries, for which guesses are made: few guesses are surer, many can show more
_MOST_EPSILON = 50.0
_TOLERANCE = 1e-4  # of epsilon


@dataclass(frozen=True, kw_only=True)
class Bound:
    """``epsilon`` is at least this much, from ``right`` of ``guesses``; ``most``: what all guesses right would show."""

    epsilon: float
    guesses: int
    right: int
    most: float


def p_value(*, canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Most probability with which an (``epsilon``, ``delta``)-private mechanism lets an auditor be right at least
    ``right`` times (Theorem 5.2): P[W >= v] + 2 m delta max_i P[v - i <= W < v] / i, W ~ Binomial(r, q)."""
    below_V = _binomial(guesses, 1 / (1 + math.exp(-epsilon)))[:right][::-1]  # P[W = v - 1], P[W = v - 2], ...
    at_least = max(1 - math.fsum(below_V), 0.0)
    spread = (np.cumsum(below_V) / np.arange(1, right + 1)).max(initial=0.0)
    return float(min(at_least + 2 * canaries * delta * spread, 1.0))


def least_epsilon(*, canaries: int, guesses: int, right: int, delta: float, confidence: float = CONFIDENCE) -> float:
    """The epsilon below which every one is refuted at ``confidence``; 0 where the guesses refute none."""

    def refuted(epsilon: float) -> bool:
        found = p_value(canaries=canaries, guesses=guesses, right=right, epsilon=epsilon, delta=delta)
        return found <= 1 - confidence

    if not right or not refuted(0.0):
        return 0.0
    low, high = 0.0, _MOST_EPSILON
    while high - low > _TOLERANCE:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def audit(
    score_M: NDArray[np.float64],
    included_M: NDArray[np.bool_],
    *,
    delta: float,
    confidence: float = CONFIDENCE,
    shares: Sequence[float] = SHARES,
) -> Bound:
    """The best bound of a few numbers of guesses, each at a confidence that holds for all of them together
    (Bonferroni). A higher score says that a canary was in the data; the surest guesses lie furthest from the middle.

    Who was in the data decides which guesses are right, and nothing else: neither the middle nor the choice of guesses.
    """
    canaries, each = len(score_M), 1 - (1 - confidence) / len(shares)
    distance_M = score_M - middle_of(score_M)
    surest_M = np.argsort(-np.abs(distance_M), kind="stable")
    right_M = ((distance_M > 0) == included_M)[surest_M]
    found = []
    for guesses in sorted({max(round(share * canaries), 1) for share in shares}):
        right = int(right_M[:guesses].sum())
        epsilon, most = (
            least_epsilon(canaries=canaries, guesses=guesses, right=count, delta=delta, confidence=each)
            for count in (right, guesses)
        )
        found.append(Bound(epsilon=epsilon, guesses=guesses, right=right, most=most))
    best = max(found, key=lambda bound: bound.epsilon)
    return Bound(epsilon=best.epsilon, guesses=best.guesses, right=best.right, most=max(one.most for one in found))


def middle_of(score_M: NDArray[np.float64]) -> float:
    """Half way between the means of the upper and of the lower half: about half of the canaries are in the data."""
    ordered_M = np.sort(score_M)
    half = len(ordered_M) // 2
    return float((ordered_M[:half].mean() + ordered_M[len(ordered_M) - half :].mean()) / 2)


def _binomial(trials: int, probability: float) -> NDArray[np.float64]:
    """P[W = 0], ..., P[W = trials]."""
    if probability >= 1:
        return np.asarray(np.eye(trials + 1)[-1], np.float64)
    choices = np.array([math.lgamma(k + 1) + math.lgamma(trials - k + 1) for k in range(trials + 1)])
    right_K = np.arange(trials + 1)
    of_outcomes = right_K * math.log(probability) + (trials - right_K) * math.log1p(-probability)
    return np.asarray(np.exp(math.lgamma(trials + 1) - choices + of_outcomes), np.float64)
