"""Local training against a bare PyTorch loop on the same batches: ``python -m tests.benchmarks.training``.

The bare loop is model, loss, clipped gradient and AdamW, over batches that are collated already. Ours starts from a
store's raw features: it fills, scales and collates them, too. Both take turns in one process, and the best of each
counts.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from client.precision import autocast
from client.statistics import local_statistics
from client.training import LARGEST_NORM, train_local
from shared_model.config import RunConfig
from shared_model.fitting import plan_from
from shared_model.inputs import Batch, Scaler
from shared_model.losses import training_loss
from shared_model.model import FusionModel, build_model
from tests.builders import patients

STAYS, TURNS = 2048, 4


def measure(folder: Path) -> Table:
    """Stays a second of both and their ratio, on the CPU and on a GPU where there is one."""
    table = Table(title=f"one epoch of the default model, {STAYS:,} stays", title_justify="left")
    for column in ("device", "bare loop, stays/s", "train_local, stays/s", "ratio (aim: 0.90)"):
        table.add_column(column, justify="right")
    for name in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        bare, ours = _speeds(torch.device(name))
        table.add_row(name, f"{bare:,.0f}", f"{ours:,.0f}", f"{ours / bare:.2f}")
    return table


def _speeds(device: torch.device) -> tuple[float, float]:
    config, data = RunConfig(), patients(STAYS, windows=24)
    chunks = torch.randn(len(data.embedding_ME), config.text_dimension).half()
    data = replace(data, embedding_ME=chunks)
    plan = plan_from([local_statistics(data, config)], config)
    scaler, sizes = Scaler(plan), config.model_for(plan)
    batches = [batch.to(device) for batch in data.batches(scaler, config.batch_size)]

    def ours(model: FusionModel) -> None:
        train_local(model, data, scaler, config, learning_rate=1e-3, seed=1, device=device)

    spent: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(TURNS):
        for name, loop in {"bare": lambda model: _bare(model, batches, config, device), "ours": ours}.items():
            spent[name].append(_seconds(loop, build_model(sizes, seed=1).to(device).train()))
    return STAYS / min(spent["bare"]), STAYS / min(spent["ours"])


def _bare(model: FusionModel, batches: list[Batch], config: RunConfig, device: torch.device) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=config.weight_decay)
    for batch in batches:
        with autocast(config, model, device):
            logit_B = model(batch)
        loss = training_loss(logit_B, batch.label_B, config).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM)
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()


def _seconds(loop: Callable[[FusionModel], None], model: FusionModel) -> float:
    start = time.perf_counter()
    loop(model)
    return time.perf_counter() - start


if __name__ == "__main__":
    Console().print(measure(Path()))
