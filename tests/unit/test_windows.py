"""Windows of any length and step, the settings of a study that are refused, and lines between measurements."""

from typing import Any

import numpy as np
import pytest
import torch
from golden.mimic_tables import Row, at, chart, heart_rates, hospital
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from client.cohort import select_cohort
from client.events import map_events
from client.known import cut_to_known
from client.windows import build_features
from shared_model.contract import contract_digest
from shared_model.features import MEASURED
from shared_model.inputs import carry_forward, interpolate
from shared_model.study import EARLY, Study

MINUTE = 1 / 60
HEART_RATE, EYES = 220045, 220739
NAN = float("nan")
OTHER: dict[str, Any] = {
    "profile": "paper",
    "label": "in_icu",
    "prediction_hours": 12,
    "window_hours": 2,
    "window_step_hours": 0.5,
    "window_statistics": "max",
}


def windows(study: Study, rows: list[Row], concept: str = "heart_rate") -> dict[str, list[float]]:
    """The channels of one concept, a value a window."""
    connection = hospital(chartevents=rows)
    select_cohort(connection, "all_icu", study)
    cut_to_known(connection, study)
    map_events(connection)
    [series_TC] = build_features(connection, study)[1]
    assert series_TC.shape == (study.windows, len(study.series))
    names = [n for n in study.series if n == concept or n.removesuffix(f"_{n.split('_')[-1]}") == concept]
    return {name: [float(v) for v in series_TC[:, study.series.index(name)]] for name in names}


def rates(*values: tuple[float, float]) -> list[Row]:
    return [chart(HEART_RATE, hours, value) for hours, value in values]


def same(found: list[float], expected: list[float]) -> bool:
    return np.allclose(found, expected, rtol=1e-4, equal_nan=True)


def test_a_window_of_a_day_with_four_statistics() -> None:
    study = Study(window_hours=24, window_step_hours=24, window_statistics="max,min,mean,sd")
    found = windows(study, rates((-1, 300), (0, 60), (12, 90), (24 - MINUTE, 72), (24, 10)))
    assert list(found) == ["heart_rate_max", "heart_rate_min", "heart_rate_mean", "heart_rate_sd"]
    assert same([v for [v] in found.values()], [90, 60, 74, 15.0997])  # sd: sqrt((14**2 + 16**2 + 2**2) / 2)


def test_days_of_a_longer_time_are_apart() -> None:
    study = Study(prediction_hours=48, window_hours=24, window_step_hours=24, window_statistics="max,min")
    found = windows(study, rates((0, 60), (24 - MINUTE, 70), (24, 80), (47, 90), (48, 200)))
    assert found == {"heart_rate_max": [70, 90], "heart_rate_min": [60, 80]}


def test_the_statistics_of_concepts_do_not_mix() -> None:
    study = Study(window_hours=24, window_step_hours=24, window_statistics="sd,max")
    rows = [*rates((1, 60), (2, 80)), chart(220210, 1, 10), chart(220210, 2, 14), chart(220277, 3, 97)]
    assert windows(study, rows, "resp_rate")["resp_rate_max"] == [14]
    assert same(windows(study, rows, "resp_rate")["resp_rate_sd"], [2.8284])
    assert same(windows(study, rows, "spo2")["spo2_sd"], [NAN])
    assert windows(study, rows, "spo2")["spo2_max"] == [97]
    assert same(windows(study, rows, "lactate")["lactate_max"], [NAN])


@pytest.mark.parametrize(("values", "sd"), [([70], NAN), ([70, 70], 0), ([70, 74], 2.8284)])
def test_the_deviation_of_one_value_is_unknown(values: list[float], sd: float) -> None:
    rows = rates(*((1 + n * MINUTE, value) for n, value in enumerate(values)))
    [found] = windows(Study(window_statistics="sd", prediction_hours=3), rows).values()
    assert same(found, [NAN, sd, NAN])


def test_sliding_windows_hold_an_event_until_their_length_has_passed() -> None:
    """Window t is the hours [t - 5, t + 1)."""
    study = Study(window_hours=6, window_statistics="max,mean", prediction_hours=12)
    found = windows(study, rates((2, 60), (4.5, 90)))
    assert same(found["heart_rate_max"], [NAN, NAN, 60, 60, 90, 90, 90, 90, 90, 90, NAN, NAN])
    assert same(found["heart_rate_mean"], [NAN, NAN, 60, 60, 75, 75, 75, 75, 90, 90, NAN, NAN])


