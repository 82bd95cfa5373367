"""Metrics agree with scikit-learn, and intervals are over patients."""

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from shared_model.mergeable import SCORE_BINS, Validation, merge_validations
from shared_model.metrics import (
    METRICS,
    Interval,
    auroc,
    evaluate_counts,
    evaluate_scores,
    precision_recall_curve,
    roc_curve,
)

Held = tuple[NDArray[np.float64], NDArray[np.bool_]]


def _held(seed: int, count: int, *, decimals: int | None) -> Held:
    """Scores that follow the labels; few decimals make many ties."""
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.3
    scores = np.clip(rng.beta(2, 4, count) + 0.15 * labels, 0.01, 0.99)
    return (scores if decimals is None else scores.round(decimals)), labels


HELD = [_held(seed, 300, decimals=decimals) for seed, decimals in ((0, None), (1, 1), (2, 2))]
CALIBRATION = ("calibration_intercept", "calibration_slope")
HELD.append((np.full(30, 0.5), np.arange(30) % 3 == 0))  # one score for everybody


def _points(held: Held, threshold: float = 0.3) -> dict[str, float | None]:
    scores, labels = held
    found = evaluate_scores(scores, labels, np.arange(len(scores)), threshold=threshold, resamples=0, seed=0)
    assert all(interval.low is None and interval.high is None for interval in found.values())
    return {name: interval.value for name, interval in found.items()}


def _oracle(held: Held, threshold: float) -> dict[str, float]:
    """scikit-learn's figures, where both classes are there."""
    scores, labels = held
    called = scores >= threshold
    return {
        "auroc": oracle.roc_auc_score(labels, scores),
        "auprc": oracle.average_precision_score(labels, scores),
        "brier": oracle.brier_score_loss(labels, scores),
        "log_loss": oracle.log_loss(labels, scores),
        "accuracy": oracle.accuracy_score(labels, called),
        "sensitivity": oracle.recall_score(labels, called),
        "specificity": oracle.recall_score(~labels, ~called),
        "f1": oracle.f1_score(labels, called, zero_division=0),
    }


@pytest.mark.parametrize("held", HELD, ids=["distinct", "many ties", "some ties", "one score"])
@pytest.mark.parametrize("threshold", [0.3, 0.5])  # scores are equal to both, so >= and > differ
def test_every_metric_is_scikit_learns(held: Held, threshold: float) -> None:
    scores, labels = held
    expected, found = _oracle(held, threshold), _points(held, threshold)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert {*expected, *CALIBRATION} == set(found) == set(METRICS)
    assert auroc(scores, labels) == pytest.approx(expected["auroc"], abs=1e-12)


@pytest.mark.parametrize("held", HELD, ids=["distinct", "many ties", "some ties", "one score"])
def test_curves_are_scikit_learns_at_every_distinct_threshold(held: Held) -> None:
    scores, labels = held
    x, y, _ = oracle.roc_curve(labels, scores, drop_intermediate=False)
    found_x, found_y = roc_curve(scores, labels)
    np.testing.assert_allclose((found_x, found_y), (x, y), atol=1e-12)

    precision, recall, _ = oracle.precision_recall_curve(labels, scores)
    found_recall, found_precision = precision_recall_curve(scores, labels)
    np.testing.assert_allclose(found_recall, recall[:-1][::-1], atol=1e-12)  # without scikit-learn's added (0, 1)
    np.testing.assert_allclose(found_precision, precision[:-1][::-1], atol=1e-12)


@pytest.mark.parametrize("held", HELD[:3], ids=["distinct", "many ties", "some ties"])
def test_calibration_is_scikit_learns_unpenalised_regression_on_the_log_odds(held: Held) -> None:
    scores, labels = held
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    odds = np.log(clipped / (1 - clipped))[:, None]
    line = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(odds, labels)
    found = _points(held)
    assert found["calibration_intercept"] == pytest.approx(line.intercept_[0], abs=1e-5)
    assert found["calibration_slope"] == pytest.approx(line.coef_[0, 0], abs=1e-5)


