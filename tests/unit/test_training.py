"""Local training: losses, schedules, steps, precision, weight decay, and the same bits for the same seed."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders import model_sizes, patients, tiny_config, tiny_plan

from client.precision import without_bfloat16
from client.training import Update, train_local
from shared_model.config import RunConfig
from shared_model.errors import ConfigError, ContractError
from shared_model.inputs import Scaler
from shared_model.losses import focal_loss, training_loss
from shared_model.model import build_model

CPU = torch.device("cpu")
LOGIT, LABEL = torch.tensor([2.0, -1.0, 0.3]), torch.tensor([1.0, 0.0, 0.0])


def _train(**settings: object) -> tuple[Update, dict[str, torch.Tensor]]:
    """The update of a small model, and the weights before it."""
    config = tiny_config(**settings)
    model = build_model(model_sizes(config), seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    data = patients(50, windows=4)
    return train_local(model, data, Scaler(tiny_plan()), config, learning_rate=1e-2, seed=5, device=CPU), before


def test_cross_entropy_is_the_plain_one_and_half_of_it_is_focal_loss_without_focus() -> None:
    found = training_loss(LOGIT, LABEL, RunConfig(loss="cross_entropy"))
    by_hand = [math.log(1 + math.exp(-2.0)), math.log(1 + math.exp(-1.0)), math.log(1 + math.exp(0.3))]
    assert found.tolist() == pytest.approx(by_hand)
    assert torch.allclose(focal_loss(LOGIT, LABEL, alpha=0.5, gamma=0.0), found / 2)


def test_focal_alpha_zero_is_the_survivals_share_of_the_federation() -> None:
    config = RunConfig(focal_alpha=0.0)
    assert config.with_label_rate(0.24).focal_alpha == pytest.approx(0.76)
    assert RunConfig(focal_alpha=0.3).with_label_rate(0.24).focal_alpha == 0.3
    with pytest.raises(ContractError, match="focal-alpha = 0: the federation's share of deaths is not known"):
        config.with_label_rate(0.0)
    assert RunConfig(focal_alpha=0.0, loss="cross_entropy").with_label_rate(0.0).loss == "cross_entropy"


@pytest.mark.parametrize(
    ("schedule", "middle", "last"),
    [
        ("cosine", 0.5, 0.5 * (1 + math.cos(math.pi * 0.9))),
        ("linear", 0.5, 0.1),
        ("exponential", 0.1, 0.01**0.9),
        ("constant", 1.0, 1.0),
    ],
)
def test_the_learning_rate_follows_its_schedule_from_the_first_round(schedule: str, middle: float, last: float) -> None:
    config = RunConfig(rounds=10, learning_rate=1e-3, schedule=schedule)
    assert [config.learning_rate_at(n) for n in (1, 6, 10)] == pytest.approx([1e-3, middle * 1e-3, last * 1e-3])


@pytest.mark.parametrize(
    ("settings", "stays"),
    [({"local_epochs": 2}, 100), ({"local_steps": 3}, 48), ({"local_steps": 7}, 98), ({"local_epochs": 1}, 50)],
)
def test_a_round_has_so_many_epochs_or_steps(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], stays: int
) -> None:
    """Of 50 stays in batches of 16: 16, 16, 16, 2, and again in another order."""
    seen: list[torch.Tensor] = []

    def note(logit: torch.Tensor, label: torch.Tensor, config: RunConfig) -> torch.Tensor:
        seen.append(label)
        return training_loss(logit, label, config)

    monkeypatch.setattr("client.training.training_loss", note)
    update, _ = _train(**settings)
    assert sum(map(len, seen)) == stays and update.examples == 50


def test_the_same_seed_gives_the_same_bits_and_the_loss_falls() -> None:
    one, two, longer = _train(dropout=0.3)[0], _train(dropout=0.3)[0], _train(dropout=0.3, local_epochs=20)[0]
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in one.weights)
    assert longer.loss < 0.8 * one.loss


def test_l2_shrinks_matrices_alone() -> None:
    """After one step, whose gradients are the same, what is decayed is smaller and nothing else differs."""
    once = {"local_steps": 1}
    decayed, plain = _train(weight_decay=0.9, **once)[0].weights, _train(weight_decay=0.0, **once)[0].weights
    changed = {name for name in plain if not torch.equal(decayed[name], plain[name])}
    assert changed == {name for name, tensor in plain.items() if tensor.ndim > 1}
    assert all(decayed[name].norm() < plain[name].norm() for name in changed)


def test_bfloat16_stays_near_single_precision_and_leaves_single_precision_weights() -> None:
    if why := without_bfloat16(model_sizes(tiny_config()), CPU):
        pytest.skip(f"this processor cannot train in bfloat16: {why}")
    half, full = _train(precision="bfloat16")[0], _train(precision="float32")[0]
    assert all(tensor.dtype == torch.float32 for tensor in half.weights.values())
    assert half.loss == pytest.approx(full.loss, rel=0.05) and half.loss != full.loss


def test_deterministic_mode_ends_with_the_training() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    update, _ = _train(deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()
    assert update.loss == _train()[0].loss


def test_a_model_that_cannot_be_compiled_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    def broken(model: torch.nn.Module, **settings: object) -> object:
        def forward(batch: object) -> torch.Tensor:
            raise BackendCompilerFailed(lambda: None, RuntimeError("no compiler"), None)

        return forward

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(ConfigError, match="compile = true"):
        _train(compile=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile has many
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")
def test_a_compiled_model_trains_like_the_plain_one() -> None:
    compiled, plain = _train(compile=True)[0], _train()[0]
    assert compiled.weights.keys() == plain.weights.keys()
    assert compiled.loss == pytest.approx(plain.loss, rel=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_code_trains_on_a_gpu() -> None:
    config, data = tiny_config(local_epochs=3), patients(50, windows=4)
    model, device = build_model(model_sizes(config), seed=1), torch.device("cuda")
    update = train_local(model, data, Scaler(tiny_plan()), config, learning_rate=1e-2, seed=5, device=device)
    assert all(tensor.device.type == "cpu" for tensor in update.weights.values()) and math.isfinite(update.loss)


def test_the_optimiser_is_pytorchs_to_the_last_bit_and_does_not_load_its_compiler() -> None:
    code = """
import sys, torch
from client.optimiser import AdamW

def trained(kind):
    torch.manual_seed(1)
    layer, x, y = torch.nn.LSTM(3, 4), torch.randn(5, 8, 3), torch.randn(5, 8, 4)
    groups = [{"params": list(layer.parameters())[:2], "weight_decay": 0.1}, {"params": list(layer.parameters())[2:]}]
    optimizer = kind(groups, lr=0.01, fused=True)
    for _ in range(5):
        optimizer.zero_grad(set_to_none=True)
        (layer(x)[0] - y).square().mean().backward()
        optimizer.step()
    return [p.detach() for p in layer.parameters()]

ours = trained(AdamW)
assert "torch._dynamo" not in sys.modules
assert all(torch.equal(a, b) for a, b in zip(ours, trained(torch.optim.AdamW), strict=True))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
