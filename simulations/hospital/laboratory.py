"""The laboratory: ``labevents`` of the synthetic hospitals.

Why draws and panels: values of one sample share a specimen, and a sample is taken because somebody worried. The sicker
are drawn more often and get the panels that others do not (liver, clotting, blood gas), so what is missing says
something, too. Emergency-department samples come before the admission and carry no hadm_id, as in MIMIC-IV.
Shapes: ``sk`` stays x draws; the first two draws of a stay come before intensive care.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simulations.hospital.course import STAY, Admissions, Stays, hours, to_minute
from simulations.hospital.lab_panels import (
    GAS_ITEMS,
    GAS_LACTATE,
    GAS_LINE,
    GAS_LOGIT,
    GAS_SLOPE,
    LABS,
    OXYGEN_NEED,
    OXYGENATION,
    PANELS,
    REFERENCE,
)
from simulations.hospital.latents import Bools, Floats, Ints, by_unit, logistic
from simulations.hospital.mimic_csv import Column, labels, nullable
from simulations.hospital.physiology import draw, drivers
from simulations.hospital.support import CHARTED_UNTIL, Support, oxygen_fraction

BEFORE, DRAWS = 2, 48  # draws before intensive care and in it
EMERGENCY_DRAW, WARD_DRAW = 0.9, 0.7
FIRST_DRAW_H, INTERVAL_H, INTERVAL_SLOPE, SHORTEST_H, LONGEST_H = 1.5, 10.0, -3.0, 4.0, 20.0
SPOILED = 0.003  # results that are none
STORE_MINUTES = (30.0, 90.0)
LOW_FLOW, WRITTEN_ANYWAY = 28.0, 0.4  # percent of oxygen with little support; share of such samples that say so
ARTERIAL, VENOUS, NUMBER = 0, 1, 2
_WORDS = ("ART.", "VEN.", None)


@dataclass(frozen=True, kw_only=True)
class _Draws:
    """When blood was taken: hours since ICU admission, whether it happened, and whether before the admission."""

    hour_sk: Floats
    taken_sk: Bools
    emergency_sk: Bools


def _draw_times(rng: np.random.Generator, stays: Stays, admissions: Admissions) -> _Draws:
    n = stays.stay_id.size
    delay = (stays.intime - admissions.admitted[stays.admission]).astype(np.float64) / 3600.0
    first_stay = stays.since_first_h == 0.0
    emergency = admissions.emergency[stays.admission] & first_stay & (rng.random(n) < EMERGENCY_DRAW)
    ward = first_stay & (delay > 3.0) & (rng.random(n) < WARD_DRAW)
    interval = np.clip(INTERVAL_H + INTERVAL_SLOPE * stays.latents.severity, SHORTEST_H, LONGEST_H)
    interval = interval * by_unit("lab_interval")[stays.latents.unit]
    steps = interval[:, None] * rng.uniform(0.7, 1.3, (n, DRAWS))
    steps[:, 0] = rng.uniform(0.1, FIRST_DRAW_H, n)
    inside = np.cumsum(steps, axis=1)
    before = np.stack([-delay - rng.uniform(0.3, 2.5, n), -rng.uniform(0.3, 1.0, n) * np.minimum(delay, 8.0)], axis=1)
    on_ward = inside < np.minimum(stays.hours, CHARTED_UNTIL)[:, None]
    seen = np.concatenate([emergency[:, None], ward[:, None], on_ward], axis=1)
    no_admission = np.zeros_like(seen)
    no_admission[:, 0] = True
    return _Draws(hour_sk=np.concatenate([before, inside], axis=1), taken_sk=seen, emergency_sk=no_admission)


@dataclass
class _Results:
    """Results in the making: stay, draw, specimen of the draw, item, number, and a word instead of a number."""

    columns: list[tuple[Ints, Ints, Ints, Ints, Floats, Ints]] = field(default_factory=list)

    def add(self, itemid: int, panel: int, where_sk: Bools, number_sk: Floats, word_sk: Ints | None = None) -> None:
        stay, point = np.nonzero(where_sk)
        word = np.full(stay.size, NUMBER) if word_sk is None else word_sk[stay, point]
        same = np.ones_like(stay)
        self.columns.append((stay, point, panel * same, itemid * same, number_sk[stay, point], word))


def _chemistry_and_counts(rng: np.random.Generator, results: _Results, stays: Stays, draws: _Draws) -> None:
    """Add every panel but the blood gas; chloride closes the anion gap and hematocrit follows hemoglobin."""
    moved = drivers(stays, draws.hour_sk)
    values = {itemid: draw(rng, quantity, moved) for itemid, quantity in LABS.items()}
    values[50902] = values[50983] - values[50882] - values[50868]
    values[51221] = np.round(3.0 * values[51222] + rng.normal(0.0, 0.6, draws.hour_sk.shape), 1)
    for number, panel in enumerate(PANELS):
        logit = panel.base + panel.slope * stays.latents.severity[:, None]
        taken = draws.taken_sk & (rng.random(draws.hour_sk.shape) < logistic(logit))
        for itemid in panel.items:
            results.add(itemid, number, taken, values[itemid])


def _blood_gases(rng: np.random.Generator, results: _Results, stays: Stays, draws: _Draws, support: Support) -> None:
    """Add blood gases: arterial where there is a line, else often venous; oxygen only when it is written down."""
    shape, moved = draws.hour_sk.shape, drivers(stays, draws.hour_sk)
    line = support.arterial_line[:, None] & (draws.hour_sk > 0.0)
    logit = GAS_LOGIT + GAS_SLOPE * stays.latents.severity[:, None] + GAS_LINE * line
    taken = draws.taken_sk & (rng.random(shape) < logistic(logit))
    word = np.where(line | (rng.random(shape) < 0.35), ARTERIAL, VENOUS)
    tube = support.ventilated[:, None] & (draws.hour_sk >= support.ventilated_from_h[:, None])
    tube &= draws.hour_sk < support.ventilated_to_h[:, None]
    need = draw(rng, OXYGEN_NEED, moved)
    written = tube | (need > 0.9) | (rng.random(shape) < WRITTEN_ANYWAY)
    oxygen = np.where(tube | (need > 0.9), oxygen_fraction(need), LOW_FLOW)
    arterial = np.clip(draw(rng, OXYGENATION, moved) * oxygen / 100.0, 35.0, 480.0)
    values = {itemid: draw(rng, LABS[itemid], moved) for itemid in (50820, 50818, 50813)}
    venous = np.clip(rng.normal(40, 8, shape), 20, 70)
    values[50821] = np.asarray(np.round(np.where(word == ARTERIAL, arterial, venous)), dtype=np.float64)
    values[50816] = oxygen
    seen = {50816: written & (rng.random(shape) < 0.7), 50813: rng.random(shape) < GAS_LACTATE}
    for itemid in GAS_ITEMS[1:]:
        results.add(itemid, len(PANELS), taken & seen.get(itemid, taken), values[itemid])
    results.add(GAS_ITEMS[0], len(PANELS), taken, np.full(shape, np.nan), word)


def labevents(
    rng: np.random.Generator, stays: Stays, admissions: Admissions, support: Support, *, first_id: int
) -> dict[str, Column]:
    """Return the table's columns, sorted by stay, time and item; identifiers count from ``first_id``."""
    draws, results = _draw_times(rng, stays, admissions), _Results()
    _chemistry_and_counts(rng, results, stays, draws)
    _blood_gases(rng, results, stays, draws, support)
    stay, point, panel, itemid, number, word = (np.concatenate(part) for part in zip(*results.columns, strict=True))
    order = np.lexsort((itemid, panel, point, stay))
    stay, point, panel, itemid, word = (column[order] for column in (stay, point, panel, itemid, word))
    spoiled = (word == NUMBER) & (rng.random(stay.size) < SPOILED)
    number = np.where(spoiled, np.nan, number[order])
    taken = to_minute(stays.intime[stay] + hours(draws.hour_sk[stay, point]))
    stored = to_minute(taken + hours(rng.uniform(*STORE_MINUTES, stay.size) / 60.0))
    specimen = (stays.stay_id[stay] - STAY) * 400 + point * (len(PANELS) + 1) + panel
    urgent = (point < BEFORE) | (panel == len(PANELS))
    return {
        "labevent_id": first_id + np.arange(stay.size),
        "subject_id": stays.subject_id[stay],
        "hadm_id": nullable(stays.hadm_id[stay], draws.emergency_sk[stay, point]),
        "specimen_id": 10_000_000 + specimen,
        "itemid": itemid,
        "charttime": taken,
        "storetime": stored,
        "priority": labels(["ROUTINE", "STAT"], urgent.astype(np.int64)),
        "comments": labels([None, "Specimen hemolyzed."], spoiled.astype(np.int64)),
        **_values(itemid, number, word, spoiled),
    }


def _values(itemid: Ints, number: Floats, word: Ints, spoiled: Bools) -> dict[str, Column]:
    """Return the result, its unit, the limits of normal and the flag outside of them."""
    items = np.array(sorted(REFERENCE))
    code = np.searchsorted(items, itemid)
    units, lower, upper = zip(*(REFERENCE[item] for item in items.tolist()), strict=True)
    low, high = np.array(lower)[code], np.array(upper)[code]
    abnormal = (number < low) | (number > high)
    written = pc.if_else(pa.array(spoiled), pa.scalar("___"), pa.array(number, from_pandas=True).cast(pa.string()))
    return {
        "value": pc.if_else(pa.array(word == NUMBER), written, labels(_WORDS, word)),
        "valuenum": number,
        "valueuom": labels(units, code),
        "ref_range_lower": low,
        "ref_range_upper": high,
        "flag": labels([None, "abnormal"], abnormal.astype(np.int64)),
    }
