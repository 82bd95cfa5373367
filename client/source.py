"""The files of a MIMIC-IV folder: which tables are there, and do their headers fit the schema. Reads no rows."""

import csv
import gzip
import re
import zlib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TextIO

from shared_model.errors import MissingColumnError, MissingTableError, NotAMimicFolderError, UnreadableTableError
from shared_model.schema import TABLES, Table

SUFFIXES = (".csv.gz", ".parquet", ".csv")
_GZIP_FAULTS = (OSError, EOFError, zlib.error)


def find_tables(folder: Path, tables: tuple[Table, ...] = TABLES) -> dict[str, Path]:
    """Table name to file, after checking layout, required tables and every file's columns.

    Raises NotAMimicFolderError, MissingTableError, MissingColumnError or UnreadableTableError.
    """
    if not (folder / "hosp").is_dir() or not (folder / "icu").is_dir():
        raise NotAMimicFolderError(f"{folder}: no MIMIC-IV folder; it needs hosp/ and icu/ with the tables in them")
    files: dict[str, Path] = {}
    for table in tables:
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
    if not is_gzip(file):
        return
    try:
        with gzip.open(file) as content:
            while content.read(1 << 20):
                pass
    except _GZIP_FAULTS as error:
        raise UnreadableTableError(f"{file}: its gzip data is truncated or damaged; copy the file again") from error


def quoted(text: Path | str) -> str:
    """A path or a name as an SQL string."""
    return "'" + str(text).replace("'", "''") + "'"


def is_gzip(path: Path) -> bool:
    """By its ending."""
    return path.name.lower().endswith(".gz")


def is_parquet(path: Path) -> bool:
    """By its ending."""
    return path.name.lower().endswith(".parquet")


def open_text(file: Path, **options: Any) -> TextIO:
    """A text file, compressed or not; ``options`` are those of ``open``."""
    opener = gzip.open if is_gzip(file) else open
    text: TextIO = opener(file, "rt", **options)
    return text


def as_glob(path: Path | str) -> str:
    """A path as a pattern that matches nothing else: DuckDB reads every path as a pattern."""
    return re.sub(r"([*?[])", r"[\1]", str(path))


def read_parquet(file: Path, options: str = "") -> str:
    """SQL that reads one Parquet file; the folders above it mean nothing."""
    return f"read_parquet({quoted(as_glob(file))}, hive_partitioning = false{options})"


def _columns(file: Path) -> list[str]:
    return parquet_columns(file) if is_parquet(file) else csv_columns(file)


def csv_columns(file: Path) -> list[str]:
    """The names in a header line. Raises UnreadableTableError."""
    try:
        with open_text(file, encoding="utf-8-sig", errors="replace", newline="") as text:
            return [name.strip() for name in next(csv.reader(text), [])]
    except (*_GZIP_FAULTS, csv.Error) as error:
        raise UnreadableTableError(
            f"{file}: its header cannot be read ({type(error).__name__}); copy it again"
        ) from error


def parquet_columns(file: Path) -> list[str]:
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
