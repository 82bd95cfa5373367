"""What a benchmark says of its runs, and that it says so where a criterion is not met."""

import numpy as np
import pytest

from server.results import Estimate
from simulations.benchmark_results import Benchmark, ModelRun
from simulations.benchmark_summary import as_markdown, summarize
from simulations.crossed import HeldOut

BEST, UNITS, N = "federated: scaffold, best settings", ("CCU", "MICU"), 400


def held_out(seed: int, signals: dict[str, float]) -> HeldOut:
    """Scores that follow death as much as ``signals`` says; the local models of both units are poor."""
    rng = np.random.default_rng(seed)
    label_N = rng.random(N) < 0.3
    scores = {model: signal * label_N + rng.normal(size=N) for model, signal in signals.items()}
    return HeldOut(np.arange(N) + N * seed, label_N, np.array(UNITS)[np.arange(N) % 2], scores)


def summary(**signals: float) -> Benchmark:
    named = {"local-only: CCU": 0.3, "local-only: MICU": 0.3, "LightGBM, pooled": 1.0}
    named |= {BEST: signals["best"], "pooled": signals["pooled"]}
    nothing = Estimate(value=0.5)
    runs = [
        ModelRun(seed=seed, model=m, config={}, auroc=nothing, auprc=nothing, by_unit=[], seconds=1.0)
        for m in named
        for seed in (1, 2)
    ]
    start = Benchmark(
        consilium_version="1", status="partial", source="A | B", heldout_fraction=0.2, seeds=[1, 2], runs=runs
    )
    return summarize(start, [held_out(seed, named) for seed in (1, 2)], BEST, resamples=100)


def test_a_good_federation_meets_every_criterion() -> None:
    found = summary(best=2.2, pooled=2.0)
    assert found.status == "complete" and [one.met for one in found.criteria] == [True] * 4
    best = next(model for model in found.models if model.model == BEST)
    assert best.auroc.low is not None and best.auroc.value is not None and best.auroc.low < best.auroc.value
    assert best.seeds == [0.5, 0.5]
    assert [unit.unit for unit in found.units] == list(UNITS)
    assert all(unit.gain.value == pytest.approx(unit.federated.value - unit.own_local.value) for unit in found.units)
    assert found.units[0].patients == N / 2


def test_what_is_not_met_is_said_with_its_figures() -> None:
    found = summary(best=0.1, pooled=2.0)
    assert not any(one.met for one in found.criteria)
    text = as_markdown(found)
    assert "**not met**: federated AUROC at least 0.865" in text
    assert "not in: CCU 0." in text and "; MICU 0." in text
    assert "A | B" in text.splitlines()[0] and "| pooled |" in text


def test_tables_are_markdown_whatever_a_unit_is_called() -> None:
    found = summary(best=1.0, pooled=1.0)
    odd = found.units[0].model_copy(update={"unit": "a|b"})
    lines = as_markdown(found.model_copy(update={"units": [odd]})).splitlines()
    assert any(line.startswith("| a\\|b |") for line in lines)