def test_right_risks_have_intercept_0_and_slope_1() -> None:
    risks = np.random.default_rng(4).beta(2, 5, 40_000)
    found = _points((risks, np.random.default_rng(5).random(40_000) < risks))
    assert found["calibration_intercept"] == pytest.approx(0, abs=0.05)
    assert found["calibration_slope"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "held",
    [HELD[3], (np.linspace(0.1, 0.9, 20), np.arange(20) >= 10), (np.linspace(0.1, 0.9, 20), np.zeros(20, dtype=bool))],
    ids=["one score", "separated", "one class"],
)
def test_calibration_is_not_defined_where_no_line_fits_best(held: Held) -> None:
    found = _points(held)
    assert [found[name] for name in CALIBRATION] == [None, None]


@st.composite
def _scored(draw: st.DrawFn) -> Held:
    """Scores of the middles of bins, and labels of both classes."""
    count = draw(st.integers(2, 60))
    bins = draw(npst.arrays(np.int64, count, elements=st.integers(0, SCORE_BINS - 1)))
    labels = draw(npst.arrays(np.bool_, count))
    labels[:2] = True, False
    return (bins + 0.5) / SCORE_BINS, labels


@given(_scored(), st.integers(1, 5), st.integers(0, SCORE_BINS))
def test_histograms_of_any_split_give_scikit_learns_metrics_of_the_binned_scores(
    held: Held, sites: int, edge: int
) -> None:
    scores, labels = held
    merged = merge_validations([Validation.of(scores[k::sites], labels[k::sites], loss_sum=0.0) for k in range(sites)])
    found = evaluate_counts(*merged.cells, threshold=edge / SCORE_BINS, resamples=0, seed=0)
    expected = _oracle(held, edge / SCORE_BINS)
    assert {name: found[name].value for name in expected} == pytest.approx(expected, abs=1e-9)
    assert found["auroc"].value == pytest.approx(merged.auroc, abs=1e-12)
    assert (merged.count, merged.deaths) == (len(labels), labels.sum())


def test_intervals_of_a_histogram_are_those_of_its_patients() -> None:
    scores, labels = HELD[2]
    middles = (np.floor(scores * SCORE_BINS) + 0.5) / SCORE_BINS
    settings = {"threshold": 0.4, "resamples": 2000, "seed": 0}
    cells = Validation.of(middles, labels, loss_sum=0.0).cells
    one_by_one = evaluate_scores(middles, labels, np.arange(len(labels)), **settings)
    for name, found in evaluate_counts(*cells, **settings).items():
        expected = one_by_one[name]
        assert found.value == pytest.approx(expected.value, abs=1e-6), name
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.12 * _width(expected)), (
            name
        )


def _width(interval: Interval) -> float:
    assert interval.low is not None and interval.high is not None
    return interval.high - interval.low


def test_nobody_scored_has_no_metrics() -> None:
    found = evaluate_counts(*Validation().cells, threshold=0.5, resamples=50, seed=0)
    assert found == dict.fromkeys(METRICS, Interval(None))


def test_metrics_do_not_depend_on_the_order_of_patients() -> None:
    scores, labels = HELD[1]
    order = np.random.default_rng(3).permutation(len(scores))
    assert _points((scores[order], labels[order])) == pytest.approx(_points((scores, labels)), abs=1e-12)


def test_with_survivors_only_what_needs_deaths_is_not_defined() -> None:
    scores, labels = np.array([0.1, 0.2, 0.6]), np.zeros(3, dtype=bool)
    found = _points((scores, labels), threshold=0.5)
    assert [name for name, value in found.items() if value is None] == ["auroc", "auprc", "sensitivity", *CALIBRATION]
    assert found["accuracy"] == found["specificity"] == pytest.approx(2 / 3)
    assert auroc(scores, labels) is None


