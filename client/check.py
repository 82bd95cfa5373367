"""Look at an extract without preparing anything: its checked tables, and the report on its mapping."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import psutil

from client.cohort import FlowStep, derive_sepsis3, select_cohort
from client.mapping.extract import extract_of
from client.mapping.report import MappingReport, report_on
from client.prepare import extract_checked
from client.site import SiteConfig
from client.source import verify_checksum
from shared_model.errors import EmptyCohortError


def check_site(
    site: SiteConfig, *, memory_limit: str = "4GB", on_stage: Callable[[str], None] = lambda stage: None
) -> MappingReport:
    """Read every file to its end, map, select the cohort, and report. Raises ConfigError and DataError's kinds."""
    extract = extract_of(site)
    on_stage("reading every compressed file to its end")
    for file in extract.files:
        verify_checksum(file)
    with checked_tables(site, memory_limit=memory_limit, on_stage=on_stage) as (connection, told):
        on_stage("selecting the cohort")
        flow, problem = _cohort(connection, site)
        on_stage("looking at what was mapped")
        return report_on(
            connection,
            told,
            site=site.site,
            source=extract.label,
            cohort=site.cohort,
            flow=[vars(step) for step in flow],
            deaths=None if problem else _deaths(connection),
            cohort_problem=problem,
        )


@contextmanager
def checked_tables(
    site: SiteConfig, *, memory_limit: str, on_stage: Callable[[str], None] = lambda stage: None
) -> Iterator[tuple[duckdb.DuckDBPyConnection, dict[str, Any]]]:
    """The extract's checked tables in a database that is gone afterwards, and what the extract tells of them; a
    prepared store's are used where they still hold."""
    extract = extract_of(site, memory_limit=memory_limit, on_stage=on_stage)
    place = _existing(site.store.parent)
    _remove_abandoned(place)
    with (
        TemporaryDirectory(prefix=f".check.{os.getpid()}.", dir=place) as folder,
        extract_checked(extract, site.store, Path(folder), memory_limit=memory_limit) as (connection, told),
    ):
        yield connection, told


def _existing(folder: Path) -> Path:
    """The nearest folder that is there: it lies on the disk that was chosen for patients' rows."""
    return next(place for place in (folder, *folder.resolve().parents) if place.is_dir())


def _remove_abandoned(place: Path) -> None:
    """What a killed check left: patients' rows that nobody waits for."""
    for folder in place.glob(".check.*.*"):
        owner = folder.name.split(".")[2]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _cohort(connection: duckdb.DuckDBPyConnection, site: SiteConfig) -> tuple[list[FlowStep], str]:
    """The flow of the cohort, or what empties it."""
    try:
        if site.cohort == "sepsis3":
            derive_sepsis3(connection)
        return select_cohort(connection, site.cohort, site.study, stays=site.stays), ""
    except EmptyCohortError as error:
        return [], str(error)


def _deaths(connection: duckdb.DuckDBPyConnection) -> int:
    return int(connection.execute("SELECT count(*) FROM cohort WHERE label").fetchall()[0][0])
