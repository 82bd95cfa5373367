"""Writing a prepared store: tensors, ``stays.parquet`` and the manifest. ``shared_model/batch.py`` opens it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import torch
from safetensors.torch import save_file

from client.notes import Notes
from client.recipe import file_sizes
from client.windows import Floats
from shared_model.batch import PatientData
from shared_model.contract import STORE_VERSION, contract_digest
from shared_model.manifest import MANIFEST, TENSORS, file_digest
from shared_model.study import Study


@dataclass(frozen=True)
class Made:
    """Static features [N, F], series [N, T, C], and what the manifest tells of how they came about."""

    static_NF: Floats
    series_NTC: Floats
    facts: dict[str, Any]


def write_store(
    folder: Path, data: PatientData, stays: pd.DataFrame, study: Study, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write tensors, ``stays.parquet`` (one row a stay, in tensor order) and the manifest into ``folder``."""
    names = [n for n in data.__dataclass_fields__ if n != "units"]
    tensors = {name: getattr(data, name).contiguous() for name in names}
    save_file(tensors | {"label_N": data.label_N.to(torch.uint8)}, folder / TENSORS)
    stays.to_parquet(folder / "stays.parquet", index=False)
    manifest = {
        "store_version": STORE_VERSION,
        "contract": contract_digest(study),
        "study": study.study.model_dump(),
        "units": list(data.units),
        "stays": len(data),
        "patients": data.patients,
        "deaths": data.deaths,
        "chunks": len(data.embedding_ME),
        "tensors_sha256": file_digest(folder / TENSORS),
        "files": file_sizes(folder),
        **facts,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return manifest


def patient_data(connection: duckdb.DuckDBPyConnection, made: Made, notes: Notes) -> tuple[PatientData, pd.DataFrame]:
    """The tensors of the stays in ``numbered``, and their table."""
    stays = connection.execute(
        "SELECT subject_id, hadm_id, stay_id, unit, intime, outtime, prediction_time, cutoff, onset_time, label"
        " FROM numbered ORDER BY n"
    ).fetchdf()
    stays["unit"] = stays["unit"].fillna("unknown").map(short_unit)
    units = sorted(stays["unit"].unique())
    data = PatientData(
        static_NF=torch.from_numpy(made.static_NF),
        series_NTC=torch.from_numpy(made.series_NTC),
        label_N=torch.tensor(stays["label"].tolist()),
        patient_N=torch.tensor(stays["subject_id"].tolist()),
        unit_N=torch.tensor([units.index(u) for u in stays["unit"]]),
        embedding_ME=torch.from_numpy(notes.embedding_ME),
        chunk_start_N=torch.from_numpy(notes.chunk_start_N),
        chunk_count_N=torch.from_numpy(notes.chunk_count_N),
        units=tuple(units),
    )
    return data, stays


def short_unit(name: str) -> str:
    """``Medical Intensive Care Unit (MICU)`` is MICU; a name without an abbreviation stays as it is."""
    return name[name.rindex("(") + 1 : -1] if name.endswith(")") and "(" in name else name
