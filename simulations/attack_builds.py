"""Builds for the audit: training as it is, and training that was broken on purpose, to see that the audit sees it.

Only the audit makes them (simulations/attack.py, and tests): a build is a plan handed to the unchanged training, and no
run-config key, site setting or message leads here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from shared_model.privacy import PrivacyPlan, epsilon_of

RIGHT = "right"
_NO_NOISE = 1e-6  # as a multiplier; small enough to hide nothing, and no special case for the training

Calibrated = Callable[[int], PrivacyPlan]  # rounds -> the plan of a run that long


@dataclass(frozen=True, kw_only=True)
class Build:
    """``plan`` is what trains, round after round; ``claimed`` the epsilon that the ledger would tell of the run."""

    title: str
    plan: PrivacyPlan
    claimed: float


def right(calibrated: Calibrated, rounds: int) -> Build:
    """Noise for all rounds."""
    plan = calibrated(rounds)
    return Build(title="as it is", plan=plan, claimed=_told(plan))


def no_noise(calibrated: Calibrated, rounds: int) -> Build:
    """Clipped and accounted for, but the noise is forgotten."""
    plan = calibrated(rounds)
    silent = replace(plan.training, noise_multiplier=_NO_NOISE)
    return Build(title="broken: no noise", plan=replace(plan, training=silent), claimed=_told(plan))


def reset_accountant(calibrated: Calibrated, rounds: int) -> Build:
    """The accountant forgets what it has counted when a round ends: the noise of one round, and one round's epsilon."""
    plan = calibrated(1)
    return Build(title="broken: accountant reset each round", plan=plan, claimed=_told(plan))


BUILDS: dict[str, Callable[[Calibrated, int], Build]] = {
    RIGHT: right,
    "no-noise": no_noise,
    "reset-accountant": reset_accountant,
}


def _told(plan: PrivacyPlan) -> float:
    return epsilon_of(plan.mechanisms, plan.delta, plan.accountant)
