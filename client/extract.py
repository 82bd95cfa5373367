"""A MIMIC-IV folder (csv.gz, csv or Parquet) becomes typed DuckDB tables with MIMIC's names.

Why copy at all: chartevents is scanned once, and only the rows that a rule or a feature reads are kept, on disk, so
memory does not grow with the extract. Column types are given, never sniffed: DuckDB's sniffer looks at a sample and
fails late.
"""

import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

import duckdb

from client import cohort
from shared_model import concepts
from shared_model.errors import (
    ConfigError,
    DataError,
    MissingColumnError,
    MissingTableError,
    NotAMimicFolderError,
    UnreadableTableError,
)
from shared_model.schema import TABLES, Table

SUFFIXES = (".csv.gz", ".parquet", ".csv")
_GZIP_FAULTS = (OSError, EOFError, zlib.error)
# Which rows of the big tables anything reads; the rest of a table is read whole.
_KEEP = {
    "chartevents": concepts.CHART_ITEMIDS | cohort.CHART_ITEMIDS,
    "labevents": concepts.LAB_ITEMIDS | cohort.LAB_ITEMIDS,
    "inputevents": frozenset(concepts.NOREPINEPHRINE_EQUIVALENT) | cohort.INPUT_ITEMIDS,
    "outputevents": frozenset(concepts.URINE_ITEMIDS) | cohort.OUTPUT_ITEMIDS,
}


@contextmanager
def working_database(folder: Path, *, memory_limit: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB database in ``folder`` that spills to disk beyond ``memory_limit``, and is gone afterwards."""
    path = folder / "working.duckdb"
    connection = duckdb.connect(str(path))
    try:
        connection.execute(f"SET temp_directory = {quoted(folder / 'spill')}")
        _limit_memory(connection, memory_limit)
        connection.execute("SET preserve_insertion_order = false")
        connection.execute("SET enable_progress_bar = false")
        yield connection
    finally:
        connection.close()
        path.unlink(missing_ok=True)


def _limit_memory(connection: duckdb.DuckDBPyConnection, limit: str) -> None:
    try:
        connection.execute("SET memory_limit = ?", [limit])
    except duckdb.Error as error:
        raise ConfigError(f"memory limit {limit!r}: write a number and a unit, such as 4GB") from error


def extract_mimic(connection: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, int]:
    """Create every table of the schema from ``folder`` and return the rows kept of each.

    An optional table that is absent becomes an empty one. Raises NotAMimicFolderError, MissingTableError,
    MissingColumnError or UnreadableTableError; no message holds a value of a row.
    """
    files = find_tables(folder)
    for table in TABLES:
        _load(connection, table, files.get(table.name))
    return {table.name: _count(connection, table.name) for table in TABLES}


def find_tables(folder: Path) -> dict[str, Path]:
    """Table name to file, after checking layout, required tables and every file's columns."""
    if not (folder / "hosp").is_dir() or not (folder / "icu").is_dir():
        raise NotAMimicFolderError(f"{folder}: no MIMIC-IV folder; it needs hosp/ and icu/ with the tables in them")
    files: dict[str, Path] = {}
    for table in TABLES:
        found = [f for s in SUFFIXES if (f := folder / table.folder / f"{table.name}{s}").is_file()]
        if found:
            files[table.name] = found[0]
            _check_columns(table, found[0], _columns(found[0]))
        elif table.required:
            expected = f"{table.folder}/{table.name}{SUFFIXES[0]}"
            raise MissingTableError(f"{folder}: required table {expected} is absent (also looked for .parquet, .csv)")
    return files


def verify_checksum(file: Path) -> None:
    """Read a gzip file to its end and compare its checksum, which DuckDB does not. Raises UnreadableTableError."""
    if file.suffix != ".gz":
        return
    try:
        with gzip.open(file) as content:
            while content.read(1 << 20):
                pass
    except _GZIP_FAULTS as error:
        raise UnreadableTableError(f"{file}: its gzip data is truncated or damaged; copy the file again") from error


def quoted(path: Path) -> str:
    """A path as an SQL string."""
    return "'" + str(path).replace("'", "''") + "'"


def _load(connection: duckdb.DuckDBPyConnection, table: Table, file: Path | None) -> None:
    columns = ", ".join(f'"{name}"' for name in table.columns)
    if file is None:
        typed = ", ".join(f'"{name}" {kind}' for name, kind in table.columns.items())
        connection.execute(f"CREATE TABLE {table.name} ({typed})")
        return
    where = f"WHERE itemid IN {tuple(sorted(_KEEP[table.name]))}" if table.name in _KEEP else ""
    try:
        connection.execute(f"CREATE TABLE {table.name} AS SELECT {columns} FROM {_reader(table, file)} {where}")
    except duckdb.Error as error:
        raise _readable(file, error) from None


def _reader(table: Table, file: Path) -> str:
    """The DuckDB expression that reads a file with the schema's types."""
    if file.suffix == ".parquet":
        casts = ", ".join(f'CAST("{name}" AS {kind}) AS "{name}"' for name, kind in table.columns.items())
        return f"(SELECT {casts} FROM read_parquet({quoted(file)}))"
    kinds = ", ".join(f"{quoted(Path(name))}: '{table.columns.get(name, 'VARCHAR')}'" for name in _csv_columns(file))
    return (
        f"read_csv({quoted(file)}, header = true, auto_detect = false, delim = ',', quote = '\"', escape = '\"',"
        f" nullstr = '', max_line_size = 20000000, columns = {{{kinds}}})"
    )


def _columns(file: Path) -> list[str]:
    return _parquet_columns(file) if file.suffix == ".parquet" else _csv_columns(file)


def _csv_columns(file: Path) -> list[str]:
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8-sig", errors="replace", newline="") as text:
            return [name.strip() for name in next(csv.reader(text), [])]
    except (*_GZIP_FAULTS, csv.Error) as error:
        raise UnreadableTableError(
            f"{file}: its header cannot be read ({type(error).__name__}); copy it again"
        ) from error


def _parquet_columns(file: Path) -> list[str]:
    import pyarrow
    from pyarrow import parquet

    try:
        return list(parquet.read_schema(file).names)
    except (OSError, pyarrow.ArrowException) as error:
        raise UnreadableTableError(f"{file}: not a complete Parquet file; copy it again") from error


def _check_columns(table: Table, file: Path, present: list[str]) -> None:
    for name in table.columns:
        if name not in present:
            lower = {held.lower(): held for held in present}
            close = get_close_matches(name, lower, n=1)
            hint = f"; is it {lower[close[0]]!r}?" if close else "."
            raise MissingColumnError(f"{file}: no column {name!r}{hint} It has: {', '.join(present)}")


def _readable(file: Path, error: duckdb.Error) -> DataError:
    """DuckDB's message without the row it quotes."""
    text = str(error)
    line = re.search(r"Line: (\d+)", text)
    place = f" line {line[1]}" if line else ""
    column = re.search(r'converting column "([^"]+)"', text) or re.search(r"from source column (\w+)", text)
    if column:
        kind = re.search(r"to '([A-Z]+)'", text)
        wanted = kind[1] if kind else "of the schema's type"
        return UnreadableTableError(f"{file}:{place} column {column[1]!r} holds a value that is not {wanted}")
    if "GZIP stream" in text:
        return UnreadableTableError(f"{file}: its gzip data is truncated or damaged; copy the file again")
    return UnreadableTableError(f"{file}:{place} cannot be read as a table of the schema ({type(error).__name__})")


def _count(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0])
