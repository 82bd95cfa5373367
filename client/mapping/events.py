"""Rows become chart, laboratory, input and output events: one measured value each, in the concept's unit.

A code is looked up once for each spelling, not once a row, and so is a unit: the rows then join small tables. What
stays behind is counted: values that are no number, units without a conversion, rows outside every ICU stay.
"""

import duckdb

from client.mapping.codes import FEWEST_TO_TELL, CodeBook, Coded, word_rows
from client.mapping.columns import Reader
from client.mapping.config import ColumnSpec, EventMap, Mapping
from client.mapping.expressions import literal
from client.mapping.owners import OWNED_COLUMNS, Owner, needed_owner, owner_rules, stay_by_time
from client.mapping.state import Run
from client.mapping.units import conversion, per_weight
from client.queries import fill

_NOTHING = ColumnSpec(value="").model_copy(update={"value": None})
# Every name of ours begins with a #, so that no column of the site's can be taken for it.
_CODE_COLUMNS = (
    '"#of_code" VARCHAR, "#of_loinc" VARCHAR, "#spec" INTEGER, "#target" VARCHAR, "#itemid" INTEGER,'
    ' "#is_word" BOOLEAN, "#mapped" BOOLEAN'
)
_UNIT_COLUMNS = (
    '"#unit_spec" INTEGER, "#of_unit" VARCHAR, "#factor" DOUBLE, "#shift" DOUBLE, "#by_weight" BOOLEAN,'
    ' "#unit_rule" VARCHAR'
)
_WORD_COLUMNS = '"#word_spec" INTEGER, "#word_text" VARCHAR, "#word_number" DOUBLE, "#word" VARCHAR'
_EVENT = {
    "target": "VARCHAR",
    "itemid": "INTEGER",
    "subject_id": "BIGINT",
    "hadm_id": "BIGINT",
    "stay_id": "BIGINT",
    "specimen_id": "BIGINT",
    "charttime": "TIMESTAMP",
    "endtime": "TIMESTAMP",
    "storetime": "TIMESTAMP",
    "number": "DOUBLE",
    "value": "VARCHAR",
    "weight": "DOUBLE",
}
_HAS_CODE = '"#code" IS NOT DISTINCT FROM "#of_code" AND "#loinc" IS NOT DISTINCT FROM "#of_loinc"'


def map_events(run: Run, use: EventMap, number: int) -> None:
    """Judge the rows of one entry of ``events``; ``collected`` reads those that are mapped."""
    _EventMapper(run, use, number).run_all()


