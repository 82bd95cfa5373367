"""The queries of ``client/sql``, and the small tables of constants that they join."""

from collections.abc import Sequence
from importlib.resources import files

import duckdb


def load_query(name: str) -> str:
    """The text of a file of ``client/sql``."""
    return files("client").joinpath("sql", name).read_text(encoding="utf-8")


def run_query(connection: duckdb.DuckDBPyConnection, name: str, **values: object) -> None:
    """Execute every statement of a file of ``client/sql``; each gets those of ``values`` that it names ($name)."""
    for statement in connection.extract_statements(load_query(name)):
        own = {key: value for key, value in values.items() if key in statement.named_parameters}
        connection.execute(statement, own)


def fill(connection: duckdb.DuckDBPyConnection, table: str, columns: str, rows: Sequence[Sequence[object]]) -> None:
    """Make (or remake) the temporary ``table`` with ``columns`` ('name TYPE, name TYPE') and these rows, if any."""
    typed = [column.split() for column in columns.split(", ")]
    query = ", ".join(f"CAST(unnest(?) AS {kind}) AS {name}" for name, kind in typed)
    held = [[row[place] for row in rows] for place in range(len(typed))]
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT {query}", held)
