"""Whether the device at hand can do what a run asks of it: bfloat16, and a compiled model.

Why it is tried and not looked up: what works depends on the processor, the driver and PyTorch's build together. On a
processor without AVX-512, PyTorch's own LSTM raises a RuntimeError in bfloat16, and nothing tells of it beforehand. So
one step on two made-up stays is taken before the first real one. It reads no patient, leaves the model and the random
numbers as they were, and is taken only where a run asks for more than single precision.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import cast

import torch
from torch import Tensor, nn

from shared_model.config import RunConfig
from shared_model.errors import ConfigError
from shared_model.inputs import Batch
from shared_model.model import FusionModel, ModelConfig, build_model

log = logging.getLogger("consilium.client")
ONLY = "bfloat16_only"  # the precision that is refused where the device has it not


def autocast(config: RunConfig, model: FusionModel, device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where the run asks for it (``auto`` on CUDA only) and the device can train ``model`` in it. Where it
    cannot: single precision and one line in the log or, under ``bfloat16_only``, ConfigError."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=_in_bfloat16(config, model, device))


def compiled(model: FusionModel, device: torch.device, half: AbstractContextManager[object]) -> nn.Module:
    """``model``, compiled; both share their parameters, under their own names. The trial, in ``half``, compiles what
    training then uses. Raises ConfigError where this machine cannot compile."""
    forward = cast(nn.Module, torch.compile(model, dynamic=True))
    try:
        with _undisturbed(device):
            _gradients(forward, model, device, half)
    except Exception as error:  # the compiler's parts raise many kinds; all mean the same to the user
        raise ConfigError("compile = true: this machine cannot compile the model; set it to false") from error
    return forward


@cache
def without_bfloat16(sizes: ModelConfig, device: torch.device) -> str:
    """Why the device cannot train a model of these sizes in bfloat16, or nothing. Tried once a process."""
    model = build_model(sizes, seed=0).to(device).train()
    return fault(lambda: _gradients(model, model, device, torch.autocast(device.type, dtype=torch.bfloat16)), device)


def fault(attempt: Callable[[], Iterable[Tensor]], device: torch.device) -> str:
    """Why the device cannot do ``attempt``, in one line, or nothing: it raises no error and its numbers are finite."""
    try:
        with _undisturbed(device):
            finite = all(bool(found.isfinite().all()) for found in attempt())
    except RuntimeError as error:  # of PyTorch, oneDNN, cuDNN and cuBLAS alike
        return str(error).partition("\n")[0] or "RuntimeError"
    return "" if finite else "its numbers are not finite"


@cache
def warn_once(line: str) -> None:
    """In the site's log, once a process."""
    log.warning(line)


def _in_bfloat16(config: RunConfig, model: FusionModel, device: torch.device) -> bool:
    if config.precision == "float32" or (config.precision == "auto" and device.type != "cuda"):
        return False
    why = without_bfloat16(model.sizes, device)
    told = f"precision = {config.precision!r}: this {device.type} cannot train in bfloat16 ({why})"
    if why and config.precision == ONLY:
        raise ConfigError(f"{told}; 'bfloat16' would train in float32")
    if why:
        warn_once(f"{told}; it trains in float32")
    return not why


def _gradients(
    forward: nn.Module, model: FusionModel, device: torch.device, half: AbstractContextManager[object]
) -> tuple[Tensor, ...]:
    """Of one step on made-up stays, by parameter of ``model``, which keeps its own."""
    with half:
        logit_B = forward(_made_up(model.sizes, device))
    return torch.autograd.grad(logit_B.float().sum(), list(model.parameters()))


def _made_up(sizes: ModelConfig, device: torch.device) -> Batch:
    """Two stays with every modality. No tensor stands for two, and stays, windows and chunks differ in number: a
    compiler would rely on what is alike here, and compile once more for the site's own stays."""
    static, series = (2, sizes.static_features), (2, 3, sizes.series_channels)
    ones = partial(torch.ones, device=device)
    return Batch(
        static_BF=ones(static),
        static_mask_BF=ones(static),
        series_BTC=ones(series),
        series_mask_BTC=ones(series),
        series_age_BTC=ones(series),
        text_BKE=ones(2, 4, sizes.text_dimension),
        text_length_B=torch.tensor([4, 1], device=device),
        label_B=ones(2),
    )


def _undisturbed(device: torch.device) -> AbstractContextManager[None]:
    """Random numbers go on afterwards as if nothing had been drawn."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
