"""A private step against a plain one and against Opacus' own: ``python -m tests.benchmarks.privacy``.

All three do the same batch of the default model: forward, backward, gradients clipped (as a whole; by patient), noise
but for the plain one, AdamW. Ours reads the per-patient gradients of unrolled LSTMs from one pass; Opacus' way is a
FusionModel with its DPLSTM in a GradSampleModule and its DPOptimizer. They take turns in one process; medians count.
"""

import copy
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.layers import DPLSTM
from opacus.optimizers import DPOptimizer
from rich.console import Console
from rich.table import Table
from torch.nn.utils.rnn import pack_padded_sequence

from client.patient_gradients import Groups, patient_gradients
from client.privatize import _optimizer
from client.training import LARGEST_NORM, parameter_groups
from shared_model.config import RunConfig
from shared_model.inputs import Batch
from shared_model.losses import training_loss
from shared_model.model import FusionModel, build_model
from shared_model.privacy import Mechanism, PrivacyPlan
from tests.builders import patients, tiny_plan, tiny_scaler

STAYS, TURNS, WARM = 64, 40, 3
Step = Callable[[], None]


def measure(folder: Path) -> Table:
    """Milliseconds of a step, on the CPU and on a GPU where there is one; and how far the gradients are apart."""
    table = Table(title=f"one step of the default model, {STAYS} patients", title_justify="left")
    columns = ("device", "plain, ms", "ours, ms", "Opacus, ms", "ours / plain (aim: 3.0)", "Opacus / plain")
    for column in (*columns, "largest difference of a patient's gradient"):
        table.add_column(column, justify="right")
    for name in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Opacus' hooks
            plain, ours, opacus, apart = _compare(torch.device(name))
        ratios = f"{ours / plain:.1f}", f"{opacus / plain:.1f}"
        table.add_row(name, f"{plain:.1f}", f"{ours:.1f}", f"{opacus:.1f}", *ratios, f"{apart:.0e}")
    return table


def _compare(device: torch.device) -> tuple[float, float, float, float]:
    """Medians of the three in milliseconds, and the largest absolute difference of ours to Opacus'."""
    config, data = RunConfig(precision="float32"), patients(STAYS, windows=24)
    chunks = torch.randn(len(data.embedding_ME), config.text_dimension).half()
    batch = replace(data, embedding_ME=chunks).batch(torch.arange(STAYS), tiny_scaler()).to(device)
    model = build_model(config.model_for(tiny_plan()), seed=1).to(device).train()
    models = [copy.deepcopy(model) for _ in range(2)]
    with patient_gradients(models[1]) as gradients:

        def by_patient(held: FusionModel, plan: PrivacyPlan) -> Step:
            groups, optimizer = Groups(torch.arange(STAYS, device=device), STAYS), _of(held, config, plan)

            def step() -> None:
                found = gradients.clipped(training_loss(held(batch), batch.label_B, config), groups, plan.clip)
                for parameter in held.parameters():
                    parameter.grad = found.get(parameter, torch.zeros_like(parameter))
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

            return step

        steps = [
            _plain(models[0], batch, config),
            by_patient(models[1], _paid()),
            _opacus(with_dplstm(model), batch, config),
        ]
        found = [[1000 * _seconds(step, device) for step in steps] for _ in range(WARM + TURNS)][WARM:]
    plain, ours, opacus = (statistics.median(column) for column in zip(*found, strict=True))
    return plain, ours, opacus, largest_difference(batch, config, device)


def largest_difference(batch: Batch, config: RunConfig, device: torch.device) -> float:
    """Of any number of any stay's gradient, ours to Opacus' (without dropout: both draw masks).

    Of a packed batch, Opacus 1.6 gives an LSTM's gradients in the order of packing, by length, not of the stays; left
    so, one stay's gradient would be clipped with parts of another's. They are put back here.
    """
    sizes = replace(config.model_for(tiny_plan()), dropout=0.0)
    model = build_model(sizes, seed=1).to(device).train()
    theirs = GradSampleModule(with_dplstm(model), loss_reduction="sum")
    training_loss(theirs(batch), batch.label_B, config).sum().backward()
    expected = {n.removeprefix("_module."): p.grad_sample for n, p in theirs.named_parameters()}
    length_B = batch.text_length_B.clamp(min=1).cpu()
    packed = pack_padded_sequence(batch.text_BKE, length_B, batch_first=True, enforce_sorted=False)
    expected |= {n: g[packed.unsorted_indices] for n, g in expected.items() if n.startswith("text.lstm")}
    names = {p: name for name, p in model.named_parameters()}
    with patient_gradients(model) as gradients:
        records = gradients.records(training_loss(model(batch), batch.label_B, config))
    apart = 0.0
    for stay in range(len(batch.label_B)):
        one_B = torch.zeros_like(batch.label_B)
        one_B[stay] = 1.0
        for parameter, found in (part for record in records for part in record.weighted(one_B)):
            apart = max(apart, float((expected[names[parameter]][stay] - found).abs().max()))
    return apart


def with_dplstm(model: FusionModel) -> FusionModel:
    """A copy whose LSTMs are Opacus', with the same weights."""
    copied = copy.deepcopy(model)
    for encoder in (copied.series, copied.text):
        fast = encoder.lstm
        encoder.lstm = DPLSTM(fast.input_size, fast.hidden_size, batch_first=True, bidirectional=True)
        encoder.lstm.load_state_dict(fast.state_dict())
        encoder.lstm.to(next(model.parameters()).device).train(model.training)
    return copied


def _paid() -> PrivacyPlan:
    whole = Mechanism(10.0)
    training = Mechanism(1.0, 0.1, 100)
    return PrivacyPlan(
        epsilon=1.0,
        delta=1e-5,
        accountant="rdp",
        clip=1.0,
        count=None,
        statistics=whole,
        validation=whole,
        training=training,
        steps_a_round=100,
    )


def _of(model: FusionModel, config: RunConfig, plan: PrivacyPlan) -> torch.optim.Optimizer:
    return _optimizer(model, config, plan, 1e-3, np.random.default_rng(1).bytes)


def _plain(model: FusionModel, batch: Batch, config: RunConfig) -> Step:
    optimizer = torch.optim.AdamW(parameter_groups(model, config.weight_decay), lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        training_loss(model(batch), batch.label_B, config).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM)
        optimizer.step()

    return step


def _opacus(model: FusionModel, batch: Batch, config: RunConfig) -> Step:
    hooked = GradSampleModule(model)
    inner = torch.optim.AdamW(parameter_groups(hooked, config.weight_decay), lr=1e-3, fused=True)
    optimizer = DPOptimizer(inner, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=STAYS)

    def step() -> None:
        optimizer.zero_grad()
        training_loss(hooked(batch), batch.label_B, config).mean().backward()
        optimizer.step()

    return step


def _seconds(step: Step, device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    Console(width=150).print(measure(Path()))
