"""One stay's way to its Sepsis-3 verdict, for a clinician who doubts it.

Why no values: the text is read aloud in meetings and pasted into mails. It tells times in hours since the ICU
admission, scores and words; never an id (but the stay id that was asked for), a date, a drug, an organism, a unit or a
measurement. ``explain`` reads what ``client.cohort.derive_sepsis3`` left behind, ``render`` lays it out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from math import floor
from typing import Any, Literal

import duckdb
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from client.sepsis_rules import RULES_VERSION
from shared_model.errors import DataError

# Organ -> its heading, and the columns of sofa_hourly of which any one makes it measured in an hour.
_ORGANS = {
    "respiration": ("Resp", "pao2fio2_vent, pao2fio2_novent"),
    "coagulation": ("Coag", "platelet_min"),
    "liver": ("Liver", "bilirubin_max"),
    "cardiovascular": ("Circ", "meanbp_min, rate_norepinephrine, rate_epinephrine, rate_dopamine, rate_dobutamine"),
    "cns": ("CNS", "gcs_min"),
    "renal": ("Renal", "creatinine_max, uo_24hr"),
}
_BOX = box.SIMPLE_HEAD
_CNS = list(_ORGANS).index("cns")
# A timed culture at midnight looks like a dated one in suspicion; the table culture knows. Where both could pair,
# sepsis3_2_suspicion.sql prefers the timed one.
_SUSPICIONS = """
    SELECT antibiotic_time, culture_time, suspected_time, max(sofa_24hours), min(hr) FILTER (WHERE sofa_24hours >= 2),
        culture_time IS NOT NULL AND NOT EXISTS (
            FROM culture AS taken
            WHERE taken.subject_id = suspicion.subject_id AND taken.charttime = suspicion.culture_time
                AND taken.charttime <> antibiotic_time AND taken.charttime >= antibiotic_time - INTERVAL 72 HOUR
        ) AS day_only
    FROM suspicion
    LEFT JOIN sofa_hourly AS sofa ON suspicion.stay_id = sofa.stay_id
        AND endtime BETWEEN suspected_time - INTERVAL 48 HOUR AND suspected_time + INTERVAL 24 HOUR
    WHERE suspicion.stay_id = ?
    GROUP BY subject_id, ab_id, antibiotic_time, culture_time, suspected_time
    ORDER BY antibiotic_time, ab_id
"""
_VERDICT = """
    SELECT antibiotic_time, culture_time, suspected_time, hr, sofa_score
    FROM sepsis3 INNER JOIN sofa_hourly AS sofa ON sepsis3.stay_id = sofa.stay_id AND sofa_time = endtime
    WHERE sepsis3.stay_id = ? AND sepsis3
"""
_ELSEWHERE = """
    FROM antibiotic INNER JOIN icustays AS stay ON antibiotic.hadm_id = stay.hadm_id
    WHERE stay.stay_id = ? AND antibiotic.stay_id IS DISTINCT FROM stay.stay_id LIMIT 1
"""
_INVASIVE = "SELECT starttime, endtime FROM ventilation WHERE stay_id = ? AND status = 'InvasiveVent' ORDER BY ALL"
# gcs_verbal is 0 exactly where client/sql/sepsis3_4_gcs.sql takes the total as the full 15.
_INTUBATED = """
    FROM gcs WHERE gcs.stay_id = sofa.stay_id AND charttime > starttime AND charttime <= endtime AND gcs_verbal = 0
"""

_LEGEND = (
    "Each score is the worst of the last 24 hours. * measured in this hour; blank: score 0 and nothing measured in the"
    " hours shown of the last 24, counts as 0; t tube in this hour, speech not testable, coma scale taken as normal."
    " Folded hours have the six scores of the hour before them."
)
_WINDOW = "from 48 h before to 24 h after the suspected infection"


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """An antibiotic, its culture if one pairs with it, and in the window around ``suspected`` the highest SOFA and
    the first hour of 2 or more. Times, here and below, are hours since ICU admission."""

    antibiotic: float
    culture: float | None
    side: Literal["before", "after"] | None
    day_only: bool
    suspected: float | None
    highest_sofa: int | None
    first_sofa_hour: int | None


@dataclass(frozen=True, kw_only=True)
class SofaHour:
    """An hour of the SOFA grid, organs in Vincent's order; a score is None where nothing was seen to score."""

    hour: int
    end: float
    scores: tuple[int | None, ...]
    measured: tuple[bool, ...]
    intubated: bool
    total: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Yes, with the number of the suspicion (from 1), the SOFA hour and onset; or no, with every reason."""

    sepsis3: bool
    suspicion: int | None = None
    sofa_hour: int | None = None
    sofa: int | None = None
    onset: float | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Everything that decided about one stay, without anything that tells whose stay it is."""

    stay_id: int
    suspicions: tuple[Suspicion, ...]
    antibiotic_elsewhere: bool
    invasive_ventilation: tuple[tuple[float, float], ...]
    hours: tuple[SofaHour, ...]
    verdict: Verdict
    rules_version: str


