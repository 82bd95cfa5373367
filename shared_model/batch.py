"""A prepared store, opened memory-mapped, and the batches the model reads.

Shape legend: N stays of a store, B stays of a batch, F static features, T windows, C series channels, K note chunks of
a stay (padded to the longest of the batch), E embedding width, M note chunks of a store.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from shared_model.errors import ContractError, StoreError
from shared_model.features import PreprocessingPlan
from shared_model.manifest import TENSORS, file_digest, read_manifest, study_of


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
    """A preprocessing plan as tensors: (value - mean) / scale, bounded, missing to 0."""

    def __init__(self, plan: PreprocessingPlan) -> None:
        self.static_mean_F, self.static_scale_F = (
            torch.tensor(plan.static_mean),
            torch.tensor(plan.static_scale),
        )
        self.series_mean_C, self.series_scale_C = (
            torch.tensor(plan.series_mean),
            torch.tensor(plan.series_scale),
        )
        self.bound, self.fill = plan.bound, plan.series_fill

    def static(self, raw_BF: Tensor) -> Tensor:
        """Scaled static features."""
        return self._bounded((raw_BF - self.static_mean_F) / self.static_scale_F)

    def series(self, raw_BTC: Tensor) -> Tensor:
        """Scaled series; NaN only before the first measurement after carrying forward."""
        return self._bounded((raw_BTC - self.series_mean_C) / self.series_scale_C)

    def _bounded(self, values: Tensor) -> Tensor:
        return values.clamp(-self.bound, self.bound).nan_to_num(0.0)


@dataclass(frozen=True)
class PatientData:
    """The stays of a prepared store: raw features (NaN: not measured), labels and note chunks.

    ``chunk_start_N`` and ``chunk_count_N`` point into ``embedding_ME``, in time order.
    """

    static_NF: Tensor
    series_NTC: Tensor
    label_N: Tensor  # bool
    patient_N: Tensor  # int64, the site's own patient number; never leaves the site
    unit_N: Tensor  # int64 index into ``units``
    embedding_ME: Tensor
    chunk_start_N: Tensor
    chunk_count_N: Tensor
    units: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.label_N)

    @property
    def patients(self) -> int:
        """Distinct patients."""
        return len(np.unique(self.patient_N.numpy()))

    @property
    def deaths(self) -> int:
        """Distinct patients with a fatal stay."""
        return len(np.unique(self.patient_N[self.label_N].numpy()))

    def subset(self, index_B: Tensor) -> "PatientData":
        """The stays at ``index_B``, in that order; the note chunks stay shared."""
        names = (
            "static_NF",
            "series_NTC",
            "label_N",
            "patient_N",
            "unit_N",
            "chunk_start_N",
            "chunk_count_N",
        )
        return replace(self, **{name: getattr(self, name)[index_B] for name in names})

    def batch(self, index_B: Tensor, scaler: Scaler) -> Batch:
        """Model inputs of the stays at ``index_B``."""
        static_BF, raw_BTC = self.static_NF[index_B], self.series_NTC[index_B]
        filled_BTC, mask_BTC, age_BTC = carry_forward(raw_BTC)
        if scaler.fill == "linear":
            filled_BTC = interpolate(raw_BTC)
        text_BKE, length_B = self._chunks(index_B)
        return Batch(
            static_BF=scaler.static(static_BF),
            static_mask_BF=(~static_BF.isnan()).float(),
            series_BTC=scaler.series(filled_BTC),
            series_mask_BTC=mask_BTC,
            series_age_BTC=age_BTC,
            text_BKE=text_BKE,
            text_length_B=length_B,
            label_B=self.label_N[index_B].float(),
        )

    def batches(self, scaler: Scaler, size: int, order_N: Tensor | None = None) -> Iterator[Batch]:
        """All stays in ``order_N`` (default: as stored), ``size`` at a time; the last batch may be smaller."""
        order = torch.arange(len(self)) if order_N is None else order_N
        for index_B in torch.split(order, size):
            yield self.batch(index_B, scaler)

    def _chunks(self, index_B: Tensor) -> tuple[Tensor, Tensor]:
        length_B, start_B = self.chunk_count_N[index_B], self.chunk_start_N[index_B]
        longest = int(length_B.max()) if len(index_B) else 0
        step_K = torch.arange(longest)
        used_BK = step_K < length_B[:, None]
        text_BKE = torch.zeros(len(index_B), longest, self.embedding_ME.shape[1])
        text_BKE[used_BK] = self.embedding_ME[(start_B[:, None] + step_K)[used_BK]].float()
        return text_BKE, length_B


def carry_forward(raw_BTC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Last observed values, mask, and windows since the last measurement over T (1 before the first).

    Only the past of a window is read. Returns three float tensors of shape [B, T, C]; values before the first are NaN.
    """
    windows, last_BTC = raw_BTC.shape[1], _last_seen(raw_BTC)
    step_T1 = torch.arange(windows)[:, None]
    filled_BTC = raw_BTC.gather(1, last_BTC.clamp(min=0)).where(last_BTC >= 0, float("nan"))
    age_BTC = torch.where(last_BTC >= 0, (step_T1 - last_BTC) / windows, 1.0)
    return filled_BTC, (~raw_BTC.isnan()).float(), age_BTC


