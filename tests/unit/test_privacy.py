"""What mechanisms cost together: against a closed form, against each other, and that a plan stays within its budget."""

import math

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from shared_model.errors import PrivacyError
from shared_model.privacy import Accountant, Mechanism, PrivacyPlan, calibrate, count_mechanism, epsilon_of

DELTA = 1e-4
TRAINING = Mechanism(1.1, 0.05, 20)
RELEASES = (Mechanism(20.0), Mechanism(8.0), TRAINING)


def closed_form(noise: float, delta: float) -> float:
    """Epsilon of one Gaussian mechanism: Balle & Wang 2018 (arXiv 1805.06530), theorem 8."""

    def excess(epsilon: float) -> float:
        low, high = 0.5 / noise - epsilon * noise, -0.5 / noise - epsilon * noise
        return float(norm.cdf(low) - math.exp(epsilon + norm.logcdf(high)) - delta)

    return float(brentq(excess, 0.0, 100.0))


def planned(**changes: object) -> PrivacyPlan:
    settings = {
        "epsilon": 3.0,
        "delta": DELTA,
        "accountant": "rdp",
        "clip": 1.0,
        "patients": 2000,
        "batch_size": 64,
        "rounds": 10,
        "steps_a_round": 20,
        "public_counts": False,
    }
    return calibrate(**(settings | changes))


@pytest.mark.parametrize("noise", [0.8, 2.0, 10.0])
def test_one_gaussian_mechanism_costs_what_the_closed_form_says(noise: float) -> None:
    exact = closed_form(noise, DELTA)
    prv, rdp = (epsilon_of([Mechanism(noise)], DELTA, accountant) for accountant in ("prv", "rdp"))
    assert exact <= prv + 1e-6 and prv == pytest.approx(exact, rel=0.02, abs=0.011)  # PRV's own error is 0.01
    assert exact <= rdp <= 1.4 * exact + 0.02


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
@pytest.mark.parametrize(
    "more",
    [
        (Mechanism(20.0), Mechanism(7.0), TRAINING),
        (Mechanism(20.0), Mechanism(8.0), Mechanism(1.0, 0.05, 20)),
        (Mechanism(20.0), Mechanism(8.0), Mechanism(1.1, 0.06, 20)),
        (Mechanism(20.0), Mechanism(8.0), Mechanism(1.1, 0.05, 30)),
        (*RELEASES, Mechanism(8.0)),
    ],
)
def test_less_noise_more_patients_more_steps_or_another_release_cost_more(
    accountant: Accountant, more: tuple[Mechanism, ...]
) -> None:
    assert epsilon_of(RELEASES, DELTA, accountant) < epsilon_of(more, DELTA, accountant)
    assert epsilon_of(more, DELTA, accountant) < epsilon_of(more, DELTA / 10, accountant)


@pytest.mark.parametrize("releases", [RELEASES, (TRAINING,), (Mechanism(5.0, steps=3),)])
def test_rdp_is_never_below_prv(releases: tuple[Mechanism, ...]) -> None:
    rdp, prv = epsilon_of(releases, DELTA, "rdp"), epsilon_of(releases, DELTA, "prv")
    assert prv - 0.02 <= rdp <= 1.5 * prv


SHORT = {"accountant": "prv", "rounds": 2, "steps_a_round": 5}  # a PRV calibration takes seconds
LONG = [{"accountant": "prv"} | more for more in ({}, {"epsilon": 8.0, "rounds": 40}, {"batch_size": 2000})]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"epsilon": 0.5, "public_counts": True},
        {"epsilon": 8.0, "rounds": 40},
        {"batch_size": 2000},
        SHORT,
        *[pytest.param(changes, marks=pytest.mark.slow) for changes in LONG],
    ],
)
def test_a_plan_spends_its_epsilon_and_no_more_and_its_rounds_add_up_to_it(changes: dict[str, object]) -> None:
    plan = planned(**changes)
    whole = epsilon_of(plan.mechanisms, plan.delta, plan.accountant)
    assert 0.98 * plan.epsilon <= whole <= plan.epsilon
    assert (plan.count is None) == bool(changes.get("public_counts"))
    rounds, steps = int(changes.get("rounds", 10)), int(changes.get("steps_a_round", 20))
    rate = int(changes.get("batch_size", 64)) / 2000
    assert plan.training == Mechanism(plan.training.noise_multiplier, rate, rounds * steps)
    parts = [plan.validation, *[plan.round] * rounds, *filter(None, [plan.count]), plan.statistics]
    assert epsilon_of(parts, plan.delta, plan.accountant) == pytest.approx(whole, rel=1e-9)
    assert epsilon_of(parts[:-2], plan.delta, plan.accountant) < whole


def test_the_counts_are_noised_before_the_plan_exists_and_as_it_says() -> None:
    assert count_mechanism(3.0, DELTA, "rdp") == planned().count


def test_nothing_costs_nothing_and_no_noise_costs_everything() -> None:
    assert epsilon_of([], DELTA) == epsilon_of([Mechanism(0.0, steps=0), Mechanism(0.0, sample_rate=0.0)], DELTA) == 0
    assert epsilon_of([*RELEASES, Mechanism(0.0)], DELTA) == math.inf


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"epsilon": 0.0}, r"privacy.epsilon = 0: must be a number above 0"),
        ({"epsilon": -1.0}, r"privacy.epsilon = -1"),
        ({"epsilon": math.nan}, r"privacy.epsilon = nan"),
        ({"epsilon": math.inf}, r"privacy.epsilon = inf"),
        ({"delta": 0.0}, r"privacy.delta = 0: must be between 0 and 1"),
        ({"delta": 1.0}, r"privacy.delta = 1"),
        ({"delta": math.nan}, r"privacy.delta = nan"),
        ({"delta": 1e-3}, r"privacy.delta = 0.001: must be at most 1/n"),
        ({"batch_size": 2001}, r"batch-size = 2001: larger than"),
        ({"patients": 5, "batch_size": 2}, r"fewer than 100 training patients"),
    ],
)
def test_what_cannot_be_a_guarantee_is_refused_with_its_key_and_rule(changes: dict[str, object], rule: str) -> None:
    with pytest.raises(PrivacyError, match=rule):
        planned(**changes)


@pytest.mark.parametrize("epsilon", [0.0, -2.0, math.nan])
def test_counts_have_no_noise_without_a_budget(epsilon: float) -> None:
    with pytest.raises(PrivacyError, match=r"privacy\.epsilon"):
        count_mechanism(epsilon, DELTA, "rdp")
