"""The course of the synthetic patients: admissions, intensive-care stays, and when they end.

Why: the cohort rules live on times (24 hours in the unit, first stay, earlier admissions), so these must hold together:
nothing happens after a death, a stay lies in its admission, a second admission needs a survivor.

Every patient has an index admission with intensive care. A few have an earlier admission without it, a second stay in
the index admission, or, when they survived, a later admission with intensive care (new severity, same chronic burden).
Sizes: ``P`` patients, ``A`` admissions, ``S`` stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from simulations.hospital.latents import (
    UNITS,
    Bools,
    Floats,
    Ints,
    Latents,
    by_unit,
    draw_ages,
    draw_latents,
    unit_shares,
)

Times = NDArray[np.datetime64]
Rows = TypeVar("Rows", "Admissions", "Stays", Latents)

EARLIER_ADMISSION, SECOND_STAY, LATER_ADMISSION = 0.06, 0.035, 0.05
SAME_UNIT_AGAIN, UNIT_TRANSFER, ICU_DEATH = 0.7, 0.08, 0.65
SUBJECT, HADM, STAY = 10_000_000, 20_000_000, 30_000_000  # MIMIC-IV's identifiers have eight digits
EARLIER, INDEX, LATER = 0, 1, 2  # last digit of a hadm_id
FIRST_YEAR, LAST_YEAR = 2113, 2196  # MIMIC-IV shifts its years into 2110-2200; earlier and later admissions fit too


@dataclass(frozen=True, kw_only=True)
class People:
    """One row per patient."""

    subject_id: Ints
    female: Bools
    anchor_age: Floats
    anchor_year: Ints
    chronic: Floats
    died_at: Times
    """Date of death, in hospital or within the year after it; NaT when not known."""


@dataclass(frozen=True, kw_only=True)
class Admissions:
    """One row per hospital admission, sorted by patient and time."""

    person: Ints
    hadm_id: Ints
    kind: Ints
    """EARLIER, INDEX or LATER."""
    unit: Ints
    """First care unit; -1 without intensive care."""
    emergency: Bools
    admitted: Times
    discharged: Times
    died: Bools
    infected: Bools
    source: Ints


@dataclass(frozen=True, kw_only=True)
class Stays:
    """One row per intensive-care stay, sorted by patient and time; ``latents`` has the same rows."""

    person: Ints
    admission: Ints
    subject_id: Ints
    hadm_id: Ints
    stay_id: Ints
    last_unit: Ints
    intime: Times
    outtime: Times
    since_first_h: Floats
    """Hours from the admission's first ICU admission to this stay's."""
    latents: Latents

    @property
    def hours(self) -> Floats:
        """Length of stay, hours."""
        return np.asarray((self.outtime - self.intime).astype(np.float64) / 3600.0)


@dataclass(frozen=True, kw_only=True)
class World:
    """One chunk of patients with all that happened to them."""

    people: People
    admissions: Admissions
    stays: Stays


def hours(values: NDArray[Any]) -> Any:
    """Return hours as whole seconds, an array of timedelta64; numpy's stubs cannot add one to datetime64."""
    return np.asarray(np.round(values * 3600.0).astype("timedelta64[s]"))


def to_minute(times: Times) -> Times:
    """Return times cut to the minute, as most of MIMIC-IV's are."""
    return times.astype("datetime64[m]").astype("datetime64[s]")


def _lognormal(rng: np.random.Generator, median: Floats | float, sd: float, n: int) -> Floats:
    return np.asarray(median * np.exp(rng.normal(0.0, sd, n)))


@dataclass(frozen=True, kw_only=True)
class _Durations:
    """Hours of each part of an admission with intensive care."""

    before: Floats
    first: Floats
    gap: Floats
    second: Floats
    """0 when there is no second stay."""
    after: Floats


