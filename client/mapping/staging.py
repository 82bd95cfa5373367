"""The extract, copied: each file or table of a relation becomes a Parquet file of the columns that something reads.

Why copy: a gzip file or a database is read once, however many mappings use it; memory does not grow with it; and a
preparation that was interrupted goes on with the copies that it had finished.
"""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from client.extract import describe_file, two_at_a_time
from client.mapping import database
from client.mapping.config import CsvFormat, Mapping, Relation
from client.mapping.files import (
    FILE_NAME,
    LINE,
    ROW_NUMBER,
    Group,
    find_files,
    group_files,
    rows_of,
    unreadable_rows,
    unzipped,
    with_one_line_end,
)
from client.mapping.wanted import Wanted
from client.source import as_glob, quoted, read_parquet
from client.unreadable import refuse_open_quote
from shared_model.errors import ConfigError, MissingTableError, UnreadableTableError
from shared_model.features import digest_of


@dataclass(frozen=True)
class Staged:
    """A relation's copy: where, how many rows, how many lines could not be read, the columns of the original, and the
    numbers' signs. ``path`` None: the extract lacks it, which the config allows."""

    path: str | None
    rows: int
    unreadable: int
    columns: tuple[str, ...]
    decimal: str = "."
    thousands: str = ""


def source_of(mapping: Mapping, relation: Relation) -> tuple[str, Any]:
    """Name and place of the source of a relation."""
    name = relation.source or next(iter(mapping.sources))
    return name, mapping.sources[name]


def csv_format(mapping: Mapping, relation: Relation) -> CsvFormat:
    """How a relation's text files are written: the source's way, with the relation's differences."""
    _, source = source_of(mapping, relation)
    return CsvFormat.model_validate(source.csv.model_dump() | relation.csv)


def describe_relations(mapping: Mapping) -> dict[str, Any]:
    """What decides the content of every relation that is read: its files with size and time of change, or its table.

    Raises MissingTableError for a file that is not there.
    """
    return {name: _describe(mapping, name, r) for name, r in mapping.relations.items() if r.relation is None}


def _describe(mapping: Mapping, name: str, relation: Relation) -> Any:
    source_name, source = source_of(mapping, relation)
    if relation.table is not None:
        return {"database": source.url_env, "schema": source.db_schema, "table": relation.table}
    try:
        files = find_files(source.path, relation.file or [], f"relations.{name}")
    except MissingTableError:
        if relation.optional:
            return {"absent": True}
        raise
    return {"source": source_name, "files": [describe_file(file) for file in files]}


