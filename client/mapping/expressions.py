"""SQL expressions of a site's YAML: parsed alone, checked node by node, and only then part of a query.

Why a sandbox: a config travels from hospital to hospital, and a copied expression must not be able to read a file, ask
the network, look at the environment or give another answer tomorrow. DuckDB's own parser says what an expression is
made of; everything that is not on the list is refused by name.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import duckdb

from shared_model.errors import ConfigError

_CLASSES = {
    "BETWEEN",
    "CASE",
    "CAST",
    "COLLATE",
    "COLUMN_REF",
    "COMPARISON",
    "CONJUNCTION",
    "CONSTANT",
    "FUNCTION",
    "OPERATOR",
    "TYPE",
}
_NAMES = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "*",
    "LAMBDA": "a lambda",
    "PARAMETER": "a parameter",
}
# They look at the session or the clock, or wait, though DuckDB calls them scalar.
_REFUSED = ("current_", "get_current", "getvariable", "now", "today", "txid_", "transaction_", "in_search_path", "pg_")
_QUERIES = {"json_serialize_sql", "json_deserialize_sql", "json_serialize_plan"}
_MACROS = {"date_add", "fdiv", "if", "ifnull", "nullif", "split_part", "days_in_month", "array_to_string"}
_SPECIAL = {"main", "system", ""}


@dataclass(frozen=True)
class Expression:
    """A checked expression: ``sql`` may stand wherever a value may; ``columns`` are the names that it reads."""

    sql: str
    columns: frozenset[str]


def parse(text: str, where: str) -> Expression:
    """Check ``text``, which stands at ``where`` in the YAML. Raises ConfigError naming what is refused."""
    tree = _tree(text, where)
    columns: set[str] = set()
    for node in _nodes(tree):
        kind = node["class"]
        if kind not in _CLASSES:
            raise ConfigError(
                f"{where}: {_NAMES.get(kind, kind.lower())} is not allowed in an expression: {_short(text)}"
            )
        if kind == "FUNCTION":
            _check_function(node, where)
        if kind == "COLUMN_REF":
            columns.add(_column(node, where))
    return Expression(f"(\n{text}\n)", frozenset(columns))


def quote_name(name: str) -> str:
    """A column's or table's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: bool | int | float | str | None) -> str:
    """A constant of the YAML as SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else "'" + value.replace("'", "''") + "'"


def _tree(text: str, where: str) -> Any:
    with duckdb.connect() as connection:
        [(answer,)] = connection.execute("SELECT json_serialize_sql(?)", [f"SELECT (\n{text}\n)"]).fetchall()
    found = json.loads(answer)
    if found["error"]:
        raise ConfigError(f"{where}: no SQL expression ({found['error_message']}): {_short(text)}")
    statements = found["statements"]
    node = statements[0]["node"]
    alone = len(statements) == 1 and node["type"] == "SELECT_NODE" and len(node["select_list"]) == 1
    if not alone or node["from_table"]["type"] != "EMPTY" or list(_nodes({**node, "select_list": []})):
        raise ConfigError(f"{where}: write one SQL expression, no query: {_short(text)}")
    return node["select_list"]


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _column(node: dict[str, Any], where: str) -> str:
    names = node["column_names"]
    if len(names) != 1:
        raise ConfigError(f"{where}: name a column without its relation: {'.'.join(names)}")
    return str(names[0])


def _check_function(node: dict[str, Any], where: str) -> None:
    name = node["function_name"].lower()
    if node.get("schema", "") not in _SPECIAL or node.get("catalog", "") not in _SPECIAL or name not in _allowed():
        raise ConfigError(
            f"{where}: {name}() is not allowed in an expression: only functions of a row's values are,"
            " none that reads files, settings or the clock"
        )


@cache
def _allowed() -> frozenset[str]:
    with duckdb.connect() as connection:
        scalar = connection.execute(
            "SELECT function_name FROM duckdb_functions() WHERE function_type = 'scalar' GROUP BY 1"
            " HAVING bool_and(stability <> 'VOLATILE')"
        ).fetchall()
        others = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type NOT IN ('scalar', 'macro')"
        ).fetchall()
    names = {name.lower() for (name,) in scalar if not name.lower().startswith(_REFUSED)}
    return frozenset(names - {name.lower() for (name,) in others} - _QUERIES | _MACROS)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
