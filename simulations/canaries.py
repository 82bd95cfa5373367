"""Canaries: patients made to be found again, put into the training data by the toss of a coin each.

Why: a ledger's epsilon is arithmetic on noise that the code says it adds. The audit looks at what training releases
instead. The model reads one more static feature for every canary, which that canary alone has. So the weights of that
input, ``owned``, move by noise and by this canary's own gradients, and by nothing else. The auditor is the server at
its worst: it chooses the first weights (small in the first layer, so that almost all of a canary's gradient falls on
what it owns, and is clipped), the learning rate (so small that the weights hardly move), and sees every round's
weights. The training is the sites' own, ``client.privatize.train_private``.

Shape legend: shared_model/inputs.py; M canaries, H width of the first layer, F features of real patients.
"""

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.privatize import train_private
from shared_model.batch import PatientData
from shared_model.config import RunConfig
from shared_model.inputs import Scaler
from shared_model.losses import training_loss
from shared_model.model import FusionModel, build_model
from shared_model.plan import FeaturePlan, PreprocessingPlan
from shared_model.privacy import PrivacyPlan

RATE = 1e-6  # of learning
SCALE = 0.001  # of the first layer's weights
CLIP = 0.1  # below every canary's gradient: all of them are clipped to it
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Observed:
    """What the auditor has at the end. ``score_M`` is how far a canary's weights went down its gradient, in all rounds;
    ``share`` of a canary's gradient falls on them, and ``norm`` is the smallest gradient before clipping."""

    score_M: NDArray[np.float64]
    included_M: NDArray[np.bool_]
    share: float
    norm: float


@dataclass(frozen=True, kw_only=True)
class Canaries:
    """Real patients with all canaries behind them, and what reads them; canary i owns input ``first`` + i."""

    data: PatientData
    scaler: Scaler
    config: RunConfig
    model: FusionModel
    first: int
    count: int

    @classmethod
    def among(
        cls, base: PatientData, plan: PreprocessingPlan, config: RunConfig, *, count: int, seed: int
    ) -> "Canaries":
        """``count`` canaries behind the patients of ``base``, and a model of ``config`` whose first weights are the
        auditor's. Dropout would only blur what it sees."""
        owned = tuple(_owned(number) for number in range(count))
        widened = replace(plan, static_features=(*plan.static_features, *owned))
        config = config.model_copy(update={"dropout": 0.0, "weight_decay": 0.0})
        model = build_model(config.model_for(widened), seed=seed)
        with torch.no_grad():
            layer = _first_layer(model)
            layer.weight.normal_(0.0, SCALE, generator=torch.Generator().manual_seed(seed))
            layer.bias.zero_()
        return cls(
            data=_behind(base, count, value=plan.bound),
            scaler=Scaler(widened),
            config=config,
            model=model,
            first=len(plan.static),
            count=count,
        )

    def observe(self, plan: PrivacyPlan, rounds: int, rng: np.random.Generator) -> Observed:
        """Toss the coins, train for ``rounds`` rounds of ``plan``, and watch every round's weights."""
        included_M = rng.random(self.count) < 0.5
        base = len(self.data) - self.count
        chosen = torch.from_numpy(np.flatnonzero(np.concatenate([np.ones(base, bool), included_M])))
        data, score_M = self.data.subset(chosen), np.zeros(self.count)
        (share, norm), direction_MX = self._strength(), self._direction()  # the weights hardly move, nor do gradients
        for _ in range(rounds):
            before_MX = self._weights()
            train_private(self.model, data, self.scaler, self.config, plan=plan, learning_rate=RATE, device=CPU)
            score_M += ((before_MX - self._weights()) * direction_MX).sum(dim=1).numpy() / RATE
        return Observed(score_M=score_M, included_M=included_M, share=share, norm=norm)

    def _weights(self) -> Tensor:
        """Of what each canary owns: its value's weights and its mask's, [M, 2 H], in double precision."""
        return self._of_canaries(_first_layer(self.model).weight.detach())

    def _direction(self) -> Tensor:
        """Each canary's own gradient there, of length 1 [M, 2 H]. No two canaries share one of these weights, so the
        gradient of the sum of their losses holds them all."""
        gradient_MX = self._of_canaries(self._gradients(self._canaries())[0])
        length_M1: Tensor = gradient_MX.norm(dim=1, keepdim=True)
        return gradient_MX / length_M1.clamp(min=1e-30)

    def _strength(self, sample: int = 8) -> tuple[float, float]:
        """Over a few canaries: the smallest share of a gradient's length that falls on what its canary owns, and the
        smallest length."""
        found = []
        for index in self._canaries()[:sample]:
            gradients = self._gradients(index[None])
            whole = torch.cat([one.double().flatten() for one in gradients]).norm()
            found.append((float(self._of_canaries(gradients[0]).norm() / whole), float(whole)))
        return min(share for share, _ in found), min(norm for _, norm in found)

    def _canaries(self) -> Tensor:
        return torch.arange(len(self.data) - self.count, len(self.data))

    def _gradients(self, index_B: Tensor) -> list[Tensor]:
        """Of the sum of the losses of these stays: first the first layer's weight, then the other parameters."""
        batch = self.data.batch(index_B, self.scaler)
        first = _first_layer(self.model).weight
        others = [p for p in self.model.parameters() if p is not first]
        loss = training_loss(self.model.eval()(batch), batch.label_B, self.config).sum()
        found = torch.autograd.grad(loss, [first, *others], allow_unused=True)
        return [one for one in found if one is not None]

    def _of_canaries(self, weight_HX: Tensor) -> Tensor:
        """[M, 2 H] of a matrix whose columns are the inputs: all values, then all masks."""
        inputs = weight_HX.shape[1] // 2
        values, masks = (weight_HX[:, half + self.first : half + self.first + self.count] for half in (0, inputs))
        return torch.cat([values, masks]).T.double()


