"""A MIMIC-IV folder as typed views, for the writers of other forms."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from client.extract import extract_tables, working_database
from client.source import find_tables
from shared_model.errors import RunFolderError


@contextmanager
def mimic_views(mimic: Path, out: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Views of the rows that the pipeline reads, under MIMIC-IV's names, and a folder that becomes ``out`` when whole.

    Raises RunFolderError where ``out`` exists, and DataError's kinds for the folder.
    """
    if out.exists():
        raise RunFolderError(f"{out} exists already; name a new folder")
    files = find_tables(mimic)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as place:
        folder, building = Path(place), Path(place) / "whole"
        building.mkdir()
        with working_database(folder, memory_limit="4GB") as connection:
            connection.execute("SET preserve_insertion_order = true")
            extract_tables(connection, files, folder, held=folder)
            yield connection, building
        building.rename(out)
