"""Metrics from predictions, with patient-clustered bootstrap intervals.

Why our own arithmetic: a thousand resamples of every model and unit in one vectorised pass; scikit-learn, which would
do them one at a time, is the oracle in the tests. A weight of a stay is how often its patient was drawn; a cell of a
score histogram is a stay with the weight of its patients.

Shape legend: N stays (or cells of a histogram) in ascending order of score, G groups of tied scores, P patients,
R resamples.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
METRICS = (
    "auroc",
    "auprc",
    "brier",
    "log_loss",
    "accuracy",
    "sensitivity",
    "specificity",
    "f1",
    "calibration_intercept",
    "calibration_slope",
)
NEWTON_STEPS, NEWTON_TOLERANCE = 20, 1e-6


@dataclass(frozen=True)
class Interval:
    """A point estimate and its 95 % percentile interval; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class _Tied:
    """Deaths and survivals at each distinct score, weighted; ascending score."""

    positives_RG: Floats
    negatives_RG: Floats


def evaluate_scores(
    score_N: Floats,
    label_N: Bools,
    patient_N: NDArray[np.int64],
    *,
    threshold: float,
    resamples: int,
    seed: int,
) -> dict[str, Interval]:
    """Every metric of ``METRICS``; those at ``threshold`` call a death when score >= threshold."""
    order = np.argsort(score_N, kind="stable")
    patients, place_N = np.unique(patient_N[order], return_inverse=True)
    drawn = (draw_RP[:, place_N] for draw_RP in _resamples(np.ones(len(patients)), resamples, seed))
    return _intervals(score_N[order], label_N[order], np.ones(len(order)), drawn, threshold)


def evaluate_counts(
    score_N: Floats,
    label_N: Bools,
    count_N: NDArray[np.int64],
    *,
    threshold: float,
    resamples: int,
    seed: int,
    redraw: Callable[[Floats], Floats] = lambda drawn_RN: drawn_RN,
) -> dict[str, Interval]:
    """The same of a score histogram: ``count_N`` patients have the score and the label of a cell. ``redraw`` does to a
    block of resampled cells, by rising score, what chance did to the cells besides.

    Exact for scores that are rounded to the histogram's, and for a ``threshold`` at an edge of its bins.
    """
    order = np.argsort(score_N, kind="stable")
    drawn = map(redraw, _resamples(count_N[order].astype(float), resamples, seed))
    return _intervals(score_N[order], label_N[order], count_N[order].astype(float), drawn, threshold)


def auroc(score_N: Floats, label_N: Bools) -> float | None:
    """Area under the ROC curve, ties count half; None without both classes."""
    order = np.argsort(score_N, kind="stable")
    value = _auroc(_tied(score_N[order], label_N[order], np.ones((1, len(order)))))[0]
    return None if np.isnan(value) else float(value)


def ranking(score_N: Floats, label_N: Bools, weight_RN: Floats) -> tuple[Floats, Floats]:
    """AUROC and AUPRC [R] for resamples that a caller has drawn: each row says how often each stay counts. NaN where a
    resample lacks a class."""
    order = np.argsort(score_N, kind="stable")
    tied = _tied(score_N[order], label_N[order], weight_RN[:, order])
    with np.errstate(invalid="ignore"):
        return _auroc(tied), _average_precision(tied)


def roc_curve(score_N: Floats, label_N: Bools) -> tuple[Floats, Floats]:
    """1 - specificity and sensitivity at every distinct threshold, from (0, 0) to (1, 1)."""
    true_G, false_G = _above(score_N, label_N)
    return false_G / max(false_G[-1], 1), true_G / max(true_G[-1], 1)


def precision_recall_curve(score_N: Floats, label_N: Bools) -> tuple[Floats, Floats]:
    """Recall and precision at every distinct threshold, by rising recall."""
    true_G, false_G = _above(score_N, label_N)
    return true_G[1:] / max(true_G[-1], 1), true_G[1:] / (true_G + false_G)[1:]


def _above(score_N: Floats, label_N: Bools) -> tuple[Floats, Floats]:
    """Cumulated deaths and survivals from the highest score down, with a leading 0."""
    order = np.argsort(score_N, kind="stable")
    tied = _tied(score_N[order], label_N[order], np.ones((1, len(order))))
    zero = np.zeros(1)
    return (
        np.concatenate([zero, np.cumsum(tied.positives_RG[0][::-1])]),
        np.concatenate([zero, np.cumsum(tied.negatives_RG[0][::-1])]),
    )