@pytest.mark.parametrize(
    ("hours", "held"),
    [(-6, []), (-5 - MINUTE, []), (-5, [0]), (-4, [0, 1]), (-1, [0, 1, 2, 3, 4]), (-MINUTE, [0, 1, 2, 3, 4])],
)
def test_sliding_windows_reach_back_before_the_admission(hours: float, held: list[int]) -> None:
    [found] = windows(Study(window_hours=6), rates((hours, 80))).values()
    assert [t for t, value in enumerate(found) if not np.isnan(value)] == held


def test_the_last_of_one_time_counts_a_value_without_storetime_as_stored_then() -> None:
    connection = hospital(chartevents=[chart(EYES, 3, 4, storetime=None), chart(EYES, 3, 1, storetime=at(5))])
    select_cohort(connection, "all_icu")
    cut_to_known(connection, EARLY)
    map_events(connection)
    assert build_features(connection, EARLY)[0][0, EARLY.static.index("gcs_eyes_last")] == 1


def test_no_window_reaches_back_beyond_the_lookback() -> None:
    study = Study(window_hours=24, window_step_hours=6)
    assert same(windows(study, rates((-6, 80)))["heart_rate"], [80, 80, 80, NAN])
    assert same(windows(study, rates((-6 - MINUTE, 80)))["heart_rate"], [NAN] * 4)


@pytest.mark.parametrize(
    ("hours", "held"), [(0, [0, 1]), (3 - MINUTE, [0, 1]), (3, [1, 2]), (6 - MINUTE, [1, 2]), (6, [2, 3]), (9, [3])]
)
def test_window_ends_are_half_open_whatever_length_and_step(hours: float, held: list[int]) -> None:
    """Windows [-3, 3), [0, 6), [3, 9), [6, 12): an event at an end belongs to what comes after."""
    study = Study(window_hours=6, window_step_hours=3, prediction_hours=12)
    [found] = windows(study, rates((hours, 80))).values()
    assert [t for t, value in enumerate(found) if not np.isnan(value)] == held


@pytest.mark.parametrize(
    "step",
    [
        0.1,
        0.25,
        0.3,
        0.7,
        1.1,
    ],
)
def test_an_event_at_the_end_of_a_window_of_any_length_is_in_the_next_one(step: float) -> None:
    study = Study(window_hours=step, window_step_hours=step, prediction_hours=4)
    [found] = windows(study, rates((step, 80))).values()
    assert [t for t, value in enumerate(found) if not np.isnan(value)] == [1]


def test_the_last_window_holds_what_is_left_of_the_time() -> None:
    study = Study(prediction_hours=10, window_hours=4, window_step_hours=4)
    assert study.windows == 3
    [found] = windows(study, rates((7.9, 60), (8, 70), (10, 90), (10 + MINUTE, 200))).values()
    assert same(found, [NAN, 60, 80])


def test_a_prediction_before_the_end_of_the_first_window_has_one_window() -> None:
    study = Study(prediction_hours=0.5)
    assert study.windows == 1
    assert windows(study, rates((0.5, 70), (0.75, 200))) == {"heart_rate": [70]}