class _EventMapper:
    def __init__(self, run: Run, use: EventMap, number: int) -> None:
        where = f"events[{number}]"
        self.run, self.use, self.where, self.judged = run, use, where, f"judged_{number}"
        self.connection: duckdb.DuckDBPyConnection = run.connection
        self.frame = run.frames[use.relation]
        self.reader = Reader(self.connection, self.frame, where, timezone=run.mapping.timezone, bases={})
        self.book = CodeBook(use, where)

    def run_all(self) -> None:
        """Look codes and units up, judge the rows that have one, and account for all of them."""
        if self.frame.absent:
            columns = ", ".join(f"{name} {kind}" for name, kind in _EVENT.items())
            self.connection.execute(f'CREATE TEMP TABLE {self.judged} ({columns}, "#rule" VARCHAR)')
            return
        owner = needed_owner(self.use, self.reader)
        self._lay_out_rows(owner)
        self._look_codes_up()
        self._look_units_up()
        self._lay_out_words()
        self._judge(owner)
        self.run.account_judged(self.where, self.frame, self.use.filter, codes=self.book, judged=self.judged)

    def _lay_out_rows(self, owner: Owner) -> None:
        """The view ``event_row``: what the entry reads of each row, as text."""
        text = {
            name: self.reader.text(getattr(self.use, name) or _NOTHING, name, keep=True).sql
            for name in ("loinc", "label", "unit")
        }
        text["code"] = self.reader.key(self.use.code, "code", keep=True).sql
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
            'SELECT "#code", "#loinc", min("#label"), count(*) FROM event_row GROUP BY ALL ORDER BY count(*) DESC, 1, 2'
        ).fetchall()
        self.book.match(self.connection, (row[0] for row in found))
        self.run.account.codes.extend(self.book.found(*row) for row in found)
        rows = []
        for code, loinc, _, _ in found:
            coded = self.book.look_up(code, loinc)
            if coded is not None:
                mapped = coded.spec.map is not None
                rows.append((code, loinc, coded.number, coded.table, coded.itemid, coded.target.word, mapped))
        fill(self.connection, "event_code", _CODE_COLUMNS, rows)

    def _look_units_up(self) -> None:
        """The table ``event_unit``: each unit that stands beside a mapped code, with its conversion."""
        by_number = self.book.numbered
        found = self.connection.execute(
            f'SELECT "#spec", "#unit", count(*) FROM event_row JOIN event_code ON {_HAS_CODE} GROUP BY ALL ORDER BY ALL'
        ).fetchall()
        units = [self._unit(by_number[spec], unit, rows) for spec, unit, rows in found]
        fill(self.connection, "event_unit", _UNIT_COLUMNS, units)

    def _unit(self, coded: Coded, unit: str | None, rows: int) -> tuple[object, ...]:
        """A row of ``event_unit``; the rule names a unit that has no conversion, where it is surely a unit."""
        name, own = coded.target.name, self.run.mapping.units
        text = unit or coded.spec.unit or ""
        plain = (1.0, 0.0) if coded.target.word else conversion(name, text, own)
        by_weight = None if plain else per_weight(name, text, own)
        factor, shift = plain or by_weight or (None, None)
        spelled = f" {text!r}" if rows >= FEWEST_TO_TELL and any(sign.isalpha() or sign == "%" for sign in text) else ""
        rule = f"unit{spelled} has no conversion to {coded.target.unit or 'a bare number'} ({name})"
        return coded.number, unit, factor, shift, by_weight is not None, rule

    def _lay_out_words(self) -> None:
        rows = [row for coded in self.book.numbered.values() for row in word_rows(coded, self.where)]
        fill(self.connection, "event_word", _WORD_COLUMNS, rows)

    def _judge(self, owner: Owner) -> None:
        """The table ``judged_N``: every row with a mapped code, with its values and the rule that it breaks."""
        rows = (
            f"(SELECT r.*, c.*, {OWNED_COLUMNS} FROM event_row AS r JOIN event_code AS c ON {_HAS_CODE}"
            f" {owner.join}) AS r"
        )
        rows = self._timed(rows, owner)
        if owner.kind != "stay":
            place = 'CASE WHEN r."#time" <= s.outtime THEN s.stay_id END AS "#stay_id"'
            admission = ', coalesce(r."#hadm_id", CASE WHEN r."#time" <= s.outtime THEN s.hadm_id END) AS "#hadm_id"'
            rows = f"(SELECT r.* REPLACE ({place}{admission}) FROM {rows} {stay_by_time(owner.kind)}) AS r"
        rows = (
            f'(SELECT r.*, u.*, w.* FROM {rows} LEFT JOIN event_unit AS u ON "#unit_spec" = "#spec"'
            ' AND "#of_unit" IS NOT DISTINCT FROM "#unit"'
            ' LEFT JOIN event_word AS w ON "#word_spec" = "#spec" AND "#word_text" = lower(whole("#value"))) AS r'
        )
        raw = 'coalesce(r."#word_number", r."#number")'
        weight = 'CASE WHEN r."#by_weight" THEN r."#weight" ELSE 1 END'
        specimen = 'r."#specimen"' if self.use.specimen else "CAST(NULL AS BIGINT)"
        self.connection.execute(f"""CREATE TEMP TABLE {self.judged} AS
            SELECT r."#target" AS target, r."#itemid" AS itemid, r."#subject_id" AS subject_id,
                r."#hadm_id" AS hadm_id, r."#stay_id" AS stay_id, {specimen} AS specimen_id,
                r."#time" AS charttime, r."#end" AS endtime, r."#stored" AS storetime,
                CASE WHEN NOT r."#is_word" THEN {raw} * r."#factor" / {weight} + r."#shift" END AS number,
                coalesce(r."#word", r."#value") AS value,
                r."#weight" AS weight, r."#spec" AS "#spec",
                {self._rules(owner, raw)} AS "#rule",
                r."#word_text" IS NULL AND NOT r."#is_word" AND left(r."#value", 1) IN ('<', '>', '≤', '≥')
                    AS "#censored",
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
        return f"""CASE {owner_rules(owner)}
            WHEN r."#problem" IS NOT NULL THEN r."#problem"
            WHEN r."#target" <> 'labevents' AND r."#stay_id" IS NULL THEN '-outside every ICU stay'
            WHEN r."#value" IS NULL THEN 'no value'
            WHEN r."#word_text" IS NULL AND r."#mapped" AND (r."#is_word" OR r."#number" IS NULL)
                THEN 'value: text has no entry in map'
            WHEN r."#word_text" IS NOT NULL AND r."#word" IS NULL AND r."#word_number" IS NULL
                THEN '-value that the map takes for none'
            WHEN NOT r."#is_word" AND {raw} IS NULL THEN 'value: not a number'
            WHEN r."#factor" IS NULL THEN r."#unit_rule"
            WHEN r."#by_weight" AND NOT coalesce(r."#weight" > 0, false)
                THEN 'rate is not per kg and the row has no weight'
            WHEN r."#end" < r."#time" THEN 'ends before it starts' END"""


def collected(mapping: Mapping) -> str:
    """A query of what every entry mapped; an entry whose relation is absent has no table."""
    columns = ", ".join(f"CAST(NULL AS {kind}) AS {name}" for name, kind in _EVENT.items())
    parts = [f'SELECT {", ".join(_EVENT)} FROM judged_{n} WHERE "#rule" IS NULL' for n in range(len(mapping.events))]
    return " UNION ALL ".join([f"SELECT {columns} WHERE false", *parts])
