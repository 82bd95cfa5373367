"""Infusions and procedures: ``inputevents`` and ``procedureevents`` of the synthetic hospitals.

Norepinephrine follows the need for it; the other vasopressors are a habit of the unit or come on top of high doses. As
in MIMIC-IV, now and then a stay's norepinephrine is entered in mg/kg/min, and boluses of fluid share the table.
Shapes: ``sk`` stays x grid points of ``Support``.
"""

from dataclasses import dataclass, field

import numpy as np

from simulations.hospital.course import Stays, Times, hours
from simulations.hospital.latents import UNITS, Bools, Floats, Ints
from simulations.hospital.mimic_csv import Column, labels
from simulations.hospital.support import Support

NOREPINEPHRINE, EPINEPHRINE, DOPAMINE = 221906, 221289, 221662
DOBUTAMINE, PHENYLEPHRINE, VASOPRESSIN, SALINE = 221653, 221749, 222315, 225158
VENTILATION, ARTERIAL_LINE = 225792, 225752
PER_KG, PER_G, PER_HOUR, NONE = 0, 1, 2, 3  # units of rate
_RATE_UNITS = ("mcg/kg/min", "mg/kg/min", "units/hour", None)
_AMOUNT_UNITS = ("mg", "mg", "units", "ml")
_CATEGORIES = ("Continuous Med", "Continuous Med", "Continuous Med", "Bolus")

MILLIGRAM_STAYS = 0.02  # share of stays with norepinephrine in mg/kg/min
PHENYLEPHRINE_UNITS, PHENYLEPHRINE_SHARE, PHENYLEPHRINE_BELOW = ("CVICU", "TSICU", "Neuro"), 0.5, 0.08
VASOPRESSIN_ABOVE, VASOPRESSIN_RATE = 0.2, 2.4  # mcg/kg/min of norepinephrine; units/hour
EPINEPHRINE_ABOVE, EPINEPHRINE_SHARE = 0.3, 0.3
INOTROPE_UNITS, INOTROPE_SHARE, DOPAMINE_SHARE = ("CCU", "CVICU"), 0.15, 0.05


@dataclass
class _Infusions:
    """Infusions in the making: stay, start, end, item, rate and unit of rate; with grid points or without."""

    columns: list[tuple[Ints, Times, Times, Ints, Floats, Ints]] = field(default_factory=list)

    def add(self, itemid: int, stay: Ints, span: tuple[Times, Times], rate: Floats, unit: Ints) -> None:
        self.columns.append((stay, *span, np.full(stay.size, itemid), rate, unit))


def _in_units(stays: Stays, names: tuple[str, ...]) -> Bools:
    return np.array([any(name in unit.name for name in names) for unit in UNITS])[stays.latents.unit]


def _pressors(rng: np.random.Generator, into: _Infusions, stays: Stays, support: Support) -> None:
    """Add one row per drug and grid step during which it runs."""
    n, dose = stays.stay_id.size, support.values["pressor_dose"]
    running = support.charted_sk & (dose > 0.0)
    until = np.minimum(np.roll(support.time_sk, -1, axis=1), np.broadcast_to(stays.outtime[:, None], dose.shape))
    until[:, -1] = np.minimum(support.time_sk[:, -1] + np.timedelta64(3600, "s"), stays.outtime)
    gentle = _in_units(stays, PHENYLEPHRINE_UNITS) & (rng.random(n) < PHENYLEPHRINE_SHARE)
    gentle_sk = gentle[:, None] & (dose < PHENYLEPHRINE_BELOW)
    inotrope = (_in_units(stays, INOTROPE_UNITS) & (rng.random(n) < INOTROPE_SHARE))[:, None]
    dopamine = (rng.random(n) < DOPAMINE_SHARE)[:, None]
    severe = (dose > EPINEPHRINE_ABOVE) & (rng.random((n, 1)) < EPINEPHRINE_SHARE)
    for itemid, where, rate, unit in (
        (NOREPINEPHRINE, ~gentle_sk, dose, PER_KG),
        (PHENYLEPHRINE, gentle_sk, dose * 10.0, PER_KG),
        (VASOPRESSIN, dose > VASOPRESSIN_ABOVE, np.full_like(dose, VASOPRESSIN_RATE), PER_HOUR),
        (EPINEPHRINE, severe, dose * 0.2, PER_KG),
        (DOBUTAMINE, inotrope, np.clip(dose * 40.0, 2.5, 10.0), PER_KG),
        (DOPAMINE, dopamine, np.clip(dose * 50.0, 2.0, 20.0), PER_KG),
    ):
        stay, point = np.nonzero(running & where & (until > support.time_sk))
        span = (support.time_sk[stay, point], until[stay, point])
        into.add(itemid, stay, span, rate[stay, point], np.full(stay.size, unit))


