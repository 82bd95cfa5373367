"""A MIMIC-IV folder (csv.gz, csv or Parquet) becomes typed tables with MIMIC's names: Parquet files and views of them.

Why copy at all: chartevents is read once, as a stream, and only the rows that a rule or a feature reads are kept, so
memory does not grow with the extract, and a table that has not changed need not be read again. Column types are given,
never sniffed: DuckDB's sniffer looks at a sample and fails late. A row that does not fit them is kept apart with the
rule it breaks; a file in which most rows do not fit is an error.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from client import cohort
from client.folders import Finished, Inputs, share_file
from client.source import as_glob, csv_columns, find_tables, is_parquet, quoted, read_parquet
from client.unreadable import UNREADABLE_ROWS, refuse_open_quote
from shared_model import concepts
from shared_model.errors import ConfigError, DataError, UnreadableTableError
from shared_model.features import digest_of
from shared_model.schema import TABLES, Table

# The tables that can mark a cohort by a column, with their keys.
FLAG_KEYS = {"patients": "subject_id", "admissions": "hadm_id", "icustays": "stay_id"}
LONGEST_LINE = 20_000_000  # bytes; a discharge summary is one field
# Which rows of the big tables anything reads; the rest of a table is read whole.
_KEEP = {
    "chartevents": concepts.CHART_ITEMIDS | cohort.CHART_ITEMIDS,
    "labevents": concepts.LAB_ITEMIDS | cohort.LAB_ITEMIDS,
    "inputevents": frozenset(concepts.NOREPINEPHRINE_EQUIVALENT) | cohort.INPUT_ITEMIDS,
    "outputevents": frozenset(concepts.URINE_ITEMIDS) | cohort.OUTPUT_ITEMIDS,
}


@contextmanager
def working_database(folder: Path, *, memory_limit: str, name: str = "working") -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB database in ``folder`` that spills to disk beyond ``memory_limit``, and is gone afterwards."""
    path = folder / f"{name}.duckdb"
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


def describe_inputs(files: dict[str, Path], flag: str) -> Inputs:
    """What decides an extracted table, by name: its file's name, size and time of change, and what is read of it."""
    return {table.name: _describe(table, files.get(table.name)) for table in tables_read(flag)}


def _describe(table: Table, file: Path | None) -> dict[str, Any]:
    reads = digest_of([table.columns, sorted(_KEEP.get(table.name, ()))])
    if file is None:
        return {"file": None, "reads": reads}
    return describe_file(file) | {"reads": reads}


def describe_file(file: Path) -> dict[str, Any]:
    """By what a second preparation tells that a file is the same: name, size and time of change."""
    held = file.stat()
    return {"file": str(file.resolve()), "size": held.st_size, "mtime_ns": held.st_mtime_ns}


def tables_read(flag: str) -> tuple[Table, ...]:
    """The schema's tables; ``flag`` (TABLE.COLUMN or empty) adds the column that the site marks its cohort with."""
    name, _, column = flag.partition(".")
    if flag and (name not in FLAG_KEYS or not column or '"' in column):
        raise ConfigError(f"flag {flag!r}: write TABLE.COLUMN with a table of {', '.join(FLAG_KEYS)}")
    return tuple(replace(t, columns={column: "VARCHAR"} | t.columns) if t.name == name else t for t in TABLES)


@dataclass(frozen=True)
class MimicFolder:
    """An extract that has MIMIC-IV's tables already. ``flag``: TABLE.COLUMN of the cohort ``flag``, or empty."""

    path: Path
    flag: str = ""

    @property
    def label(self) -> str:
        """How reports name it."""
        return self.path.name

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return tuple(find_tables(self.path, tables_read(self.flag)).values())

    @property
    def places(self) -> tuple[Path, ...]:
        """Folders that a store may not replace."""
        return (self.path,)

    def describe(self) -> Inputs:
        """Raises DataError's kinds where the folder, a required table or a column is not there."""
        return describe_inputs(find_tables(self.path, tables_read(self.flag)), self.flag)

    def lay(
        self, connection: duckdb.DuckDBPyConnection, folder: Path, inputs: Inputs, held: Path, unchanged: frozenset[str]
    ) -> dict[str, Any]:
        """Write the tables and lay views over them; returns what the manifest tells of it."""
        files = {name: Path(entry["file"]) for name, entry in inputs.items() if entry["file"]}
        rows = extract_tables(
            connection, files, folder, flag=self.flag, held=held, unchanged=unchanged, finished=Finished(folder, inputs)
        )
        return {"rows": rows}


