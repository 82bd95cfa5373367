"""Blocks of patients: how they are cut, which of them a run gets, and that a step of training reads whole bundles."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import model_sizes, patients, tiny_config, tiny_scaler

from client.blocks import MOST, WAITING, Blocks, bundled, cut
from client.training import _steps, train_local
from shared_model.model import build_model
from shared_model.trial import THE_RUN, Trial

CELL = 10


def ranked(count: int) -> list[bytes]:
    return [bytes([n * 37 % 256, n // 256, n % 256]) for n in range(count)]


def cut_of(deaths: int, survivals: int, *, new: int | None = None, first: bool = True) -> list[np.ndarray]:
    """Deaths come first; of each outcome, the first ``new`` patients are new."""
    died = np.arange(deaths + survivals) < deaths
    place = np.where(died, np.arange(len(died)), np.arange(len(died)) - deaths)
    fresh = np.ones(len(died), dtype=bool) if new is None else place < new
    return cut(died, fresh, ranked(len(died)), CELL, first=first)


def blocks_of(count: int, *, stays: int = 70, complete: frozenset[int] | None = None, key: bytes = b"key") -> Blocks:
    block_N = np.arange(stays) % count + 1
    known = frozenset(range(1, count + 1)) if complete is None else complete
    return Blocks(
        block_N=block_N, bundle_N=block_N, new_N=np.ones(stays, dtype=bool), complete=known, changed=(), store="s",
        line=(1, "d"), key=key,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("deaths", "survivals", "many"),
    [(9, 200, 1), (10, 200, 1), (20, 19, 1), (20, 20, 2), (45, 900, 4), (900, 900, MOST)],
)
def test_every_block_has_a_cell_of_deaths_and_of_survivals_where_there_are_enough(
    deaths: int, survivals: int, many: int
) -> None:
    found = cut_of(deaths, survivals)
    assert len(found) == many
    assert sorted(np.concatenate(found).tolist()) == list(range(deaths + survivals))
    sizes = [len(block) for block in found]
    assert max(sizes) - min(sizes) <= 1
    if many > 1:
        assert min(int((block < deaths).sum()) for block in found) >= CELL
        assert min(int((block >= deaths).sum()) for block in found) >= CELL


def test_a_site_of_fewer_patients_than_a_cell_has_no_block() -> None:
    assert cut_of(4, 5) == [] and len(cut_of(5, 5)) == 1


@pytest.mark.parametrize("new", [0, 1, 9])
def test_later_a_block_waits_for_a_cell_of_new_deaths_and_new_survivals(new: int) -> None:
    assert cut_of(50, 50, new=new, first=False) == []
    [one] = cut_of(50, 50, new=10, first=False)
    assert len(one) == 100  # those who were told of before come along


def test_a_run_chooses_among_blocks_and_gets_the_same_ones_each_time() -> None:
    blocks = blocks_of(7)
    for fraction, held in ((0.0, 0), (0.07, 0), (0.15, 1), (0.1502, 1), (0.3, 2), (0.9, 6), (1.0, 6)):
        training, validation = blocks.choose(THE_RUN, fraction, 1)
        assert len(validation) == held and sorted(training + validation) == list(range(1, 8))
        assert (training, validation) == blocks.choose(THE_RUN, fraction, 1)
    chosen = {blocks.choose(THE_RUN, 0.15, seed)[1] for seed in range(60)}
    assert chosen == {(number,) for number in range(1, 8)}  # another seed, another block
    assert {blocks_of(7, key=bytes([n])).choose(THE_RUN, 0.15, 1)[1] for n in range(60)} == chosen  # another site


@pytest.mark.parametrize("folds", [2, 3, 5, 7, 11])
@pytest.mark.parametrize("count", [2, 4, 7])
def test_each_block_validates_in_one_fold_and_trains_in_the_others(folds: int, count: int) -> None:
    blocks = blocks_of(count)
    found = [blocks.choose(Trial(fold=fold, folds=folds), 0.15, 3) for fold in range(folds)]
    assert sorted(number for _, held in found for number in held) == list(range(1, count + 1))
    assert all(sorted(training + held) == list(range(1, count + 1)) for training, held in found)


def test_a_site_of_one_block_trains_in_every_fold_and_a_site_left_out_validates_on_all() -> None:
    one = blocks_of(1)
    assert [one.choose(Trial(fold=fold, folds=3), 0.5, 1) for fold in range(3)] == [((1,), ())] * 3
    assert one.choose(THE_RUN, 0.9, 1) == ((1,), ())
    assert one.choose(Trial(folds=1), 0.15, 1) == ((), (1,))
    assert blocks_of(7).choose(Trial(folds=1), 0.15, 1) == ((), (1, 2, 3, 4, 5, 6, 7))


def test_a_block_without_enough_deaths_is_never_validated_and_hides_the_deaths() -> None:
    blocks, data = blocks_of(2, complete=frozenset((1,))), patients(70)
    assert blocks.choose(Trial(folds=1), 0.15, 1) == ((), (1,))
    found = blocks.open(data, THE_RUN, 0.0, 1)
    assert found.deaths is None and found.training.patients == 70
    assert replace(found, complete=True).deaths == found.training.deaths


def test_who_waits_is_in_no_answer() -> None:
    data, blocks = patients(70), blocks_of(7)
    waiting = replace(blocks, block_N=np.where(np.arange(70) == 5, WAITING, blocks.block_N))
    found = waiting.open(data, THE_RUN, 0.15, 1)
    assert len(found.training) + len(found.validation) == 69
    assert 1005 not in {*found.training.patient_N.tolist(), *found.validation.patient_N.tolist()}


@pytest.mark.parametrize(("count", "new"), [(10, 10), (19, 19), (20, 20), (157, 157), (40, 20), (30, 12)])
def test_every_bundle_has_a_cell_of_new_patients(count: int, new: int) -> None:
    new_P = np.arange(count) % 2 == 0 if new < count else np.ones(count, dtype=bool)
    bundle_P = bundled(new_P, ranked(count), CELL)
    assert set(bundle_P.tolist()) == set(range(max(int(new_P.sum()) // CELL, 1)))
    assert np.bincount(bundle_P[new_P]).min() >= CELL


@pytest.mark.parametrize("batch_size", [1, 16, 64, 500])
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_step_reads_whole_bundles_whatever_batch_is_asked_for(batch_size: int, steps: int) -> None:
    data = patients(130, missing=0.0)
    data.static_NF[:, 0] = torch.arange(130) / 100  # tells which stay it is, and the scaler passes it through
    bundle_N = torch.from_numpy(np.arange(130) % 12)
    config = tiny_config(batch_size=batch_size, local_steps=steps)
    torch.manual_seed(0)
    batches = list(_steps(data, tiny_scaler(), config, torch.device("cpu"), bundle_N))
    seen = [[round(float(value) * 100) for value in batch.static_BF[:, 0]] for batch in batches]
    for stays in seen:
        chosen = {stay % 12 for stay in stays}
        assert sorted(stays) == [stay for stay in range(130) if stay % 12 in chosen]
    if not steps:
        assert sorted(stay for stays in seen for stay in stays) == list(range(130))
        assert len(seen) == -(-12 // max(round(batch_size * 12 / 130), 1))


def test_without_bundles_training_is_what_it_was() -> None:
    """Bundles of one stay are the plain order, to the last bit."""
    data, config = patients(60), tiny_config()
    found = [
        train_local(
            build_model(model_sizes(config), seed=1), data, tiny_scaler(), config,
            learning_rate=1e-2, seed=3, device=torch.device("cpu"), bundle_N=bundle_N,
        ).weights
        for bundle_N in (None, torch.arange(60) + 7)
    ]  # fmt: skip
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