def _durations(rng: np.random.Generator, latents: Latents, emergency: Bools, twice: Bools) -> _Durations:
    """Draw how long each part lasts; the sicker stay longer, and a death in the unit leaves nothing after it."""
    n = latents.died.size
    before = np.clip(_lognormal(rng, np.where(emergency, 3.0, 9.0), 1.0, n), 0.3, 200.0)
    living = _lognormal(rng, 58.0 * np.exp(0.22 * latents.severity), 0.8, n)
    dying = _lognormal(rng, 75.0, 0.85, n)
    first = np.clip(np.where(latents.died & ~twice, dying, living), 7.0, 1440.0)
    second = np.where(twice, np.clip(_lognormal(rng, 60.0, 0.8, n), 8.0, 720.0), 0.0)
    ward = _lognormal(rng, np.where(latents.died, 60.0, 84.0), 0.9, n)
    after = np.where(latents.died & (rng.random(n) < ICU_DEATH), 0.0, np.clip(ward, 3.0, 1200.0))
    return _Durations(before=before, first=first, gap=rng.uniform(10.0, 90.0, n), second=second, after=after)


def _settle_infections(latents: Latents, first_h: Floats) -> Latents:
    """Undo infections acquired after the stay had ended."""
    return replace(latents, acquired=latents.acquired & (latents.onset_h < first_h - 12.0))


def _admission_parts(
    rng: np.random.Generator, *, person: Ints, kind: int, start: Times, latents: Latents, twice: Bools
) -> tuple[Admissions, Stays]:
    """Lay out one admission with intensive care for each row of ``latents``."""
    emergency = rng.random(person.size) < by_unit("emergency")[latents.unit]
    parts = _durations(rng, latents, emergency, twice)
    latents = _settle_infections(latents, parts.first)
    intime = start + hours(parts.before)
    outtime = intime + hours(parts.first)
    intime_2 = outtime + hours(parts.gap)
    outtime_2 = intime_2 + hours(parts.second)
    left: Times = np.where(twice, outtime_2, outtime)
    end = to_minute(left + hours(parts.after))
    admissions = Admissions(
        person=person,
        hadm_id=HADM + 10 * person + kind,
        kind=np.full(person.size, kind),
        unit=latents.unit,
        emergency=emergency,
        admitted=to_minute(start),
        discharged=end,
        died=latents.died,
        infected=latents.infected | latents.acquired,
        source=latents.source,
    )
    rows = np.concatenate([np.arange(person.size), np.flatnonzero(twice)])
    number = np.repeat([0, 1], [person.size, int(twice.sum())])
    moved = rng.random(rows.size) < UNIT_TRANSFER
    intimes = np.concatenate([intime, intime_2[twice]])
    stays = Stays(
        person=person[rows],
        admission=rows,
        subject_id=SUBJECT + person[rows],
        hadm_id=admissions.hadm_id[rows],
        stay_id=STAY + 10 * person[rows] + 2 * kind + number,
        last_unit=np.where(moved, rng.integers(0, len(UNITS), rows.size), latents.unit[rows]),
        intime=intimes,
        outtime=np.minimum(np.concatenate([outtime, outtime_2[twice]]), end[rows]),
        since_first_h=np.asarray((intimes - intime[rows]).astype(np.float64) / 3600.0),
        latents=latents.take(rows),
    )
    return admissions, stays


def _earlier_admissions(rng: np.random.Generator, person: Ints, before: Times) -> Admissions:
    """Lay out admissions without intensive care, 40 to 700 days before the index admission."""
    n = person.size
    start = to_minute(before - hours(24.0 * rng.uniform(40.0, 700.0, n)))
    nothing = np.zeros(n, dtype=bool)
    return Admissions(
        person=person,
        hadm_id=HADM + 10 * person + EARLIER,
        kind=np.full(n, EARLIER),
        unit=np.full(n, -1),
        emergency=rng.random(n) < 0.6,
        admitted=start,
        discharged=to_minute(start + hours(np.clip(_lognormal(rng, 70.0, 0.8, n), 8.0, 700.0))),
        died=nothing,
        infected=nothing,
        source=np.zeros(n, dtype=np.int64),
    )


