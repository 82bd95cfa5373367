"""What a site tells of its patients in a private run beside updates: counts with Gaussian noise.

The unit is one patient with all stays, added or removed, so each patient brings as little as possible: one stay, drawn
at random, and of a series' channel one measured window of that stay. Drawing is each patient's own affair (whom it
falls on says nothing of the others), so two sites that differ in one patient differ in that one row.

=============  ==========================================  ========================  ===============================
what           one patient changes                         sensitivity (L2)          noise, standard deviation
=============  ==========================================  ========================  ===============================
statistics     one count by 1 in each feature's histogram  sqrt(number of features)  that times ``plan.statistics``'
validation     one count by 1 of the score histogram       1                         that of ``plan.validation``
=============  ==========================================  ========================  ===============================

The histograms are coarse (shared_model/noised.py): noise is added to every bin, so fewer bins carry less of it. There
are no power sums and no loss: the server derives them from the bins, which costs nothing. Survivals and deaths are told
apart only where the run selects features by outcome, since two histograms carry twice the noise's variance. Such a
choice is unsure: of 20 features of 85, the exact plan of eight sites of 100 to 800 patients shares 10 with that at
epsilon 3 or 8, and 6 with that at epsilon 1, where chance alone gives 5.

Why rounded Gaussian noise: counts are whole, so rounding noise before it is added is the same as rounding the sum, a
post-processing of the Gaussian mechanism that both accountants compose. A sum in floating point would tell the count by
its last bits (Mironov 2012, doi 10.1145/2382196.2382264); whole numbers have none. What remains of it is a generator
that cannot go beyond 8.5 standard deviations, an event of probability 1e-17. Noise comes from the operating system's
entropy.
"""

from dataclasses import dataclass, replace
from random import Random, SystemRandom

import numpy as np
from numpy.typing import NDArray

from client.account import Account
from shared_model.batch import PatientData
from shared_model.config import RunConfig
from shared_model.distribution import Bins, Distribution, Floats, Outcomes, ValueGrid, static_grids
from shared_model.mergeable import Validation
from shared_model.messages import EvaluateReply, Statistics
from shared_model.noised import coarse, coarse_scores, placed, placed_scores

_SYSTEM = SystemRandom()


@dataclass(frozen=True)
class Drawn:
    """One row a patient: a value of each feature (NaN: not measured), static ones first, and the stay's outcome."""

    value_PF: Floats
    died_P: NDArray[np.bool_]

    @classmethod
    def of(cls, data: PatientData, entropy: Random = _SYSTEM) -> "Drawn":
        """A stay of each patient, and a measured window of each of its channels, all equally likely."""
        rng = np.random.default_rng(entropy.getrandbits(256))
        stay_P = _one_each(data.patient_N.numpy(), rng)
        series_PTC = data.series_NTC[stay_P].double().numpy()
        window_PC = np.stack([_measured(series_PTC[:, :, c], rng) for c in range(series_PTC.shape[2])], axis=1)
        series_PC = np.take_along_axis(series_PTC, window_PC[:, None], axis=1)[:, 0]
        static_PF = data.static_NF[stay_P].double().numpy()
        return cls(np.concatenate([static_PF, series_PC], axis=1), data.label_N[stay_P].numpy())


def counted(drawn: Drawn, grids: list[ValueGrid], *, by_outcome: bool) -> list[Outcomes]:
    """Each feature's coarse bins and nothing else: of all patients, or of those who survived and who died."""
    columns = list(zip(drawn.value_PF.T, grids, strict=True))
    if not by_outcome:
        return [Outcomes(_histogram(value_P, grid)) for value_P, grid in columns]
    lived_P, nobody = ~drawn.died_P, Distribution()
    return [
        Outcomes(nobody, _histogram(value_P[lived_P], grid), _histogram(value_P[drawn.died_P], grid))
        for value_P, grid in columns
    ]


def statistics_sensitivity(features: int) -> float:
    """L2, of one patient: a count of each feature."""
    return float(np.sqrt(features))


def private_statistics(data: PatientData, config: RunConfig, account: Account, entropy: Random = _SYSTEM) -> Statistics:
    """Noised distributions of the training patients, with the counts of patients that the run tells anyway."""
    grids, static = static_grids(), len(config.static)
    every = [*(grids[name] for name in config.static), *config.series_grids]
    by_outcome = config.select_features > 0
    noise = account.plan.statistics.noise_multiplier * statistics_sensitivity(len(every))
    held = counted(Drawn.of(data, entropy), every, by_outcome=by_outcome)
    sent = tuple(_noised(one, noise, entropy, by_outcome=by_outcome) for one in held)
    return Statistics(
        static=sent[:static],
        series=sent[static:],
        patients=account.patients,
        deaths=account.deaths,
        noise=noise,
        mechanism=account.plan.statistics,
    )


def one_stay_a_patient(data: PatientData, entropy: Random = _SYSTEM) -> PatientData:
    """The stays that a private validation is of."""
    import torch

    stay_P = _one_each(data.patient_N.numpy(), np.random.default_rng(entropy.getrandbits(256)))
    return data.subset(torch.from_numpy(stay_P))


def private_validation(validation: Validation, account: Account, entropy: Random = _SYSTEM) -> EvaluateReply:
    """The noised score histogram of a validation on one stay a patient; its loss is not told."""
    mechanism = account.plan.validation
    noise = mechanism.noise_multiplier
    negatives, positives = (
        placed_scores(_added(coarse_scores(side), noise, entropy))
        for side in (validation.negatives, validation.positives)
    )
    return EvaluateReply(validation=Validation(negatives, positives), noise=noise, mechanism=mechanism)


def _one_each(patient_N: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The place of one stay of each patient."""
    order = rng.permutation(len(patient_N))
    return np.asarray(order[np.unique(patient_N[order], return_index=True)[1]])


def _measured(value_PT: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """[P] a window with a value; any where there is none."""
    return np.asarray(np.where(np.isfinite(value_PT), rng.random(value_PT.shape), -1.0).argmax(axis=1))


def _histogram(value_P: Floats, grid: ValueGrid) -> Distribution:
    return Distribution(bins=placed(coarse(Distribution.of(value_P, np.arange(len(value_P)), grid).bins)))


def _noised(held: Outcomes, noise: float, entropy: Random, *, by_outcome: bool) -> Outcomes:
    """Noise on what is told, and on nothing else."""
    if not by_outcome:
        return Outcomes(_with_noise(held.whole, noise, entropy))
    return replace(
        held, survived=_with_noise(held.survived, noise, entropy), died=_with_noise(held.died, noise, entropy)
    )


def _with_noise(held: Distribution, noise: float, entropy: Random) -> Distribution:
    return replace(held, bins=placed(_added(coarse(held.bins), noise, entropy)))


def _added(counts: Bins, noise: float, entropy: Random) -> Bins:
    return tuple(count + round(entropy.gauss(0.0, noise)) for count in counts)
