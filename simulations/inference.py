"""Membership inference: was a patient in a model's training data? Two attacks on the released model, scored.

Both read a patient's confidence phi = log(p / (1 - p)), p the probability that the model gives to what happened (of a
patient with several stays, the mean). *Loss threshold* (Yeom et al. 2018, arXiv 1709.01604): a small loss, a large phi,
says member. *Likelihood ratio* (LiRA, online; Carlini et al. 2022, arXiv 2112.03570): phi is as likely as under a
normal distribution of what shadow models say that were trained with this patient, over that of those without.

Shape legend: P patients, K shadow models, N stays.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.results import Estimate
from shared_model.batch import PatientData
from shared_model.metrics import Bools, Floats, ranking

FALSE_POSITIVES = 0.01  # the rate at which an attack's true positives are told
_NEAREST = 1e-12  # of a probability to 0 or 1
_BLOCK = 100  # resamples


@dataclass(frozen=True)
class Inference:
    """How well an attack tells members from others; intervals over patients (bootstrap, members and others apart)."""

    auroc: Estimate
    tpr: Estimate


def confidence(risk_N: Floats, data: PatientData) -> Floats:
    """phi of every patient [P], by rising patient number, from the predicted risk of every stay."""
    right_N = np.clip(np.where(data.label_N.numpy(), risk_N, 1 - risk_N), _NEAREST, 1 - _NEAREST)
    _, patient_N = np.unique(data.patient_N.numpy(), return_inverse=True)
    sums_P = np.bincount(patient_N, np.log(right_N) - np.log1p(-right_N))
    return np.asarray(sums_P / np.bincount(patient_N), np.float64)


def likelihood_ratio(target_P: Floats, shadow_KP: Floats, inside_KP: Bools) -> Floats:
    """LiRA's score [P]: the log likelihood ratio of each patient's phi under the attacked model.

    Every patient is in some of the shadow models (at least two) and absent from as many. Few shadows give a mean a
    patient, but only one variance for all patients (the paper's advice).
    """
    inside, outside = (_normal(target_P, shadow_KP, chosen_KP) for chosen_KP in (inside_KP, ~inside_KP))
    return inside - outside


def _normal(target_P: Floats, shadow_KP: Floats, chosen_KP: Bools) -> Floats:
    """Log density of the target's phi under the chosen shadows', but for a constant."""
    count_P = chosen_KP.sum(axis=0)
    mean_P = (shadow_KP * chosen_KP).sum(axis=0) / count_P
    squares = (((shadow_KP - mean_P) ** 2) * chosen_KP).sum()
    variance = max(float(squares / (count_P - 1).sum()), 1e-12)
    return np.asarray(-((target_P - mean_P) ** 2) / (2 * variance) - 0.5 * np.log(variance), np.float64)


def halves(patients: int, shadows: int, rng: np.random.Generator) -> tuple[Bools, Bools]:
    """Who trains the attacked model [P] (a random half), and who each shadow [K, P]: each patient half of them."""
    member_P = rng.permutation(patients) < patients // 2
    inside_KP = np.argsort(rng.random((shadows, patients)), axis=0) < shadows // 2
    return member_P, inside_KP


def score_attack(score_P: Floats, member_P: Bools, *, resamples: int, seed: int) -> Inference:
    """AUROC, and the true-positive rate at a false-positive rate of at most 1 %."""
    draws = list(_resamples(member_P, resamples, seed))
    weights = np.concatenate([np.ones((1, len(member_P))), *draws])
    auroc_R, _ = ranking(score_P, member_P, weights)
    tpr_R = true_positives(score_P, member_P, weights)
    return Inference(*(_estimate(found_R) for found_R in (auroc_R, tpr_R)))


def true_positives(score_P: Floats, member_P: Bools, weight_RP: NDArray[np.float64]) -> Floats:
    """Largest share of the members above a threshold that at most 1 % of the others are above, in each resample [R]."""
    order = np.argsort(-score_P, kind="stable")
    weight_RP, member_P, ordered_P = weight_RP[:, order], member_P[order], score_P[order]
    last_P = np.append(ordered_P[1:] != ordered_P[:-1], True)  # no threshold parts patients with the same score
    true_RP, false_RP = ((weight_RP * chosen_P).cumsum(axis=1) for chosen_P in (member_P, ~member_P))
    allowed_RP = (false_RP <= FALSE_POSITIVES * false_RP[:, -1:] + 1e-9) & last_P
    most_R = np.where(allowed_RP, true_RP, 0.0).max(axis=1)
    return np.asarray(most_R / true_RP[:, -1], np.float64)


def most_true_positives(epsilon: float | None, delta: float) -> float:
    """What (epsilon, delta)-privacy allows every attack at that rate; 1 without privacy. Kairouz et al. 2015 (arXiv
    1311.0776)."""
    if epsilon is None:
        return 1.0
    grows, left = np.exp(epsilon), 1 - delta - FALSE_POSITIVES
    return float(min(grows * FALSE_POSITIVES + delta, 1 - left / grows))


def _resamples(member_P: Bools, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each patient is drawn, in blocks: as many members and as many others as there are."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _BLOCK):
        block_RP = np.zeros((min(_BLOCK, resamples - start), len(member_P)))
        for side_P in (member_P, ~member_P):
            many = int(side_P.sum())
            block_RP[:, side_P] = rng.multinomial(many, np.full(many, 1 / many), size=len(block_RP))
        yield block_RP


def _estimate(found_R: Floats) -> Estimate:
    """The first is of the patients as they are."""
    if len(found_R) == 1:
        return Estimate(value=float(found_R[0]))
    low, high = np.percentile(found_R[1:], [2.5, 97.5])
    return Estimate(value=float(found_R[0]), low=float(low), high=float(high))
