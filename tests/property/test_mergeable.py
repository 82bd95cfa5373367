"""Merging does not depend on order or grouping, and nothing small leaves a site."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import outcomes, patients, statistics
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from leaving import leaving
from numpy.typing import NDArray
from sklearn.metrics import mutual_info_score, roc_auc_score

from client.policy import ReleasePolicy
from client.small_cells import coarsened
from client.statistics import local_statistics
from shared_model.batch import PatientData
from shared_model.config import RunConfig
from shared_model.distribution import BINS, LEVELS, Distribution, Outcomes, ValueGrid
from shared_model.errors import ReleaseRefused
from shared_model.fitting import plan_from
from shared_model.mergeable import SCORE_BINS, Validation, merge_validations
from shared_model.messages import EvaluateReply, SiteCard, Statistics, TrainReply
from shared_model.study import EARLY

VALUES = st.floats(-1e6, 1e6, width=32) | st.just(float("nan"))
ARRAYS = npst.arrays(np.float64, st.integers(0, 30), elements=VALUES)
SMALL_COUNTS = st.integers(0, 25)
GRID = ValueGrid(-1000.0, 1000.0)


@st.composite
def scored(draw: st.DrawFn, least: int = 0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores in [0, 1] and labels of one site."""
    count = draw(st.integers(least, 40))
    scores = draw(npst.arrays(np.float64, count, elements=st.floats(0, 1)))
    return scores, draw(npst.arrays(np.bool_, count))


VALIDATIONS = st.builds(
    lambda held, loss: Validation.of(*held, loss_sum=loss), scored(), st.integers(0, 1000).map(float)
)


def whole_distribution(values: NDArray[np.float64], grid: ValueGrid = GRID) -> Distribution:
    """One value a patient."""
    return Distribution.of(values, np.arange(len(values)), grid)


@given(ARRAYS, ARRAYS, ARRAYS)
def test_distributions_are_a_commutative_monoid(
    a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]
) -> None:
    x, y, z = map(whole_distribution, (a, b, c))
    assert x.merge(y) == y.merge(x)
    assert x.merge(y).merge(z) == x.merge(y.merge(z))
    assert x.merge(Distribution()) == x == Distribution().merge(x)
    assert x.possible and x.merge(y).possible


@given(npst.arrays(np.float64, st.integers(0, 300), elements=VALUES), st.booleans())
def test_a_distribution_counts_every_value_and_its_power_sums_are_exact(
    values: NDArray[np.float64], crowded: bool
) -> None:
    grid = ValueGrid(-1000.0, 1000.0, crowded=crowded)
    found, seen = whole_distribution(values, grid), values[np.isfinite(values)]
    levels = [round((min(max(v, -1000.0), 1000.0) + 1000.0) / grid.step) for v in seen.tolist()]
    assert found.count == found.patients == sum(found.bins) == len(seen)
    assert found.sums == tuple(sum(level**power for level in levels) for power in range(5))


def test_the_sums_of_a_large_site_do_not_overflow() -> None:
    found = whole_distribution(np.full(200_000, 1000.0))
    assert found.sums[4] == 200_000 * LEVELS**4 > 2**63


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


SETTINGS = st.builds(
    lambda **held: RunConfig(**held),
    missing_limit=st.sampled_from([0.2, 1.0]),
    outlier_iqr=st.sampled_from([0.0, 1.5]),
    imputation=st.sampled_from(["normality", "mean", "median"]),
    scaling=st.sampled_from(["normality", "zscore", "minmax"]),
    select_features=st.sampled_from([0, 20]),
)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 5), st.sampled_from([0.0, 0.5, 1.0]), SETTINGS)
def test_the_plan_of_the_sites_is_the_plan_of_their_union(
    seed: int, sites: int, missing: float, config: RunConfig
) -> None:
    """To the last bit, for any split of the patients and any settings."""
    data = patients(24, windows=3, seed=seed, missing=missing)
    owner = np.random.default_rng(seed).integers(0, sites, len(data))
    held = [local_statistics(part, EARLY) for part in _sites(data, owner)]
    merged, whole = plan_from(held, config), plan_from([local_statistics(data, EARLY)], config)
    assert merged == whole and merged.digest == whole.digest
    assert plan_from(held[::-1], config) == merged
    assert merged.patients == data.patients and merged.prevalence == data.deaths / data.patients


def _held_back(count: int | None, policy: ReleasePolicy) -> bool:
    """A count may leave as zero or absent, or when it is not small."""
    return not count or count >= policy.smallest_cell


@given(SMALL_COUNTS, SMALL_COUNTS, st.integers(1, 15))
def test_no_small_count_leaves_in_a_site_card(held: int, deaths: int, cell: int) -> None:
    policy, died = ReleasePolicy(smallest_cell=cell), min(held, deaths)
    card = SiteCard(site="a", contract="c", encoder="e", device="cpu", stays=1000, patients=held, deaths=died)
    try:
        left = SiteCard.read(leaving(card, policy))
    except ReleaseRefused:
        assert held < cell
        return
    assert left.patients == held >= cell
    assert left.deaths == (died if died >= cell and held - died >= cell else None)


