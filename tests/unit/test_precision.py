"""What the device at hand cannot do is found out before the first step, and said in one line or refused."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from builders import model_sizes, patients, tiny_config, tiny_plan

from client.precision import autocast, fault, warn_once, without_bfloat16
from client.training import train_local
from shared_model.config import RunConfig
from shared_model.errors import ConfigError
from shared_model.inputs import Batch, Scaler
from shared_model.messages import Weights
from shared_model.model import build_model

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
# As a processor without AVX-512 says it.
FAULT = "could not create a primitive descriptor for the LSTM forward propagation primitive"


@pytest.fixture(autouse=True)
def _nothing_is_known_yet() -> Iterator[None]:
    for known in (without_bfloat16, warn_once):
        known.cache_clear()
    yield
    for known in (without_bfloat16, warn_once):
        known.cache_clear()


@pytest.fixture(params=["forward", "backward"])
def no_bfloat16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An LSTM that does one of its two ways in single precision only."""
    plain = torch.nn.LSTM.forward

    def broken(_: object) -> None:
        raise RuntimeError(f"{FAULT}\nand a second line")

    def forward(self: torch.nn.LSTM, *inputs: object) -> object:
        half = torch.is_autocast_enabled("cpu")
        if half and request.param == "forward":
            broken(None)
        with torch.autocast("cpu", enabled=False):  # this processor may be one that cannot
            states, last = plain(self, *inputs)
        if half and isinstance(states, torch.Tensor):
            states.register_hook(broken)
        return states, last

    monkeypatch.setattr(torch.nn.LSTM, "forward", forward)


def _train(**settings: object) -> Weights:
    config = tiny_config(dropout=0.3, **settings)
    model, scaler = build_model(model_sizes(config), seed=1), Scaler(tiny_plan())
    data = patients(50, windows=4)
    return train_local(model, data, scaler, config, learning_rate=1e-2, seed=5, device=CPU).weights


def _alike(one: Weights, two: Weights) -> bool:
    return all(torch.equal(one[name], two[name]) for name in two)


@pytest.mark.usefixtures("no_bfloat16")
def test_without_bfloat16_a_site_says_so_once_and_trains_the_same_in_single_precision(
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = _train(precision="float32")
    assert not caplog.messages
    assert _alike(_train(precision="bfloat16"), expected) and _alike(_train(precision="bfloat16"), expected)
    assert caplog.messages == [
        f"precision = 'bfloat16': this cpu cannot train in bfloat16 ({FAULT}); it trains in float32"
    ]


@pytest.mark.usefixtures("no_bfloat16")
def test_without_bfloat16_a_run_that_wants_nothing_else_is_refused() -> None:
    with pytest.raises(ConfigError, match=rf"bfloat16_only': this cpu cannot train in bfloat16 \({FAULT}\)"):
        _train(precision="bfloat16_only")


def test_with_bfloat16_a_run_that_wants_nothing_else_is_as_any(caplog: pytest.LogCaptureFixture) -> None:
    if why := without_bfloat16(model_sizes(tiny_config()), CPU):
        pytest.skip(f"this processor cannot train in bfloat16: {why}")
    only = _train(precision="bfloat16_only")
    assert _alike(_train(precision="bfloat16"), only) and not _alike(_train(), only) and not caplog.messages


def test_auto_on_a_gpu_without_bfloat16_is_single_precision(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("client.precision.without_bfloat16", lambda sizes, device: "too old")
    with autocast(RunConfig(), build_model(model_sizes(tiny_config()), seed=1), CUDA):
        assert not torch.is_autocast_enabled("cuda")
    assert caplog.messages == ["precision = 'auto': this cuda cannot train in bfloat16 (too old); it trains in float32"]


def test_single_precision_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def tried(*_: object) -> str:
        raise AssertionError("single precision needs no trial")

    monkeypatch.setattr("client.precision.without_bfloat16", tried)
    assert _alike(_train(precision="auto"), _train(precision="float32"))


def test_a_trial_leaves_the_random_numbers_and_wants_finite_ones() -> None:
    before = torch.get_rng_state()
    without_bfloat16(model_sizes(tiny_config(dropout=0.5)), CPU)
    assert fault(lambda: [torch.rand(2) / 0], CPU) == "its numbers are not finite"
    assert fault(lambda: [torch.rand(2)], CPU) == ""
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_whose_backward_pass_cannot_be_compiled_is_refused_before_a_stay_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def broken(_: object) -> None:
        raise OSError("no compiler")

    def half_compiled(model: torch.nn.Module, **settings: object) -> object:
        def forward(batch: Batch) -> torch.Tensor:
            seen.append(len(batch.label_B))
            logit_B: torch.Tensor = model(batch)
            logit_B.register_hook(broken)
            return logit_B

        return forward

    monkeypatch.setattr(torch, "compile", half_compiled)
    with pytest.raises(ConfigError, match="compile = true: this machine cannot compile the model"):
        _train(compile=True)
    assert seen == [2]  # made-up stays


def test_gradients_of_single_patients_are_in_single_precision_alone() -> None:
    with pytest.raises(ConfigError, match=r"precision bfloat16_only with privacy\.unit patient"):
        RunConfig.from_flat({"privacy.unit": "patient", "precision": "bfloat16_only"})
    assert RunConfig.from_flat({"privacy.unit": "site", "precision": "bfloat16_only"}).precision == "bfloat16_only"


def _elsewhere(code: str, **environment: str) -> str:
    """What a fresh process, on a machine that lacks something, has to say."""
    before = (
        f"import sys, torch\nsys.path[:0] = ['tests', 'tests/unit']\nfrom test_precision import _alike, _train\n{code}"
    )
    done = subprocess.run(
        [sys.executable, "-c", before],
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN's limit is for x86")
def test_on_a_processor_without_avx512_bfloat16_is_single_precision_and_loads_no_compiler() -> None:
    code = "assert _alike(_train(precision='bfloat16'), _train())\nassert 'torch._dynamo' not in sys.modules"
    said = _elsewhere(code, ONEDNN_MAX_CPU_ISA="AVX2")
    assert said.count("\n") == 1 and "this cpu cannot train in bfloat16" in said


@pytest.mark.slow
def test_a_machine_without_a_compiler_refuses_a_compiled_run(tmp_path: Path) -> None:
    code = "try:\n    _train(compile=True)\nexcept Exception as error:\n    sys.stderr.write(f'\\n{error!r}')"
    said = _elsewhere(code, CXX=str(tmp_path / "none"), TORCHINDUCTOR_CACHE_DIR=str(tmp_path))
    assert said.endswith("ConfigError('compile = true: this machine cannot compile the model; set it to false')")