def explain(connection: duckdb.DuckDBPyConnection, stay_id: int) -> Explanation:
    """Follow one stay from antibiotic to verdict, on a connection where ``derive_sepsis3`` has run.

    Raises DataError for a stay that is not in icustays, or is without admission time there.
    """
    origin = _admission(connection, stay_id)
    paired = _rows(connection, _SUSPICIONS, stay_id)
    suspicions = tuple(_suspicion(origin, *row) for row in paired)
    hours = tuple(_sofa_hours(connection, stay_id, origin))
    confirmed = _rows(connection, _VERDICT, stay_id)
    spells = _rows(connection, _INVASIVE, stay_id)
    return Explanation(
        stay_id=stay_id,
        suspicions=suspicions,
        antibiotic_elsewhere=bool(_rows(connection, _ELSEWHERE, stay_id)),
        invasive_ventilation=tuple((_since(origin, start), _since(origin, end)) for start, end in spells),
        hours=hours,
        verdict=_yes(origin, paired, confirmed[0]) if confirmed else _no(suspicions, hours),
        rules_version=RULES_VERSION,
    )


def render(explanation: Explanation, *, all_hours: bool = False) -> RenderableType:
    """The explanation as tables and lines; hours in which no score changes are folded unless ``all_hours``."""
    return Group(
        Text(f"Stay {explanation.stay_id}: how Sepsis-3 was decided ({explanation.rules_version})", style="bold"),
        Text("Times are hours since ICU admission."),
        Text("\n1. Suspected infection: an antibiotic that starts in the ICU, with a culture", style="bold"),
        *_suspicion_part(explanation),
        Text("\n2. SOFA score, hour by hour", style="bold"),
        *_sofa_part(explanation, all_hours),
        Text("\n3. Verdict", style="bold"),
        *map(Text, _verdict_lines(explanation.verdict)),
    )


def _admission(connection: duckdb.DuckDBPyConnection, stay_id: int) -> datetime:
    rows = _rows(connection, "SELECT min(intime) FROM icustays WHERE stay_id = ? GROUP BY stay_id", stay_id)
    if not rows:
        raise DataError(f"stay {stay_id}: not in icustays")
    if not isinstance(admission := rows[0][0], datetime):
        raise DataError(f"stay {stay_id}: icustays.intime is empty; no rule can place it in time")
    return admission


def _rows(connection: duckdb.DuckDBPyConnection, query: str, stay_id: int) -> list[tuple[Any, ...]]:
    return connection.execute(query, [stay_id]).fetchall()


def _since(origin: datetime, time: datetime) -> float:
    """Hours since admission to 0.1 h, halves up so that a grid of whole hours stays even."""
    return floor((time - origin) / timedelta(hours=0.1) + 0.5) / 10


def _suspicion(origin: datetime, *row: Any) -> Suspicion:
    """A dated culture of the antibiotic's own day stands at midnight, and the rules count it as before."""
    antibiotic, culture, suspected, highest_sofa, first_sofa_hour, day_only = row
    return Suspicion(
        antibiotic=_since(origin, antibiotic),
        culture=culture and _since(origin, culture),
        side=culture and ("before" if culture <= antibiotic else "after"),
        day_only=day_only,
        suspected=suspected and _since(origin, suspected),
        highest_sofa=highest_sofa,
        first_sofa_hour=first_sofa_hour,
    )


def _sofa_hours(connection: duckdb.DuckDBPyConnection, stay_id: int, origin: datetime) -> Iterator[SofaHour]:
    measured = [f"coalesce({columns}) IS NOT NULL" for _, columns in _ORGANS.values()]
    scores = [
        f"CASE WHEN {organ}_24hours > 0 OR bool_or({seen}) OVER last_day THEN {organ}_24hours END"
        for organ, seen in zip(_ORGANS, measured, strict=True)
    ]
    query = (
        f"SELECT hr, endtime, ({', '.join(scores)}), ({', '.join(measured)}), EXISTS ({_INTUBATED}), sofa_24hours"
        " FROM sofa_hourly AS sofa WHERE stay_id = ?"
        " WINDOW last_day AS (ORDER BY hr ROWS BETWEEN 23 PRECEDING AND CURRENT ROW) ORDER BY hr"
    )
    for hour, end, score, seen, intubated, total in _rows(connection, query, stay_id):
        time = _since(origin, end)
        yield SofaHour(hour=hour, end=time, scores=score, measured=seen, intubated=intubated, total=total)


def _yes(origin: datetime, paired: list[tuple[Any, ...]], confirmed: tuple[Any, ...]) -> Verdict:
    *times, hour, sofa = confirmed
    number = next(number for number, row in enumerate(paired, 1) if row[:3] == tuple(times))
    return Verdict(sepsis3=True, suspicion=number, sofa_hour=hour, sofa=sofa, onset=_since(origin, times[2]))