def _first_layer(model: FusionModel) -> torch.nn.Linear:
    return cast(torch.nn.Linear, model.static.layers[0])


def _owned(number: int) -> FeaturePlan:
    """A feature that passes as it is; absent, it is 0."""
    return FeaturePlan(
        name=f"canary_{number}",
        missing=0.0,
        mean=0.0,
        sd=1.0,
        skewness=0.0,
        kurtosis=0.0,
        quartiles=(0.0, 0.0, 0.0),
        normal=True,
        mutual_information=0.0,
        correlation=0.0,
        imputation="mean",
        scaling="zscore",
        fill=0.0,
        lower=-1e9,
        upper=1e9,
        centre=0.0,
        scale=1.0,
    )


def _behind(base: PatientData, count: int, *, value: float) -> PatientData:
    """``base``, whose patients have no canary's feature, and ``count`` patients who have nothing but their own."""
    absent = float("nan")
    stays = len(base)
    static_MX = torch.cat(
        [
            torch.full((count, base.static_NF.shape[1]), absent),
            torch.full((count, count), absent).fill_diagonal_(value),
        ],
        dim=1,
    )
    static_NX = torch.cat([base.static_NF, torch.full((stays, count), absent)], dim=1)
    first = int(base.patient_N.max()) + 1 if stays else 0
    nothing = torch.zeros(count, dtype=base.chunk_count_N.dtype)
    return replace(
        base,
        static_NF=torch.cat([static_NX, static_MX]),
        series_NTC=torch.cat([base.series_NTC, torch.full((count, *base.series_NTC.shape[1:]), absent)]),
        label_N=torch.cat([base.label_N, torch.ones(count, dtype=base.label_N.dtype)]),
        patient_N=torch.cat([base.patient_N, torch.arange(first, first + count)]),
        unit_N=torch.cat([base.unit_N, torch.zeros(count, dtype=base.unit_N.dtype)]),
        chunk_start_N=torch.cat([base.chunk_start_N, nothing]),
        chunk_count_N=torch.cat([base.chunk_count_N, nothing]),
    )