def stage_relations(
    connection: duckdb.DuckDBPyConnection,
    mapping: Mapping,
    wanted: Wanted,
    folder: Path,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> dict[str, Staged]:
    """Copy the wanted columns of every relation that is read into ``folder/staged``; what cannot be read goes to
    ``folder/rejects/unreadable-NAME.parquet``. Copies that an interrupted preparation finished are taken over."""
    described = describe_relations(mapping)
    names = [name for name in described if name in wanted]
    for name, source in mapping.sources.items():
        if source.url_env is not None:
            database.url_of(source, f"sources.{name}.url_env")
    finished: dict[str, Staged] = {}
    jobs: dict[str, Callable[[duckdb.DuckDBPyConnection], None]] = {}
    for name in names:
        stage = _Stage(mapping, name, wanted[name], folder, digest_of([described[name], _read(mapping, name, wanted)]))
        held = stage.finished()
        if held is not None:
            on_stage(f"{name}: read before, taken over")
            finished[name] = held
        else:
            jobs[name] = partial(stage.run, finished)
    two_at_a_time(connection, list(jobs.values()))
    return {name: finished[name] for name in names}


def _read(mapping: Mapping, name: str, wanted: Wanted) -> list[Any]:
    """What is read of a relation, as far as the config decides it."""
    columns = wanted[name]
    relation = mapping.relations[name]
    form = None if relation.table is not None else csv_format(mapping, relation).model_dump()
    return [None if columns is None else sorted(columns), form]


@dataclass(frozen=True)
class _Stage:
    """The copy of one relation in the making."""

    mapping: Mapping
    name: str
    wanted: set[str] | None
    folder: Path
    digest: str

    @property
    def _relation(self) -> Relation:
        return self.mapping.relations[self.name]

    @property
    def _target(self) -> Path:
        return self.folder / "staged" / f"{self.name}.parquet"

    @property
    def _marker(self) -> Path:
        return self.folder / "staged" / f"{self.name}.json"

    def finished(self) -> Staged | None:
        """The copy that an earlier preparation finished of the same rows, if there is one."""
        try:
            held = json.loads(self._marker.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if held.pop("digest", None) != self.digest:
            return None
        return Staged(**held | {"columns": tuple(held["columns"])})

    def run(self, finished: dict[str, Staged], connection: duckdb.DuckDBPyConnection) -> None:
        """Copy, and say so beside the copy only when it is whole."""
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._marker.unlink(missing_ok=True)
        shutil.rmtree(self._target.with_suffix(""), ignore_errors=True)
        for kept in (self.folder / "rejects").glob(f"unreadable-{self.name}*.parquet"):
            if re.fullmatch(rf"unreadable-{self.name}(-[0-9]+)?", kept.stem):
                kept.unlink()
        done = self._from_database() if self._relation.table is not None else self._from_files(connection)
        self._marker.write_text(json.dumps(asdict(done) | {"digest": self.digest}), encoding="utf-8")
        finished[self.name] = done

    def _from_database(self) -> Staged:
        from pyarrow import parquet

        where, table = f"relations.{self.name}", str(self._relation.table)
        _, source = source_of(self.mapping, self._relation)
        with database.connected(source, where) as session:
            try:
                held = database.columns_of(session, source, table, where)
            except MissingTableError:
                if self._relation.optional:
                    return Staged(None, 0, 0, ())
                raise
            chosen = {c: kind for c, kind in held.items() if self._is_wanted(c)} or dict(list(held.items())[:1])
            database.copy_table(session, source, table, chosen, self._target, where)
        return Staged(str(self._target), parquet.read_metadata(self._target).num_rows, 0, tuple(held))

    def _from_files(self, connection: duckdb.DuckDBPyConnection) -> Staged:
        _, source = source_of(self.mapping, self._relation)
        try:
            files = find_files(source.path, self._relation.file or [], f"relations.{self.name}")
        except MissingTableError:
            if self._relation.optional:
                return Staged(None, 0, 0, ())
            raise
        form = csv_format(self.mapping, self._relation)
        groups = group_files(files, form, self.folder / "staged" / "utf-8" / self.name)
        held = tuple(dict.fromkeys(c for group in groups for c in group.columns))
        told = tuple(name for name in (FILE_NAME, ROW_NUMBER, LINE) if name not in {c.lower() for c in held})
        columns = tuple(c for c in (*held, *told) if self._is_wanted(c)) or held[:1]
        parts = [self._copy(connection, group, columns, number) for number, group in enumerate(groups)]
        rows, unreadable = sum(p[0] for p in parts), sum(p[1] for p in parts)
        if unreadable > rows:
            raise UnreadableTableError(
                f"{files[0]}{_others(files)}: {unreadable:,} lines cannot be read and {rows:,}"
                f" can; most often: {parts[0][2]}; is csv (delimiter, quote, encoding) of relations.{self.name} right?"
            )
        return Staged(str(self._pattern), rows, unreadable, held, form.decimal, form.thousands)

    @property
    def _pattern(self) -> Path:
        return self._target.with_suffix("") / "*.parquet"

    def _copy(
        self,
        connection: duckdb.DuckDBPyConnection,
        group: Group,
        columns: tuple[str, ...],
        number: int,
        *,
        mended: bool = False,
    ) -> tuple[int, int, str]:
        """Copy one group; returns its rows, the lines that cannot be read, and why most cannot. ``mended``: its lines
        already end in one way."""
        target = self._target.with_suffix("") / f"{number}.parquet"
        target.parent.mkdir(exist_ok=True)
        try:
            connection.execute(f"COPY ({rows_of(group, columns, number)}) TO {quoted(target)} (FORMAT parquet)")
            if group.format is not None:
                refuse_open_quote(connection, f"relations.{self.name}, {group.files[0]}{_others(group.files)}")
            connection.execute(f"CREATE OR REPLACE TEMP TABLE unreadable AS {unreadable_rows(group)}")
        except duckdb.InvalidInputException as error:
            if group.format is None or mended:
                raise _readable(group.files, error) from None
            place = self.folder / "staged" / "lines" / f"{self.name}-{number}"
            files = tuple(
                with_one_line_end(file, place / str(n) / unzipped(file)) for n, file in enumerate(group.files)
            )
            connection.execute("DROP TABLE IF EXISTS csv_error; DROP TABLE IF EXISTS csv_scan")
            return self._copy(connection, replace(group, files=files), columns, number, mended=True)
        except duckdb.Error as error:
            raise _readable(group.files, error) from None
        finally:
            connection.execute("DROP TABLE IF EXISTS csv_error; DROP TABLE IF EXISTS csv_scan")
        [(rows,)] = connection.execute(f"SELECT count(*) FROM {read_parquet(target)}").fetchall()
        [(bad, rule)] = connection.execute("SELECT count(*), mode(rule) FROM unreadable").fetchall()
        if bad:
            kept = self.folder / "rejects" / f"unreadable-{self.name}{f'-{number}' if number else ''}.parquet"
            kept.parent.mkdir(exist_ok=True)
            connection.execute(f"COPY (FROM unreadable ORDER BY ALL) TO {quoted(kept)} (FORMAT parquet)")
        return int(rows), int(bad), str(rule)

    def _is_wanted(self, column: str) -> bool:
        return self.wanted is None or column.lower() in self.wanted


def staged_view(connection: duckdb.DuckDBPyConnection, view: str, staged: Staged) -> None:
    """Lay ``view`` over a relation's copy."""
    path = Path(str(staged.path))
    rows = quoted(f"{as_glob(path.parent)}/{path.name}")
    options = "union_by_name = true, hive_partitioning = false"
    connection.execute(f"CREATE VIEW {view} AS SELECT * FROM read_parquet({rows}, {options})")


def _others(files: Sequence[Path]) -> str:
    return " and others" if len(files) > 1 else ""


def _readable(files: tuple[Path, ...], error: duckdb.Error) -> Exception:
    """DuckDB's message without the row it quotes."""
    name = f"{files[0]}{_others(files)}"
    if "GZIP" in str(error) or "gzip" in str(error):
        return UnreadableTableError(f"{name}: its gzip data is truncated or damaged; copy the file again")
    if "out of memory" in str(error).lower():
        return ConfigError(f"{name}: not read within the memory limit; raise --memory-limit")
    return UnreadableTableError(f"{name}: cannot be read as a table ({type(error).__name__})")
