"""The audit of the real private training: it lets the right build pass, and catches builds that were broken on purpose.

Noise and coins are the operating system's, so every run is another one. Margins, from 10,000 simulated audits of 300
canaries: with all of the noise the distance of the two clouds is at most 0.22 standard deviations, and the bound passes
1.0 in 2 of 10,000; with one round's noise over 120 rounds it is 1.8, and the bound's mean is 2.3 with a standard
deviation of 0.3, the least 1.46. Without noise no guess is wrong.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import model_sizes, patients, tiny_config, tiny_plan

from shared_model.privacy import PrivacyPlan, calibrate, epsilon_of
from simulations.attack_builds import BUILDS
from simulations.audit_bound import Bound, audit
from simulations.canaries import CLIP, Canaries

REAL, CANARIES, ROUNDS, DELTA = 20, 300, 120, 1e-5
PATIENTS = REAL + CANARIES // 2


def calibrated(rounds: int) -> PrivacyPlan:
    return calibrate(
        epsilon=1.0,
        delta=DELTA,
        accountant="rdp",
        clip=CLIP,
        patients=PATIENTS,
        batch_size=PATIENTS,
        rounds=rounds,
        steps_a_round=1,
        public_counts=True,
    )


def canaries(count: int = CANARIES) -> Canaries:
    base, config = patients(REAL, windows=1, notes=0), tiny_config(batch_size=PATIENTS, static_hidden=6)
    return Canaries.among(base, tiny_plan(), config, count=count, seed=1)


def found(build: str, rounds: int) -> tuple[float, Bound]:
    """The epsilon that the build claims, and the bound."""
    made = BUILDS[build](calibrated, rounds)
    seen = canaries().observe(made.plan, rounds, np.random.default_rng())
    return made.claimed, audit(seen.score_M, seen.included_M, delta=DELTA)


def test_the_right_build_keeps_its_claim() -> None:
    claimed, bound = found("right", ROUNDS)
    assert 0.99 < claimed <= 1.0 and bound.epsilon <= claimed < bound.most


def test_an_accountant_that_forgets_is_caught() -> None:
    claimed, bound = found("reset-accountant", ROUNDS)
    assert 0.99 < claimed <= 1.0 and bound.epsilon > claimed


def test_missing_noise_is_caught() -> None:
    claimed, bound = found("no-noise", 3)
    assert 0.99 < claimed <= 1.0 and bound.epsilon == bound.most > 3.5 and bound.right == bound.guesses


def test_a_broken_build_differs_from_the_right_one_in_nothing_but_its_noise() -> None:
    right, silent, reset = (make(calibrated, 9).plan for make in BUILDS.values())
    assert silent == replace(right, training=silent.training) and silent.training.noise_multiplier < 1e-5
    assert (silent.training.sample_rate, silent.training.steps) == (right.training.sample_rate, 9)
    assert reset == calibrated(1)
    whole = [*reset.mechanisms[:-2], replace(reset.training, steps=9), reset.validation]
    assert epsilon_of(whole, DELTA) > 2  # what it spends, had anybody counted


def test_a_canarys_gradient_falls_on_its_own_weights_and_is_clipped() -> None:
    made = canaries(100)
    seen = made.observe(calibrated(1), 1, np.random.default_rng(0))
    assert seen.share > 0.9 and seen.norm > 10 * CLIP
    assert len(seen.score_M) == 100 and 20 < seen.included_M.sum() < 80


def test_without_noise_only_the_canaries_that_are_in_move_their_weights() -> None:
    made, silent = canaries(100), BUILDS["no-noise"](calibrated, 1).plan
    noiseless = replace(silent, training=replace(silent.training, noise_multiplier=0.0))
    seen = made.observe(noiseless, 1, np.random.default_rng(0))
    assert (seen.score_M[seen.included_M] > 0.5).all() and (seen.score_M[~seen.included_M] == 0).all()


def test_the_model_of_an_audit_is_wider_by_one_input_a_canary_and_real_patients_have_none_of_it() -> None:
    made = canaries(100)
    plain = model_sizes(made.config)
    assert made.model.static.layers[0].weight.shape[1] == 2 * (plain.static_features + 100)
    batch = made.data.batch(torch.arange(REAL + 100), made.scaler)
    own_NM = batch.static_mask_BF[:, made.first :]
    assert not own_NM[:REAL].any() and torch.equal(own_NM[REAL:], torch.eye(100))
    assert not batch.static_mask_BF[REAL:, : made.first].any() and not batch.series_mask_BTC[REAL:].any()
    assert made.data.patients == REAL + 100


@pytest.mark.slow
def test_the_right_build_keeps_its_claim_under_poisson_sampling() -> None:
    """Half of the patients a step, and a bound that is no empty one: epsilon 8 in 30 rounds."""
    plan = calibrate(
        epsilon=8.0, delta=DELTA, accountant="rdp", clip=CLIP, patients=PATIENTS, batch_size=PATIENTS // 2, rounds=30,
        steps_a_round=2, public_counts=True,
    )  # fmt: skip
    made = canaries()
    made = replace(made, config=made.config.model_copy(update={"batch_size": PATIENTS // 2}))
    seen = made.observe(plan, 30, np.random.default_rng())
    bound = audit(seen.score_M, seen.included_M, delta=DELTA)
    assert 0.1 < bound.epsilon < 8.0
