"""One prepared store becomes many hospitals and a held-out set. A patient is in exactly one of them."""

import re
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from torch import Tensor

from client.block_memory import begin_simulated, open_blocks
from client.folders import replacing_folder
from client.policy import KINDS
from client.store import arrays_of, write_store
from shared_model.batch import PatientData, open_store, split_patients
from shared_model.errors import ConfigError
from shared_model.manifest import read_manifest, study_of

# What a part's manifest tells of the extract that it was cut from.
_OF_THE_EXTRACT = {
    "source",
    "cohort",
    "flag",
    "stays_of_a_patient",
    "rules_version",
    "encoder",
    "flow",
    "row_checks",
    "event_checks",
    "mapping",  # only where the extract was mapped
}


@dataclass(frozen=True, kw_only=True)
class Partition:
    """``heldout``: the server's store; ``sites``: unit to its hospital's store; ``configs``: folder of their YAML
    files."""

    heldout: Path
    sites: dict[str, Path]
    configs: Path


def partition_by_unit(
    store: Path,
    out: Path,
    *,
    units: list[str] | None,
    heldout_fraction: float,
    seed: int,
    smallest_cell: int = 10,
) -> Partition:
    """Split off the held-out patients (stratified by death), then give each care unit's patients to a hospital of its
    own.

    A patient who passed through several units belongs to the unit of the first stay. ``units`` keeps only those named.
    Raises ConfigError for a unit that the store does not have.
    """
    manifest, data = read_manifest(store), open_store(store)
    stays = pd.read_parquet(store / "stays.parquet")
    home_N = first_unit(data)
    chosen = _chosen_units(data.units, units)
    kept_N = torch.from_numpy(np.flatnonzero(np.isin(home_N.numpy(), [data.units.index(u) for u in chosen])))
    training_N, heldout_N = split_patients(data.subset(kept_N), heldout_fraction, key=f"heldout:{seed}")
    heldout = out / "heldout"
    _write(heldout, replace(data, unit_N=home_N), kept_N[heldout_N], stays, manifest)
    sites: dict[str, Path] = {}
    for number, unit in enumerate(chosen):
        rows_N = kept_N[training_N][home_N[kept_N[training_N]] == data.units.index(unit)]
        sites[unit] = out / "sites" / f"{number:03d}-{slug(unit)}"
        _write(sites[unit], data, rows_N, stays, manifest)
        begin_simulated(sites[unit], sha256(f"{seed}:{unit}".encode()).digest())
        open_blocks(sites[unit], smallest_cell)
    configs = _write_configs(out / "configs", sites, manifest, smallest_cell)
    return Partition(heldout=heldout, sites=sites, configs=configs)


def first_unit(data: PatientData) -> Tensor:
    """For every stay, the unit of its patient's first stay. Rows are in the order of patient and admission."""
    _, first, inverse = np.unique(data.patient_N.numpy(), return_index=True, return_inverse=True)
    return data.unit_N[torch.from_numpy(first)][torch.from_numpy(inverse)]


def slug(unit: str) -> str:
    """A unit's name as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", unit.lower()).strip("-") or "unit"


def _chosen_units(held: tuple[str, ...], wanted: list[str] | None) -> list[str]:
    if wanted is None:
        return list(held)
    by_lower = {unit.lower(): unit for unit in held}
    for name in wanted:
        if name.lower() not in by_lower:
            raise ConfigError(f"--units: no unit {name!r} in the cohort; it has {', '.join(held)}")
    return sorted({by_lower[name.lower()] for name in wanted})


def _write(folder: Path, data: PatientData, rows_N: Tensor, stays: pd.DataFrame, manifest: dict[str, Any]) -> None:
    write_part(folder, data.subset(rows_N), stays.iloc[rows_N.numpy()], manifest)


def write_part(folder: Path, part: PatientData, stays: pd.DataFrame, manifest: dict[str, Any]) -> None:
    """A store of some stays of the one that ``manifest`` belongs to; ``stays`` has a row for each."""
    with replacing_folder(folder) as building:
        facts = {key: value for key, value in manifest.items() if key in _OF_THE_EXTRACT}
        write_store(building, arrays_of(_compact(part)), part.units, stays, study_of(manifest), facts)


def _compact(data: PatientData) -> PatientData:
    """Only the note chunks of the stays that are left."""
    count_N = data.chunk_count_N
    rows = [torch.arange(s, s + c) for s, c in zip(data.chunk_start_N.tolist(), count_N.tolist(), strict=True)]
    used_M = torch.cat(rows) if rows else torch.zeros(0, dtype=torch.long)
    return replace(data, embedding_ME=data.embedding_ME[used_M], chunk_start_N=count_N.cumsum(0) - count_N)


def _write_configs(folder: Path, sites: dict[str, Path], manifest: dict[str, Any], smallest_cell: int) -> Path:
    """One site config a hospital; file names keep the order of ``sites``."""
    with replacing_folder(folder) as building:
        for number, (unit, store) in enumerate(sites.items()):
            document = {
                "site": unit,
                "store": str(store.resolve()),
                "cohort": manifest["cohort"],
                "flag": manifest["flag"],
                **manifest["study"],
                "encoder": manifest["encoder"]["name"],
                "release": {"allow": list(KINDS), "smallest_cell": smallest_cell},
            }
            text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
            (building / f"{number:03d}-{slug(unit)}.yaml").write_text(text, encoding="utf-8")
    return folder
