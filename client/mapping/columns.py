"""What stands in a row, read as what a column of the schema wants: an identifier, a word, a number or a time.

Every reader gives SQL for the value, NULL where there is none, and SQL conditions for what is wrong with a row, each
with the rule that it breaks. Nothing is guessed: a text that no rule reads is a rejected row, not an empty value.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from client.mapping.config import ColumnSpec
from client.mapping.expressions import literal
from client.mapping.faults import told_apart
from client.mapping.relations import Frame
from client.mapping.texts import map_key
from shared_model.errors import ConfigError, DataError

Scalar = bool | int | float | str
_MICROSECONDS = {
    "milliseconds": 1_000,
    "seconds": 1_000_000,
    "minutes": 60_000_000,
    "hours": 3_600_000_000,
    "days": 86_400_000_000,
}
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_CLOCK = r"^([-+]?)(\d{1,6}):([0-5]?\d)(?::([0-5]?\d))?$"
_FARTHEST = 200 * 365 * 86_400_000_000  # microseconds of a distance
_ZONED = r"(Z|[+-]\d\d(:?\d\d)?)$"
# A whole number is the same key however a program that reads it as a float writes it: 12.0 is 12. And identifiers of
# our own for what is no plain number, above every plain one that is read as it is.
MACROS = """CREATE MACRO whole(t) AS
    CASE WHEN suffix(t, '0') AND contains(t, '.') AND regexp_full_match(t, '-?[0-9]+[.]0+') THEN split_part(t, '.', 1)
    ELSE t END;
