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
# Or they write as much as they are told to.
_REFUSED = (
    *("printf", "format", "list_resize", "array_resize", "range", "generate_series", "list_repeat", "array_repeat"),
    *("current_", "get_current", "getvariable", "now", "today", "txid_", "transaction_", "in_search_path", "pg_"),
)
_TYPES = {
    *("BOOLEAN", "BOOL", "TINYINT", "SMALLINT", "INTEGER", "INT", "BIGINT", "HUGEINT", "UINTEGER", "UBIGINT"),
    *("FLOAT", "REAL", "DOUBLE", "DECIMAL", "NUMERIC", "VARCHAR", "TEXT", "STRING", "LIST"),
    *("DATE", "TIME", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE", "DATETIME", "INTERVAL"),
}
_LONG = {"repeat": 1, "lpad": 1, "rpad": 1}  # the place of the length that they write
_LONGEST_TEXT, _LONGEST_EXPRESSION = 1000, 20_000
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
        if kind == "TYPE" and node["type_name"].upper() not in _TYPES:
            raise ConfigError(f"{where}: no type {node['type_name']} in an expression: {_short(text)}")
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
    """The one expression of ``SELECT (text)``, which must be the same query as ``SELECT (1)`` in all else. Parsed once
    without brackets as well, so that the text cannot close them."""
    if len(text) > _LONGEST_EXPRESSION:
        raise ConfigError(f"{where}: longer than {_LONGEST_EXPRESSION:,} characters; use several `add` columns")
    for query in (f"SELECT\n{text}\n", f"SELECT (\n{text}\n)"):
        found = _serialized(query)
        if found is None:
            raise ConfigError(f"{where}: no SQL expression that can be read; is it nested too deeply?")
        if found["error"]:
            raise ConfigError(
                f"{where}: no SQL expression ({found['error_message']}): {_short(text)}; a column"
                ' needs quotes where its name is a word of SQL or has signs beside letters, digits and _: "Name"'
            )
    statements = found["statements"]
    if len(statements) != 1 or _frame(statements[0]) != _frame(_serialized("SELECT (1)")["statements"][0]):
        raise ConfigError(f"{where}: write one SQL expression, no query: {_short(text)}")
    return statements[0]["node"]["select_list"]


@cache
def _serialized(query: str) -> Any:
    """DuckDB's syntax tree of a query, or its error; None for one that its parser cannot hold."""
    try:
        with duckdb.connect() as connection:
            [(answer,)] = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
        return json.loads(answer)
    except (duckdb.Error, RecursionError):
        return None


def _frame(statement: Any) -> Any:
    """A statement without what it selects, and without places in the text."""
    node = statement["node"]
    origin = {k: v for k, v in node["from_table"].items() if not k.startswith("query_")} if "from_table" in node else {}
    inner = {**node, "from_table": origin, "select_list": len(node.get("select_list", ()))}
    return {**statement, "node": inner}


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if "class" in node:
                yield node
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _column(node: dict[str, Any], where: str) -> str:
    names = node["column_names"]
    if len(names) != 1:
        raise ConfigError(f"{where}: name a column without its relation: {'.'.join(names)}")
    return str(names[0])


def _check_function(node: dict[str, Any], where: str) -> None:
    name = node["function_name"].lower()
    arguments = [argument["expression"] for argument in node["arguments"]]
    if name == "age" and len(arguments) < 2:  # up to today
        raise ConfigError(f"{where}: age() of one time counts to the day of the run; give both times")
    if name in _LONG:
        length = arguments[_LONG[name]].get("literal", {}).get("text", "") if len(arguments) > 1 else ""
        if not (length.isdigit() and int(length) <= _LONGEST_TEXT):
            raise ConfigError(f"{where}: {name}() writes a fixed number of characters, {_LONGEST_TEXT:,} at most")
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
