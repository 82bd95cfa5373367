"""Private statistics and validations: what one patient can change, the noise that hides it, and what is read off it."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from inspect import signature
from math import sqrt
from pathlib import Path
from random import Random, SystemRandom

import numpy as np
import pytest
import torch
from builders import MemoryGrid, over_the_wire, patients, tiny_config, tiny_plan, validation, write_site, write_store
from federation import WINDOWS, small_config

from client import task
from client.account import Account
from client.noising import Drawn, counted, one_stay_a_patient, private_statistics, private_validation
from client.noising import statistics_sensitivity as sensitivity
from client.policy import KINDS, ReleasePolicy
from client.release import occasion_of, passable
from client.site import load_site
from client.statistics import local_statistics
from client.task import Asked
from server.admission import Admission
from server.evaluation import evaluate_validation
from server.noised import Noised, settled_validation
from server.results import RoundSummary
from server.statistics import ask_statistics, feature_summaries
from server.training import Training
from shared_model.batch import PatientData, open_independently
from shared_model.budget import plan_of
from shared_model.config import RunConfig
from shared_model.distribution import BINS, Distribution, Floats, Outcomes, ValueGrid, static_grids
from shared_model.errors import ContractError, ReleaseRefused
from shared_model.fitting import plan_from
from shared_model.mergeable import Validation
from shared_model.messages import (
    Content,
    EvaluateReply,
    RoundOrder,
    SiteCard,
    Statistics,
    trial_content,
    weights_content,
)
from shared_model.model import build_model
from shared_model.noised import coarse, coarse_edge, coarse_scores, on_simplex, placed, settled, settled_scores
from shared_model.plan import PreprocessingPlan
from shared_model.privacy import PrivacyPlan
from shared_model.study import EARLY
from shared_model.trial import Trial

GRIDS = [*(static_grids()[name] for name in EARLY.static), *EARLY.series_grids]
CARDS = [SiteCard(site="A", contract="c", encoder="", device="cpu", stays=1, patients=850, deaths=170, counts="noised")]
SITES = (100, 150, 200, 300, 400, 500, 700, 800)


def _private(**changes: object) -> RunConfig:
    return tiny_config(**({"privacy_unit": "patient", "privacy_accountant": "rdp", "privacy_epsilon": 8.0} | changes))


@cache
def _plan(epsilon: float) -> PrivacyPlan:
    """A Gaussian mechanism's noise does not depend on how many patients a site has."""
    return plan_of(_private(privacy_epsilon=epsilon), 200, public_counts=True)


def _account(config: RunConfig, count: int = 200, deaths: int = 60) -> Account:
    return Account(plan=_plan(config.privacy_epsilon), patients=count, deaths=deaths)