@settings(deadline=None)
@given(
    st.lists(st.tuples(SMALL_COUNTS, SMALL_COUNTS), min_size=1, max_size=4),
    SMALL_COUNTS,
    SMALL_COUNTS,
    st.integers(1, 15),
)
def test_no_small_count_leaves_in_statistics(counts: list[tuple[int, int]], held: int, deaths: int, cell: int) -> None:
    policy, whole = ReleasePolicy(smallest_cell=cell), statistics(patients=held, deaths=min(held, deaths))
    features = [outcomes(survived=lived, died=died) for lived, died in counts]
    mixed = replace(whole, static=tuple((features * len(whole.static))[: len(whole.static)]))
    try:
        left = Statistics.read(leaving(mixed, policy))
    except ReleaseRefused:
        assert held < cell
        return
    assert left.patients == held >= cell
    assert _held_back(left.deaths, policy) and (not left.deaths or held - left.deaths >= cell)
    for before, after in zip(mixed.static, left.static, strict=True):
        for group in (after.whole, after.survived, after.died):
            assert _held_back(group.patients, policy) and all(_held_back(count, policy) for count in group.bins)
        if before.whole.patients >= cell:  # nothing is lost but detail
            assert after.whole.sums == before.whole.sums and sum(after.whole.bins) == before.whole.count
        else:
            assert after == Outcomes()


BIN_COUNTS = st.lists(st.integers(0, 30), min_size=BINS, max_size=BINS).map(tuple)


@given(BIN_COUNTS, st.integers(1, 60))
def test_coarser_bins_keep_the_total_and_the_quartiles_nearly(bins: tuple[int, ...], least: int) -> None:
    [found] = coarsened([bins], least)
    assert sum(found) == sum(bins) and (sum(bins) < least or all(count == 0 or count >= least for count in found))
    moved = np.abs(np.cumsum(found) - np.cumsum(bins)).max()
    assert moved <= 2 * least + 30  # of one group's values at most


@given(BIN_COUNTS, BIN_COUNTS, st.integers(1, 60))
def test_survivals_and_deaths_are_coarsened_alike(lived: tuple[int, ...], died: tuple[int, ...], least: int) -> None:
    """The mutual information with death can then only fall."""
    assume(sum(lived) and sum(died))
    found = coarsened([lived, died], least)
    assert [sum(bins) for bins in found] == [sum(lived), sum(died)]
    if min(sum(lived), sum(died)) >= least:
        assert all((a >= least and b >= least) or a == b == 0 for a, b in zip(*found, strict=True))
    before, after = (mutual_info_score(None, None, contingency=np.array(pair)) for pair in ([lived, died], found))
    assert after <= before + 1e-9


@given(st.integers(1, 12))
def test_a_channel_that_few_patients_have_does_not_leave(holders: int) -> None:
    """Many windows of one patient are still one patient."""
    policy, data = ReleasePolicy(smallest_cell=10), patients(40, windows=24, missing=0.0)
    rare = EARLY.series.index("vasopressor")
    data.series_NTC[holders:, :, rare] = float("nan")
    left = Statistics.read(leaving(local_statistics(data, EARLY), policy))
    assert (left.series[rare].whole.count > 0) == (holders >= 10)


def test_behind_every_bin_of_a_channel_are_enough_patients() -> None:
    """A bin that twenty windows of one patient fill is as small as that one patient."""
    data = patients(40, windows=24, missing=0.0)
    data.series_NTC[:] = 100.0
    data.series_NTC[0] = 200.0
    left = Statistics.read(leaving(local_statistics(data, EARLY), ReleasePolicy(smallest_cell=10)))
    heart_rate = left.series[EARLY.series.index("heart_rate")]
    groups = [[count for count in group.bins if count] for group in (heart_rate.survived, heart_rate.died)]
    assert groups == [[26 * 24], [14 * 24]]  # nobody alone


def _replies(held: Validation) -> list[TrainReply | EvaluateReply]:
    weights = {"w": torch.zeros(2)}
    return [
        EvaluateReply(validation=held),
        TrainReply(round=1, weights=weights, examples=99, train_loss=0.1, seconds=1.0, validation=held),
    ]


@given(scored(), st.integers(1, 15))
def test_a_validation_of_few_patients_leaves_as_zero(
    held: tuple[NDArray[np.float64], NDArray[np.bool_]], cell: int
) -> None:
    policy, whole = ReleasePolicy(smallest_cell=cell), Validation.of(*held, loss_sum=1.0)
    for reply in _replies(whole):
        left = type(reply).read(leaving(reply, policy)).validation
        assert _held_back(left.count, policy)
        assert whole.count >= cell or left == Validation()


@given(scored(least=15), st.integers(2, 8))
def test_validation_tells_no_small_count_of_deaths_or_survivals(
    held: tuple[NDArray[np.float64], NDArray[np.bool_]], cell: int
) -> None:
    """The site card withholds such a count; the histogram must not tell it either."""
    policy = ReleasePolicy(smallest_cell=cell)
    for reply in _replies(Validation.of(*held, loss_sum=1.0)):
        left = type(reply).read(leaving(reply, policy)).validation
        assert _held_back(sum(left.positives), policy) and _held_back(sum(left.negatives), policy)


@given(SMALL_COUNTS, st.integers(1, 15))
def test_an_update_of_few_patients_does_not_leave(examples: int, cell: int) -> None:
    reply = replace(_replies(Validation())[1], examples=examples)
    try:
        assert TrainReply.read(leaving(reply, ReleasePolicy(smallest_cell=cell))).examples == examples >= cell
    except ReleaseRefused:
        assert examples < cell
