"""Local training: the same function for a site's round, for the pooled and for the local-only baseline."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from client.optimiser import AdamW
from client.precision import autocast, compiled
from shared_model.batch import PatientData
from shared_model.config import RunConfig
from shared_model.inputs import Batch, Inputs, Scaler
from shared_model.losses import training_loss
from shared_model.messages import Weights
from shared_model.model import FusionModel

LARGEST_NORM = 1.0  # of a gradient


@dataclass(frozen=True, kw_only=True)
class Update:
    """Trained weights (CPU), the stays behind them, the mean loss over the steps, and the seconds it took.

    ``gradient`` is the mean over the steps of the loss's own gradient, by parameter; None unless asked for.
    """

    weights: Weights
    examples: int
    loss: float
    seconds: float
    gradient: Weights | None


def train_local(
    model: FusionModel,
    data: PatientData,
    scaler: Scaler,
    config: RunConfig,
    *,
    learning_rate: float,
    seed: int,
    device: torch.device,
    correction: Mapping[str, Tensor] | None = None,
    bundle_N: Tensor | None = None,
) -> Update:
    """Train ``model`` in place by AdamW for ``config.local_steps`` steps or, if that is 0, ``config.local_epochs``.

    Under FedProx the loss has the proximal term mu/2 |w - w0|^2 around the incoming weights (Li et al. 2020, arXiv
    1812.06127). ``correction`` is added to every gradient: SCAFFOLD's c - c_i (server/strategies/scaffold.py). The
    order of stays and the dropout masks follow from ``seed`` alone. ``bundle_N``: stays that only train in the same
    step (client/blocks.py); a batch is then as many whole bundles as come nearest to ``config.batch_size``. Raises
    ConfigError where the device cannot do what ``config.compile`` or ``config.precision`` asks of it.
    """
    start = time.monotonic()
    with _determinism(config.deterministic):
        torch.manual_seed(seed)
        step = _Step(model.to(device).train(), config, learning_rate, device, correction)
        for batch in _steps(data, scaler, config, device, bundle_N):
            step(batch)
    weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    return Update(
        weights=weights,
        examples=len(data),
        loss=float(step.loss_sum) / step.stays,
        seconds=time.monotonic() - start,
        gradient=step.mean_gradient(),
    )


class _Step:
    """One optimiser step at a time, and what is added up over them."""

    def __init__(
        self,
        model: FusionModel,
        config: RunConfig,
        learning_rate: float,
        device: torch.device,
        correction: Mapping[str, Tensor] | None,
    ) -> None:
        self.model, self.config, self.device = model, config, device
        self.autocast = autocast(config, model, device)
        self.forward = compiled(model, device, self.autocast) if config.compile else model
        self.optimizer = AdamW(parameter_groups(model, config.weight_decay), lr=learning_rate, fused=True)
        self.loss_sum, self.stays, self.steps = torch.zeros((), device=device), 0, 0
        self.correction = {n: c.to(device) for n, c in correction.items()} if correction is not None else None
        held = model.named_parameters()
        self.gradient = {n: torch.zeros_like(p) for n, p in held} if self.correction is not None else None
        proximal = config.strategy == "fedprox" and config.proximal_mu > 0
        self.anchor = [p.detach().clone() for p in model.parameters()] if proximal else []

    def __call__(self, batch: Batch) -> None:
        with self.autocast:
            logit_B: Tensor = self.forward(batch)
        loss_B = training_loss(logit_B, batch.label_B, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        loss_B.mean().backward()  # type: ignore[no-untyped-call]
        self._correct()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST_NORM)
        self.optimizer.step()
        self.loss_sum += loss_B.detach().sum()
        self.stays, self.steps = self.stays + len(loss_B), self.steps + 1

    def mean_gradient(self) -> Weights | None:
        """Over the steps, on the CPU."""
        return None if self.gradient is None else {n: (g / self.steps).cpu() for n, g in self.gradient.items()}

    def _correct(self) -> None:
        """The proximal term's gradient mu (w - w0), and SCAFFOLD's correction after the plain gradient is noted."""
        for parameter, before in zip(self.model.parameters(), self.anchor, strict=False):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - before, alpha=self.config.proximal_mu)
        if self.correction is None or self.gradient is None:
            return
        for name, parameter in self.model.named_parameters():
            if parameter.grad is None:  # a modality that the batch lacks
                parameter.grad = torch.zeros_like(parameter)
            self.gradient[name] += parameter.grad
            parameter.grad += self.correction[name]


def parameter_groups(model: FusionModel, weight_decay: float) -> list[dict[str, object]]:
    """L2 for matrices alone: shrinking a bias or a LayerNorm's gain regularises nothing."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _steps(
    data: PatientData, scaler: Scaler, config: RunConfig, device: torch.device, bundle_N: Tensor | None
) -> Iterator[Batch]:
    """The batches of a round, in random order, reshuffled when all stays were seen."""
    bundles = torch.arange(len(data)) if bundle_N is None else torch.unique(bundle_N, return_inverse=True)[1]
    count = int(bundles.max()) + 1 if len(data) else 0
    size = max(round(config.batch_size * count / max(len(data), 1)), 1)
    batches = _batches(data, scaler, device, bundles, size)
    return islice(batches, config.local_steps or config.local_epochs * -(-count // size))


def _batches(data: PatientData, scaler: Scaler, device: torch.device, bundle_N: Tensor, size: int) -> Iterator[Batch]:
    """Epochs without end over inputs that were filled and scaled once, ``size`` bundles at a time."""
    inputs, label_N = Inputs.of(data.static_NF, data.series_NTC, scaler).to(device), data.label_N.float()
    count_M = torch.bincount(bundle_N)
    member_N, start_M = torch.argsort(bundle_N, stable=True), torch.cumsum(count_M, 0) - count_M
    while len(data):
        for chosen in torch.split(torch.randperm(len(count_M)), size):
            count_B = count_M[chosen]
            first_B = start_M[chosen] - (count_B.cumsum(0) - count_B)
            index_B = member_N[torch.arange(int(count_B.sum())) + torch.repeat_interleave(first_B, count_B)]
            text_BKE, length_B = data.chunks(index_B)
            text = text_BKE.to(device), length_B.to(device)
            yield inputs.batch(index_B.to(device), text=text, label_B=label_N[index_B].to(device))


@contextmanager
def _determinism(on: bool) -> Iterator[None]:
    """Deterministic algorithms for the block, and what they need of cuBLAS. The setting is touched only where it
    changes: PyTorch loads its compiler with it, which takes a second."""
    before = torch.are_deterministic_algorithms_enabled()
    if before or not on:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
