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
def mimic_views(mimic: Path, out: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Views of the rows that the pipeline reads, under MIMIC-IV's names. ``out`` is made, and may not exist.

    Raises RunFolderError where it does, and DataError's kinds for the folder.
    """
    if out.exists():
        raise RunFolderError(f"{out} exists already; name a new folder")
    files = find_tables(mimic)
    out.mkdir(parents=True)
    with TemporaryDirectory(prefix=".views.", dir=out.parent) as place:
        folder = Path(place)
        with working_database(folder, memory_limit="4GB") as connection:
            connection.execute("SET preserve_insertion_order = true")
            extract_tables(connection, files, folder, held=folder)
            yield connection
