"""Rows that contradict themselves, each other, or the stay they belong to: dropped by a stated rule, counted, kept.

A rule names a table and an SQL condition of the rows to drop. What is dropped lies in ``rejected_rows``; what is only
worth telling is counted there without a row. Values that no organ can have are judged later, by concept
(client/events.py); rows that are not of the schema's types were kept apart on reading (client/extract.py).
"""

from dataclasses import dataclass

import duckdb

from client.extract import FLAG_KEYS, tables_read

CHECKED = ("patients", "admissions", "icustays", "inputevents", "outputevents")
_YES, _NO = "('1', '1.0', 'true', 't', 'yes', 'y')", "('0', '0.0', 'false', 'f', 'no', 'n', '')"


@dataclass(frozen=True)
class RowRule:
    """Rows of ``table`` that meet ``condition`` are dropped under ``rule``."""

    table: str
    rule: str
    condition: str


_RULES: tuple[RowRule, ...] = (
    *(RowRule(name, f"no {key}", f"{key} IS NULL") for name, key in FLAG_KEYS.items()),
    RowRule("icustays", "no intime or no outtime", "intime IS NULL OR outtime IS NULL"),
    RowRule("icustays", "ends before it starts", "outtime <= intime"),
    RowRule(
        "icustays",
        "outside its admission",
        "hadm_id IN (SELECT hadm_id FROM admissions) AND NOT EXISTS (SELECT 1 FROM admissions AS a"
        " WHERE a.hadm_id = icustays.hadm_id"
        " AND (icustays.intime >= a.dischtime OR icustays.outtime <= a.admittime) IS NOT TRUE)",
    ),
    RowRule("inputevents", "ends before it starts", "endtime < starttime"),
)


def check_rows(connection: duckdb.DuckDBPyConnection, flag: str = "") -> None:
    """Turn the checked views into tables without the rows that break a rule; fill ``rejected_rows``.

    ``rejected_rows(source, rule, action, row_text)`` has one row a dropped row. A row that is written twice is kept
    once; of the rows that share a key, differ and break no other rule, the first in the order of their columns. With
    ``flag`` (TABLE.COLUMN) also ``flagged(stay_id)``.
    """
    connection.execute("CREATE TABLE rejected_rows (source VARCHAR, rule VARCHAR, action VARCHAR, row_text VARCHAR)")
    for name in CHECKED:
        connection.execute(f"ALTER VIEW {name} RENAME TO {name}_file")
        connection.execute(f"CREATE TABLE {name} AS FROM {name}_file")
    columns = {table.name: ", ".join(f'"{c}"' for c in table.columns) for table in tables_read(flag)}
    copies = [_copies(name, columns[name]) for name in CHECKED]
    for rule in (*copies, *_RULES, *(_contradictions(name, columns[name]) for name in FLAG_KEYS)):
        _drop(connection, rule)
    _tell(connection, "prescriptions", "stops before it starts; only the start is read", "stoptime < starttime")
    if flag:
        _flag(connection, *flag.split("."))


def _copies(name: str, columns: str) -> RowRule:
    return RowRule(name, "duplicate row", f"rowid NOT IN (SELECT min(rowid) FROM {name} GROUP BY {columns})")


def _contradictions(name: str, columns: str) -> RowRule:
    key = FLAG_KEYS[name]
    first = f"SELECT first(rowid ORDER BY {columns}) FROM {name} GROUP BY {key}"
    return RowRule(name, f"contradicts another row of the same {key}", f"rowid NOT IN ({first})")


def _drop(connection: duckdb.DuckDBPyConnection, rule: RowRule) -> None:
    connection.execute(
        f"INSERT INTO rejected_rows SELECT ?, ?, 'dropped', CAST(to_json({rule.table}) AS VARCHAR) FROM {rule.table}"
        f" WHERE {rule.condition}",
        [rule.table, rule.rule],
    )
    connection.execute(f"DELETE FROM {rule.table} WHERE {rule.condition}")


def _tell(connection: duckdb.DuckDBPyConnection, table: str, rule: str, condition: str) -> None:
    connection.execute(
        f"INSERT INTO rejected_rows SELECT ?, ?, 'kept', NULL FROM {table} WHERE {condition}", [table, rule]
    )


def _flag(connection: duckdb.DuckDBPyConnection, table: str, column: str) -> None:
    """A missing flag is a no; a word that is neither is one too, and counted."""
    key, word = FLAG_KEYS[table], f'lower(trim(CAST("{column}" AS VARCHAR)))'
    _tell(connection, table, f"{column}: neither yes nor no", f"{word} NOT IN {_YES} AND {word} NOT IN {_NO}")
    marked = f"(SELECT {key} FROM {table} WHERE {word} IN {_YES})"
    connection.execute(f"CREATE TABLE flagged AS SELECT DISTINCT stay_id FROM icustays WHERE {key} IN {marked}")
