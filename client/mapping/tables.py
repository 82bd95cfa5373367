"""Rows become patients, admissions, stays, diagnoses, prescriptions, cultures and notes.

Each mapping is judged in one pass: a row is mapped, or rejected under the first rule that it breaks, or ignored. What
is rejected is kept with its rule (rejects/mapping-*.parquet).
"""

import duckdb

from client.mapping.columns import Reader, Value
from client.mapping.config import TableMap
from client.mapping.domains import DOMAINS
from client.mapping.expressions import literal, quote_name
from client.mapping.owners import KEYS, OWNED_COLUMNS, Owner, owner_of, owner_rules, stay_by_time
from client.mapping.state import Run
from shared_model.schema import TABLES, Table

SCHEMA_TABLES: dict[str, Table] = {t.name: t for t in TABLES}
_IDENTIFIERS = ("subject_id", "hadm_id", "stay_id", "micro_specimen_id", "specimen_id")
# What a row cannot do without; a time of a note, because a note without one could be of any time.
NEEDED = {
    "patients": ("subject_id", "anchor_age"),
    "admissions": ("subject_id", "hadm_id", "admittime"),
    "icustays": ("subject_id", "hadm_id", "stay_id", "intime", "outtime"),
    "diagnoses_icd": ("hadm_id", "icd_code", "icd_version"),
    "services": ("hadm_id", "transfertime", "curr_service"),
    "microbiologyevents": ("subject_id", "micro_specimen_id"),
    "prescriptions": ("subject_id", "starttime", "drug"),
    "radiology": ("subject_id", "note_id", "charttime", "text"),
    "discharge": ("subject_id", "hadm_id", "note_id", "charttime", "text"),
}
OLDEST = 125
_NO_AGE = f"anchor_age: not between 0 and {OLDEST} years"
_TIME_OF = {"prescriptions": "starttime", "services": "transfertime"}


def map_table(run: Run, name: str, use: TableMap, number: int) -> None:
    """Insert the rows of one mapping into the table ``name``."""
    _TableMapper(run, SCHEMA_TABLES[name], use, f"tables.{name}[{number}]").run_all()


class _TableMapper:
    def __init__(self, run: Run, table: Table, use: TableMap, where: str) -> None:
        self.run, self.table, self.use, self.where = run, table, use, where
        self.connection: duckdb.DuckDBPyConnection = run.connection
        self.frame = run.frames[use.relation]
        self.reader = Reader(self.connection, self.frame, f"{where}.columns", timezone=run.mapping.timezone, bases={})
        self.owner: Owner | None = owner_of(use, self.reader)
        self._condition = self.run.condition(self.frame, use.filter, where)

    def run_all(self) -> None:
        """Judge, keep what is rejected, insert what is mapped, and account for all of it."""
        if self.frame.absent:
            return
        if self.table.name in KEYS:
            self._keep_identifiers()
        self._judge()
        columns = ", ".join(map(quote_name, self.run.columns_of(self.table)))
        self.connection.execute(
            f'INSERT INTO {self.table.name} ({columns}) SELECT {columns} FROM judged WHERE "#rule" IS NULL'
        )
        self.run.account_judged(self.where, self.frame, self.use.filter)

    def _keep_identifiers(self) -> None:
        """The texts of this table's local identifiers, also of rows that a filter leaves out."""
        text = self.reader.key(self.use.columns[KEYS[self.table.name]], KEYS[self.table.name]).sql
        kept = f"SELECT {text} AS key FROM {self.frame.view} AS r WHERE {self._condition}"
        every = f"SELECT {text} AS key FROM {self.frame.everything} AS r"
        name = self.table.name
        self.connection.execute(
            f"INSERT INTO local_{name} SELECT DISTINCT key, local_id(key) FROM ({kept}) WHERE key IS NOT NULL;"
            f" INSERT INTO left_out_{name} SELECT key FROM ({every}) WHERE key IS NOT NULL EXCEPT {kept}"
        )

    def _judge(self) -> None:
        keyed = f', {self.owner.key} AS "#key"' if self.owner else ""
        rows = f"(SELECT *{keyed} FROM {self.frame.view} AS r WHERE {self._condition}) AS r"
        if self.owner:
            rows = f"(SELECT r.*, {OWNED_COLUMNS} FROM {rows} {self.owner.join}) AS r"
            self.reader.bases = {"intime": 'r."#intime"', "admittime": 'r."#admittime"'}
            rows = self._with_stay_by_time(rows)
        values = {name: self._value(name) for name in self.run.columns_of(self.table)}
        chosen = ", ".join(f"{value.sql} AS {quote_name(name)}" for name, value in values.items())
        self.connection.execute(
            f'CREATE OR REPLACE TEMP TABLE judged AS SELECT {chosen}, {self._rules(values)} AS "#rule",'
            f' CASE WHEN "#rule" IS NOT NULL THEN {self.run.row_text(self.frame)} END AS "#row" FROM {rows}'
        )

    def _with_stay_by_time(self, rows: str) -> str:
        """A table of times may need the admission of the stay, where only the patient is known."""
        time = _TIME_OF.get(self.table.name, "charttime")
        wants = "hadm_id" in self.run.columns_of(self.table) and "hadm_id" not in self.use.columns
        if self.owner is None or self.owner.kind != "patient" or not wants or time not in self.use.columns:
            return rows
        timed = f'(SELECT *, {self.reader.time(self.use.columns[time], time).sql} AS "#time" FROM {rows}) AS r'
        return f'(SELECT r.* REPLACE (s.hadm_id AS "#hadm_id") FROM {timed} {stay_by_time("patient")}) AS r'

    def _value(self, name: str) -> Value:
        spec = self.use.columns.get(name)
        if spec is None:
            implied = self.owner is not None and name in ("subject_id", "hadm_id", "stay_id")
            return Value(f'r."#{name}"' if implied else f"CAST(NULL AS {self.run.columns_of(self.table)[name]})")
        kind = self.run.columns_of(self.table)[name]
        if kind == "TIMESTAMP":
            return self._time(name)
        if name in _IDENTIFIERS:
            return self.reader.identifier(spec, name)
        read = {"DOUBLE": self.reader.number, "INTEGER": self.reader.integer}.get(kind, self.reader.text)
        return read(spec, name)

    def _time(self, name: str) -> Value:
        """A time; another of the same row may be what it counts from."""
        for base in ("intime", "admittime"):
            if name != base and base in self.use.columns and base not in self.reader.bases:
                self.reader.bases[base] = self.reader.time(self.use.columns[base], base).sql
        return self.reader.time(self.use.columns[name], name)

    def _rules(self, values: dict[str, Value]) -> str:
        cases = [f"WHEN {condition} THEN {literal(rule)}" for v in values.values() for condition, rule in v.problems]
        if self.owner:
            cases.insert(0, owner_rules(self.owner))
        cases += [f"WHEN {values[c].sql} IS NULL THEN {literal(f'no {c}')}" for c in NEEDED[self.table.name]]
        if "anchor_age" in values:
            cases.append(f"WHEN {values['anchor_age'].sql} NOT BETWEEN 0 AND {OLDEST} THEN '{_NO_AGE}'")
        for column, known in DOMAINS.items():
            if column in values:
                listed = ", ".join(map(literal, known))
                rule = f"{column}: none of {', '.join(map(str, known))}; give it a `map`"
                cases.append(f"WHEN {values[column].sql} NOT IN ({listed}) THEN {literal(rule)}")
        return f"CASE {' '.join(cases)} END"
