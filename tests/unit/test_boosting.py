"""The pooled trees: what they read, and that nobody of the held-out set is in the fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import patients, tiny_config, write_store
from sklearn.metrics import roc_auc_score

from client.block_memory import open_blocks
from shared_model.batch import PatientData
from simulations.boosting import table, train_boosted


def test_a_series_becomes_its_last_value_its_count_and_its_spread() -> None:
    data = patients(3, windows=4)
    series_NTC = torch.full_like(data.series_NTC, float("nan"))
    series_NTC[0, :, 0] = torch.tensor([float("nan"), 2.0, 4.0, float("nan")])
    series_NTC[1, 0, 0] = 7.0
    found = table(replace(data, series_NTC=series_NTC))
    features, channels = data.static_NF.shape[1], series_NTC.shape[2]
    assert found.shape == (3, features + 3 * channels)
    np.testing.assert_array_equal(found[:, :features], data.static_NF.numpy())
    last, count, sd = (found[:, features + part * channels] for part in range(3))
    np.testing.assert_array_equal(last, [4.0, 7.0, np.nan])
    np.testing.assert_array_equal(count, [2.0, 1.0, 0.0])
    np.testing.assert_allclose(sd, [np.sqrt(2.0), np.nan, np.nan], rtol=1e-6)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("stores")
    found = [write_store(folder / str(seed), patients(240, seed=seed)) for seed in (1, 2)]
    for store in found:
        open_blocks(store, 10)
    return found


def scored(stores: list[Path], heldout: PatientData, folder: Path) -> np.ndarray:
    return train_boosted(stores, write_store(folder, heldout), tiny_config())


def test_trees_learn_from_the_training_patients_alone_and_repeat(stores: list[Path], tmp_path: Path) -> None:
    heldout = patients(200, seed=3)
    found = scored(stores, heldout, tmp_path / "heldout")
    assert roc_auc_score(heldout.label_N, found) > 0.9
    flipped = replace(heldout, label_N=~heldout.label_N)
    np.testing.assert_array_equal(found, scored(stores, flipped, tmp_path / "flipped"))
