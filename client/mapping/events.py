"""Rows become chart, laboratory, input and output events: one measured value each, in the concept's unit.

A code is looked up once for each spelling, not once a row, and so is a unit: the rows then join small tables. What
stays behind is counted: values that are no number, units without a conversion, rows outside every ICU stay.
"""

from typing import TYPE_CHECKING

import duckdb

from client.mapping.codes import CodeBook, word_rows
from client.mapping.columns import Reader
from client.mapping.config import ColumnSpec
from client.mapping.expressions import literal
from client.mapping.owners import OWNED_COLUMNS, Owner, owner_of, owner_rules, stay_by_time
from client.mapping.units import conversion, per_weight
from client.queries import fill
from shared_model.errors import ConfigError

if TYPE_CHECKING:
    from client.mapping.config import EventMap
    from client.mapping.run import Run

_NOTHING = ColumnSpec(value="").model_copy(update={"value": None})
_CODE_COLUMNS = "code VARCHAR, loinc VARCHAR, spec INTEGER, target VARCHAR, itemid INTEGER, word BOOLEAN, mapped BOOLEAN"


def map_events(run: "Run", use: "EventMap", number: int) -> None:
    """Insert the rows of one entry of ``events`` into chartevents, labevents, inputevents and outputevents."""
    _EventMapper(run, use, f"events[{number}]").run_all()