def _resamples(count_P: Floats, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each is drawn, in blocks of resamples: as many draws with replacement as ``count_P`` has patients."""
    rng, many = np.random.default_rng(seed), count_P.sum()
    for start in range(0, resamples if many else 0, 100):
        yield rng.multinomial(int(many), count_P / many, size=min(100, resamples - start)).astype(float)


def _intervals(
    score_N: Floats, label_N: Bools, weight_N: Floats, drawn: Iterable[Floats], threshold: float
) -> dict[str, Interval]:
    """Point estimates with ``weight_N``, and their intervals over the ``drawn`` blocks of weights, shape [R, N]."""
    if not len(score_N):
        return dict.fromkeys(METRICS, Interval(None))
    point = _metrics(score_N, label_N, weight_N[None], threshold)
    blocks = [_metrics(score_N, label_N, weight_RN, threshold) for weight_RN in drawn]
    return {name: _interval(point[name], [b[name] for b in blocks]) for name in METRICS}


def _tied(score_N: Floats, label_N: Bools, weight_RN: Floats) -> _Tied:
    starts = np.flatnonzero(np.concatenate([[True], np.diff(score_N) > 0]))
    positives_RG = np.add.reduceat(weight_RN * label_N, starts, axis=1)
    return _Tied(positives_RG, np.add.reduceat(weight_RN * ~label_N, starts, axis=1))


def _metrics(score_N: Floats, label_N: Bools, weight_RN: Floats, threshold: float) -> dict[str, Floats]:
    tied, total_R = _tied(score_N, label_N, weight_RN), weight_RN.sum(axis=1)
    called_N = score_N >= threshold
    hit_R, miss_R = weight_RN @ (called_N & label_N), weight_RN @ (~called_N & label_N)
    false_R, spared_R = weight_RN @ (called_N & ~label_N), weight_RN @ (~called_N & ~label_N)
    likelihood_N = np.clip(np.where(label_N, score_N, 1 - score_N), 1e-7, 1.0)
    intercept_R, slope_R = _recalibration(score_N, label_N, weight_RN)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "auroc": _auroc(tied),
            "auprc": _average_precision(tied),
            "brier": weight_RN @ (score_N - label_N) ** 2 / total_R,
            "log_loss": weight_RN @ -np.log(likelihood_N) / total_R,
            "accuracy": (hit_R + spared_R) / total_R,
            "sensitivity": hit_R / (hit_R + miss_R),
            "specificity": spared_R / (spared_R + false_R),
            "f1": 2 * hit_R / (2 * hit_R + false_R + miss_R),
            "calibration_intercept": intercept_R,
            "calibration_slope": slope_R,
        }


def _auroc(tied: _Tied) -> Floats:
    below_RG = np.cumsum(tied.negatives_RG, axis=1) - tied.negatives_RG
    pairs_R = tied.positives_RG.sum(axis=1) * tied.negatives_RG.sum(axis=1)
    wins_R = (tied.positives_RG * (below_RG + tied.negatives_RG / 2)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(wins_R / pairs_R)


def _average_precision(tied: _Tied) -> Floats:
    """Sum over thresholds of precision times the gain in recall, from the highest score down."""
    gained_RG = tied.positives_RG[:, ::-1]
    true_RG = np.cumsum(gained_RG, axis=1)
    called_RG = true_RG + np.cumsum(tied.negatives_RG[:, ::-1], axis=1)
    precision_RG = np.divide(true_RG, called_RG, out=np.zeros_like(true_RG), where=called_RG > 0)
    return np.asarray((precision_RG * gained_RG).sum(axis=1) / true_RG[:, -1])


def _recalibration(score_N: Floats, label_N: Bools, weight_RN: Floats) -> tuple[Floats, Floats]:
    """Intercept and slope of the logistic regression of death on the log-odds of the score (Cox 1958), by Newton.

    0 and 1 when risks are right; a slope below 1 says that they are too extreme. NaN where no line fits best: one
    class, one score, or classes that a threshold separates.
    """
    clipped_N = np.clip(score_N, 1e-7, 1 - 1e-7)
    odds_N = np.log(clipped_N / (1 - clipped_N))
    powers_N3 = np.stack([np.ones_like(odds_N), odds_N, odds_N**2], axis=1)
    line_R2, step_R2 = np.tile([0.0, 1.0], (len(weight_RN), 1)), np.full((len(weight_RN), 2), np.inf)
    with np.errstate(all="ignore"):
        for _ in range(NEWTON_STEPS):
            risk_RN = 1 / (1 + np.exp(-(line_R2[:, :1] + line_R2[:, 1:] * odds_N)))
            error_R2 = weight_RN * (label_N - risk_RN) @ powers_N3[:, :2]
            one_R, odds_R, square_R = (weight_RN * risk_RN * (1 - risk_RN) @ powers_N3).T
            across_R2 = np.stack([square_R, one_R], axis=1) * error_R2 - odds_R[:, None] * error_R2[:, ::-1]
            spread_R = one_R * square_R - odds_R**2
            step_R2 = across_R2 / np.where(spread_R > 1e-9 * one_R * square_R, spread_R, np.nan)[:, None]
            line_R2 = line_R2 + step_R2
            if not (np.abs(step_R2) > NEWTON_TOLERANCE).any():
                break
    line_R2[~(np.abs(step_R2) <= NEWTON_TOLERANCE).all(axis=1)] = np.nan
    return line_R2[:, 0], line_R2[:, 1]


def _interval(point_1: Floats, blocks: list[Floats]) -> Interval:
    if np.isnan(point_1[0]):
        return Interval(None)
    if not blocks:
        return Interval(float(point_1[0]))
    defined = np.concatenate(blocks)
    defined = defined[np.isfinite(defined)]
    if not defined.size:
        return Interval(float(point_1[0]))
    low, high = np.percentile(defined, [2.5, 97.5])
    return Interval(float(point_1[0]), float(low), float(high))
