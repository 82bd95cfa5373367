"""A prepared store, opened memory-mapped, and its patients split for training, validation and folds.

Shape legend: shared_model/inputs.py; M is the note chunks of a store.
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
from shared_model.inputs import Batch, Inputs, Scaler
from shared_model.manifest import TENSORS, file_digest, read_manifest, study_of


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
        inputs = Inputs.of(self.static_NF[index_B], self.series_NTC[index_B], scaler)
        every_B = torch.arange(len(index_B))
        return inputs.batch(every_B, text=self.chunks(index_B), label_B=self.label_N[index_B].float())

    def batches(self, scaler: Scaler, size: int, order_N: Tensor | None = None) -> Iterator[Batch]:
        """All stays in ``order_N`` (default: as stored), ``size`` at a time; the last batch may be smaller."""
        order = torch.arange(len(self)) if order_N is None else order_N
        for index_B in torch.split(order, size):
            yield self.batch(index_B, scaler)

    def chunks(self, index_B: Tensor) -> tuple[Tensor, Tensor]:
        """Note chunks of the stays at ``index_B`` [B, K, E], and how many each has [B]."""
        length_B, start_B = self.chunk_count_N[index_B], self.chunk_start_N[index_B]
        longest = int(length_B.max()) if len(index_B) else 0
        step_K = torch.arange(longest)
        used_BK = step_K < length_B[:, None]
        text_BKE = torch.zeros(len(index_B), longest, self.embedding_ME.shape[1])
        text_BKE[used_BK] = self.embedding_ME[(start_B[:, None] + step_K)[used_BK]].float()
        return text_BKE, length_B


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


def check_encoder(data: PatientData, held: str, wanted: str) -> None:
    """Raises ContractError where notes were embedded by another encoder than a model was trained with (digests). A
    store without notes fits every model."""
    if len(data.embedding_ME) and held != wanted:
        raise ContractError(
            f"prepared store: its notes were embedded by encoder {held[:12]}, the model was trained with {wanted[:12]};"
            " prepare with that one, or with encoder: none"
        )


def open_independently(store: Path, fraction: float, *, seed: int) -> tuple[PatientData, PatientData]:
    """Training and validation stays of a store by ``split_independently``, as a guarantee for single patients needs it;
    the same in every message of a run and in the baselines."""
    data = open_store(store)
    training_N, validation_N = split_independently(data, fraction, key=f"validation:{seed}")
    return data.subset(training_N), data.subset(validation_N)


def split_patients(data: PatientData, fraction: float, *, key: str) -> tuple[Tensor, Tensor]:
    """Indices of two groups of stays, the second with about ``fraction`` of the patients; no patient is in both.

    Stratified by death. A patient's place follows from a keyed hash, so it does not depend on row order; ``key`` says
    what the split is for ('heldout:SEED'), so that two splits are independent.
    """
    chosen = [ranked[: round(fraction * len(ranked))] for ranked in _ranked_strata(data, key)]
    return _inside(data, np.concatenate(chosen))


def split_independently(data: PatientData, fraction: float, *, key: str) -> tuple[Tensor, Tensor]:
    """Like ``split_patients``, but a patient's place follows from its keyed hash and from no other patient.

    ``split_patients`` ranks patients and counts deaths, so that one patient more can move another from one group to the
    other, and one patient's data would show in two places: no noise is made for that. The price is a group whose
    size and share of deaths vary by chance.
    """
    patients = np.unique(data.patient_N.numpy())
    below = int(fraction * 2**64)
    inside = [int.from_bytes(_keyed(key, p)[:8]) < below for p in patients.tolist()]
    return _inside(data, patients[np.array(inside, dtype=bool)])


def _ranked_strata(data: PatientData, key: str) -> list[NDArray[np.int64]]:
    """Patients with a fatal stay, and the others, each in the order of their keyed hash."""
    patients = np.unique(data.patient_N.numpy())
    fatal = np.isin(patients, data.patient_N[data.label_N].numpy())
    rank = np.array([_keyed(key, p) for p in patients.tolist()])
    return [patients[chosen][np.argsort(rank[chosen])] for chosen in (fatal, ~fatal)]


def _keyed(key: str, patient: int) -> bytes:
    return hashlib.sha256(f"{key}:{patient}".encode()).digest()


def _inside(data: PatientData, patients: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Indices of the stays of other patients, and of these."""
    inside_N = np.isin(data.patient_N.numpy(), patients)
    return torch.from_numpy(np.flatnonzero(~inside_N)), torch.from_numpy(np.flatnonzero(inside_N))
