"""Raw features become the model's inputs: filled, bounded and scaled by the preprocessing plan.

Shape legend: B stays of a batch, N stays of a set, F static features, T windows, C series channels, K note chunks of a
stay (padded to the longest of the batch), E embedding width.
"""

from dataclasses import dataclass, fields
from itertools import pairwise

import torch
from torch import Tensor

from shared_model.plan import FeaturePlan, PreprocessingPlan

_BLOCK = 128  # stays


@dataclass(frozen=True)
class Batch:
    """Model inputs of B stays, scaled by the plan; a value that was not measured is 0 with mask 0."""

    static_BF: Tensor
    static_mask_BF: Tensor
    series_BTC: Tensor  # last observed value up to the window
    series_mask_BTC: Tensor  # 1 where the window holds a measurement
    series_age_BTC: Tensor  # windows since the last measurement, over T; 1 before the first
    text_BKE: Tensor
    text_length_B: Tensor  # chunks of each stay; 0: no notes
    label_B: Tensor  # 1.0: death

    def to(self, device: torch.device) -> "Batch":
        """The same batch on ``device``."""
        return Batch(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))


class Scaler:
    """A preprocessing plan as tensors: the kept features' place in a store, their bounds, filling and scale."""

    def __init__(self, plan: PreprocessingPlan) -> None:
        self.static_F = torch.tensor([n for n, f in enumerate(plan.static_features) if f.kept], dtype=torch.long)
        self.series_C = torch.tensor([n for n, f in enumerate(plan.series_features) if f.kept], dtype=torch.long)
        self._static, self._series = _numbers(plan.static), _numbers(plan.series)
        self.bound, self.fill = plan.bound, plan.series_fill

    def static(self, raw_BF: Tensor) -> Tensor:
        """Inputs of the kept static features; ``raw_BF`` holds those only."""
        return self._scaled(raw_BF, self._static)

    def series(self, raw_BTC: Tensor) -> Tensor:
        """Inputs of the kept channels; NaN only before the first measurement after carrying forward."""
        return self._scaled(raw_BTC, self._series)

    def _scaled(self, raw: Tensor, numbers: Tensor) -> Tensor:
        fill, lower, upper, centre, scale = numbers
        inputs = torch.where(raw.isnan(), fill, raw).clamp_(lower, upper)
        return inputs.sub_(centre).div_(scale).clamp_(-self.bound, self.bound)


def _numbers(features: tuple[FeaturePlan, ...]) -> Tensor:
    """[5, F]: fill, lower, upper, centre, scale."""
    rows = [[getattr(f, name) for f in features] for name in ("fill", "lower", "upper", "centre", "scale")]
    return torch.tensor(rows, dtype=torch.float32)


@dataclass(frozen=True)
class Inputs:
    """Scaled static features and series of N stays, computed once for many batches, in the smallest form that keeps
    every bit: masks are booleans, and ``last_NTC`` is the window of the last measurement (-1 before the first)."""

    static_NF: Tensor
    static_mask_NF: Tensor
    series_NTC: Tensor
    mask_NTC: Tensor
    last_NTC: Tensor

    @classmethod
    def of(cls, static_NF: Tensor, series_NTC: Tensor, scaler: Scaler) -> "Inputs":
        """From raw features in a store's order, NaN where not measured; in blocks that stay in a processor's cache."""
        blocks = zip(torch.split(static_NF, _BLOCK), torch.split(series_NTC, _BLOCK), strict=True)
        parts = [cls._block(*block, scaler) for block in blocks]
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    @classmethod
    def _block(cls, static_NF: Tensor, series_NTC: Tensor, scaler: Scaler) -> "Inputs":
        static_NF, raw_NTC = static_NF[:, scaler.static_F], series_NTC[:, :, scaler.series_C]
        last_NTC = _last_seen(raw_NTC)
        filled_NTC = interpolate(raw_NTC) if scaler.fill == "linear" else _carried(raw_NTC, last_NTC)
        return cls(
            static_NF=scaler.static(static_NF),
            static_mask_NF=~static_NF.isnan(),
            series_NTC=scaler.series(filled_NTC),
            mask_NTC=~raw_NTC.isnan(),
            last_NTC=last_NTC,
        )

    def to(self, device: torch.device) -> "Inputs":
        """The same inputs on ``device``."""
        return Inputs(*(getattr(self, f.name).to(device) for f in fields(self)))

    def batch(self, index_B: Tensor, *, text: tuple[Tensor, Tensor], label_B: Tensor) -> Batch:
        """The stays at ``index_B`` (on this device) with their note chunks and labels."""
        last_BTC = self.last_NTC[index_B]
        return Batch(
            static_BF=self.static_NF[index_B],
            static_mask_BF=self.static_mask_NF[index_B].float(),
            series_BTC=self.series_NTC[index_B],
            series_mask_BTC=self.mask_NTC[index_B].float(),
            series_age_BTC=_age(last_BTC),
            text_BKE=text[0],
            text_length_B=text[1],
            label_B=label_B,
        )


def carry_forward(raw_BTC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Last observed values, mask, and windows since the last measurement over T (1 before the first).

    Only the past of a window is read. Returns three float tensors of shape [B, T, C]; values before the first are NaN.
    """
    last_BTC = _last_seen(raw_BTC)
    return _carried(raw_BTC, last_BTC), (~raw_BTC.isnan()).float(), _age(last_BTC)


def interpolate(raw_BTC: Tensor) -> Tensor:
    """Straight lines between measurements, the last value after the last one; NaN before the first, as before it
    nothing is known. Every window lies in the observed past, so both ends of a line do."""
    end = raw_BTC.shape[1] - 1
    last_BTC, next_BTC = _last_seen(raw_BTC), end - _last_seen(raw_BTC.flip(1)).flip(1)
    before_BTC = _carried(raw_BTC, last_BTC)
    after_BTC = raw_BTC.gather(1, next_BTC.clamp(max=end).long())
    share_BTC = (torch.arange(end + 1)[:, None] - last_BTC) / (next_BTC - last_BTC).clamp(min=1)
    between_BTC = before_BTC + share_BTC * (after_BTC - before_BTC)
    return torch.where(next_BTC > end, before_BTC, between_BTC)


def _carried(raw_BTC: Tensor, last_BTC: Tensor) -> Tensor:
    return raw_BTC.gather(1, last_BTC.clamp(min=0).long()).where(last_BTC >= 0, float("nan"))


def _age(last_BTC: Tensor) -> Tensor:
    """Windows since the last measurement, over T; 1 before the first."""
    windows = last_BTC.shape[1]
    step_T1 = torch.arange(windows, dtype=torch.float32, device=last_BTC.device)[:, None]
    return torch.where(last_BTC >= 0, (step_T1 - last_BTC) / windows, 1.0)


def _last_seen(raw_BTC: Tensor) -> Tensor:
    """The latest window up to each that holds a measurement; -1 before the first."""
    step_T1 = torch.arange(raw_BTC.shape[1], dtype=torch.int16)[:, None]
    last_BTC = torch.where(raw_BTC.isnan(), -1, step_T1)
    for before_BC, window_BC in pairwise(last_BTC.unbind(dim=1)):  # faster than cummax, which does not use vectors
        torch.maximum(before_BC, window_BC, out=window_BC)
    return last_BTC
