"""How much of each concept an extract has, in which range, and whether its times are plausible."""

from dataclasses import dataclass
from typing import Any

import duckdb

from client.events import create_items
from shared_model import concepts

SMALLEST = 10  # patients, for quantiles to be told
_QUANTILES = {"p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
_MIDNIGHT, _OUTSIDE, _FEW = 0.9, 0.1, 20
_HOURS_OFF = 3.0


@dataclass(frozen=True, kw_only=True)
class ConceptCoverage:
    """``patients``: of those with an ICU stay; ``in_range``: share of values in the plausible range; ``quantiles`` of
    all values in the concept's unit, empty below ten patients."""

    concept: str
    unit: str
    events: int
    patients: int
    patients_share: float
    in_range: float
    quantiles: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TimeCheck:
    """Of one table: share of rows at exactly midnight, and outside their own ICU stay (a day's grace on both sides)."""

    table: str
    rows: int
    midnight: float
    outside: float | None
    doubts: tuple[str, ...]


def cover_concepts(connection: duckdb.DuckDBPyConnection) -> tuple[ConceptCoverage, ...]:
    """Coverage of every concept of the dictionary, also of those that the extract does not have."""
    create_items(connection)
    levels = list(_QUANTILES.values())
    everyone = _one(connection, "SELECT count(DISTINCT subject_id) FROM icustays")
    found = connection.execute(
        f"""SELECT concept, count(*), count(DISTINCT subject_id), count(*) FILTER (value BETWEEN low AND high),
            approx_quantile(value, {levels})
        FROM ({_VALUES}) JOIN ranges USING (concept) WHERE value IS NOT NULL GROUP BY concept"""
    ).fetchall()
    by_name = {row[0]: row[1:] for row in found}
    return tuple(_coverage(c, by_name.get(c.name, _NOTHING), everyone) for c in _LOOKED_AT)


def _coverage(concept: concepts.Concept, row: tuple[Any, ...], everyone: int) -> ConceptCoverage:
    events, patients, fitting, quantiles = row
    enough = patients >= SMALLEST
    return ConceptCoverage(
        concept=concept.name,
        unit=concept.unit,
        events=events,
        patients=patients,
        patients_share=patients / everyone if everyone else 0.0,
        in_range=fitting / events if events else 0.0,
        quantiles=dict(zip(_QUANTILES, quantiles, strict=True)) if enough else {},
    )


def look_at_times(connection: duckdb.DuckDBPyConnection) -> tuple[TimeCheck, ...]:
    """Whether the times of each table can be right."""
    return (
        *(_check_table(connection, table, time, own) for table, time, own in _TIMES),
        *_check_clocks(connection),
    )


def _check_table(connection: duckdb.DuckDBPyConnection, table: str, time: str, own_stay: bool) -> TimeCheck:
    outside = (
        f"count(*) FILTER (e.{time} < s.intime - INTERVAL 1 DAY OR e.{time} > s.outtime + INTERVAL 1 DAY)"
        " / nullif(count(*), 0)"
        if own_stay
        else "NULL"
    )
    join = "JOIN icustays AS s USING (stay_id)" if own_stay else ""
    midnight_share = f"count(*) FILTER (CAST(e.{time} AS TIME) = TIME '00:00') / nullif(count(*), 0)"
    query = f"""SELECT count(*), {midnight_share}, {outside}
        FROM {table} AS e {join}"""
    [(rows, midnight, apart)] = connection.execute(query).fetchall()
    doubts = []
    if rows >= _FEW and midnight > _MIDNIGHT:
        doubts.append(f"{table}: {midnight:.0%} of the times are midnight: is the time of day missing?")
    if rows >= _FEW and apart is not None and apart > _OUTSIDE:
        doubts.append(f"{table}: {apart:.0%} of the rows lie more than a day outside their ICU stay")
    return TimeCheck(table=table, rows=int(rows), midnight=midnight or 0.0, outside=apart, doubts=tuple(doubts))


def _check_clocks(connection: duckdb.DuckDBPyConnection) -> tuple[TimeCheck, ...]:
    """Whether charting begins when the stay does: another time zone shows as hours between them."""
    items = ", ".join(map(str, concepts.BY_NAME["heart_rate"].chart))
    query = f"""SELECT count(*), median(date_diff('minute', s.intime, e.first) / 60) FROM (
            SELECT stay_id, min(charttime) AS first FROM chartevents WHERE itemid IN ({items}) GROUP BY stay_id
        ) AS e JOIN icustays AS s USING (stay_id)"""
    [(stays, hours)] = connection.execute(query).fetchall()
    if stays < _FEW or abs(hours) <= _HOURS_OFF:
        return ()
    side = "after" if hours > 0 else "before"
    doubt = f"the first heart rate comes {abs(hours):.1f} h {side} ICU admission (median): are the time zones right?"
    return (
        TimeCheck(table="chartevents: first heart rate", rows=int(stays), midnight=0.0, outside=None, doubts=(doubt,)),
    )


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(connection.execute(query).fetchall()[0][0])


_NOTHING: tuple[Any, ...] = (0, 0, 0, [])
_LOOKED_AT = (*concepts.CONCEPTS, concepts.GCS, concepts.URINE)
_VALUES = f"""
SELECT i.concept, e.subject_id, e.valuenum * i.factor + i.shift AS value
FROM chartevents AS e JOIN items AS i ON i.source = 'chart' AND i.itemid = e.itemid
UNION ALL
SELECT i.concept, e.subject_id, e.valuenum * i.factor + i.shift
FROM labevents AS e JOIN items AS i ON i.source = 'lab' AND i.itemid = e.itemid
UNION ALL
SELECT '{concepts.GCS.name}', e.subject_id, e.valuenum FROM chartevents AS e WHERE e.itemid = {concepts.GCS_TOTAL}
UNION ALL
SELECT '{concepts.URINE.name}', e.subject_id, e.value FROM outputevents AS e
WHERE e.itemid IN {concepts.URINE_ITEMIDS} AND e.itemid <> {concepts.URINE_IRRIGANT_IN}"""
_TIMES = (
    ("chartevents", "charttime", True),
    ("labevents", "charttime", False),
    ("inputevents", "starttime", True),
    ("outputevents", "charttime", True),
    ("prescriptions", "starttime", False),
)
