"""Writing a prepared store: tensors, ``stays.parquet`` and the manifest. ``shared_model/batch.py`` opens it.

Arrays here are numpy's, so that a preparation without new notes need not load torch.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from client.notes import Notes
from client.recipe import Manifest, file_sizes
from client.windows import Floats
from shared_model.contract import STORE_VERSION, contract_digest
from shared_model.manifest import MANIFEST, TENSORS, file_digest
from shared_model.study import Study

if TYPE_CHECKING:
    from shared_model.batch import PatientData

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Made:
    """Static features [N, F], series [N, T, C], and what the manifest tells of how they came about."""

    static_NF: Floats
    series_NTC: Floats
    facts: Manifest


def held_features(store: Path, manifest: Manifest) -> Made:
    """The features of a store, with its manifest's account of them."""
    with safe_open(store / TENSORS, framework="numpy") as arrays:
        static_NF, series_NTC = arrays.get_tensor("static_NF"), arrays.get_tensor("series_NTC")
    kept = {key: manifest[key] for key in ("flow", "events", "event_checks")}
    return Made(static_NF, series_NTC, kept)


def write_store(
    folder: Path, arrays: Arrays, units: tuple[str, ...], stays: pd.DataFrame, study: Study, facts: Manifest
) -> Manifest:
    """Write ``arrays`` (PatientData's tensors by name), ``stays.parquet`` (one row a stay, in tensor order) and the
    manifest into ``folder``. Contiguous arrays are written from where they lie, also those that are mapped."""
    patient_N, label_N = arrays["patient_N"], arrays["label_N"].astype(bool)
    written = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(written | {"label_N": label_N.astype(np.uint8)}, folder / TENSORS)
    stays.to_parquet(folder / "stays.parquet", index=False)
    manifest = {
        "store_version": STORE_VERSION,
        "contract": contract_digest(study),
        "study": study.study.model_dump(),
        "units": list(units),
        "stays": len(label_N),
        "patients": len(np.unique(patient_N)),
        "deaths": len(np.unique(patient_N[label_N])),
        "chunks": len(arrays["embedding_ME"]),
        "tensors_sha256": file_digest(folder / TENSORS),
        "files": file_sizes(folder),
        **facts,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return manifest


def arrays_of(data: "PatientData") -> Arrays:
    """The tensors of an opened store, as ``write_store`` takes them."""
    return {name: getattr(data, name).numpy() for name in data.__dataclass_fields__ if name != "units"}


def stays_of(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """The stays in ``numbered``, with the short name of the care unit."""
    stays = connection.execute(
        "SELECT subject_id, hadm_id, stay_id, unit, intime, outtime, prediction_time, cutoff, onset_time, label"
        " FROM numbered ORDER BY n"
    ).fetchdf()
    stays["unit"] = stays["unit"].fillna("unknown").map(short_unit)
    return stays


def arrays_from(made: Made, notes: Notes, stays: pd.DataFrame, units: tuple[str, ...]) -> Arrays:
    """What was made, in the order of ``stays``."""
    return {
        "static_NF": made.static_NF,
        "series_NTC": made.series_NTC,
        "label_N": stays["label"].to_numpy(bool),
        "patient_N": stays["subject_id"].to_numpy(np.int64),
        "unit_N": np.array([units.index(unit) for unit in stays["unit"]], dtype=np.int64),
        "embedding_ME": notes.embedding_ME,
        "chunk_start_N": notes.chunk_start_N,
        "chunk_count_N": notes.chunk_count_N,
    }


def short_unit(name: str) -> str:
    """``Medical Intensive Care Unit (MICU)`` is MICU; a name without an abbreviation stays as it is."""
    return name[name.rindex("(") + 1 : -1] if name.endswith(")") and "(" in name else name
