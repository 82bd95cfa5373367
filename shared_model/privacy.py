"""What a run with differential privacy may spend at a site, and on what: epsilon and delta become noise.

The unit is the patient: the guarantee compares a site's data with and without any one of its patients, all stays.
Every answer of a site in such a run is a Gaussian mechanism, or for training a Poisson-subsampled one, so what a site
spends is a list of ``Mechanism`` that one accountant composes: RDP (Mironov 2017, arXiv 1702.07476; subsampled: Wang et
al. 2019, 1808.00087) or PRV (Gopi et al. 2021, arXiv 2106.02848).
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from shared_model.errors import PrivacyError

Accountant = Literal["rdp", "prv"]
# Shares of the budget, as shares of the Gaussian mechanisms' 1 / noise_multiplier^2, which add up in composition
# (Dong et al. 2022, arXiv 1905.02383); training gets what is left.
COUNT_SHARE, STATISTICS_SHARE, VALIDATION_SHARE = 0.02, 0.15, 0.08
LEAST_PATIENTS = 100  # of a site; with fewer, noise is all that would leave
_TOLERANCE = 2e-3  # of a calibrated epsilon, relative
_LEAST_NOISE, _MOST_NOISE = 1e-3, 1e6
_MORE_ORDERS = (72, 96, 128, 192, 256, 384, 512, 1024)  # of RDP: with Opacus' own, epsilon cannot be below 0.2


@dataclass(frozen=True, order=True)
class Mechanism:
    """A Gaussian mechanism: noise of ``noise_multiplier`` times the sensitivity (L2, of one patient added or removed),
    ``steps`` times; each time on patients drawn by Poisson sampling at ``sample_rate``, on all where it is 1."""

    noise_multiplier: float
    sample_rate: float = 1.0
    steps: int = 1


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """What a site may release in one run, each mechanism with its noise. ``count`` is None where the site's policy
    makes its counts of patients public. ``training`` is the whole run's; a round takes ``steps_a_round`` of its steps.
    """

    epsilon: float
    delta: float
    accountant: Accountant
    clip: float
    count: Mechanism | None
    statistics: Mechanism
    validation: Mechanism
    training: Mechanism
    steps_a_round: int

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """Everything that the run releases when nothing goes wrong."""
        return (*filter(None, (self.count,)), self.statistics, self.training, self.validation)

    @property
    def round(self) -> Mechanism:
        """One round's part of the training."""
        return Mechanism(self.training.noise_multiplier, self.training.sample_rate, self.steps_a_round)


def epsilon_of(mechanisms: Iterable[Mechanism], delta: float, accountant: Accountant = "rdp") -> float:
    """Epsilon of releasing all of these about the same patients, at ``delta``; 0 for none, infinity without noise."""
    steps: Counter[tuple[float, float]] = Counter()
    for mechanism in mechanisms:
        steps[mechanism.noise_multiplier, mechanism.sample_rate] += mechanism.steps
    history = tuple((noise, rate, count) for (noise, rate), count in sorted(steps.items()) if count and rate)
    if not history:
        return 0.0
    if min(noise for noise, _, _ in history) <= 0:
        return math.inf
    return _composed(history, delta, accountant)


@lru_cache(maxsize=256)
def _composed(history: tuple[tuple[float, float, int], ...], delta: float, accountant: Accountant) -> float:
    from opacus.accountants import PRVAccountant, RDPAccountant

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the best order being an end of the list, and of log(0) at rate 1
        if accountant == "rdp":
            rdp = RDPAccountant()
            rdp.history = list(history)
            return max(float(rdp.get_epsilon(delta, [*rdp.DEFAULT_ALPHAS, *_MORE_ORDERS])), 0.0)
        prv = PRVAccountant()
        prv.history = list(history)
        return max(float(prv.get_epsilon(delta)), 0.0)


def noise_for(epsilon: float, delta: float, accountant: Accountant, *, steps: int = 1) -> float:
    """The smallest noise multiplier at which so many Gaussian mechanisms, and nothing else, are (epsilon,
    delta)-private. Raises PrivacyError."""
    check_budget(epsilon, delta)
    return _least_noise(lambda noise: epsilon_of([Mechanism(noise, steps=steps)], delta, accountant), epsilon)