def extract_tables(
    connection: duckdb.DuckDBPyConnection,
    files: dict[str, Path],
    store: Path,
    *,
    flag: str = "",
    held: Path,
    unchanged: frozenset[str] = frozenset(),
    finished: Finished | None = None,
) -> dict[str, int]:
    """Write every table as ``store/tables/NAME.parquet``, lay a view of its name over it, and return the rows kept.

    Rows that do not fit the schema's types go to ``store/rejects/unreadable-NAME.parquet`` (line, rule, row). The
    tables ``unchanged`` are taken from the prepared store ``held``; those that ``finished`` knows are there already. An
    optional table that is absent becomes an empty one. Raises UnreadableTableError; no message holds a value of a row.
    """
    for folder in ("tables", "rejects"):
        (store / folder).mkdir(exist_ok=True)
    tables = tables_read(flag)
    there = finished.names() if finished else frozenset()
    read = [table for table in tables if table.name in files and table.name not in unchanged | there]
    _extract_all(connection, [(table, files[table.name]) for table in read], store, finished)
    for table in tables:
        if table.name in unchanged:
            share_table(held, store, table.name)
        elif table.name not in files:
            _write_empty(connection, table, store)
    return lay_views(connection, store, tables)


def lay_views(connection: duckdb.DuckDBPyConnection, store: Path, tables: tuple[Table, ...]) -> dict[str, int]:
    """A view of each table's name over its Parquet file in ``store``; returns their rows."""
    for table in tables:
        rows = read_parquet(store / "tables" / f"{table.name}.parquet")
        connection.execute(f"CREATE VIEW {table.name} AS SELECT * FROM {rows}")
    return {table.name: _count(connection, table.name) for table in tables}


def share_table(held: Path, store: Path, name: str) -> None:
    """Take an extracted table, with its unreadable rows, from another store."""
    for path in (f"tables/{name}.parquet", f"rejects/unreadable-{name}.parquet"):
        if (held / path).exists():
            share_file(held / path, store / path)


def _write_empty(connection: duckdb.DuckDBPyConnection, table: Table, store: Path) -> None:
    target = quoted(store / "tables" / f"{table.name}.parquet")
    typed = ", ".join(f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in table.columns.items())
    connection.execute(f"COPY (SELECT {typed} LIMIT 0) TO {target} (FORMAT parquet)")


def _extract_all(
    connection: duckdb.DuckDBPyConnection, tables: list[tuple[Table, Path]], store: Path, finished: Finished | None
) -> None:
    def extract(cursor: duckdb.DuckDBPyConnection, table: Table, file: Path) -> None:
        _extract(cursor, table, file, store)
        if finished:
            finished.mark(table.name)

    by_size = sorted(tables, key=lambda pair: -pair[1].stat().st_size)
    two_at_a_time(connection, [partial(extract, table=table, file=file) for table, file in by_size])


def two_at_a_time(
    connection: duckdb.DuckDBPyConnection, jobs: Sequence[Callable[[duckdb.DuckDBPyConnection], object]]
) -> None:
    """Run the jobs in order, each with a cursor of its own, two at a time: one gzip stream does not keep two cores
    busy. The first that fails ends the others."""
    cursors = [connection.cursor() for _ in jobs]
    with ThreadPoolExecutor(max_workers=2) as pool:
        pending = [pool.submit(job, cursor) for job, cursor in zip(jobs, cursors, strict=True)]
        try:
            for done in wait(pending, return_when=FIRST_EXCEPTION).done:
                done.result()
        except BaseException:
            for done, cursor in zip(pending, cursors, strict=True):
                if not done.cancel():
                    cursor.interrupt()
            raise
    for cursor in cursors:
        cursor.close()


