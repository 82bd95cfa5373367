"""The server's evaluation: subgroups of the held-out set, and the federation's validation from histograms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import patients
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from server.evaluation import evaluate_left_out, evaluate_predictions, evaluate_validation
from server.results import SubgroupEvaluation
from shared_model.batch import PatientData
from shared_model.mergeable import Validation, merge_validations
from shared_model.study import EARLY

NAN = float("nan")
SETTINGS = {"threshold": 0.4, "resamples": 100, "seed": 0}


def _held(ages: list[float], male: list[float]) -> PatientData:
    data = patients(len(ages))
    static_NF = data.static_NF.clone()
    static_NF[:, EARLY.static.index("age")] = torch.tensor(ages)
    static_NF[:, EARLY.static.index("male")] = torch.tensor(male)
    return replace(data, static_NF=static_NF)


def _scores(data: PatientData) -> NDArray[np.float64]:
    return np.clip(np.random.default_rng(1).normal(0.35 + 0.15 * data.label_N.numpy(), 0.15), 0, 0.999)


def _subgroups(data: PatientData, static: tuple[str, ...] = EARLY.static) -> dict[tuple[str, str], SubgroupEvaluation]:
    found = evaluate_predictions(_scores(data), data, static=static, **SETTINGS)
    return {(group.group, group.name): group for group in found.subgroups}


def test_a_subgroup_is_evaluated_on_its_own_patients_at_the_threshold_of_all() -> None:
    data = _held([30.0] * 60 + [70.0] * 60, [0.0, 1.0] * 60)
    found, label, scores = _subgroups(data), data.label_N.numpy(), _scores(data)
    assert list(found) == [("sex", "female"), ("sex", "male"), ("age", "18-44"), ("age", "65-79")]
    young, old, women = np.arange(120) < 60, np.arange(120) >= 60, np.arange(120) % 2 == 0
    for key, chosen in {("age", "18-44"): young, ("age", "65-79"): old, ("sex", "female"): women}.items():
        group, died, called = found[key], label[chosen], scores[chosen] >= 0.4
        assert (group.patients, group.deaths) == (60, died.sum())
        assert group.auroc.value == pytest.approx(roc_auc_score(died, scores[chosen]))
        assert group.sensitivity.value == pytest.approx(called[died].mean())
        assert group.specificity.value == pytest.approx((~called)[~died].mean())
        assert group.auroc.low < group.auroc.value < group.auroc.high


def test_age_bands_hold_their_first_year_and_not_their_end() -> None:
    data = _held([17.0, 18.0, 44.0, 45.0, 64.0, 65.0, 79.0, 80.0, 91.0, NAN], [1.0] * 10)
    counts = {name: group.patients for (kind, name), group in _subgroups(data).items() if kind == "age"}
    assert counts == {"under 18": 1, "18-44": 2, "45-64": 2, "65-79": 2, "80+": 2, "unknown": 1}


def test_a_group_of_fewer_than_ten_keeps_its_counts_alone() -> None:
    found = _subgroups(_held([50.0] * 40, [1.0] * 21 + [0.0] * 10 + [NAN] * 9))
    small, enough = found["sex", "unknown"], found["sex", "female"]
    assert (small.patients, small.deaths) == (9, 4)
    assert small.auroc.value is small.sensitivity.value is small.specificity.value is None
    assert enough.auroc.value is not None


def test_a_patient_with_two_stays_counts_once_in_a_subgroup() -> None:
    data = _held([50.0] * 40, [1.0] * 40)
    twice = replace(data, patient_N=data.patient_N // 2)
    assert _subgroups(twice)["age", "45-64"].patients == 20


def test_without_the_features_there_are_no_subgroups() -> None:
    assert _subgroups(_held([50.0] * 40, [1.0] * 40), static=()) == {}


def test_calibration_is_scikit_learns_quantile_curve_and_keeps_ties_together() -> None:
    data = patients(100)
    observed, predicted = calibration_curve(data.label_N.numpy(), _scores(data), n_bins=10, strategy="quantile")
    found = evaluate_predictions(_scores(data), data, **SETTINGS).calibration
    assert [b.predicted for b in found] == pytest.approx(predicted)
    assert [b.observed for b in found] == pytest.approx(observed)
    [tied] = evaluate_predictions(np.full(100, 0.3), data, **SETTINGS).calibration
    assert (tied.count, tied.observed) == (100, pytest.approx(data.label_N.double().mean()))


def _sites() -> dict[str, Validation]:
    held = {name: patients(200, seed=seed) for seed, name in enumerate(("B", "A"))}
    return {name: Validation.of(_scores(data), data.label_N.numpy(), loss_sum=1.0) for name, data in held.items()}


def test_the_federation_is_evaluated_from_histograms_alone() -> None:
    sites = _sites()
    merged = merge_validations(list(sites.values()))
    found = evaluate_validation(merged, sites, personal={"A": sites["B"]}, **SETTINGS)
    assert (found.patients, found.deaths) == (400, merged.deaths)
    assert found.metrics["auroc"].value == pytest.approx(merged.auroc)
    assert sum(b.count for b in found.calibration) == 400
    assert (found.roc.x[0], found.roc.y[0], found.roc.x[-1], found.roc.y[-1]) == (0, 0, 1, 1)
    assert [(site.site, site.patients) for site in found.sites] == [("B", 200), ("A", 200)]
    assert [site.auroc.value for site in found.sites] == pytest.approx([held.auroc for held in sites.values()])
    assert found.sites[0].personal_auroc is None
    assert found.sites[1].personal_auroc == found.sites[0].auroc


def test_sites_that_withhold_everything_give_an_evaluation_without_figures() -> None:
    found = evaluate_validation(Validation(), {"A": Validation()}, **SETTINGS)
    assert (found.patients, found.calibration, found.roc.x) == (0, [], [])
    assert all(estimate.value is None for estimate in found.metrics.values())
    assert found.sites[0].auroc.value is None


def test_a_left_out_site_is_compared_with_the_model_of_all() -> None:
    sites = _sites()
    first, second = evaluate_left_out({"A": sites["A"], "C": sites["B"]}, {"A": sites["B"]}, resamples=50, seed=1)
    assert (first.site, first.patients) == ("A", 200)
    assert first.auroc.value == pytest.approx(sites["A"].auroc)
    assert first.inside_auroc is not None and first.inside_auroc.value == pytest.approx(sites["B"].auroc)
    assert second.inside_auroc is None