def count_mechanism(epsilon: float, delta: float, accountant: Accountant) -> Mechanism:
    """For the counts of patients at admission: needed before anything else is known. Raises PrivacyError."""
    return Mechanism(noise_for(epsilon, delta, accountant) / math.sqrt(COUNT_SHARE))


@lru_cache(maxsize=64)
def calibrate(
    *,
    epsilon: float,
    delta: float,
    accountant: Accountant,
    clip: float,
    patients: int,
    batch_size: int,
    rounds: int,
    steps_a_round: int,
    public_counts: bool,
) -> PrivacyPlan:
    """The plan whose releases, all together, are (``epsilon``, ``delta``)-private.

    ``patients`` is the public number of training patients (declared, or noised once); ``batch_size`` the expected
    number of them in a step. Raises PrivacyError naming key, value and rule.
    """
    check_budget(epsilon, delta)
    _check_patients(patients, delta, batch_size)
    alone = noise_for(epsilon, delta, accountant)
    count = None if public_counts else Mechanism(alone / math.sqrt(COUNT_SHARE))
    statistics, validation = (Mechanism(alone / math.sqrt(share)) for share in (STATISTICS_SHARE, VALIDATION_SHARE))
    others = (*filter(None, (count,)), statistics, validation)
    rate, steps = batch_size / patients, rounds * steps_a_round

    def epsilon_at(noise: float) -> float:
        return epsilon_of((*others, Mechanism(noise, rate, steps)), delta, accountant)

    return PrivacyPlan(
        epsilon=epsilon,
        delta=delta,
        accountant=accountant,
        clip=clip,
        count=count,
        statistics=statistics,
        validation=validation,
        training=Mechanism(_least_noise(epsilon_at, epsilon), rate, steps),
        steps_a_round=steps_a_round,
    )


def check_budget(epsilon: float, delta: float) -> None:
    """Raises PrivacyError unless both can be a guarantee."""
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise PrivacyError(f"privacy.epsilon = {epsilon:g}: must be a number above 0")
    if not 0 < delta < 1:
        raise PrivacyError(f"privacy.delta = {delta:g}: must be between 0 and 1")


def _check_patients(patients: int, delta: float, batch_size: int) -> None:
    if patients < LEAST_PATIENTS:
        raise PrivacyError(f"a site with fewer than {LEAST_PATIENTS} training patients cannot train with privacy")
    if delta > 1 / patients:
        raise PrivacyError(f"privacy.delta = {delta:g}: must be at most 1/n, n the site's training patients")
    if batch_size > patients:
        raise PrivacyError(f"batch-size = {batch_size}: larger than the site's number of training patients")


def _least_noise(epsilon_at: Callable[[float], float], epsilon: float) -> float:
    """A noise multiplier at which ``epsilon_at`` is at most ``epsilon`` and hardly less, by secants between logarithms
    within bounds that close in: few steps, as each may take a third of a second. Raises PrivacyError where none is."""
    low, high, noise, before = 0.0, math.inf, 1.0, (1.0, math.nan)
    while _LEAST_NOISE < noise < _MOST_NOISE:
        found = epsilon_at(noise)
        if epsilon * (1 - _TOLERANCE) <= found <= epsilon:
            return noise
        low, high = (low, noise) if found <= epsilon else (noise, high)
        if high - low < 1e-9 * high:
            return high
        slope = -1.0
        if 0 < found < math.inf and 0 < before[1] < math.inf and noise != before[0]:
            slope = min(math.log(found / before[1]) / math.log(noise / before[0]), -0.3)
        aim = epsilon * (1 - _TOLERANCE / 2) / found if 0 < found < math.inf else (0.1 if found else 10.0)
        before, guess = (noise, found), noise * aim ** (1 / slope)
        ends = max(low, high / 8 if high < math.inf else 0.0), min(high, 8 * low if low else math.inf)
        noise = guess if ends[0] < guess < ends[1] else math.sqrt(max(ends[0], noise / 8) * min(ends[1], noise * 8))
    raise PrivacyError("privacy.epsilon: so small, or so large, that no noise is right")