def _extract(connection: duckdb.DuckDBPyConnection, table: Table, file: Path, store: Path) -> None:
    target = store / "tables" / f"{table.name}.parquet"
    columns = ", ".join(f'"{name}"' for name in table.columns)
    keep = f"WHERE itemid IN {tuple(sorted(_KEEP[table.name]))}" if table.name in _KEEP else ""
    try:
        if is_parquet(file):
            source, unreadable = _parquet_source(connection, table, file)
        else:
            source, unreadable = _csv_source(table, file), UNREADABLE_ROWS
        connection.execute(f"COPY (SELECT {columns} FROM {source} {keep}) TO {quoted(target)} (FORMAT parquet)")
        if not is_parquet(file):
            refuse_open_quote(connection, str(file))
        connection.execute(f"CREATE OR REPLACE TEMP TABLE unreadable AS {unreadable}")
    except duckdb.Error as error:
        raise _readable(file, error) from None
    finally:
        connection.execute("DROP TABLE IF EXISTS csv_error; DROP TABLE IF EXISTS csv_scan")
    _keep_unreadable(connection, file, target, store / "rejects" / f"unreadable-{table.name}.parquet")


def _keep_unreadable(connection: duckdb.DuckDBPyConnection, file: Path, target: Path, rejects: Path) -> None:
    bad = _count(connection, "unreadable")
    if not bad:
        return
    good = _count(connection, read_parquet(target))
    if bad > good:
        [(rule,)] = connection.execute("SELECT mode(rule) FROM unreadable").fetchall()
        raise UnreadableTableError(f"{file}: {bad:,} rows cannot be read and {good:,} can; most often: {rule}")
    connection.execute(f"COPY (FROM unreadable ORDER BY ALL) TO {quoted(rejects)} (FORMAT parquet)")


def _csv_source(table: Table, file: Path) -> str:
    kinds = ", ".join(f"{quoted(name)}: '{table.columns.get(name, 'VARCHAR')}'" for name in csv_columns(file))
    return (
        f"read_csv({quoted(as_glob(file))}, header = true, auto_detect = false, delim = ',', quote = '\"',"
        " escape = '\"', hive_partitioning = false,"
        # A buffer no larger than the longest line; else DuckDB takes 16 of them and reads a gzip file on one core.
        f" nullstr = '', max_line_size = {LONGEST_LINE}, buffer_size = {LONGEST_LINE}, columns = {{{kinds}}},"
        " store_rejects = true, rejects_table = 'csv_error', rejects_scan = 'csv_scan', rejects_limit = 0)"
    )


def _parquet_source(connection: duckdb.DuckDBPyConnection, table: Table, file: Path) -> tuple[str, str]:
    """A query of the rows whose values fit the schema's types, and one of the others."""
    reader = read_parquet(file, ", file_row_number = true")
    held = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()}
    doubtful = [name for name, kind in table.columns.items() if held[name] != kind]
    misfit = [
        f'WHEN "{name}" IS NOT NULL AND TRY_CAST("{name}" AS {table.columns[name]}) IS NULL'
        f" THEN {quoted(name + ': not ' + table.columns[name])}"
        for name in doubtful
    ]
    rule = f"CASE {' '.join(misfit)} END" if misfit else "CAST(NULL AS VARCHAR)"
    casts = ", ".join(f'TRY_CAST("{name}" AS {kind}) AS "{name}"' for name, kind in table.columns.items())
    own = ", ".join(f'"{name}"' for name in table.columns)
    return (
        f"(SELECT {casts} FROM {reader} WHERE {rule} IS NULL)",
        f"SELECT {quoted(file.name)} AS file_name, file_row_number + 1 AS line,"
        f" to_json(struct_pack({own})) AS row_text, {rule} AS rule FROM {reader} WHERE {rule} IS NOT NULL",
    )


def _readable(file: Path, error: duckdb.Error) -> DataError:
    """DuckDB's message without the row it quotes."""
    text = str(error)
    line = re.search(r"Line: (\d+)", text)
    place = f" line {line[1]}" if line else ""
    if "GZIP stream" in text:
        return UnreadableTableError(f"{file}: its gzip data is truncated or damaged; copy the file again")
    return UnreadableTableError(f"{file}:{place} cannot be read as a table of the schema ({type(error).__name__})")


def _count(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0])
