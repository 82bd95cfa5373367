"""Tables of a hospital's SQL database, copied in batches: memory does not grow with the table.

Any database that SQLAlchemy speaks to; PostgreSQL's driver is installed with consilium, others (Oracle, SQL Server,
MySQL) are the site's to add. The URL, with its password, comes from an environment variable and is never told.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.mapping.config import Extract
from shared_model.errors import ConfigError, DataError, MissingTableError, UnreadableTableError

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import Connection, Engine

BATCH_ROWS = 50_000
# What drivers say, and what we do.
_REASONS = (
    ("connection refused", "connection refused; does it run, and is the port right?"),
    ("authentication failed", "user or password is not accepted"),
    ("resolve host", "its host is not found"),
    ("translate host name", "its host is not found"),
    ("permission denied", "permission denied"),
    ("does not exist", "the database, or what is read of it, does not exist"),
    ("timeout", "no answer in time"),
    ("timed out", "no answer in time"),
    ("could not decode", "holds a text that is not UTF-8"),
    ("file is not a database", "the file is no database"),
    ("no such table", "no such table"),
)


@contextmanager
def connected(source: Extract, where: str) -> Iterator["Connection"]:
    """A read-only session. Raises ConfigError or DataError that names the variable, never its value."""
    from sqlalchemy.exc import SQLAlchemyError

    engine = _engine(source, where)
    options: dict[str, Any] = {"stream_results": True, "yield_per": BATCH_ROWS, "postgresql_readonly": True}
    try:
        with engine.connect().execution_options(**options) as connection:
            yield connection
    except SQLAlchemyError as error:
        raise DataError(
            f"{where}: the database of ${source.url_env} does not answer as needed: {_reason(error)}"
        ) from None
    finally:
        engine.dispose()


def url_of(source: Extract, where: str) -> str:
    """The database's URL. Raises ConfigError where its environment variable is not set."""
    url = os.environ.get(str(source.url_env))
    if not url:
        raise ConfigError(f"{where}: the environment variable {source.url_env} is not set; it holds the database's URL")
    return url


def columns_of(connection: "Connection", source: Extract, table: str, where: str) -> dict[str, "pa.DataType"]:
    """The columns of a table and what they become. Raises MissingTableError, which says what there is."""
    from sqlalchemy import inspect
    from sqlalchemy.exc import NoSuchTableError

    schema, name = _place(source, table)
    inspector = inspect(connection)
    try:
        found = inspector.get_columns(name, schema=schema)
    except NoSuchTableError:
        held = [*inspector.get_table_names(schema=schema), *inspector.get_view_names(schema=schema)]
        close = get_close_matches(name, held, n=1)
        hint = f"is it {close[0]!r}?" if close else f"it has {', '.join(sorted(held)[:30]) or 'none'}"
        raise MissingTableError(
            f"{where}.table: no table {table!r} in the database of ${source.url_env}; {hint}"
        ) from None
    as_text = connection.dialect.name == "sqlite"  # it has no times, only texts or numbers that mean one
    return {column["name"]: _arrow_type(column["type"], times_as_text=as_text) for column in found}


def copy_table(
    connection: "Connection", source: Extract, table: str, kinds: dict[str, "pa.DataType"], target: Path, where: str
) -> None:
    """Write the named columns of a table as a Parquet file, a batch at a time."""
    import pyarrow as pa
    from pyarrow import parquet
    from sqlalchemy import column, select
    from sqlalchemy import table as sql_table

    schema_name, name = _place(source, table)
    query: Any = select(*(column(c) for c in kinds)).select_from(sql_table(name, schema=schema_name))
    schema = pa.schema(list(kinds.items()))
    with parquet.ParquetWriter(target, schema) as writer:
        for rows in connection.execute(query).partitions(BATCH_ROWS):
            values = zip(*rows, strict=True)
            arrays = [
                _array(held, kind, f"{where}: column {c!r}")
                for (c, kind), held in zip(kinds.items(), values, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _engine(source: Extract, where: str) -> "Engine":
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    url = url_of(source, where)
    try:
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
        if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").is_file():
            raise ConfigError(f"{where}: ${source.url_env} names a SQLite file that is not there")
        return engine
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise ConfigError(
            f"{where}: ${source.url_env} is no database URL such as postgresql://user:password@host/name"
        ) from None
    except ImportError as error:
        raise ConfigError(f"{where}: ${source.url_env} needs a driver that is not installed: {error.name}") from None


def _place(source: Extract, table: str) -> tuple[str | None, str]:
    schema, _, name = table.rpartition(".")
    return schema or source.db_schema or None, name


def _arrow_type(kind: Any, *, times_as_text: bool) -> "pa.DataType":
    """The type of a column's copy; what is no number, time or truth value is text."""
    import pyarrow as pa
    from sqlalchemy import types

    if isinstance(kind, types.Boolean):
        return pa.bool_()
    if isinstance(kind, types.Integer) or (isinstance(kind, types.Numeric) and kind.scale == 0 and kind.asdecimal):
        return pa.int64()
    if isinstance(kind, types.Numeric):
        return pa.float64()
    if times_as_text:
        return pa.string()
    if isinstance(kind, types.DateTime):
        return pa.timestamp("us", tz="UTC" if kind.timezone else None)
    return pa.date32() if isinstance(kind, types.Date) else pa.string()


def _array(values: Any, kind: "pa.DataType", where: str) -> "pa.Array":
    import pyarrow as pa

    if pa.types.is_string(kind):
        values = [value if value is None or isinstance(value, str) else str(value) for value in values]
    try:
        if pa.types.is_floating(kind) or pa.types.is_integer(kind):
            number = float if pa.types.is_floating(kind) else int
            values = [value if value is None else number(value) for value in values]
        return pa.array(values, type=kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise UnreadableTableError(f"{where}: holds a value that is no {kind} ({type(error).__name__})") from None


def _reason(error: Exception) -> str:
    """What went wrong, in our words: a driver's may hold a part of the URL or a value."""
    text = str(getattr(error, "orig", None) or error).lower()
    known = (said for sign, said in _REASONS if sign in text)
    return next(known, type(getattr(error, "orig", None) or error).__name__)