def _boluses(rng: np.random.Generator, into: _Infusions, stays: Stays) -> None:
    """Add fluid boluses of the first day; the infected and the severely ill get more."""
    latents = stays.latents
    number = rng.poisson(np.exp(0.1 + 0.4 * latents.infected + 0.25 * np.clip(latents.severity, -3, 3)))
    stay = np.repeat(np.arange(number.size), number)
    start = stays.intime[stay] + hours(rng.uniform(0.1, 1.0, stay.size) * np.minimum(stays.hours[stay], 24.0))
    end = np.minimum(start + np.timedelta64(1800, "s"), stays.outtime[stay])
    kept = end > start
    stay, span = stay[kept], (start[kept], end[kept])
    into.add(SALINE, stay, span, np.full(stay.size, np.nan), np.full(stay.size, NONE))


def inputevents(rng: np.random.Generator, stays: Stays, support: Support, *, first_id: int) -> dict[str, Column]:
    """Return the table's columns, sorted by stay, time and item."""
    made = _Infusions()
    _pressors(rng, made, stays, support)
    _boluses(rng, made, stays)
    stay, start, end, itemid, rate, unit = (np.concatenate(part) for part in zip(*made.columns, strict=True))
    order = np.lexsort((itemid, start, stay))
    stay, start, end, itemid = stay[order], start[order], end[order], itemid[order]
    rate, unit = rate[order], unit[order]
    milligrams = (rng.random(stays.stay_id.size) < MILLIGRAM_STAYS)[stay] & (itemid == NOREPINEPHRINE)
    weight = support.weight_kg[stay]
    duration = (end - start).astype(np.float64) / 3600.0
    per_kg = rate * weight * 60.0 * duration / 1000.0
    amount = np.where(unit == PER_KG, per_kg, np.where(unit == PER_HOUR, rate * duration, 500.0))
    unit = np.where(milligrams, PER_G, unit)
    return {
        "subject_id": stays.subject_id[stay],
        "hadm_id": stays.hadm_id[stay],
        "stay_id": stays.stay_id[stay],
        "starttime": start,
        "endtime": end,
        "storetime": end,
        "itemid": itemid,
        "amount": amount.round(4),
        "amountuom": labels(_AMOUNT_UNITS, unit),
        "rate": np.where(milligrams, rate / 1000.0, rate).round(7),
        "rateuom": labels(_RATE_UNITS, unit),
        "orderid": first_id + np.arange(stay.size),
        "linkorderid": first_id + np.arange(stay.size),
        "ordercategorydescription": labels(_CATEGORIES, unit),
        "patientweight": weight,
        "statusdescription": labels(["FinishedRunning"], unit * 0),
    }


def procedureevents(stays: Stays, support: Support, *, first_id: int) -> dict[str, Column]:
    """Return invasive ventilation and arterial lines with their start and end."""
    tube, line = np.flatnonzero(support.ventilated), np.flatnonzero(support.arterial_line)
    stay = np.concatenate([tube, line])
    start_h = np.concatenate([support.ventilated_from_h[tube], np.full(line.size, 0.5)])
    end_h = np.concatenate([support.ventilated_to_h[tube], stays.hours[line]])
    itemid = np.repeat([VENTILATION, ARTERIAL_LINE], [tube.size, line.size])
    order = np.lexsort((itemid, stay))
    stay, start_h, end_h, itemid = stay[order], start_h[order], end_h[order], itemid[order]
    start = stays.intime[stay] + hours(start_h)
    end = np.minimum(stays.intime[stay] + hours(end_h), stays.outtime[stay])
    kinds = (itemid == ARTERIAL_LINE).astype(np.int64)
    return {
        "subject_id": stays.subject_id[stay],
        "hadm_id": stays.hadm_id[stay],
        "stay_id": stays.stay_id[stay],
        "starttime": start,
        "endtime": end,
        "storetime": end,
        "itemid": itemid,
        "value": np.round((end - start).astype(np.float64) / 60.0),
        "valueuom": labels(["min"], kinds * 0),
        "orderid": first_id + np.arange(stay.size),
        "linkorderid": first_id + np.arange(stay.size),
        "ordercategoryname": labels(["Ventilation", "Invasive Lines"], kinds),
        "ordercategorydescription": labels(["ContinuousProcess"], kinds * 0),
        "patientweight": support.weight_kg[stay],
        "statusdescription": labels(["FinishedRunning"], kinds * 0),
    }