def test_the_retrospective_series_is_a_week_and_the_stay_may_be_shorter() -> None:
    study = Study(profile="paper", window_hours=24, window_step_hours=24, window_statistics="max")
    assert study.windows == 7
    found = windows(study, [*heart_rates(1, 30), *rates((59, 90), (61, 200))])  # the stay ends at hour 60
    assert same(found["heart_rate_max"], [80, 80, 90, NAN, NAN, NAN, NAN])


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"window_hours": 1, "window_step_hours": 2}, "window_step_hours is longer than window_hours"),
        ({"window_statistics": "median"}, "write some of mean, min, max, sd"),
        ({"window_statistics": "mean,mean"}, "each once"),
        ({"window_statistics": ""}, "write some of mean, min, max, sd"),
        ({"window_statistics": "mean,"}, "separated by commas"),
        ({"profile": "late"}, "'early' or 'paper'"),
        ({"label": "in_30_days"}, "'in_hospital' or 'in_icu'"),
        ({"prediction_hours": 0}, "greater than 0"),
        ({"prediction_hours": 337}, "less than or equal to 336"),
        ({"window_hours": -1}, "greater than 0"),
        ({"window_step_hours": NAN}, "finite number"),
        ({"lookback_hours": 6}, "Extra inputs are not permitted"),
    ],
)
def test_an_unusable_study_is_refused_by_the_rule_it_breaks(settings: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        Study(**settings)


def test_the_channels_are_named_by_concept_and_statistic() -> None:
    concepts = [name for name in MEASURED if name not in {"urine", "weight", "height"}]
    assert list(EARLY.series) == concepts
    names = Study(window_statistics="max,sd").series
    assert names[:4] == ("heart_rate_max", "heart_rate_sd", "resp_rate_max", "resp_rate_sd")
    assert len(set(names)) == len(names) == 2 * len(concepts)
    assert Study(window_statistics="max").series[0] == "heart_rate_max"


def test_every_setting_of_a_study_changes_the_contract() -> None:
    assert OTHER.keys() == Study.model_fields.keys()
    studies = [EARLY, *(Study(**({"window_hours": 1} | {name: value})) for name, value in OTHER.items())]
    assert len({contract_digest(study) for study in studies}) == len(studies)
    assert contract_digest(Study(prediction_hours=24)) == contract_digest(EARLY)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[None, :, None]


@pytest.mark.parametrize(
    ("raw", "filled"),
    [
        ([1, NAN, NAN, 4], [1, 2, 3, 4]),
        ([NAN, 2, NAN, 1], [NAN, 2, 1.5, 1]),
        ([3, NAN, NAN], [3, 3, 3]),
        ([NAN, NAN, 5, NAN, 7, NAN], [NAN, NAN, 5, 6, 7, 7]),
        ([NAN, NAN], [NAN, NAN]),
        ([1, 2, 3], [1, 2, 3]),
    ],
)
def test_a_straight_line_between_measurements_and_the_last_value_after_them(
    raw: list[float], filled: list[float]
) -> None:
    found = interpolate(column(*raw))
    torch.testing.assert_close(found, column(*filled), equal_nan=True)


def test_channels_and_stays_are_filled_apart_and_the_input_is_left_alone() -> None:
    raw = torch.tensor([[[1, NAN], [NAN, 8], [3, NAN]], [[NAN, 1], [5, NAN], [NAN, NAN]]])
    before = raw.clone()
    filled = torch.tensor([[[1, NAN], [2, 8], [3, 8]], [[NAN, 1], [5, 1], [5, 1]]])
    torch.testing.assert_close(interpolate(raw), filled, equal_nan=True)
    torch.testing.assert_close(raw, before, equal_nan=True, rtol=0, atol=0)


@st.composite
def arrays(draw: st.DrawFn) -> torch.Tensor:
    """A batch [B, T, C] in which about half of the windows hold a measurement."""
    batch, steps, channels = (draw(st.integers(1, high)) for high in (3, 12, 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = generator.normal(size=(batch, steps, channels)).astype(np.float32)
    return torch.from_numpy(np.where(generator.random(values.shape) < draw(st.floats(0.1, 0.9)), values, np.nan))


@given(arrays())
def test_a_line_starts_where_the_carried_value_starts_and_meets_every_measurement(raw: torch.Tensor) -> None:
    filled, (carried, seen, _) = interpolate(raw), carry_forward(raw)
    assert torch.equal(filled.isnan(), carried.isnan())
    measured = seen.bool()
    assert torch.equal(filled[measured], raw[measured])


@given(arrays(), st.integers(0, 11))
def test_with_one_measurement_a_line_is_the_carried_value(raw: torch.Tensor, place: int) -> None:
    one = torch.full_like(raw, NAN)
    one[:, place % raw.shape[1]] = raw[:, place % raw.shape[1]]
    assert torch.equal(interpolate(one).nan_to_num(-99), carry_forward(one)[0].nan_to_num(-99))


@given(arrays(), st.integers(0, 11), st.booleans())
def test_a_window_between_earlier_measurements_does_not_see_later_ones(
    raw: torch.Tensor, place: int, missing: bool
) -> None:
    """Up to the last measurement before the change; after it a line may lead to the changed value."""
    cut = place % raw.shape[1]
    altered = raw.clone()
    altered[:, cut + 1 :] = NAN if missing else 1000.0
    seen = ~raw[:, : cut + 1].isnan()
    covered = seen.flip(1).cummax(dim=1).values.flip(1)  # a measurement at or after the window, before the change
    old, new = (interpolate(values)[:, : cut + 1][covered] for values in (raw, altered))
    assert torch.equal(old.nan_to_num(-99), new.nan_to_num(-99))