def _no(suspicions: tuple[Suspicion, ...], hours: tuple[SofaHour, ...]) -> Verdict:
    reasons = []
    if not hours:
        reasons.append("no heart rate is charted, so there are no SOFA hours")
    if not suspicions:
        reasons.append("no suspected infection: no systemic antibiotic starts in this ICU stay")
    elif all(suspicion.suspected is None for suspicion in suspicions):
        reasons.append("no suspected infection: no antibiotic has a culture within 72 h before or 24 h after it")
    elif hours:
        reasons.append(f"SOFA is never 2 or more {_WINDOW}")
    return Verdict(sepsis3=False, reasons=tuple(reasons))


def _suspicion_part(explanation: Explanation) -> Iterator[RenderableType]:
    if not explanation.suspicions:
        yield Text("No systemic antibiotic starts in this ICU stay.")
    if explanation.antibiotic_elsewhere:
        yield Text("Antibiotics of this admission that start outside this ICU stay do not count.")
    if explanation.suspicions:
        table = Table("#", "Antibiotic", "Culture", "Suspected infection", "Highest SOFA", "SOFA 2 or more", box=_BOX)
        for number, row in enumerate(explanation.suspicions, 1):
            table.add_row(str(number), _hours(row.antibiotic), *_suspicion_cells(row))
        yield table
        yield Text(f"The last two columns look {_WINDOW}.")
    if any(row.day_only for row in explanation.suspicions):
        yield Text("Day only: the culture has a date and no time; it stands at the midnight that began its day.")


def _suspicion_cells(row: Suspicion) -> tuple[str, ...]:
    if row.culture is None or row.suspected is None:
        return "none within 72 h before or 24 h after", "no", "", ""
    culture = f"{_hours(row.culture)} {row.side}{', day only' if row.day_only else ''}"
    highest = "no SOFA hours" if row.highest_sofa is None else str(row.highest_sofa)
    first = "never" if row.first_sofa_hour is None else f"first in hour {row.first_sofa_hour}"
    return culture, _hours(row.suspected), highest, first


def _sofa_part(explanation: Explanation, all_hours: bool) -> Iterator[RenderableType]:
    if not explanation.hours:
        yield Text("No heart rate is charted, so there are no SOFA hours.")
        return
    yield Text(_LEGEND)
    table = Table("Hour", "Ends", *(heading for heading, _ in _ORGANS.values()), "SOFA", "", box=_BOX)
    for run in _runs(explanation.hours, explanation.verdict.sofa_hour, all_hours):
        confirms = run[0].hour == explanation.verdict.sofa_hour
        note = f"confirms suspicion {explanation.verdict.suspicion}" if confirms else ""
        table.add_row(*_run_cells(run), note, style="bold" if confirms else "")
    yield table
    spells = [f"{_hours(start)} to {_hours(end)}" for start, end in explanation.invasive_ventilation]
    yield Text(f"Invasive ventilation (without it respiration scores at most 2): {', '.join(spells) or 'none'}.")


def _runs(hours: tuple[SofaHour, ...], confirming: int | None, all_hours: bool) -> Iterator[tuple[SofaHour, ...]]:
    """One hour each; but several in a row whose scores are those of the hour before come as one run."""
    pairs = () if all_hours else pairwise(hours)
    unchanged = {hour.hour for last, hour in pairs if hour.scores == last.scores and hour.hour != confirming}
    for folded, group in groupby(hours, key=lambda hour: hour.hour in unchanged):
        run = tuple(group)
        yield from [run] if folded else [(hour,) for hour in run]


def _run_cells(run: tuple[SofaHour, ...]) -> tuple[str, ...]:
    """A run of several hours tells only which organs were measured in it."""
    first, last = run[0], run[-1]
    if first is not last:
        stars = ("*" if any(seen) else "" for seen in zip(*(hour.measured for hour in run), strict=True))
        return f"hours {first.hour}-{last.hour}: unchanged", _hours(last.end), *stars, ""
    scored = zip(first.scores, first.measured, strict=True)
    cells = [f"{'' if score is None else score}{'*' if seen else ''}" for score, seen in scored]
    cells[_CNS] += "t" if first.intubated else ""
    return str(first.hour), _hours(first.end), *cells, str(first.total)


def _verdict_lines(verdict: Verdict) -> Iterator[str]:
    if verdict.onset is None:
        yield "Sepsis-3: no."
        yield from (f"  because {reason}" for reason in verdict.reasons)
        return
    yield f"Sepsis-3: yes, onset at {_hours(verdict.onset)} (the time of suspected infection)."
    yield f"  Suspicion {verdict.suspicion} is the earliest with SOFA 2 or more {_WINDOW};"
    yield f"  that is first so in hour {verdict.sofa_hour}, with SOFA {verdict.sofa}."


def _hours(time: float) -> str:
    return f"{time:+.1f} h"