def _merge(parts: Sequence[Rows], key: str | None = None) -> Rows:
    """Stack tables of one kind, sorted by the column ``key``."""
    order = np.argsort(np.concatenate([getattr(part, key) for part in parts])) if key else slice(None)
    columns = {}
    for column in fields(parts[0]):
        values = [getattr(part, column.name) for part in parts]
        if isinstance(values[0], Latents):
            stacked = _merge(values)
            columns[column.name] = stacked.take(order) if isinstance(order, np.ndarray) else stacked
        else:
            columns[column.name] = np.concatenate(values)[order]
    return type(parts[0])(**columns)


def _year(times: Times) -> Ints:
    return np.asarray(times.astype("datetime64[Y]").astype(np.int64) + 1970)


def _date_of_death(rng: np.random.Generator, person: Ints, last: Ints, discharged: Times, died: Bools) -> Times:
    """Return each patient's date of death: at discharge, or for some survivors within the year after it."""
    later = discharged[last] + hours(24.0 * rng.uniform(3.0, 360.0, person.size))
    known = np.where(died[last], discharged[last], later)
    return np.where(died[last] | (rng.random(person.size) < 0.15), known, np.datetime64("NaT", "s"))


def draw_world(rng: np.random.Generator, *, first_person: int, count: int) -> World:
    """Draw ``count`` patients, numbered from ``first_person``, with their admissions and stays."""
    person = np.arange(first_person, first_person + count)
    unit = rng.choice(len(UNITS), size=count, p=unit_shares())
    age, chronic, female = draw_ages(rng, unit), rng.normal(size=count), rng.random(count) < 0.44
    year = rng.integers(FIRST_YEAR, LAST_YEAR + 1, count)
    new_year = (year - 1970).astype("datetime64[Y]").astype("datetime64[s]")
    start = to_minute(new_year + hours(24.0 * rng.uniform(0.0, 330.0, count)))
    latents = draw_latents(rng, unit=unit, age=age, chronic=chronic)
    twice = rng.random(count) < SECOND_STAY
    index, stays = _admission_parts(rng, person=person, kind=INDEX, start=start, latents=latents, twice=twice)

    again = np.flatnonzero((rng.random(count) < LATER_ADMISSION / 0.88) & ~index.died)
    start_2 = to_minute(index.discharged[again] + hours(24.0 * rng.uniform(20.0, 500.0, again.size)))
    same = rng.random(again.size) < SAME_UNIT_AGAIN
    unit_2 = np.where(same, unit[again], rng.choice(len(UNITS), size=again.size, p=unit_shares()))
    age_2 = np.minimum(age[again] + _year(start_2) - year[again], 91.0)
    latents_2 = draw_latents(rng, unit=unit_2, age=age_2, chronic=chronic[again])
    later, stays_2 = _admission_parts(
        rng,
        person=person[again],
        kind=LATER,
        start=start_2,
        latents=latents_2,
        twice=np.zeros(again.size, dtype=bool),
    )
    before = np.flatnonzero(rng.random(count) < EARLIER_ADMISSION)
    earlier = _earlier_admissions(rng, person[before], start[before])
    admissions = _merge([earlier, index, later], "hadm_id")
    all_stays = _merge([stays, stays_2], "stay_id")
    last = np.searchsorted(admissions.person, person, side="right") - 1
    people = People(
        subject_id=SUBJECT + person,
        female=female,
        anchor_age=age,
        anchor_year=year,
        chronic=chronic,
        died_at=_date_of_death(rng, person, last, admissions.discharged, admissions.died),
    )
    where = np.searchsorted(admissions.hadm_id, all_stays.hadm_id)
    return World(people=people, admissions=admissions, stays=replace(all_stays, admission=where))