CREATE MACRO as_key(x) AS nullif(whole(trim(CAST(x AS VARCHAR))), '');
CREATE MACRO local_id(t) AS
    CASE WHEN regexp_full_match(t, '0|[1-9][0-9]{0,17}') THEN CAST(t AS BIGINT)
    ELSE CAST(md5_number_lower(t) & 4611686018427387903 AS BIGINT) + 4611686018427387904 END"""


def local_id(connection: duckdb.DuckDBPyConnection, text: str) -> int:
    """The number by which a store knows what the extract calls ``text``."""
    connection.execute(MACROS)
    [(number,)] = connection.execute("SELECT local_id(as_key(?))", [text]).fetchall()
    return int(number)


@dataclass(frozen=True)
class Value:
    """SQL of a value, and ``(condition, rule)`` of what may be wrong with it."""

    sql: str
    problems: tuple[tuple[str, str], ...] = ()


class Reader:
    """Readers of the columns of one mapping, which stands at ``where``. ``bases``: SQL of the times to count from."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        frame: Frame,
        where: str,
        *,
        timezone: str,
        bases: Mapping[str, str],
    ) -> None:
        self.connection, self.frame, self.where = connection, frame, where
        self.timezone, self.bases = timezone, dict(bases)

    def key(self, spec: ColumnSpec, name: str, *, keep: bool = False) -> Value:
        """A text that names something: an identifier or a code."""
        text = self.text(spec, name, keep=keep)
        return Value(f"whole({text.sql})", text.problems)

    def text(self, spec: ColumnSpec, name: str, *, keep: bool = False) -> Value:
        """A word, without outer blanks; mapped where there is a map. ``keep``: what the map does not have stays."""
        plain = self._raw_text(spec, name)
        if spec.map is None:
            return Value(plain if spec.default is None else f"coalesce({plain}, {literal(_text(spec.default))})")
        raw = f"whole({plain})"
        lowered = {map_key(key): value for key, value in spec.map.items()}
        cases = " ".join(
            f"WHEN {literal(key)} THEN {literal(None if value is None else _text(value))}"
            for key, value in lowered.items()
        )
        if spec.default is not None:
            return Value(f"CASE lower({raw}) {cases} ELSE {literal(_text(spec.default))} END")
        if keep:
            return Value(f"CASE lower({raw}) {cases} ELSE {plain} END")
        known = ", ".join(literal(key) for key in lowered)
        return Value(
            f"CASE lower({raw}) {cases} END", ((f"lower({raw}) NOT IN ({known})", f"{name}: text has no entry in map"),)
        )

    def number(self, spec: ColumnSpec, name: str) -> Value:
        """A number; a map may give the numbers of some texts."""
        raw = self.frame.source(spec, f"{self.where}.{name}")
        if spec.map is None and spec.default is None and self._is_number(raw):
            return Value(_finite(f"CAST({raw} AS DOUBLE)"))
        text = self._raw_text(spec, name)
        sql = parsed = self.parse_number(text)
        text = text if spec.map is None else f"whole({text})"
        if spec.map is not None:
            cases = " ".join(
                f"WHEN {literal(map_key(key))} THEN {self._constant(value, name)}" for key, value in spec.map.items()
            )
            sql = f"CASE lower({text}) {cases} ELSE {parsed} END"
        nulls = [map_key(key) for key, value in (spec.map or {}).items() if value is None]
        if spec.default is not None:
            problems = () if spec.map else ((f"{text} IS NOT NULL AND ({sql}) IS NULL", f"{name}: not a number"),)
            return Value(f"coalesce({sql}, {self._constant(spec.default, name)})", problems)
        spared = f" AND lower({text}) NOT IN ({', '.join(map(literal, nulls))})" if nulls else ""
        return Value(sql, ((f"{text} IS NOT NULL AND ({sql}) IS NULL{spared}", f"{name}: not a number"),))

    def integer(self, spec: ColumnSpec, name: str) -> Value:
        """A whole number or a truth value."""
        raw = self.frame.source(spec, f"{self.where}.{name}")
        if self._kind(raw) == "BOOLEAN":
            return Value(f"CAST({raw} AS INTEGER)")
        number = self.number(spec, name)
        whole = f"TRY_CAST({number.sql} AS INTEGER)"
        wrong = (
            f"({number.sql}) IS NOT NULL AND ({whole}) IS DISTINCT FROM ({number.sql})",
            f"{name}: not a whole number",
        )
        return Value(whole, (*number.problems, wrong))

    def identifier(self, spec: ColumnSpec, name: str) -> Value:
        """A number of our own for a local identifier; plain whole numbers stay as they are."""
        key = self.key(spec, name)
        return Value(f"local_id({key.sql})", key.problems)

    def time(self, spec: ColumnSpec, name: str) -> Value:
        """A naive local time of the hospital."""
        if spec.offset is not None:
            return self._distance(spec, name)
        raw = self.frame.source(spec, f"{self.where}.{name}")
        kind = self._kind(raw)
        if kind == "TIMESTAMP WITH TIME ZONE":
            return Value(f"timezone({self._zone(name)}, {_sane(raw, 'TIMESTAMPTZ')})")
        if kind.startswith("TIMESTAMP") or kind == "DATE":
            return Value(self._moved(f"CAST({raw} AS TIMESTAMP)", spec, name))
        text = self._raw_text(spec, name)
        if spec.default is not None:
            text = f"coalesce({text}, {literal(_text(spec.default))})"
        sql = self._formatted(text, spec, name) if spec.format else self._iso(text, spec, name)
        return Value(sql, ((f"{text} IS NOT NULL AND ({sql}) IS NULL", f"{name}: not a time"),))

    def parse_number(self, text: str) -> str:
        """SQL of the number that a text stands for; a sign such as < before it is left out."""
        bare = f"ltrim({text}, '<>≤≥=~ ')"
        if self.frame.thousands:
            bare = self._ungrouped(bare)
        if self.frame.decimal == ".":
            return _finite(f"CASE WHEN contains({bare}, '_') THEN NULL ELSE TRY_CAST({bare} AS DOUBLE) END")
        point = f"replace({bare}, {literal(self.frame.decimal)}, '.')"
        number = f"TRY_CAST({point} AS DOUBLE)"
        return _finite(f"CASE WHEN contains({bare}, '.') OR contains({bare}, '_') THEN NULL ELSE {number} END")

    def _ungrouped(self, bare: str) -> str:
        """Without the sign between groups of digits; no number where the groups are none (12,5 beside 1,234)."""
        sign, point = f"[{self.frame.thousands}]", f"[{self.frame.decimal}]"
        grouped = f"[-+]?[1-9][0-9]{{0,2}}({sign}[0-9]{{2,3}})*{sign}[0-9]{{3}}({point}[0-9]*)?"
        without = f"replace({bare}, {literal(self.frame.thousands)}, '')"
        held = f"contains({bare}, {literal(self.frame.thousands)})"
        fits = f"regexp_full_match({bare}, {literal(grouped)})"
        return f"CASE WHEN NOT {held} THEN {bare} WHEN {fits} THEN {without} END"

    def raw_number(self, spec: ColumnSpec, name: str) -> tuple[str, str]:
        """SQL of a value as text, and as the number that it may be."""
        raw = self.frame.source(spec, f"{self.where}.{name}")
        text = self._raw_text(spec, name)
        return text, _finite(f"CAST({raw} AS DOUBLE)") if self._is_number(raw) else self.parse_number(text)

    def _raw_text(self, spec: ColumnSpec, name: str) -> str:
        raw = self.frame.source(spec, f"{self.where}.{name}")
        kind = self._kind(raw)
        text = f"nullif(trim({raw if kind == 'VARCHAR' else f'CAST({raw} AS VARCHAR)'}), '')"
        return f"whole({text})" if kind in ("DOUBLE", "FLOAT") or kind.startswith("DECIMAL") else text

    def _kind(self, sql: str) -> str:
        with told_apart(self.where):
            [row] = self.connection.execute(f"DESCRIBE SELECT {sql} AS it FROM {self.frame.view} AS r").fetchall()
        return str(row[1])

    def _is_number(self, sql: str) -> bool:
        kind = self._kind(sql)
        return kind in _NUMBERS or kind in ("DOUBLE", "FLOAT") or kind.startswith("DECIMAL")

    def _constant(self, value: Scalar | None, name: str) -> str:
        if value is None:
            return "NULL"
        try:
            return f"CAST({float(value)!r} AS DOUBLE)"
        except ValueError as error:
            raise ConfigError(f"{self.where}.{name}: {value!r} is no number, and the column holds numbers") from error

    def _distance(self, spec: ColumnSpec, name: str) -> Value:
        base = self._base(spec, name)
        text = self._raw_text(spec, name)
        if spec.offset == "HH:MM":
            amount = self._clock(text)
        else:
            _, number = self.raw_number(spec, name)
            far = f"({number}) * {_MICROSECONDS[str(spec.offset)]}"
            amount = f"CASE WHEN abs({far}) < {_FARTHEST} THEN CAST(round({far}) AS BIGINT) END"
        wrong = (f"{text} IS NOT NULL AND ({amount}) IS NULL", f"{name}: not a distance in {spec.offset}")
        return Value(f"({base} + to_microseconds({amount}))", (wrong,))

    def _clock(self, text: str) -> str:
        part = [f"TRY_CAST(nullif(regexp_extract({text}, '{_CLOCK}', {i}), '') AS BIGINT)" for i in range(1, 5)]
        seconds = f"({part[1]} * 3600 + {part[2]} * 60 + coalesce({part[3]}, 0)) * 1000000"
        return f"CASE WHEN starts_with({text}, '-') THEN -1 ELSE 1 END * {seconds}"

    def _base(self, spec: ColumnSpec, name: str) -> str:
        since = spec.since or "intime"
        if since in ("intime", "admittime"):
            if since not in self.bases:
                raise ConfigError(
                    f"{self.where}.{name}: counts from {since}, which these rows do not know; give `since`"
                )
            return self.bases[since]
        sql = self.frame.expression(since, f"{self.where}.{name}.since").sql
        return f"TRY_CAST({sql} AS TIMESTAMP)"

    def _zone(self, name: str) -> str:
        if not self.timezone:
            raise ConfigError(
                f"{self.where}.{name}: these times name a time zone; set `timezone` to the hospital's own, such as"
                " Europe/Berlin"
            )
        return literal(self.timezone)

    def _moved(self, naive: str, spec: ColumnSpec, name: str) -> str:
        """A naive time of the zone that the column is written in, as the hospital's."""
        naive = _sane(naive, "TIMESTAMP")
        if spec.zone is None or spec.zone == self.timezone:
            return naive
        return f"timezone({self._zone(name)}, timezone({literal(spec.zone)}, {naive}))"

    def _formatted(self, text: str, spec: ColumnSpec, name: str) -> str:
        zoned = [form for form in spec.format or [] if "%z" in form or "%Z" in form]
        plain = [form for form in spec.format or [] if form not in zoned]
        read = [f"CAST(try_strptime({text}, {literal(form)}) AS TIMESTAMPTZ)" for form in zoned]
        found = [f"timezone({self._zone(name)}, {_sane(sql, 'TIMESTAMPTZ')})" for sql in read]
        if plain:
            found.append(self._moved(f"try_strptime({text}, [{', '.join(map(literal, plain))}])", spec, name))
        return f"coalesce({', '.join(found)})"

    def _iso(self, text: str, spec: ColumnSpec, name: str) -> str:
        # DuckDB also reads words there: a zone's name, which it drops, and infinity.
        bare = f"CASE WHEN right({text}, 1) BETWEEN '0' AND '9' THEN TRY_CAST({text} AS TIMESTAMP) END"
        naive = self._moved(bare, spec, name)
        signs = f"suffix({text}, 'Z') OR contains(substr({text}, 14), '+') OR contains(substr({text}, 14), '-')"
        zoned = f"(({signs}) AND regexp_matches({text}, {literal(_ZONED)}))"
        query = f"SELECT count(*) FILTER ({zoned}), count(*) FILTER (NOT {zoned}) FROM {self.frame.view} AS r"
        [(with_zone, without)] = self.connection.execute(query).fetchall()
        if not with_zone:
            return naive
        if without and spec.zone is None:
            raise DataError(
                f"{self.where}.{name}: {with_zone:,} times name a time zone and {without:,} do not; say in which zone"
                " the others are written: `zone`"
            )
        read = f"TRY_CAST({text} AS TIMESTAMPTZ)"
        aware = f"timezone({self._zone(name)}, {_sane(read, 'TIMESTAMPTZ')})"
        return f"CASE WHEN {zoned} THEN {aware} ELSE {naive} END" if without else aware


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sane(sql: str, kind: str) -> str:
    """A time of the years 1000 to 9999; beyond them arithmetic fails."""
    return f"CASE WHEN {sql} BETWEEN {kind} '1000-01-01' AND {kind} '9999-12-31 23:59:59' THEN {sql} END"


def _finite(sql: str) -> str:
    return f"CASE WHEN isfinite({sql}) THEN {sql} END"
