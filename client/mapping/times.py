"""Whether the times of an extract can be right: each doubt is a sentence for the person who mapped them."""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb

from shared_model import concepts

_MIDNIGHT, _OUTSIDE, _FAR_OUTSIDE, _FEW = 0.9, 0.1, 0.3, 20
_HOURS_OFF, _ZONES_APART = 3.0, 14.0
_VITALS = ("heart_rate", "resp_rate", "sbp", "dbp", "mbp", "spo2", "temperature")
_SQUEEZED, _WITHOUT_LABS, _LONGEST_STAY = 0.2, 0.5, 180


@dataclass(frozen=True, kw_only=True)
class TimeCheck:
    """Of one table: share of rows at exactly midnight, and outside their own ICU stay (a day's grace on both sides).

    ``grave``: a doubt that must be cleared before the times are used.
    """

    table: str
    rows: int
    midnight: float = 0.0
    outside: float | None = None
    doubts: tuple[str, ...] = ()
    grave: bool = False


def look_at_times(connection: duckdb.DuckDBPyConnection) -> tuple[TimeCheck, ...]:
    """Whether the times of each table can be right."""
    return (
        *(_check_table(connection, table, time, own) for table, time, own in _TIMES),
        *_check_clocks(connection),
        *_check_lengths(connection),
        *_check_labs(connection),
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
        doubts.append(
            f"{table}: {apart:.0%} of the rows lie more than a day outside their ICU stay: are `format`, `offset` and"
            " `since` right?"
        )
    grave = rows >= _FEW and (apart or 0.0) > _FAR_OUTSIDE
    return TimeCheck(
        table=table, rows=int(rows), midnight=midnight or 0.0, outside=apart, doubts=tuple(doubts), grave=grave
    )


def _check_clocks(connection: duckdb.DuckDBPyConnection) -> tuple[TimeCheck, ...]:
    """Whether charting begins when the stay does: another time zone shows as hours between them."""
    items = ", ".join(str(item) for name in _VITALS for item in concepts.BY_NAME[name].chart)
    query = f"""SELECT count(*), median(date_diff('minute', s.intime, e.first) / 60) FROM (
            SELECT stay_id, min(charttime) AS first FROM chartevents WHERE itemid IN ({items}) GROUP BY stay_id
        ) AS e JOIN icustays AS s USING (stay_id)"""
    [(stays, hours)] = connection.execute(query).fetchall()
    if stays < _FEW or abs(hours) <= _HOURS_OFF:
        return ()
    side = "after" if hours > 0 else "before"
    what = "the time zones" if abs(hours) <= _ZONES_APART else "`intime` and the times of the events"
    doubt = f"the first vital sign comes {abs(hours):.1f} h {side} ICU admission (median): are {what} right?"
    return (TimeCheck(table="chartevents: first vital sign", rows=int(stays), doubts=(doubt,), grave=True),)


def _check_lengths(connection: duckdb.DuckDBPyConnection) -> Iterator[TimeCheck]:
    """Whether charting goes on until the stay ends: an offset in a smaller unit squeezes it into the beginning."""
    long = f"outtime > intime + INTERVAL {_LONGEST_STAY} DAY"
    [(stays,)] = connection.execute(f"SELECT count(*) FROM icustays WHERE {long}").fetchall()
    if stays:
        doubt = f"icustays: {stays:,} ICU stays last longer than {_LONGEST_STAY} days"
        yield TimeCheck(table="icustays", rows=int(stays), doubts=(doubt,))
    query = """SELECT count(*), median(date_diff('second', s.intime, e.last) / date_diff('second', s.intime, s.outtime))
        FROM (SELECT stay_id, max(charttime) AS last FROM chartevents GROUP BY stay_id HAVING count(*) > 5) AS e
        JOIN icustays AS s USING (stay_id) WHERE s.outtime > s.intime + INTERVAL 12 HOUR"""
    [(stays, share)] = connection.execute(query).fetchall()
    if stays >= _FEW and share < _SQUEEZED:
        doubt = f"chartevents: charting ends after {share:.1%} of the ICU stay (median): is the unit of `offset` right?"
        yield TimeCheck(table="chartevents: last row", rows=int(stays), doubts=(doubt,), grave=True)


def _check_labs(connection: duckdb.DuckDBPyConnection) -> Iterator[TimeCheck]:
    """Whether laboratory values fall into the stays of their patients at all."""
    query = """SELECT count(*), count(*) FILTER (NOT EXISTS (SELECT 1 FROM labevents AS e
            WHERE e.subject_id = s.subject_id AND e.charttime BETWEEN s.intime - INTERVAL 1 DAY AND s.outtime))
        FROM icustays AS s WHERE s.subject_id IN (SELECT subject_id FROM labevents)"""
    [(stays, without)] = connection.execute(query).fetchall()
    if stays >= _FEW and without / stays > _WITHOUT_LABS:
        doubt = f"labevents: {without:,} of {stays:,} ICU stays have none of their patient's laboratory values"
        yield TimeCheck(table="labevents: in the stay", rows=int(stays), doubts=(doubt,), grave=True)


_TIMES = (
    ("chartevents", "charttime", True),
    ("labevents", "charttime", False),
    ("inputevents", "starttime", True),
    ("outputevents", "charttime", True),
    ("prescriptions", "starttime", False),
)
