"""Merging does not depend on order or grouping, and nothing small leaves a site."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import patients, statistics
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from client.release import release
from client.site import ReleasePolicy
from client.statistics import local_statistics
from server.statistics import plan_from
from shared_model.batch import PatientData
from shared_model.config import RunConfig
from shared_model.errors import ReleaseRefused
from shared_model.mergeable import SCORE_BINS, Moments, Validation, merge_moments, merge_validations
from shared_model.messages import EvaluateReply, SiteCard, Statistics, TrainReply
from shared_model.study import EARLY

VALUES = st.floats(-1e6, 1e6, width=32) | st.just(float("nan"))
ARRAYS = npst.arrays(np.float64, st.integers(0, 30), elements=VALUES)
SMALL_COUNTS = st.integers(0, 25)


@st.composite
def scored(draw: st.DrawFn, least: int = 0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores in [0, 1] and labels of one site."""
    count = draw(st.integers(least, 40))
    scores = draw(npst.arrays(np.float64, count, elements=st.floats(0, 1)))
    return scores, draw(npst.arrays(np.bool_, count))


VALIDATIONS = st.builds(
    lambda held, loss: Validation.of(*held, loss_sum=loss), scored(), st.integers(0, 1000).map(float)
)


def same(a: Moments, b: Moments, *, largest: float = 1e6) -> bool:
    """Counts exactly; mean and m2 to rounding relative to the largest value that went in."""
    scale = max(a.count, 1) * largest**2
    return (
        a.count == b.count
        and a.mean == pytest.approx(b.mean, rel=1e-9, abs=1e-9 * largest)
        and a.m2 == pytest.approx(b.m2, rel=1e-9, abs=1e-12 * scale)
    )


