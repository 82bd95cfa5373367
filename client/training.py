"""Local training: the same function for a site's round, for the pooled and for the local-only baseline."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from shared_model.batch import PatientData, Scaler
from shared_model.config import RunConfig
from shared_model.losses import focal_loss
from shared_model.model import FusionModel


@dataclass(frozen=True, kw_only=True)
class Update:
    """Trained weights (CPU), the stays behind them, the mean focal loss over the epochs, and the seconds it took."""

    weights: dict[str, Tensor]
    examples: int
    loss: float
    seconds: float


def train_local(
    model: FusionModel,
    data: PatientData,
    scaler: Scaler,
    config: RunConfig,
    *,
    learning_rate: float,
    seed: int,
    device: torch.device,
) -> Update:
    """Train ``model`` in place for ``config.local_epochs`` epochs of AdamW on focal loss.

    The order of stays and the dropout masks follow from ``seed`` alone.
    """
    start = time.monotonic()
    torch.manual_seed(seed)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=config.weight_decay)
    total = sum(_epoch(model, optimizer, data, scaler, config, device) for _ in range(config.local_epochs))
    weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    mean = total / (config.local_epochs * len(data))
    return Update(weights=weights, examples=len(data), loss=mean, seconds=time.monotonic() - start)


def _epoch(
    model: FusionModel,
    optimizer: torch.optim.Optimizer,
    data: PatientData,
    scaler: Scaler,
    config: RunConfig,
    device: torch.device,
) -> float:
    """One pass in random order; the summed loss over stays."""
    total = torch.zeros((), device=device)
    for batch in data.batches(scaler, config.batch_size, torch.randperm(len(data))):
        moved = batch.to(device)
        loss = focal_loss(model(moved), moved.label_B, alpha=config.focal_alpha, gamma=config.focal_gamma).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.detach() * len(moved.label_B)
    return float(total)