class _EventMapper:
    def __init__(self, run: "Run", use: "EventMap", where: str) -> None:
        self.run, self.use, self.where = run, use, where
        self.connection: duckdb.DuckDBPyConnection = run.connection
        self.frame = run.frames[use.relation]
        self.reader = Reader(self.connection, self.frame, where, timezone=run.mapping.timezone, bases={})
        self.book = CodeBook(use, where)

    def run_all(self) -> None:
        """Look codes and units up, judge the rows that have one, insert what is mapped, and account for all of it."""
        if self.frame.absent:
            return
        owner = owner_of(self.use, self.reader)
        assert owner is not None
        self._lay_out_rows(owner)
        self._look_codes_up()
        self._look_units_up()
        self._lay_out_words()
        self._judge(owner)
        self._insert()
        self.run.account_judged(self.where, self.frame, self.use.filter, codes=self.book)

    def _lay_out_rows(self, owner: Owner) -> None:
        """The view ``event_row``: what the entry reads of each row, as text."""
        text = {
            name: self.reader.text(getattr(self.use, name) or _NOTHING, name).sql for name in ("code", "loinc", "label", "unit")
        }
        value, number = self.reader.raw_number(self.use.value, "value")
        weight = self.reader.number(self.use.weight, "weight").sql if self.use.weight else "NULL"
        named = {"key": owner.key, **text, "value": value, "number": number, "weight": weight}
        if self.use.specimen:
            named["specimen"] = self.reader.identifier(self.use.specimen, "specimen").sql
        chosen = ", ".join(f'{sql} AS "#{name}"' for name, sql in named.items())
        condition = self.run.condition(self.frame, self.use.filter, self.where)
        self.connection.execute(
            f"CREATE OR REPLACE TEMP VIEW event_row AS SELECT *, {chosen} FROM {self.frame.view} AS r WHERE {condition}"
        )

    def _look_codes_up(self) -> None:
        """The table ``event_code``: each code that stands in the rows, with its destination."""
        found = self.connection.execute(
            'SELECT "#code", "#loinc", any_value("#label"), count(*) FROM event_row GROUP BY ALL ORDER BY count(*) DESC, 1, 2'
        ).fetchall()
        self.run.account.codes.extend(self.book.found(*row) for row in found)
        rows = []
        for code, loinc, _, _ in found:
            coded = self.book.look_up(code, loinc)
            if coded is not None:
                mapped = coded.spec.map is not None
                rows.append((code, loinc, coded.number, coded.table, coded.itemid, coded.target.word, mapped))
        self._fill("event_code", _CODE_COLUMNS, rows)

    def _look_units_up(self) -> None:
        """The table ``event_unit``: each unit that stands beside a mapped code, with its conversion."""
        by_number = {coded.number: coded for coded in self.book.all}
        found = self.connection.execute(
            'SELECT DISTINCT spec, "#unit" FROM event_row JOIN event_code ON "#code" IS NOT DISTINCT FROM code'
            ' AND "#loinc" IS NOT DISTINCT FROM loinc'
        ).fetchall()
        rows = []
        for number, unit in found:
            coded = by_number[number]
            name, own = coded.target.name, self.run.mapping.units
            text = unit or coded.spec.unit or ""
            plain = (1.0, 0.0) if coded.target.word else conversion(name, text, own)
            by_weight = None if plain else per_weight(name, text, own)
            factor, shift = plain or by_weight or (None, None)
            rows.append((number, unit, factor, shift, by_weight is not None))
        self._fill("event_unit", "spec INTEGER, unit VARCHAR, factor DOUBLE, shift DOUBLE, by_weight BOOLEAN", rows)

    def _lay_out_words(self) -> None:
        rows = [row for coded in self.book.all for row in word_rows(coded, self.where)]
        self._fill("event_word", "spec INTEGER, text VARCHAR, number DOUBLE, word VARCHAR", rows)

    def _fill(self, name: str, columns: str, rows: list[tuple[object, ...]]) -> None:
        """``fill`` with the columns' types also where there is no row."""
        nothing = tuple(None for _ in columns.split(", "))
        fill(self.connection, name, columns, rows or [nothing])
        if not rows:
            self.connection.execute(f"DELETE FROM {name}")

    def _judge(self, owner: Owner) -> None:
        """The table ``judged``: every row with a mapped code, with its values and the rule that it breaks."""
        rows = (
            f'(SELECT r.*, c.*, {OWNED_COLUMNS} FROM event_row AS r JOIN event_code AS c'
            f' ON r."#code" IS NOT DISTINCT FROM c.code AND r."#loinc" IS NOT DISTINCT FROM c.loinc {owner.join}) AS r'
        )
        rows = self._timed(rows, owner)
        if owner.kind != "stay":
            place = 'CASE WHEN r."#time" <= s.outtime THEN s.stay_id END AS "#stay_id"'
            admission = ', coalesce(r."#hadm_id", CASE WHEN r."#time" <= s.outtime THEN s.hadm_id END) AS "#hadm_id"'
            rows = f'(SELECT r.* REPLACE ({place}{admission}) FROM {rows} {stay_by_time(owner.kind)}) AS r'
        rows = (
            f'(SELECT r.*, u.factor, u.shift, u.by_weight, w.text AS "#word_text", w.number AS "#word_number",'
            f' w.word AS "#word" FROM {rows} LEFT JOIN event_unit AS u ON u.spec = r.spec'
            ' AND u.unit IS NOT DISTINCT FROM r."#unit"'
            ' LEFT JOIN event_word AS w ON w.spec = r.spec AND w.text = lower(r."#value")) AS r'
        )
        raw = 'coalesce(r."#word_number", r."#number")'
        specimen = 'r."#specimen"' if self.use.specimen else "CAST(NULL AS BIGINT)"
        self.connection.execute(f"""CREATE OR REPLACE TEMP TABLE judged AS
            SELECT r.target, r.itemid, r."#subject_id" AS subject_id, r."#hadm_id" AS hadm_id, r."#stay_id" AS stay_id,
                {specimen} AS specimen_id, r."#time" AS charttime, r."#end" AS endtime, r."#stored" AS storetime,
                CASE WHEN NOT r.word THEN {raw} * r.factor / CASE WHEN r.by_weight THEN r."#weight" ELSE 1 END + r.shift END
                    AS number,
                coalesce(r."#word", CASE WHEN r.word THEN r."#value" ELSE CAST(number AS VARCHAR) END) AS value,
                r."#weight" AS weight,
                {self._rules(owner, raw)} AS "#rule",
                r."#word_text" IS NULL AND NOT r.word AND regexp_matches(r."#value", '^[<>≤≥]') AS "#censored",
                CASE WHEN "#rule" IS NOT NULL THEN {self.run.row_text(self.frame)} END AS "#row"
            FROM {rows}""")

    def _timed(self, rows: str, owner: Owner) -> str:
        if owner.kind == "stay":
            self.reader.bases["intime"] = 'r."#intime"'
        if owner.kind != "patient":
            self.reader.bases["admittime"] = 'r."#admittime"'
        time = self.reader.time(self.use.time, "time")
        end = self.reader.time(self.use.end or _NOTHING, "end")
        stored = self.reader.time(self.use.stored or _NOTHING, "stored")
        named = f'{time.sql} AS "#time", {end.sql} AS "#end", {stored.sql} AS "#stored"'
        wrong = [problem for value in (time, end, stored) for problem in value.problems]
        cases = " ".join(f"WHEN {condition} THEN {literal(rule)}" for condition, rule in wrong)
        judged = f"CASE {cases} WHEN \"#time\" IS NULL THEN 'no time' END"
        return f'(SELECT r.*, {named}, {judged} AS "#problem" FROM {rows}) AS r'

    def _rules(self, owner: Owner, raw: str) -> str:
        needs_stay = "r.target <> 'labevents' AND r.\"#stay_id\" IS NULL"
        return (
            f"CASE {owner_rules(owner)}"
            ' WHEN r."#problem" IS NOT NULL THEN r."#problem"'
            f" WHEN {needs_stay} THEN '-outside every ICU stay'"
            " WHEN r.\"#value\" IS NULL THEN 'no value'"
            ' WHEN r."#word_text" IS NULL AND r.mapped AND (r.word OR r."#number" IS NULL)'
            " THEN 'value: text has no entry in map'"
            " WHEN r.\"#word_text\" IS NOT NULL AND r.\"#word\" IS NULL AND r.\"#word_number\" IS NULL"
            " THEN '-value that the map takes for none'"
            f" WHEN NOT r.word AND {raw} IS NULL THEN 'value: not a number'"
            " WHEN r.factor IS NULL THEN 'unit has no conversion to the concept''s unit'"
            " WHEN r.by_weight AND NOT coalesce(r.\"#weight\" > 0, false) THEN 'rate is not per kg and the row has no weight'"
            " WHEN r.\"#end\" < r.\"#time\" THEN 'ends before it starts' END"
        )

    def _insert(self) -> None:
        """Add what is mapped to the collected events; the concept's unit goes with it."""
        names = "target, itemid, subject_id, hadm_id, stay_id, specimen_id, charttime, endtime, storetime, number, value, weight"
        self.connection.execute(f'INSERT INTO event SELECT {names} FROM judged WHERE "#rule" IS NULL')


def check_word_maps(use: "EventMap", where: str) -> None:
    """Raises ConfigError for a value map that gives a numeric concept a word."""
    for coded in CodeBook(use, where).all:
        for _ in word_rows(coded, where):
            pass
    if use.specimen is not None and not use.codes and use.loinc is None:
        raise ConfigError(f"{where}: `specimen` without `codes` or `loinc` has nothing to group")
