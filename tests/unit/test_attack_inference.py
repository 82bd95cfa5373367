"""Membership inference: the two attacks and their scores, against cases that a hand can compute, and on real models."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import patients, tiny_config, write_store
from federation import STUDY, WINDOWS

from shared_model.batch import open_store
from simulations.attack_jobs import ShadowJob, plan_for, privacy_for, stays_of, train_shadow
from simulations.inference import (
    confidence,
    halves,
    likelihood_ratio,
    most_true_positives,
    score_attack,
    true_positives,
)


def test_confidence_is_the_log_odds_of_what_happened_averaged_over_a_patients_stays() -> None:
    data = patients(3, windows=2)
    data = data.subset(torch.tensor([2, 0, 1, 0]))
    risk_N = np.where(data.label_N.numpy(), 0.8, 0.2)
    risk_N[3] = 1 - risk_N[3]
    found = confidence(risk_N, data)
    np.testing.assert_allclose(found, [0.0, np.log(4), np.log(4)], atol=1e-12)
    assert np.isfinite(confidence(np.array([0.0, 1.0, 0.0, 1.0]), data)).all()


def test_each_patient_is_in_half_of_the_shadows_and_half_are_members() -> None:
    member_P, inside_KP = halves(101, 8, np.random.default_rng(0))
    assert member_P.sum() == 50 and (inside_KP.sum(axis=0) == 4).all()
    assert not np.array_equal(inside_KP, halves(101, 8, np.random.default_rng(1))[1])


def test_the_likelihood_ratio_is_that_of_two_normals() -> None:
    inside_KP = np.array([[True], [True], [False], [False]])
    shadow_KP = np.array([[2.0], [4.0], [0.0], [1.0]])  # means 3 and 0.5, variances 2 and 0.5
    found = likelihood_ratio(np.array([2.5]), shadow_KP, inside_KP)
    expected = (-(0.5**2) / 4 - 0.5 * np.log(2)) - (-(2.0**2) / 1 - 0.5 * np.log(0.5))
    np.testing.assert_allclose(found, [expected])


def test_shadows_find_members_that_no_threshold_on_the_loss_can() -> None:
    """Each patient's confidence has a level of its own, far wider than what membership adds."""
    rng = np.random.default_rng(2)
    member_P, inside_KP = halves(600, 16, rng)
    level_P = rng.normal(scale=10, size=600)
    target_P = level_P + member_P + rng.normal(scale=0.5, size=600)
    shadow_KP = level_P + inside_KP + rng.normal(scale=0.5, size=(16, 600))
    loss = score_attack(target_P, member_P, resamples=50, seed=0)
    ratio = score_attack(likelihood_ratio(target_P, shadow_KP, inside_KP), member_P, resamples=50, seed=0)
    assert loss.auroc.low is not None and loss.auroc.low < 0.55
    assert ratio.auroc.low is not None and ratio.auroc.low > 0.85
    assert ratio.tpr.low is not None and ratio.tpr.low > 0.1


def test_true_positives_at_one_percent() -> None:
    member_P = np.array([True] * 100 + [False] * 200)
    score_P = np.concatenate([np.linspace(0, 1, 100), np.full(200, -1.0)])
    score_P[100:103] = [0.995, 0.505, 0.2]  # two of 200 may be above
    weights = np.stack([np.ones(300), np.r_[np.ones(100), 2.0, np.ones(199)]])
    found = true_positives(score_P, member_P, weights)
    assert found[0] == pytest.approx((score_P[:100] > 0.2).mean())
    assert found[1] == pytest.approx((score_P[:100] > 0.505).mean())  # the highest counts twice: it fills the 1 %
    assert true_positives(np.zeros(300), member_P, weights)[0] == 0.0  # one score for all parts nobody


def test_what_epsilon_allows_bounds_what_an_attack_finds() -> None:
    assert most_true_positives(None, 1e-5) == 1.0
    assert most_true_positives(1.0, 0.0) == pytest.approx(0.01 * np.e)
    assert most_true_positives(8.0, 0.0) == pytest.approx(1 - 0.99 * np.exp(-8))


def test_a_model_that_knows_its_patients_by_heart_betrays_them_and_a_private_one_does_not(
    tmp_path: Path,
) -> None:
    """Labels are coins, so all that a model knows of them is memory."""
    data = patients(240, windows=WINDOWS, notes=0)
    labels = torch.from_numpy(np.random.default_rng(5).random(240) < 0.4)
    config = tiny_config(
        **STUDY, rounds=12, local_epochs=2, learning_rate=0.02, schedule="constant", static_hidden=32,
        privacy_accountant="rdp", weight_decay=0.0,
    )  # fmt: skip
    store = write_store(tmp_path / "store", data.__class__(**{**vars(data), "label_N": labels}), study=config.study)
    member_P = halves(240, 4, np.random.default_rng(0))[0]
    held = open_store(store)
    plan = plan_for(held.subset(stays_of(held, member_P)), config)
    found = {}
    for name, privacy in (("open", None), ("private", privacy_for(config, 120, 1.0))):
        shadow = train_shadow(
            ShadowJob(store=store, config=config, plan=plan, inside_P=member_P, privacy=privacy, number=0)
        )
        found[name] = score_attack(shadow.confidence_P, member_P, resamples=0, seed=0).auroc.value or 0.0
        assert shadow.auroc is not None
    assert found["open"] > 0.8 and abs(found["private"] - 0.5) < 0.2
