"""The preprocessing plan against scipy, scikit-learn and hand-computed cases."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import feature_plan, patients, tiny_plan
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import mutual_info_score

from client.statistics import local_statistics
from shared_model.config import RunConfig
from shared_model.distribution import Outcomes, ValueGrid, static_grids
from shared_model.fitting import plan_from
from shared_model.inputs import Scaler
from shared_model.plan import FeaturePlan, PlanSettings, PreprocessingPlan, fit_plan, localised
from shared_model.study import EARLY, Study

GRID = ValueGrid(0.0, 100.0)
RNG = np.random.default_rng(3)
BELL = RNG.normal(50, 10, 4000)
SKEWED = np.minimum(RNG.lognormal(0.5, 1.0, 4000), 100.0)


def _fit(values: NDArray[np.float64], died: NDArray[np.bool_] | None = None, **settings: object) -> FeaturePlan:
    """The plan of one static feature with a value a patient."""
    died = np.arange(len(values)) % 4 == 0 if died is None else died
    grid = replace(GRID, crowded=values is SKEWED)
    held = Outcomes.of(values, died, np.arange(len(values)), grid)
    plan = fit_plan(
        {"x": (grid, held)},
        {},
        patients=len(values),
        prevalence=0.25,
        contract="c",
        settings=PlanSettings(**settings),
    )
    return plan.static_features[0]


@pytest.mark.parametrize("values", [BELL, SKEWED], ids=["bell", "skewed"])
def test_moments_and_quartiles_are_scipys(values: NDArray[np.float64]) -> None:
    found = _fit(values)
    assert found.mean == pytest.approx(values.mean(), abs=0.004) and found.sd == pytest.approx(values.std(), abs=0.004)
    assert found.skewness == pytest.approx(stats.skew(values), rel=0.01, abs=0.01)
    assert found.kurtosis == pytest.approx(stats.kurtosis(values), rel=0.02, abs=0.02)
    assert found.quartiles == pytest.approx(np.percentile(values, [25, 50, 75]), rel=0.03)


def test_what_is_normal_is_filled_with_its_mean_and_z_scored_and_what_is_skewed_is_not() -> None:
    bell, skewed = (_fit(values, scaling="normality") for values in (BELL, SKEWED))
    assert bell.normal and (bell.imputation, bell.scaling) == ("mean", "zscore")
    assert bell.fill == bell.mean == bell.centre and bell.scale == bell.sd
    assert not skewed.normal and (skewed.imputation, skewed.scaling) == ("median", "minmax")
    assert skewed.fill == skewed.quartiles[1] and (skewed.centre, skewed.scale) == (0.0, 100.0)


def test_a_binary_feature_is_filled_with_its_mode() -> None:
    grid = static_grids()["male"]
    held = Outcomes.of(np.repeat([1.0, 0.0], [70, 30]), np.arange(100) < 20, np.arange(100), grid)
    settings = PlanSettings(outlier_iqr=1.5)
    fitted = fit_plan({"male": (grid, held)}, {}, patients=100, prevalence=0.2, contract="c", settings=settings)
    found = fitted.static_features[0]
    assert (found.imputation, found.fill) == ("mode", 1.0)
    assert (found.lower, found.upper) == (0.0, 1.0)  # quartiles of 1 and 1 must not bound the zeros away


def test_values_are_bounded_by_the_box_plot_rule() -> None:
    found = _fit(BELL, outlier_iqr=1.5)
    first, third = np.percentile(BELL, [25, 75])
    reach = 1.5 * (third - first)
    assert (found.lower, found.upper) == pytest.approx((first - reach, third + reach), 0.03)
    assert (_fit(BELL).lower, _fit(BELL).upper) == (0.0, 100.0)


@pytest.mark.parametrize(("lacking", "kept"), [(0.15, True), (0.25, False), (1.0, False)])
def test_what_more_than_a_fifth_of_the_patients_lack_is_dropped(lacking: float, kept: bool) -> None:
    values = BELL.copy()
    values[: int(lacking * len(values))] = np.nan
    found = _fit(values, missing_limit=0.2)
    assert found.missing == lacking and found.kept == kept
    assert kept or ("25.0%" in found.reason or "no patient" in found.reason)


def test_what_no_site_measures_is_dropped_under_every_setting() -> None:
    assert not _fit(np.full(50, np.nan)).kept


def test_mutual_information_is_scikit_learns_over_tenths_and_correlation_is_pearsons() -> None:
    values = np.floor(BELL)
    died = RNG.random(len(values)) < 1 / (1 + np.exp(-(values - 55) / 6))
    found = _fit(values + 0.5, died)
    assert found.correlation == pytest.approx(np.corrcoef(values, died)[0, 1], abs=1e-4)
    bins = np.clip((values + 0.5) / 100 * 64, 0, 63).astype(int)
    below = np.array([(bins < b).mean() for b in range(64)])
    tenths = np.minimum((below * 10).astype(int), 9)[bins]
    assert found.mutual_information == pytest.approx(mutual_info_score(died, tenths), abs=1e-9)
    assert found.mutual_information > 20 * _fit(values + 0.5, RNG.permutation(died)).mutual_information


def test_without_deaths_there_is_no_association() -> None:
    found = _fit(BELL, np.zeros(len(BELL), bool))
    assert (found.mutual_information, found.correlation) == (0.0, 0.0)


def _plan(**changes: object) -> PreprocessingPlan:
    return plan_from([local_statistics(patients(200, missing=0.1), EARLY)], RunConfig(**changes))


def test_selection_keeps_so_many_static_features_and_says_why_others_are_dropped() -> None:
    plan, whole = _plan(select_features=12), _plan()
    assert len(plan.static) == 12 and len(plan.series) == len(whole.series)
    assert {f.reason for f in plan.static_features if not f.kept} == {"not among the 12 most relevant"}
    kept = min(f.mutual_information + abs(f.correlation) for f in plan.static)
    dropped = [f.mutual_information + abs(f.correlation) for f in plan.static_features if not f.kept]
    assert kept > np.median(dropped)


def test_the_model_has_an_input_for_each_kept_feature() -> None:
    config = RunConfig(select_features=12)
    plan = _plan(select_features=12)
    assert config.model_for(plan).static_features == 12
    batch = patients(8).batch(torch.arange(8), Scaler(plan))
    assert batch.static_BF.shape == batch.static_mask_BF.shape == (8, 12)
    assert batch.series_BTC.shape[-1] == len(plan.series) == config.model_for(plan).series_channels


def test_a_value_is_bounded_then_scaled_and_a_missing_one_is_filled_first() -> None:
    first = feature_plan(EARLY.static[0], fill=3.0, lower=0.0, upper=10.0, centre=2.0, scale=4.0)
    plan = replace(tiny_plan(), static_features=(first, *tiny_plan().static_features[1:]))
    data = patients(4)
    data.static_NF[:, 0] = torch.tensor([float("nan"), -5.0, 6.0, 50.0])
    batch = data.batch(torch.arange(4), Scaler(plan))
    assert batch.static_BF[:, 0].tolist() == [0.25, -0.5, 1.0, 2.0]
    assert batch.static_mask_BF[:, 0].tolist() == [0.0, 1.0, 1.0, 1.0]


def test_local_normalisation_takes_the_sites_scale_and_the_federations_features() -> None:
    federation = _plan(select_features=12)
    data = patients(60, missing=0.1, seed=5)
    data.static_NF[:, 0] = data.static_NF[:, 0] * 2 + 30  # age
    data.static_NF[:, 1] = float("nan")  # the site does not tell sex
    own = localised(federation, plan_from([local_statistics(data, EARLY)], RunConfig()))
    assert [f.reason for f in own.static_features] == [f.reason for f in federation.static_features]
    assert own.static_features[0].mean == pytest.approx(float(data.static_NF[:, 0].nanmean()), abs=1.0)
    assert own.static_features[1] == federation.static_features[1]


def test_every_feature_and_channel_of_every_study_has_a_grid() -> None:
    for study in (EARLY, Study(profile="paper", window_statistics="max,min,mean,sd")):
        assert set(study.static) <= static_grids().keys()
        assert len(study.series_grids) == len(study.series)
        assert all(grid.low < grid.high for grid in (*study.series_grids, *static_grids().values()))
