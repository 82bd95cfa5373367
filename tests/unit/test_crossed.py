"""Averages over seeds: what they are of, and that their intervals know of both patients and seeds."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from shared_model.metrics import evaluate_scores, ranking
from simulations.crossed import Crossed, HeldOut, mean_of

N = 400


def held_out(seed: int, *, signal: float = 1.0, patients: range = range(N)) -> HeldOut:
    """Stays with a risk that ``signal`` of the score follows; unit B has no deaths."""
    rng = np.random.default_rng(seed)
    unit_N = np.where(np.arange(len(patients)) % 4 == 0, "B", "A")
    label_N = (rng.random(len(patients)) < 0.3) & (unit_N == "A")
    score_N = signal * label_N + rng.normal(size=len(patients))
    scores = {"good": score_N, "same": score_N.copy(), "coin": rng.normal(size=len(patients))}
    return HeldOut(np.array(patients), label_N, unit_N, scores)


def width(crossed: Crossed, model: str) -> float:
    found = crossed.averages(model)["auroc"].estimate()
    assert found.low is not None and found.high is not None
    return found.high - found.low


def test_weights_count_a_stay_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    score_N, label_N = rng.integers(0, 9, 60) / 9, rng.random(60) < 0.4
    weight_RN = rng.integers(0, 4, (3, 60)).astype(float)
    auroc_R, auprc_R = ranking(score_N, label_N, weight_RN)
    for r, weight_N in enumerate(weight_RN):
        assert auroc_R[r] == pytest.approx(roc_auc_score(label_N, score_N, sample_weight=weight_N))
        assert auprc_R[r] == pytest.approx(average_precision_score(label_N, score_N, sample_weight=weight_N))


def test_one_seed_gives_the_interval_over_patients() -> None:
    held = held_out(1)
    known = evaluate_scores(held.scores["good"], held.label_N, held.patient_N, threshold=0.5, resamples=1000, seed=3)[
        "auroc"
    ]
    found = Crossed([held], resamples=1000, seed=4).averages("good")["auroc"].estimate()
    assert found.value == pytest.approx(known.value)
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=0.01)


def test_the_mean_is_over_the_seeds_and_its_interval_over_patients_and_seeds() -> None:
    alike = [held_out(seed, patients=range(N * seed, N * seed + N)) for seed in (1, 2, 3, 4)]
    unlike = [held_out(s, signal=3.0 * (s % 2), patients=range(N * s, N * s + N)) for s in (1, 2, 3, 4)]
    each = [roc_auc_score(held.label_N, held.scores["good"]) for held in alike]
    crossed = Crossed(alike, resamples=300, seed=0)
    assert crossed.averages("good")["auroc"].value == pytest.approx(np.mean(each))
    alone = width(Crossed(alike[:1], resamples=300, seed=0), "good")
    assert width(crossed, "good") < alone, "more patients say more"
    assert width(Crossed(unlike, resamples=300, seed=0), "good") > 2 * alone, "seeds that disagree say less"


def test_the_same_patients_under_other_seeds_say_nothing_new() -> None:
    held = held_out(1)
    once, four_times = (width(Crossed([held] * many, resamples=400, seed=0), "good") for many in (1, 4))
    assert four_times == pytest.approx(once, rel=0.15)


def test_models_meet_the_same_resamples() -> None:
    crossed = Crossed([held_out(1), held_out(2)], resamples=200, seed=0)
    good, same, coin = (crossed.averages(model)["auroc"] for model in ("good", "same", "coin"))
    assert (good - same).estimate().model_dump() == {"value": 0.0, "low": 0.0, "high": 0.0}
    gain = (good - coin).estimate()
    assert gain.low is not None and gain.low > 0
    assert mean_of([good, coin]).value == pytest.approx((good.value + coin.value) / 2)


def test_a_unit_without_deaths_has_no_auroc() -> None:
    crossed = Crossed([held_out(1), held_out(2)], resamples=50, seed=0)
    assert crossed.averages("good", "B")["auroc"].estimate().value is None
    assert crossed.averages("good", "nowhere")["auroc"].estimate().value is None
    inside = crossed.averages("good", "A")["auroc"].estimate()
    assert inside.value is not None and inside.low is not None