def _several_stays(count: int = 24) -> PatientData:
    """Every third patient has three stays; within the features' ranges, with gaps."""
    data = _on_the_grids(count, seed=5, missing=0.2)
    owner = [n for n in range(count // 2) for _ in range(3 if n % 3 == 0 else 1)][:count]
    return replace(data, patient_N=torch.tensor(owner + list(range(1000, 1000 + count - len(owner)))))


def _on_the_grids(count: int, *, seed: int, missing: float = 0.1, windows: int = 4) -> PatientData:
    """Bells within each feature's range, in the scale of its bins; place and width differ by feature."""
    rng = np.random.default_rng(seed)
    data = patients(count, windows=windows, seed=seed)
    place = 20 + 4.0 * (np.arange(len(GRIDS)) % 7)

    def values(shape: tuple[int, ...], grids: list[ValueGrid], first: int) -> torch.Tensor:
        columns = []
        for n, grid in enumerate(grids):
            bins = np.clip(rng.normal(place[first + n], 5 + n % 3, shape), 0, BINS)
            column = np.interp(bins, np.arange(BINS + 1), grid.edges)
            columns.append(np.where(rng.random(shape) < missing, np.nan, column))
        return torch.tensor(np.stack(columns, axis=-1), dtype=torch.float32)

    static = len(EARLY.static)
    return replace(
        data,
        static_NF=values((count,), GRIDS[:static], 0),
        series_NTC=values((count, windows), GRIDS[static:], static),
    )


def _vector(held: list[Outcomes]) -> Floats:
    return np.array([part.bins for one in held for part in (one.whole, one.survived, one.died)], dtype=float)


@pytest.mark.parametrize("by_outcome", [False, True])
def test_any_one_patient_changes_the_statistics_by_no_more_than_the_sensitivity(by_outcome: bool) -> None:
    drawn = Drawn.of(_several_stays(), Random(1))
    whole, changes = _vector(counted(drawn, GRIDS, by_outcome=by_outcome)), []
    for patient in range(len(drawn.died_P)):
        others = np.arange(len(drawn.died_P)) != patient
        fewer = Drawn(drawn.value_PF[others], drawn.died_P[others])
        changes.append(np.linalg.norm(whole - _vector(counted(fewer, GRIDS, by_outcome=by_outcome))))
        measured = np.isfinite(drawn.value_PF[patient]).sum()
        assert changes[-1] == pytest.approx(sqrt(measured))
    assert max(changes) <= sensitivity(len(GRIDS)) == sqrt(len(GRIDS))


def test_a_patients_row_is_of_one_stay_of_its_own_and_every_stay_has_its_turn() -> None:
    data, seen = _several_stays(), set()
    for seed in range(30):
        drawn = Drawn.of(data, Random(seed))
        for row, patient in enumerate(np.unique(data.patient_N.numpy())):
            stays = np.flatnonzero(data.patient_N.numpy() == patient)
            static = len(EARLY.static)
            values = drawn.value_PF[row, :static]
            own = [n for n in stays if np.array_equal(data.static_NF[n].double().numpy(), values, equal_nan=True)]
            assert len(own) == 1 and bool(data.label_N[own[0]]) == drawn.died_P[row]
            series_TC = data.series_NTC[own[0]].double().numpy()
            found_C = drawn.value_PF[row, static:]
            assert all(
                found in series_TC[:, c] if np.isfinite(found) else np.isnan(series_TC[:, c]).all()
                for c, found in enumerate(found_C)
            )
            seen.add(own[0])
    assert len(seen) == len(data)


def test_any_one_patient_changes_one_count_of_a_validation() -> None:
    data = one_stay_a_patient(_several_stays(), Random(2))
    assert data.patients == len(data)
    scores, labels = np.random.default_rng(0).random(len(data)), data.label_N.numpy()

    def vector(chosen: np.ndarray) -> Floats:
        held = Validation.of(scores[chosen], labels[chosen], loss_sum=0.0)
        return np.array([coarse_scores(held.negatives), coarse_scores(held.positives)], dtype=float)

    everybody = np.ones(len(data), dtype=bool)
    for patient in range(len(data)):
        others = everybody.copy()
        others[patient] = False
        assert np.linalg.norm(vector(everybody) - vector(others)) == 1.0


def test_one_patient_less_leaves_every_other_where_it_was(tmp_path: Path) -> None:
    """In a stratified split, one more would push another across: two patients would change."""
    data = patients(300)
    whole = open_independently(write_store(tmp_path / "whole", data), 0.2, seed=3)
    assert 40 < whole[1].patients < 80
    for gone in range(12):
        fewer = data.subset(torch.tensor([n for n in range(300) if n != gone]))
        split = open_independently(write_store(tmp_path / str(gone), fewer), 0.2, seed=3)
        for before, after in zip(whole, split, strict=True):
            assert set(before.patient_N.tolist()) - {1000 + gone} == set(after.patient_N.tolist())


@pytest.mark.parametrize("select", [0, 12])
def test_the_noise_of_statistics_is_as_declared_and_counts_are_whole(select: int) -> None:
    config, data = _private(select_features=select), _on_the_grids(200, seed=1)
    account = _account(config)
    found = private_statistics(data, config, account, Random(7))
    exact = counted(Drawn.of(data, Random(7)), GRIDS, by_outcome=bool(select))
    told = [(o.survived, o.died) if select else (o.whole,) for o in (*found.static, *found.series)]
    true = [(o.survived, o.died) if select else (o.whole,) for o in exact]
    noise = np.array([coarse(t.bins) for o in told for t in o]) - np.array([coarse(t.bins) for o in true for t in o])
    assert found.noise == account.plan.statistics.noise_multiplier * sqrt(len(GRIDS))
    assert noise.std() == pytest.approx(found.noise, rel=0.06)
    assert abs(noise.mean()) < 4 * found.noise / sqrt(noise.size)
    assert found.mechanism == account.plan.statistics
    assert all(type(count) is int for o in told for t in o for count in t.bins)
    untold = [part for o in (*found.static, *found.series) for part in ((o.whole,) if select else (o.survived, o.died))]
    assert set(untold) == {Distribution()}


def test_the_noise_of_a_validation_is_as_declared() -> None:
    account, held = _account(_private()), validation({30: 9}, {10: 40, 90: 7})
    exact = np.array([coarse_scores(held.negatives), coarse_scores(held.positives)])
    replies = [private_validation(held, account, Random(seed)) for seed in range(200)]
    noise = np.array([[coarse_scores(r.validation.negatives), coarse_scores(r.validation.positives)] for r in replies])
    assert {r.noise for r in replies} == {account.plan.validation.noise_multiplier}
    assert (noise - exact).std() == pytest.approx(sqrt(replies[0].noise ** 2 + 1 / 12), rel=0.06)  # rounding adds 1/12
    assert all(r.validation.loss_sum == 0.0 and r.mechanism == account.plan.validation for r in replies)


def test_without_an_entropy_of_its_own_no_two_answers_are_alike() -> None:
    config, data = _private(), _on_the_grids(120, seed=1)
    first, second = (private_statistics(data, config, _account(config)) for _ in range(2))
    assert first.static != second.static
    for used in (private_statistics, private_validation, one_stay_a_patient, Drawn.of):
        *_, entropy = signature(used).parameters.values()
        assert isinstance(entropy.default, SystemRandom)


def test_what_is_noised_leaves_as_it_is_and_reads_the_same_on_the_other_side() -> None:
    config = _private()
    statistics = private_statistics(_on_the_grids(200, seed=1), config, _account(config), Random(1))
    reply = private_validation(validation({30: 9}, {10: 40}), _account(config), Random(1))
    policy, order = ReleasePolicy(allow=KINDS, smallest_cell=50), trial_content(Trial())
    for sent, kind in ((statistics, "statistics"), (reply, "evaluate")):
        content = passable(sent, kind, policy, order).content
        assert type(sent).read(over_the_wire(content)) == sent
    assert min(reply.validation.negatives) < 0
    with pytest.raises(ReleaseRefused, match="fewer than 201"):
        passable(statistics, "statistics", ReleasePolicy(allow=KINDS, smallest_cell=201), order)


@pytest.mark.parametrize("unit", ["patient", "none"])
def test_the_server_takes_noised_statistics_in_a_private_run_and_in_no_other(unit: str) -> None:
    config, data = _private(privacy_unit=unit, min_sites=1), _on_the_grids(200, seed=1)
    private = private_statistics(data, config, _account(_private()), Random(1))
    exact = local_statistics(data, EARLY)
    right, wrong = (private, exact) if unit == "patient" else (exact, private)
    cards = {n: replace(CARDS[0], site=name) for n, name in enumerate(("right", "wrong"), start=1)}
    grid = MemoryGrid({1: lambda _: right.content(), 2: lambda _: wrong.content()})
    found, reasons = ask_statistics(grid, Admission(sites=cards, refused={}), config)
    assert list(found) == ["right"] and "noised in a run that is not private" in reasons["wrong"]


def _federation_of(config: RunConfig) -> list[Statistics]:
    return [private_statistics(_on_the_grids(n, seed=n), config, _account(config, n, n // 3), Random(n)) for n in SITES]


def _usable(plan: PreprocessingPlan) -> bool:
    features = (*plan.static_features, *plan.series_features)
    inside = [f.lower <= f.fill <= f.upper and g.low <= f.mean <= g.high for f, g in zip(features, GRIDS, strict=True)]
    wide = [0 < f.scale <= max(0.51 * (g.high - g.low), 1.0) for f, g in zip(features, GRIDS, strict=True)]
    return all(inside) and all(wide) and PreprocessingPlan.from_json(plan.to_json(), digest=plan.digest) == plan


def test_a_plan_from_noised_counts_is_close_to_the_exact_one_at_epsilon_8() -> None:
    config = _private(batch_size=64)
    plan = plan_from(_federation_of(config), config)
    assert _usable(plan) and plan.patients == sum(SITES) and plan.prevalence == pytest.approx(1 / 3, abs=0.01)
    drawn = np.concatenate([Drawn.of(_on_the_grids(n, seed=n), Random(n)).value_PF for n in SITES])
    mean_F, sd_F = np.nanmean(drawn, axis=0), np.nanstd(drawn, axis=0)
    features = (*plan.static_features, *plan.series_features)
    off_F = np.abs([f.mean for f in features] - mean_F) / sd_F
    assert np.median(off_F) < 0.15 and np.quantile(off_F, 0.95) < 0.5
    ratio_F = np.array([f.sd for f in features]) / sd_F
    assert np.quantile(ratio_F, 0.05) > 0.6 and np.quantile(ratio_F, 0.95) < 1.7
    assert np.mean(np.abs([f.missing - 0.1 for f in features][: len(EARLY.static)])) < 0.1


@pytest.mark.parametrize("select", [0, 12])
def test_a_plan_is_usable_where_all_signal_drowns(select: int) -> None:
    config = _private(privacy_epsilon=0.3, batch_size=64, select_features=select)
    plan = plan_from(_federation_of(config), config)
    assert _usable(plan) and len(plan.static) == (select or len(EARLY.static))
    told = [f.mutual_information for f in feature_summaries(plan, config)]
    assert all(t is None for t in told) if not select else all(t is not None for t in told)


def test_with_hardly_any_noise_the_shape_is_the_datas_own() -> None:
    grid = ValueGrid(0.0, 64.0)
    counts = (0, 500, 0, 0, 90, 0, 0, 0, 700, 0, 3, 0, 0, 0, 0, 400)
    found = settled(Outcomes(Distribution(bins=placed(counts))), grid, noise=0.1, patients=2000, deaths=9)
    assert found.possible
    assert coarse(found.whole.bins) == pytest.approx(counts, abs=1)


def test_without_any_signal_a_feature_has_the_scale_of_its_range() -> None:
    grid = ValueGrid(0.0, 64.0)
    nothing = Outcomes(Distribution(bins=placed((0,) * 16)))
    found = settled(nothing, grid, noise=1e6, patients=1000, deaths=9).whole
    values = np.repeat(np.arange(64) + 0.5, found.bins)
    assert values.mean() == pytest.approx(32, abs=1) and 15 < values.std() < 25


def test_a_flag_is_read_from_its_two_ends() -> None:
    counts = np.zeros(16)
    counts[0], counts[-1] = 900, 300
    noisy = tuple(int(c) for c in np.rint(counts + np.random.default_rng(1).normal(0, 60, 16)))
    flag = settled(Outcomes(Distribution(bins=placed(noisy))), ValueGrid(0.0, 1.0), noise=60.0, patients=1200, deaths=9)
    assert flag.whole.bins[-1] / flag.whole.count == pytest.approx(0.25, abs=0.06)


def test_the_projection_is_the_nearest_of_its_total_without_negative_numbers() -> None:
    given = np.random.default_rng(4).normal(3, 20, (50, 10))
    found = on_simplex(given, 40.0)
    assert found.min() >= 0 and found.sum(axis=1) == pytest.approx(np.full(50, 40.0))
    moved = given - found  # the conditions of Karush, Kuhn and Tucker: one shift wherever something is left
    shift = np.array([row[kept > 0].mean() for row, kept in zip(moved, found, strict=True)])
    assert np.all(moved <= shift[:, None] + 1e-9) and np.allclose(np.where(found > 0, moved - shift[:, None], 0), 0)


def _reply(seed: int, noise: float = 8.0) -> EvaluateReply:
    rng = np.random.default_rng(seed)
    score, died = rng.beta(2, 4, 150), np.arange(150) < 30
    held = Validation.of(np.where(died, score**0.5, score), died, loss_sum=0.0)
    account = _account(_private())
    mechanism = replace(account.plan.validation, noise_multiplier=noise)
    return private_validation(held, replace(account, plan=replace(account.plan, validation=mechanism)), Random(seed))


def test_a_merged_validation_has_the_patients_that_the_sites_told_and_an_interval_that_spans_the_noise() -> None:
    config, replies = _private(), [_reply(1), _reply(2)]
    found = settled_validation(replies, [*CARDS, *CARDS], config, 0.2)
    assert (found.validation.count, found.validation.deaths) == (300, 60) and found.noise == pytest.approx(8 * sqrt(2))
    assert found.validation.loss is not None and 0 < found.validation.loss < 0.5
    threshold = coarse_edge(found.validation.best_threshold)
    assert threshold * 10 == pytest.approx(round(threshold * 10))
    widths = []
    for noised in (found, replace(found, noise=1e-9)):
        told = evaluate_validation(noised.validation, {}, threshold=threshold, resamples=200, seed=1, noised=noised)
        auroc = told.metrics["auroc"]
        assert auroc.value is not None and auroc.low is not None and auroc.high is not None
        widths.append(auroc.high - auroc.low)
        assert told.noise == noised.noise and told.patients == 300 and not told.sites
    assert widths[0] > 1.3 * widths[1]


@pytest.mark.parametrize("counts", [(-50, -50), (0, 0), (-50, 60)])
def test_counts_that_add_up_to_nothing_are_evaluated_without_a_crash(counts: tuple[int, int]) -> None:
    sides = [(n,) + (0,) * 199 for n in counts]
    settled_ = settled_scores(Validation(sides[0], sides[1]), survivals=None, deaths=None)
    assert min(settled_.negatives) >= 0 and min(settled_.positives) >= 0
    noised = Noised(settled_, 20.0)
    found = evaluate_validation(settled_, {}, threshold=settled_.best_threshold, resamples=50, seed=1, noised=noised)
    assert found.metrics["auroc"].value is None and found.deaths == max(counts[1], 0)


def test_nobodys_validation_is_settled_as_nobodys() -> None:
    found = settled_validation([], [], _private(), 0.2)
    assert found.validation == Validation() and found.noise == 0.0


def test_with_empty_validations_the_last_round_is_kept_and_survives_a_checkpoint() -> None:
    training = Training(weights={})
    for number in range(1, 4):
        training.rounds.append(RoundSummary(round=number, learning_rate=0.1, replied=[], bytes_down=0, bytes_up=0))
        weights = {"w": torch.tensor(float(number))}
        last = settled_validation([_reply(5)], CARDS, _private(), 0.2) if number == 3 else None
        training.validated(number, weights, {} if last else {"A": Validation()}, last)
        assert training.best_round == number and training.weights is weights
    assert training.noised is not None and training.validation == training.noised.validation == training.last
    assert training.rounds[2].validation_auroc is not None and training.rounds[1].validation_auroc is None
    again = Training.from_json(training.to_json(), training.weights)
    assert (again.noised, again.validation) == (training.noised, training.validation)


def _asked(tmp_path: Path, content: Content) -> Asked:
    config = small_config(privacy_unit="patient")
    write_store(tmp_path / "store", patients(200, windows=WINDOWS), study=config.study)
    site = load_site(write_site(tmp_path, "store"))
    occasion = occasion_of("evaluate", content, config.to_flat(), 1)
    account = _account(_private())
    return Asked(content=content, site=site, config=config, run_id=1, occasion=occasion, account=account)


ASKED: dict[str, tuple[Callable[[Asked], object], Callable[[], Content], str]] = {
    "statistics of a fold": (task.statistics, lambda: trial_content(Trial(fold=1, folds=3)), "one trial"),
    "a model of another trial": (
        task.evaluate, lambda: _order(trial=Trial(name="without A")), "one trial",
    ),
    "a personalised model": (task.evaluate, lambda: _order(personal=True), "personal"),
}  # fmt: skip


def _order(**changes: object) -> Content:
    plan, config = tiny_plan(), small_config()
    order = replace(RoundOrder(round=1, learning_rate=0.1, plan=plan), **changes)
    return weights_content(dict(build_model(config.model_for(plan), seed=1).state_dict()), order)


@pytest.mark.parametrize("name", ASKED)
def test_what_a_private_run_has_no_budget_for_is_refused(name: str, tmp_path: Path) -> None:
    handler, content, words = ASKED[name]
    with pytest.raises(ContractError, match=words):
        handler(_asked(tmp_path, content()))