def interpolate(raw_BTC: Tensor) -> Tensor:
    """Straight lines between measurements, the last value after the last one; NaN before the first, as before it
    nothing is known. Every window lies in the observed past, so both ends of a line do."""
    end = raw_BTC.shape[1] - 1
    last_BTC, next_BTC = _last_seen(raw_BTC), end - _last_seen(raw_BTC.flip(1)).flip(1)
    before_BTC = raw_BTC.gather(1, last_BTC.clamp(min=0)).where(last_BTC >= 0, float("nan"))
    after_BTC = raw_BTC.gather(1, next_BTC.clamp(max=end))
    share_BTC = (torch.arange(end + 1)[:, None] - last_BTC) / (next_BTC - last_BTC).clamp(min=1)
    between_BTC = before_BTC + share_BTC * (after_BTC - before_BTC)
    return torch.where(next_BTC > end, before_BTC, between_BTC)


def _last_seen(raw_BTC: Tensor) -> Tensor:
    """The latest window up to each that holds a measurement; -1 before the first."""
    step_T1 = torch.arange(raw_BTC.shape[1])[:, None]
    return torch.where(raw_BTC.isnan(), -1, step_T1).cummax(dim=1).values


def open_store(store: Path, *, verify: bool = False) -> PatientData:
    """Open a prepared store, memory-mapped.

    ``verify`` also compares the tensor file's SHA-256 with the manifest's. Raises StoreError naming file and rule.
    """
    manifest, path = read_manifest(store), store / TENSORS
    if verify and file_digest(path) != manifest["tensors_sha256"]:
        raise StoreError(f"{path}: SHA-256 differs from the manifest's; the store was altered, prepare it again")
    try:
        with safe_open(path, framework="pt") as tensors:
            held = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path}: not a complete safetensors file; prepare the store again") from error
    if held.keys() != {f.name for f in fields(PatientData)} - {"units"}:
        raise StoreError(f"{path}: holds other tensors than a prepared store; prepare it again")
    study = study_of(manifest)
    shapes = held["static_NF"].shape[1:], held["series_NTC"].shape[1:]
    if shapes != ((len(study.static),), (study.windows, len(study.series))):
        raise StoreError(f"{path}: holds other features than this version declares; prepare the store again")
    held["label_N"] = held["label_N"].bool()
    return PatientData(**held, units=tuple(manifest["units"]))


def check_text_width(data: PatientData, width: int) -> None:
    """Raises ContractError where a model reads note embeddings of another width than a store's. A store without notes
    fits every model."""
    held = data.embedding_ME.shape[1]
    if len(data.embedding_ME) and held != width:
        raise ContractError(
            f"text-dimension: the model reads note embeddings of {width} numbers, the prepared store's have {held};"
            f" set text-dimension = {held} in the run-config, or prepare with the run's text encoder"
        )


def open_split(store: Path, fraction: float, *, seed: int) -> tuple[PatientData, PatientData]:
    """Training and validation stays of a store; the same split in every message of a run and in the baselines."""
    data = open_store(store)
    training_N, validation_N = split_patients(data, fraction, key=f"validation:{seed}")
    return data.subset(training_N), data.subset(validation_N)


def split_patients(data: PatientData, fraction: float, *, key: str) -> tuple[Tensor, Tensor]:
    """Indices of two groups of stays, the second with about ``fraction`` of the patients; no patient is in both.

    Stratified by death. A patient's place follows from a keyed hash, so it does not depend on row order; ``key`` says
    what the split is for ('heldout:SEED'), so that two splits are independent.
    """
    patients = np.unique(data.patient_N.numpy())
    fatal = np.isin(patients, data.patient_N[data.label_N].numpy())
    rank = np.array([hashlib.sha256(f"{key}:{p}".encode()).digest() for p in patients.tolist()])
    chosen: list[NDArray[np.int64]] = []
    for stratum in (patients[fatal], patients[~fatal]):
        hashes = rank[np.isin(patients, stratum)]
        chosen.append(stratum[np.argsort(hashes)][: round(fraction * len(stratum))])
    second_N = np.isin(data.patient_N.numpy(), np.concatenate(chosen))
    return torch.from_numpy(np.flatnonzero(~second_N)), torch.from_numpy(np.flatnonzero(second_N))
