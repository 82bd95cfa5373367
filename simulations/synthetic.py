"""Synthetic hospitals in MIMIC-IV's format, for which the best attainable score is known.

Why: MIMIC-IV may not be shipped, a federation needs thousands of patients to be worth looking at, and a score only
means something next to the score of the truth. ``write_hospitals`` writes a folder that the pipeline cannot tell from
MIMIC-IV by its form, and ``truth.parquet`` beside it with each stay's true risk.

The generative model
    unit                ~ nine care units in the proportions of MIMIC-IV
    age, chronic c      ~ normal; minors are rare, above 89 the age reads 91
    infection i         ~ Bernoulli(by unit), with source, onset around ICU admission
    severity s          ~ N(by unit, 1) + 0.4 i;   organ_k = s + N(by unit, 0.2), six organs
    lung burden z       ~ N(0, 1) + 0.7 when the infection sits in the lung
    risk                = logistic(b0 + b1 s + b2 age + b3 c + b4 z + b5 i), one function for all units
    died                ~ Bernoulli(risk)
    measurements        = functions of the organs, z, i, c and age, with habits of the patient, slow wander and errors
    reports             = words for z in six grades, with an error of reading

The units' mean severities are solved so that each unit has MIMIC-IV's death rate; nothing else depends on the unit but
practice (lines, devices, units of temperature, how often blood is drawn). In the first 24 hours of a stay the outcome
has no influence on any measurement; afterwards those who will die worsen and the others recover, so later windows know
more than ``true_risk`` and whole-stay features leak. Codes and discharge summaries are stored at discharge.

Patient k of a seed is the same in every folder with more than k patients: chunks of 250 patients have their own
generators. Chunks are made by up to two processes (spawned: a script that calls this needs the ``__main__`` guard).
"""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from shared_model.errors import ConfigError, RunFolderError
from simulations.hospital import (
    bedside,
    discharge,
    infection,
    items,
    laboratory,
    pharmacy,
    radiology,
    records,
    treatment,
)
from simulations.hospital.course import SUBJECT, Stays, World, draw_world
from simulations.hospital.latents import UNITS
from simulations.hospital.mimic_csv import (
    DICTIONARIES,
    HEADERS,
    Columns,
    arrow_table,
    header_member,
    labels,
    rows_member,
)
from simulations.hospital.support import draw_support

Progress = Callable[[int, int], None]

CHUNK = 250  # patients
MOST_WORKERS = 2
ID_STRIDE = 10_000  # identifiers of rows a patient may use
_STREAMS = ("world", "support", "chart", "output", "input", "lab", "culture", "drug", "record", "note", "discharge")


