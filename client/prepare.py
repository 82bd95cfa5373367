"""Extract to prepared store, read top to bottom: extract -> cohort -> events -> features -> notes -> store.

A store is written under another name and renamed: it is whole or absent, also after Ctrl-C.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pandas as pd
import torch
from safetensors.torch import save_file

from client.cohort import RULES_VERSION, derive_sepsis3, select_cohort
from client.extract import extract_mimic, quoted, working_database
from client.mapping import map_events
from client.notes import Notes, embed_notes, resolve_encoder
from client.windows import Floats, build_features
from shared_model.batch import MANIFEST, TENSORS, PatientData, file_digest
from shared_model.contract import STORE_VERSION, contract_digest
from shared_model.errors import StoreError
from shared_model.features import PROFILE, Cohort

Manifest = dict[str, Any]


def prepare_mimic(
    source: Path,
    store: Path,
    *,
    cohort: Cohort,
    prediction_hours: float = 24.0,
    encoder: str = "minilm",
    described_as: str = "",
    memory_limit: str = "4GB",
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Manifest:
    """Prepare a MIMIC-IV folder; returns the manifest. ``described_as`` is how reports name the source.

    Raises DataError's kinds for the source and ConfigError for the encoder; then no store is left behind.
    """
    _check_target(store, source)
    resolved = resolve_encoder(encoder)
    with (
        replacing_folder(store) as building,
        working_database(building, memory_limit=memory_limit) as connection,
    ):
        on_stage("reading tables")
        rows = extract_mimic(connection, source)
        on_stage("selecting the cohort")
        derive_sepsis3(connection)
        flow = select_cohort(connection, cohort, prediction_hours=prediction_hours)
        on_stage("mapping events")
        counts = map_events(connection)
        on_stage("building features")
        static_NF, series_NTC = build_features(connection, prediction_hours)
        on_stage("embedding notes")
        notes = embed_notes(connection, len(static_NF), resolved)
        connection.execute(f"COPY rejects TO {quoted(building / 'rejects.parquet')} (FORMAT parquet)")
        facts = {
            "source": described_as or source.name,
            "cohort": cohort,
            "prediction_hours": prediction_hours,
            "profile": PROFILE,
            "rules_version": RULES_VERSION,
            "encoder": {"name": resolved.name, "digest": resolved.digest},
            "flow": [asdict(step) for step in flow],
            "rows": rows,
            **counts,
        }
        data, stays = _patient_data(connection, static_NF, series_NTC, notes)
        return write_store(building, data, stays, facts)


def _check_target(store: Path, source: Path) -> None:
    """Only a store may be replaced by a store."""
    if store.resolve() == source.resolve() or store.resolve() in source.resolve().parents:
        raise StoreError(f"{store}: is the extract or holds it; name another folder for the store")
    if store.exists() and not (store.is_dir() and ((store / MANIFEST).is_file() or not any(store.iterdir()))):
        raise StoreError(f"{store}: exists and is no prepared store; name another folder, or remove it")


def write_store(folder: Path, data: PatientData, stays: pd.DataFrame, facts: Manifest) -> Manifest:
    """Write tensors, ``stays.parquet`` (one row a stay, in tensor order) and the manifest into ``folder``."""
    names = [n for n in data.__dataclass_fields__ if n != "units"]
    tensors = {name: getattr(data, name).contiguous() for name in names}
    save_file(tensors | {"label_N": data.label_N.to(torch.uint8)}, folder / TENSORS)
    stays.to_parquet(folder / "stays.parquet", index=False)
    manifest = {
        "store_version": STORE_VERSION,
        "contract": contract_digest(),
        "units": list(data.units),
        "stays": len(data),
        "patients": data.patients,
        "deaths": data.deaths,
        "chunks": len(data.embedding_ME),
        "tensors_sha256": file_digest(folder / TENSORS),
        **facts,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return manifest


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary sibling that takes ``folder``'s place when the block ends well, and is removed when it does not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
    old = folder.with_name(f"{building.name}.old")
    building.mkdir()
    try:
        yield building
        if folder.exists():
            folder.rename(old)
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _patient_data(
    connection: duckdb.DuckDBPyConnection, static_NF: Floats, series_NTC: Floats, notes: Notes
) -> tuple[PatientData, pd.DataFrame]:
    stays = connection.execute(
        "SELECT subject_id, hadm_id, stay_id, unit, intime, outtime, prediction_time, onset_time, label"
        " FROM numbered ORDER BY n"
    ).fetchdf()
    stays["unit"] = stays["unit"].fillna("unknown").map(short_unit)
    units = sorted(stays["unit"].unique())
    data = PatientData(
        static_NF=torch.from_numpy(static_NF),
        series_NTC=torch.from_numpy(series_NTC),
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
