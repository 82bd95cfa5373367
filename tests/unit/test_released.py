"""The released model: whole or as before, and only parts that belong together load."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from builders import model_sizes, patients, tiny_config, tiny_plan, tiny_scaler
from full_disk import full_disk

from server.released import CONFIG, PLAN, WEIGHTS, load_released, save_model
from shared_model.errors import ContractError
from shared_model.messages import Weights
from shared_model.model import build_model
from shared_model.plan import PreprocessingPlan

SIZES = model_sizes(tiny_config())


def _weights(seed: int = 1) -> Weights:
    return dict(build_model(SIZES, seed=seed).state_dict())


def _save(folder: Path, *, seed: int = 1, plan: PreprocessingPlan | None = None, threshold: float = 0.37) -> Path:
    save_model(folder, _weights(seed), plan or tiny_plan(), SIZES, threshold=threshold, encoder="e" * 64)
    return folder


def test_a_released_model_loads_with_its_plan_and_threshold(tmp_path: Path) -> None:
    released = load_released(_save(tmp_path / "model"))
    assert (released.plan, released.threshold, released.encoder) == (tiny_plan(), 0.37, "e" * 64)
    assert all(torch.equal(tensor, _weights()[name]) for name, tensor in released.model.state_dict().items())
    batch = patients(5).batch(torch.arange(5), tiny_scaler())
    assert torch.equal(released.model.eval()(batch), build_model(SIZES, seed=1).eval()(batch))


def test_a_released_model_says_what_it_needs(tmp_path: Path) -> None:
    config = json.loads((_save(tmp_path) / CONFIG).read_text(encoding="utf-8"))
    assert config["model"] == asdict(SIZES) and config["encoder"] == "e" * 64
    assert config["plan_digest"] == tiny_plan().digest and config["contract"] == tiny_plan().contract


def test_saving_again_replaces_the_released_model(tmp_path: Path) -> None:
    _save(tmp_path)
    released = load_released(_save(tmp_path, seed=2, plan=tiny_plan(bound=4.0), threshold=0.5))
    assert torch.equal(released.model.missing.weight, _weights(2)["missing.weight"])
    assert (released.plan.bound, released.threshold) == (4.0, 0.5)


@pytest.mark.parametrize("swapped", [WEIGHTS, PLAN, CONFIG])
def test_parts_of_two_runs_do_not_load_together(tmp_path: Path, swapped: str) -> None:
    """Both runs have the same sizes, so only the digests can tell."""
    mine, other = _save(tmp_path / "a"), _save(tmp_path / "b", seed=2, plan=tiny_plan(bound=4.0))
    shutil.copyfile(other / swapped, mine / swapped)
    with pytest.raises(ContractError):
        load_released(mine)


@pytest.mark.parametrize("name", [WEIGHTS, PLAN, CONFIG])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_a_part_that_is_absent_or_broken_is_a_contract_error(tmp_path: Path, name: str, content: bytes | None) -> None:
    folder = _save(tmp_path / "model")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ContractError):
        load_released(folder)


@pytest.mark.parametrize(
    "change",
    [{"threshold": None}, {"threshold": "high"}, {"model": None}, {"model": {"layers": 3}}, {"plan_digest": 7}],
    ids=lambda change: "-".join(change),
)
def test_a_config_of_another_shape_is_a_contract_error(tmp_path: Path, change: dict[str, object]) -> None:
    path = _save(tmp_path) / CONFIG
    held = json.loads(path.read_text(encoding="utf-8")) | change
    path.write_text(json.dumps({key: value for key, value in held.items() if value is not None}), encoding="utf-8")
    with pytest.raises(ContractError):
        load_released(tmp_path)


def test_weights_of_other_sizes_are_a_contract_error(tmp_path: Path) -> None:
    other = model_sizes(tiny_config(fusion_width=7))
    save_model(tmp_path, _weights(), tiny_plan(), other, threshold=0.5, encoder="")
    with pytest.raises(ContractError, match="weights do not fit"):
        load_released(tmp_path)


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="not a released model"):
        load_released(tmp_path / "nowhere")


def test_no_part_of_a_released_model_is_ever_half_written(tmp_path: Path) -> None:
    """The weights fit below the limit and the plan does not: a reader must find the old plan, whole."""
    long = replace(tiny_plan(), patients=101)
    folder = _save(tmp_path / "model")
    before = (folder / PLAN).read_bytes()
    with full_disk(after=2000), pytest.raises(OSError, match=r"(?i)large"):
        save_model(folder, {"w": torch.zeros(2)}, long, SIZES, threshold=0.5, encoder="")
    assert (folder / PLAN).read_bytes() == before