def test_with_deaths_only_what_needs_survivors_is_not_defined() -> None:
    scores, labels = np.array([0.1, 0.2, 0.6]), np.ones(3, dtype=bool)
    found = _points((scores, labels), threshold=0.5)
    assert [name for name, value in found.items() if value is None] == ["auroc", "specificity", *CALIBRATION]
    assert found["auprc"] == 1.0
    assert auroc(scores, labels) is None


def test_an_undefined_metric_has_no_interval_and_no_warning() -> None:
    found = evaluate_scores(
        np.array([0.1, 0.2, 0.6]), np.zeros(3, dtype=bool), np.arange(3), threshold=0.5, resamples=50, seed=0
    )
    assert found["auroc"] == found["auprc"] == found["sensitivity"] == Interval(None)


def test_log_loss_is_finite_for_a_certain_and_wrong_score() -> None:
    found = _points((np.array([0.0, 1.0]), np.array([True, False])))
    assert found["log_loss"] == pytest.approx(-np.log(1e-7))


def test_the_interval_contains_the_point_for_ordinary_data() -> None:
    scores, labels = _held(5, 600, decimals=None)
    found = evaluate_scores(scores, labels, np.arange(600), threshold=0.4, resamples=400, seed=0)
    for name, interval in found.items():
        assert interval.low < interval.value < interval.high, name
        assert interval.high - interval.low < (0.8 if name in CALIBRATION else 0.2), name


def test_the_interval_of_a_proportion_is_as_wide_as_the_binomial_one() -> None:
    scores, labels = _held(6, 800, decimals=None)
    found = evaluate_scores(scores, labels, np.arange(800), threshold=0.4, resamples=1000, seed=0)["accuracy"]
    expected = 2 * 1.96 * np.sqrt(found.value * (1 - found.value) / 800)
    assert found.high - found.low == pytest.approx(expected, rel=0.15)


def test_duplicate_stays_of_a_patient_do_not_shrink_the_interval() -> None:
    """Resampling stays instead of patients would shrink it five times."""
    scores, labels = _held(7, 120, decimals=None)
    patient = np.arange(120)
    once = evaluate_scores(scores, labels, patient, threshold=0.4, resamples=300, seed=1)
    many = evaluate_scores(
        *(np.repeat(values, 25) for values in (scores, labels, patient)), threshold=0.4, resamples=300, seed=1
    )
    for name in METRICS:
        assert many[name].value == pytest.approx(once[name].value), name
        assert many[name].high - many[name].low == pytest.approx(once[name].high - once[name].low, rel=1e-6), name


def test_one_patient_among_many_stays_weighs_as_one_patient() -> None:
    """Half of the stays belong to one patient: in about a third of the resamples that patient is absent."""
    scores = np.concatenate([np.linspace(0.1, 0.4, 40), np.full(40, 0.9)])
    labels, patient = np.zeros(80, dtype=bool), np.concatenate([np.arange(40), np.full(40, 99)])
    found = evaluate_scores(scores, labels, patient, threshold=0.5, resamples=500, seed=0)["accuracy"]
    assert found.value == 0.5
    assert found.high == 1.0  # everybody else is called right


@pytest.mark.parametrize("resamples", [1, 99, 100, 101, 250])
def test_the_interval_follows_from_the_seed(resamples: int) -> None:
    scores, labels = _held(8, 200, decimals=None)

    def found(seed: int) -> dict[str, Interval]:
        return evaluate_scores(scores, labels, np.arange(200), threshold=0.4, resamples=resamples, seed=seed)

    assert found(1) == found(1)
    assert found(1)["auroc"] != found(2)["auroc"]
    assert found(1)["auroc"].value == found(2)["auroc"].value


def test_two_patients_in_a_few_resamples_give_an_interval_or_none_but_never_nan() -> None:
    """A resample may hold one class only; when all of them do, there is nothing to take a percentile of."""
    for seed in range(8):
        found = evaluate_scores(
            np.array([0.2, 0.8]), np.array([False, True]), np.arange(2), threshold=0.5, resamples=1, seed=seed
        )["auroc"]
        assert found.value == 1.0
        assert found.low in (None, 1.0) and found.high in (None, 1.0)