@given(ARRAYS, ARRAYS)
def test_moments_merge_is_commutative(a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
    assert same(Moments.of(a).merge(Moments.of(b)), Moments.of(b).merge(Moments.of(a)))


@given(ARRAYS, ARRAYS, ARRAYS)
def test_moments_merge_is_associative(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> None:
    x, y, z = (Moments.of(values) for values in (a, b, c))
    assert same(x.merge(y).merge(z), x.merge(y.merge(z)))


@given(ARRAYS)
def test_moments_zero_changes_nothing(values: NDArray[np.float64]) -> None:
    moments = Moments.of(values)
    assert moments.merge(Moments()) == moments
    assert same(Moments().merge(moments), moments, largest=1e-3)


@given(npst.arrays(np.float64, st.integers(0, 60), elements=VALUES), st.lists(st.integers(0, 60), max_size=5))
def test_moments_of_any_split_merge_to_the_whole(values: NDArray[np.float64], cuts: list[int]) -> None:
    parts = [Moments.of(part) for part in np.split(values, sorted(min(c, len(values)) for c in cuts))]
    [merged] = merge_moments([[part] for part in parts])
    assert same(merged, Moments.of(values))
    seen = values[~np.isnan(values)]
    assert merged.count == len(seen)
    if len(seen) > 1:
        assert merged.sd == pytest.approx(np.std(seen), rel=1e-6, abs=1e-2)


def test_moments_stay_exact_far_from_zero() -> None:
    """The sum of squares would lose everything here; the merged deviations do not."""
    halves = [Moments.of(np.array([1e8, 1e8 + 1])), Moments.of(np.array([1e8 + 2, 1e8 + 3]))]
    assert halves[0].merge(halves[1]) == Moments(4, 1e8 + 1.5, 5.0)


@given(VALIDATIONS, VALIDATIONS, VALIDATIONS)
def test_validation_merge_is_a_commutative_monoid(a: Validation, b: Validation, c: Validation) -> None:
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(Validation()) == a == Validation().merge(a)


@given(scored(), st.integers(1, 5))
def test_validation_of_any_split_merges_to_the_whole(
    held: tuple[NDArray[np.float64], NDArray[np.bool_]], sites: int
) -> None:
    scores, labels = held
    parts = [Validation.of(scores[k::sites], labels[k::sites], loss_sum=len(scores[k::sites])) for k in range(sites)]
    merged = merge_validations(parts)
    assert merged == Validation.of(scores, labels, loss_sum=len(scores))
    assert merged.count == len(scores)
    assert sum(merged.positives) == labels.sum()


@given(scored(least=2))
def test_validation_auroc_is_scikit_learns_on_binned_scores(
    held: tuple[NDArray[np.float64], NDArray[np.bool_]],
) -> None:
    scores, labels = held
    found = Validation.of(scores, labels, loss_sum=0.0).auroc
    if labels.all() or not labels.any():
        assert found is None
    else:
        binned = np.minimum(np.floor(scores * SCORE_BINS), SCORE_BINS - 1)
        assert found == pytest.approx(roc_auc_score(labels, binned), abs=1e-12)


@given(scored(least=2))
def test_best_threshold_has_the_largest_youden_index_of_all_bin_edges(
    held: tuple[NDArray[np.float64], NDArray[np.bool_]],
) -> None:
    scores, labels = held
    scores = (np.minimum(np.floor(scores * SCORE_BINS), SCORE_BINS - 1) + 0.5) / SCORE_BINS  # the middle of a bin
    assume(labels.any() and not labels.all())

    def youden(threshold: float) -> float:
        called = scores >= threshold
        return float(called[labels].mean() + (~called)[~labels].mean() - 1)

    best = max(youden(edge / SCORE_BINS) for edge in range(SCORE_BINS + 1))
    assert youden(Validation.of(scores, labels, loss_sum=0.0).best_threshold) == pytest.approx(best)


def _sites(data: PatientData, owner: NDArray[np.int64]) -> list[PatientData]:
    return [data.subset(torch.from_numpy(np.flatnonzero(owner == site))) for site in np.unique(owner)]


@given(st.integers(0, 1000), st.integers(1, 5), st.sampled_from([0.0, 0.5, 1.0]))
def test_the_plan_of_the_sites_is_the_plan_of_their_union(seed: int, sites: int, missing: float) -> None:
    data = patients(24, windows=3, seed=seed, missing=missing)
    owner = np.random.default_rng(seed).integers(0, sites, len(data))
    held = {f"site {k}": local_statistics(part) for k, part in enumerate(_sites(data, owner))}
    merged, whole = plan_from(held, RunConfig()), plan_from({"all": local_statistics(data)}, RunConfig())

    assert (merged.patients, merged.deaths, merged.contract) == (whole.patients, whole.deaths, whole.contract)
    assert merged.patients == data.patients and merged.deaths == data.deaths
    for name in ("static_mean", "static_scale", "series_mean", "series_scale"):
        assert getattr(merged, name) == pytest.approx(getattr(whole, name), rel=1e-9, abs=1e-9), name
    expected = np.nanstd(data.series_NTC.double().numpy(), axis=(0, 1)) if missing < 1 else np.ones(len(EARLY.series))
    assert whole.series_scale == pytest.approx(expected, rel=1e-6)


def _held_back(count: int | None, policy: ReleasePolicy) -> bool:
    """A count may leave as zero or absent, or when it is not small."""
    return not count or count >= policy.smallest_cell


@given(SMALL_COUNTS, SMALL_COUNTS, st.integers(1, 15))
def test_no_small_count_leaves_in_a_site_card(held: int, deaths: int, cell: int) -> None:
    policy, died = ReleasePolicy(smallest_cell=cell), min(held, deaths)
    card = SiteCard(site="a", contract="c", encoder="e", device="cpu", patients=held, deaths=died)
    try:
        left = SiteCard.read(release(card, policy))
    except ReleaseRefused:
        assert held < cell
        return
    assert left.patients == held >= cell
    assert left.deaths == (died if died >= cell and held - died >= cell else None)


@given(st.lists(SMALL_COUNTS, min_size=1, max_size=6), SMALL_COUNTS, SMALL_COUNTS, st.integers(1, 15))
def test_no_small_count_leaves_in_statistics(counts: list[int], held: int, deaths: int, cell: int) -> None:
    policy, whole = ReleasePolicy(smallest_cell=cell), statistics(patients=held, deaths=min(held, deaths))
    moments = [Moments(count, 2.0 * bool(count), 3.0 * bool(count)) for count in counts]
    static = tuple((moments * len(whole.static))[: len(whole.static)])
    mixed = replace(whole, static=static, static_patients=tuple(m.count for m in static))
    try:
        left = Statistics.read(release(mixed, policy))
    except ReleaseRefused:
        assert held < cell
        return
    assert left.patients == held >= cell
    assert _held_back(left.deaths, policy) and (not left.deaths or held - left.deaths >= cell)
    for before, after in zip(mixed.static, left.static, strict=True):
        assert after == (before if before.count >= cell else Moments())


@given(st.integers(1, 12))
def test_moments_of_a_channel_that_few_patients_have_do_not_leave(holders: int) -> None:
    """Many windows of one patient are still one patient."""
    policy, data = ReleasePolicy(smallest_cell=10), patients(40, windows=24, missing=0.0)
    rare = EARLY.series.index("vasopressor")
    data.series_NTC[holders:, :, rare] = float("nan")
    left = Statistics.read(release(local_statistics(data), policy))
    assert (left.series[rare].count > 0) == (holders >= 10)


def _replies(held: Validation) -> list[TrainReply | EvaluateReply]:
    weights = {"w": torch.zeros(2)}
    return [
        EvaluateReply(validation=held),
        TrainReply(weights=weights, examples=99, train_loss=0.1, seconds=1.0, validation=held),
    ]


@given(scored(), st.integers(1, 15))
def test_a_validation_of_few_patients_leaves_as_zero(
    held: tuple[NDArray[np.float64], NDArray[np.bool_]], cell: int
) -> None:
    policy, whole = ReleasePolicy(smallest_cell=cell), Validation.of(*held, loss_sum=1.0)
    for reply in _replies(whole):
        left = type(reply).read(release(reply, policy)).validation
        assert _held_back(left.count, policy)
        assert whole.count >= cell or left == Validation()


@given(scored(least=15), st.integers(2, 8))
def test_validation_tells_no_small_count_of_deaths_or_survivals(
    held: tuple[NDArray[np.float64], NDArray[np.bool_]], cell: int
) -> None:
    """The site card withholds such a count; the histogram must not tell it either."""
    policy = ReleasePolicy(smallest_cell=cell)
    for reply in _replies(Validation.of(*held, loss_sum=1.0)):
        left = type(reply).read(release(reply, policy)).validation
        assert _held_back(sum(left.positives), policy) and _held_back(sum(left.negatives), policy)


@given(SMALL_COUNTS, st.integers(1, 15))
def test_an_update_of_few_patients_does_not_leave(examples: int, cell: int) -> None:
    reply = replace(_replies(Validation())[1], examples=examples)
    try:
        assert TrainReply.read(release(reply, ReleasePolicy(smallest_cell=cell))).examples == examples >= cell
    except ReleaseRefused:
        assert examples < cell
