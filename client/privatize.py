"""DP-SGD with the patient as unit: a round's training under a PrivacyPlan (Abadi et al. 2016, arXiv 1607.00133).

A step draws each patient of the site by a coin of its own (Poisson sampling), takes the gradient of the mean loss over
all the patient's stays, clips it once, adds up, adds Gaussian noise to every parameter, and divides by the expected
number of patients, which is public. Nothing else in a step depends on who was drawn: an empty draw, or one that lacks a
modality, is noised and stepped like any other. How long a step takes does depend on it, so no time leaves the site.

Coins and noise are the operating system's entropy (shared_model/entropy.py). Noise is drawn and added in double
precision, and the sum is rounded once to single: the low digits by which sums of floating-point noise give away their
other addend (Mironov 2012, doi 10.1145/2382196.2382264) are dropped. That is a remedy, not a proof; the guarantee
itself is stated for real numbers.
"""

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
from torch import Tensor

from client.optimiser import AdamW
from client.patient_gradients import Groups, blocks, patient_gradients
from client.training import Update, parameter_groups
from shared_model.batch import PatientData
from shared_model.config import RunConfig
from shared_model.entropy import Entropy, entropy_of, gaussian, uniform
from shared_model.inputs import Inputs, Scaler
from shared_model.losses import training_loss
from shared_model.model import FusionModel
from shared_model.privacy import PrivacyPlan


def train_private(
    model: FusionModel,
    data: PatientData,
    scaler: Scaler,
    config: RunConfig,
    *,
    plan: PrivacyPlan,
    learning_rate: float,
    device: torch.device,
    entropy: int | None = None,
) -> Update:
    """Train ``model`` in place by ``plan.steps_a_round`` steps of DP-SGD with AdamW, in single precision.

    ``config.batch_size`` is the expected number of patients in a step: the plan's rate times the site's public number
    of patients. FedProx's proximal term and weight decay read no patient and come after the noise. The update's
    ``examples`` is the site's true number of patients and its ``loss`` the mean over the drawn stays (NaN for none):
    neither may leave the site. ``entropy`` makes coins, noise and dropout repeatable, for tests; without it no two
    calls are alike.
    """
    start, source = time.monotonic(), entropy_of(entropy)
    torch.manual_seed(int.from_bytes(source(4)))  # dropout: a fresh process would repeat its masks every round
    stays = _Stays.of(data, scaler, device)
    loss_sum, seen = 0.0, 0
    with patient_gradients(model.to(device).train()) as gradients:
        optimizer = private_optimizer(model, config, plan, learning_rate, source)
        for _ in range(plan.steps_a_round):
            total = {parameter: torch.zeros_like(parameter) for parameter in model.parameters()}
            for index_B, groups in stays.drawn(poisson(source, stays.patients, plan.training.sample_rate)):
                loss_B = stays.loss(model, index_B, config)
                for parameter, part in gradients.clipped(loss_B, groups, plan.clip).items():
                    total[parameter] += part
                loss_sum, seen = loss_sum + float(loss_B.detach().sum()), seen + len(index_B)
            for parameter, found in total.items():
                parameter.grad = found
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return Update(
        weights={name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()},
        examples=stays.patients,
        loss=loss_sum / seen if seen else float("nan"),
        seconds=time.monotonic() - start,
        gradient=None,
    )


def poisson(source: Entropy, patients: int, rate: float) -> NDArray[np.intp]:
    """Which of the patients a step draws: each with probability ``rate``, on its own."""
    return np.flatnonzero(uniform(source, patients) < rate)


@dataclass(frozen=True)
class _Stays:
    """A site's stays by patient, as model inputs on ``device``, filled and scaled by the plan alone."""

    data: PatientData
    inputs: Inputs
    label_N: Tensor
    order_N: NDArray[np.intp]  # stays, patient after patient
    first_P: NDArray[np.intp]  # of a patient in ``order_N``
    count_P: NDArray[np.intp]
    device: torch.device = field(repr=False)

    @classmethod
    def of(cls, data: PatientData, scaler: Scaler, device: torch.device) -> "_Stays":
        _, patient_N, count_P = np.unique(data.patient_N.numpy(), return_inverse=True, return_counts=True)
        inputs, order_N = Inputs.of(data.static_NF, data.series_NTC, scaler), np.argsort(patient_N, kind="stable")
        return cls(
            data, inputs.to(device), data.label_N.float(), order_N, np.cumsum(count_P) - count_P, count_P, device
        )

    @property
    def patients(self) -> int:
        return len(self.count_P)

    def drawn(self, patients: NDArray[np.intp]) -> list[tuple[Tensor, Groups]]:
        """All stays of these patients, in passes of a bounded size."""
        found = []
        for block in blocks(self.count_P[patients].tolist()):
            chosen = patients[block]
            index = [self.order_N[self.first_P[p] : self.first_P[p] + self.count_P[p]] for p in chosen]
            patient_B = torch.from_numpy(np.repeat(np.arange(len(chosen)), self.count_P[chosen]))
            groups = Groups(patient_B.to(self.device), len(chosen))
            found.append((torch.from_numpy(np.concatenate(index)), groups))
        return found

    def loss(self, model: FusionModel, index_B: Tensor, config: RunConfig) -> Tensor:
        """The training loss of each stay, [B]."""
        text_BKE, length_B = self.data.chunks(index_B)
        text, label_B = (text_BKE.to(self.device), length_B.to(self.device)), self.label_N[index_B].to(self.device)
        batch = self.inputs.batch(index_B.to(self.device), text=text, label_B=label_B)
        return training_loss(model(batch), label_B, config)


class _PatientOptimizer(DPOptimizerFastGradientClipping):  # type: ignore[misc]
    """Opacus' optimiser for gradients that come clipped and summed, with noise of its own source and precision."""

    source: Entropy

    def add_noise(self) -> None:
        """To every parameter, with a standard deviation of the noise multiplier times the clip."""
        numbers = torch.from_numpy(gaussian(self.source, sum(p.numel() for p in self.params)))
        scaled = numbers.mul_(self.noise_multiplier * self.max_grad_norm)
        for p, noise in zip(self.params, torch.split(scaled, [p.numel() for p in self.params]), strict=True):
            p.grad = (p.summed_grad.double() + noise.to(p.device).view_as(p)).to(p.dtype)


def private_optimizer(
    model: FusionModel, config: RunConfig, plan: PrivacyPlan, learning_rate: float, source: Entropy
) -> _PatientOptimizer:
    """AdamW behind the noise; it reads the sums of clipped gradients as ``grad``, and ``source`` makes the noise."""
    optimizer = _PatientOptimizer(
        AdamW(parameter_groups(model, config.weight_decay), lr=learning_rate, fused=True),
        noise_multiplier=plan.training.noise_multiplier,
        max_grad_norm=plan.clip,
        expected_batch_size=config.batch_size,
    )
    optimizer.source = source
    if config.strategy == "fedprox" and config.proximal_mu > 0:
        anchors = [(p, p.detach().clone()) for p in model.parameters()]

        def draw_near(_: object) -> None:
            """The proximal term's gradient mu (w - w0), after the noise: it reads no patient."""
            for parameter, before in anchors:
                if parameter.grad is not None:  # it never is
                    parameter.grad.add_(parameter.detach() - before, alpha=config.proximal_mu)

        optimizer.attach_step_hook(draw_near)
    return optimizer