@dataclass(frozen=True, kw_only=True)
class SyntheticSummary:
    """What was written; ``deaths`` are admissions that ended in death, ``rows`` is keyed like ``hosp/patients``."""

    patients: int
    admissions: int
    stays: int
    deaths: int
    rows: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One chunk, ready to be appended: gzip members and row counts by table, and its rows of the truth."""

    patients: int
    deaths: int
    members: dict[str, bytes]
    rows: dict[str, int]
    truth: pa.Table


def write_hospitals(
    out: Path,
    *,
    patients: int,
    seed: int,
    on_progress: Progress | None = None,
    workers: int | None = None,
) -> SyntheticSummary:
    """Write ``patients`` patients of ``seed`` to the new folder ``out``, which is whole or absent.

    ``on_progress`` is called with patients written and patients in all. ``workers`` (default: up to two processes)
    changes nothing but the time it takes. Raises ConfigError for fewer than one patient and RunFolderError when
    ``out`` exists.
    """
    if patients < 1:
        raise ConfigError(f"patients is {patients}; the rule is at least 1; pass a larger number of patients")
    if out.exists():
        raise RunFolderError(f"{out} exists already; the rule is a new folder; remove it or name another")
    unfinished = out.with_name(f".{out.name}.{uuid4().hex[:8]}.partial")
    try:
        summary = _write_all(unfinished, patients, seed, on_progress, workers)
        if out.exists():
            raise RunFolderError(f"{out} appeared while it was being written; remove it or name another folder")
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return summary


def _write_all(
    folder: Path, patients: int, seed: int, on_progress: Progress | None, workers: int | None
) -> SyntheticSummary:
    _start_files(folder)
    rows: Counter[str] = Counter()
    truth: list[pa.Table] = []
    done = deaths = 0
    for part in _parts(patients, seed, workers):
        _append(folder, part.members)
        rows.update(part.rows)
        truth.append(part.truth)
        done, deaths = done + part.patients, deaths + part.deaths
        if on_progress is not None:
            on_progress(done, patients)
    parquet.write_table(pa.concat_tables(truth), folder / "truth.parquet")
    for name in DICTIONARIES:
        rows[name] = len(_dictionary(name))
    return SyntheticSummary(
        patients=rows["hosp/patients"],
        admissions=rows["hosp/admissions"],
        stays=rows["icu/icustays"],
        deaths=deaths,
        rows=dict(rows),
    )


def _start_files(folder: Path) -> None:
    """Write the header of every table, and the dictionaries, which are the same for all patients."""
    for name in HEADERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    _append(folder, {name: header_member(name) for name in HEADERS})
    _append(folder, {name: rows_member(name, _dictionary(name)) for name in DICTIONARIES})


def _dictionary(name: str) -> pa.Table:
    return arrow_table(name, items.d_items() if name == "icu/d_items" else items.d_labitems())


def _append(folder: Path, members: dict[str, bytes]) -> None:
    for name, member in members.items():
        with (folder / f"{name}.csv.gz").open("ab") as file:
            file.write(member)


def _parts(patients: int, seed: int, workers: int | None) -> Iterator[_Part]:
    """Make the chunks in order, here or in other processes."""
    chunks = range((patients + CHUNK - 1) // CHUNK)
    make = partial(_make_part, seed=seed, patients=patients)
    wanted = min(MOST_WORKERS, os.cpu_count() or 1) if workers is None else workers
    if min(wanted, len(chunks) // 2) < 2:
        yield from map(make, chunks)
        return
    pool = ProcessPoolExecutor(wanted, mp_context=get_context("spawn"), initializer=_leave_interrupts_to_parent)
    try:
        yield from pool.map(make, chunks)
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _make_part(chunk: int, *, seed: int, patients: int) -> _Part:
    """Make one chunk of patients, and keep those below ``patients``."""
    rngs = {name: np.random.default_rng([seed, chunk, number]) for number, name in enumerate(_STREAMS)}
    world = draw_world(rngs["world"], first_person=chunk * CHUNK, count=CHUNK)
    last = SUBJECT + min(patients, (chunk + 1) * CHUNK) - 1
    tables = {name: _until(arrow_table(name, columns), last) for name, columns in _tables(rngs, world).items()}
    kept = world.admissions.person <= last - SUBJECT
    return _Part(
        patients=len(tables["hosp/patients"]),
        deaths=int(world.admissions.died[kept].sum()),
        members={name: rows_member(name, table) for name, table in tables.items()},
        rows={name: len(table) for name, table in tables.items()},
        truth=_until(pa.table(_truth(world.stays)), last),
    )


def _until(table: pa.Table, last_subject: int) -> pa.Table:
    """Return the rows of patients up to ``last_subject``; every table is sorted by patient."""
    subjects = table["subject_id"].to_numpy()
    return table.slice(0, int(np.searchsorted(subjects, last_subject, side="right")))


def _tables(rngs: dict[str, np.random.Generator], world: World) -> dict[str, Columns]:
    """Return the columns of every table of a chunk."""
    people, admissions, stays = world.people, world.admissions, world.stays
    offset = int(people.subject_id[0]) - SUBJECT
    first_id = 1 + offset * ID_STRIDE
    female_stay = people.female[stays.person - offset]
    support = draw_support(rngs["support"], stays, female_stay)
    seen = infection.draw_suspicions(rngs["culture"], stays)
    group = records.year_groups(rngs["record"], people)
    chronic = records.chronic_conditions(rngs["record"], people)
    patient = admissions.person - offset
    severity = np.full(admissions.hadm_id.size, -9.0)
    severity[stays.admission] = stays.latents.severity
    conditions = records.admission_conditions(admissions, chronic[patient], severity)
    return {
        "hosp/patients": records.patients(people, group),
        "hosp/admissions": records.admissions(rngs["record"], people, admissions),
        "hosp/diagnoses_icd": records.diagnoses_icd(rngs["record"], admissions, conditions, group[patient]),
        "hosp/services": records.services(admissions),
        "hosp/labevents": laboratory.labevents(rngs["lab"], stays, admissions, support, first_id=first_id),
        "hosp/microbiologyevents": infection.microbiologyevents(rngs["culture"], stays, seen, first_id=first_id),
        "hosp/prescriptions": pharmacy.prescriptions(rngs["drug"], stays, admissions, seen, first_id=first_id),
        "icu/icustays": records.icustays(stays),
        "icu/chartevents": bedside.chartevents(rngs["chart"], stays, support),
        "icu/inputevents": treatment.inputevents(rngs["input"], stays, support, first_id=first_id),
        "icu/outputevents": bedside.outputevents(rngs["output"], stays, support),
        "icu/procedureevents": treatment.procedureevents(stays, support, first_id=first_id),
        "note/radiology": radiology.radiology(rngs["note"], stays, admissions, support, female=female_stay),
        "note/discharge": discharge.discharge(rngs["discharge"], admissions, conditions, female=people.female[patient]),
    }


def _truth(stays: Stays) -> Columns:
    """Return what ``truth.parquet`` tells of each stay."""
    latents = stays.latents
    infection_code = np.where(latents.infected, 1, np.where(latents.acquired, 2, 0))
    return {
        "subject_id": stays.subject_id,
        "hadm_id": stays.hadm_id,
        "stay_id": stays.stay_id,
        "first_careunit": labels([unit.name for unit in UNITS], latents.unit),
        "hours": stays.hours,
        "true_risk": latents.risk,
        "died": latents.died,
        "severity": latents.severity,
        "lung_burden": latents.lung,
        "chronic_burden": latents.chronic,
        "age": latents.age,
        "infection": labels(["none", "present", "acquired"], infection_code),
        "onset_hours": np.where(infection_code > 0, latents.onset_h, np.nan),
    }
