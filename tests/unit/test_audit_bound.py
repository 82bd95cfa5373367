"""The bound of a one-run audit: cases that a hand can compute, and that it is right 95 times of 100."""

import math

import numpy as np
import pytest

from shared_model.privacy import Mechanism, epsilon_of
from simulations.audit_bound import audit, least_epsilon, middle_of, p_value

DELTA = 1e-5


def binomial(trials: int, probability: float) -> list[float]:
    return [math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k) for k in range(trials + 1)]


@pytest.mark.parametrize("guesses", [1, 10, 100, 1000])
def test_all_right_without_delta_refutes_every_epsilon_at_which_that_is_luck(guesses: int) -> None:
    """q^r = 0.05, so epsilon = log(q / (1 - q))."""
    found = least_epsilon(canaries=1000, guesses=guesses, right=guesses, delta=0.0)
    q = 0.05 ** (1 / guesses)
    assert found == pytest.approx(max(math.log(q / (1 - q)), 0.0), abs=1e-3)


@pytest.mark.parametrize("right", [0, 1, 50, 57])
def test_what_a_coin_would_guess_refutes_nothing(right: int) -> None:
    assert least_epsilon(canaries=100, guesses=100, right=right, delta=0.0) == 0.0


def test_the_part_of_delta_is_the_theorems() -> None:
    """m = r = v = 1: q + 2 delta (1 - q). And for v = 3 of r = 4, m = 9, the maximum over i written out."""
    q = 1 / (1 + math.exp(-0.7))
    assert p_value(canaries=1, guesses=1, right=1, epsilon=0.7, delta=0.1) == pytest.approx(q + 0.2 * (1 - q))
    w = binomial(4, q)
    most = max(w[2], (w[2] + w[1]) / 2, (w[2] + w[1] + w[0]) / 3)
    found = p_value(canaries=9, guesses=4, right=3, epsilon=0.7, delta=0.001)
    assert found == pytest.approx(w[3] + w[4] + 2 * 9 * 0.001 * most)
    assert p_value(canaries=9, guesses=4, right=0, epsilon=0.7, delta=0.5) == 1.0


def test_a_larger_delta_refutes_less() -> None:
    found = [least_epsilon(canaries=500, guesses=100, right=95, delta=delta) for delta in (0.0, 1e-5, 1e-4, 1e-3)]
    assert found == sorted(found, reverse=True) and found[0] > found[-1] + 0.05


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("guesses", [20, 200])
def test_randomised_response_is_wronged_in_five_of_a_hundred_at_most(epsilon: float, guesses: int) -> None:
    """Exactly: the guesses right about epsilon-private randomised response are binomial, and the bound knows it."""
    chance_K = binomial(guesses, 1 / (1 + math.exp(-epsilon)))
    bound_K = [least_epsilon(canaries=guesses, guesses=guesses, right=k, delta=0.0) for k in range(guesses + 1)]
    wronged = math.fsum(p for p, bound in zip(chance_K, bound_K, strict=True) if bound > epsilon + 1e-3)
    assert wronged <= 0.05
    assert bound_K == sorted(bound_K)


@pytest.mark.parametrize("noise", [1.0, 4.0])
def test_the_gaussian_mechanism_is_not_wronged_and_a_noiseless_one_is_seen(noise: float) -> None:
    """Every canary a mechanism of its own, known epsilon; seeded, so that the count is the same every time."""
    rng, claimed = np.random.default_rng(0), epsilon_of([Mechanism(noise)], DELTA)
    bounds = []
    for _ in range(60):
        included_M = rng.random(300) < 0.5
        score_M = included_M + noise * rng.normal(size=300)
        bounds.append(audit(score_M, included_M, delta=DELTA).epsilon)
    assert np.mean(np.array(bounds) > claimed) <= 0.05
    assert noise > 1 or np.mean(bounds) > 0.25  # it is no empty bound
    included_M = rng.random(300) < 0.5
    found = audit(included_M + 1e-3 * rng.normal(size=300), included_M, delta=DELTA)
    assert (found.right, found.epsilon) == (300, found.most) and found.epsilon > 4


def test_scores_that_know_nothing_bound_nothing() -> None:
    rng = np.random.default_rng(1)
    bounds = [audit(rng.normal(size=200), rng.random(200) < 0.5, delta=DELTA).epsilon for _ in range(40)]
    assert np.mean(np.array(bounds) > 0) <= 0.1


def test_the_middle_lies_between_two_clouds_of_any_share() -> None:
    assert 0.2 < middle_of(np.array([0.0] * 40 + [1.0] * 60)) < 0.8
    assert middle_of(np.array([3.0, 1.0])) == 2.0
