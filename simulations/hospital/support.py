"""Organ support of each stay: ventilation, lines, vasopressors and the hour grid they are charted on.

Why apart: the charts, the infusions, the blood gases and the radiology reports must agree on who is ventilated and
since when. The grid is hourly for 48 hours and four-hourly after that, ten days at most: files stay small and the first
day is dense. Shapes: ``S`` stays, ``SK`` stays x grid points.
"""

from dataclasses import dataclass

import numpy as np

from simulations.hospital.course import Stays, Times, hours
from simulations.hospital.latents import ORGANS, Bools, Floats, Ints, by_unit, logistic
from simulations.hospital.physiology import BEDSIDE, Drivers, draw, drivers

HOURLY_UNTIL, STEP_AFTER, CHARTED_UNTIL = 48, 4, 240
VENTILATION_LOGIT, ARTERIAL_LOGIT = -0.75, -0.7
CATHETER_SHARE = 0.75
PRESSOR_FROM, PRESSOR_DOSE, PRESSOR_GROWTH = 1.0, 0.04, 0.9  # need; mcg/kg/min of norepinephrine; per unit of need
PRESSOR_LIFT = 3.0  # mmHg


@dataclass(frozen=True, kw_only=True)
class Support:
    """What keeps each patient going, and the measured quantities on the charting grid."""

    hour_sk: Floats
    """Hours since ICU admission."""
    time_sk: Times
    charted_sk: Bools
    """Grid points before the stay ends."""
    values: dict[str, Floats]
    """Each of ``physiology.BEDSIDE``, SK, and ``fio2`` in percent, ``pressor_dose`` in mcg/kg/min."""
    ventilated: Bools
    ventilated_from_h: Floats
    ventilated_to_h: Floats
    arterial_line: Bools
    catheter: Bools
    weight_kg: Floats
    height_cm: Floats

    @property
    def ventilated_sk(self) -> Bools:
        """Whether a tube is in at each grid point."""
        after = self.hour_sk >= self.ventilated_from_h[:, None]
        return np.asarray(self.ventilated[:, None] & after & (self.hour_sk < self.ventilated_to_h[:, None]))


def grid_hours() -> Floats:
    """Return the charting grid, whole hours."""
    return np.concatenate([np.arange(HOURLY_UNTIL), np.arange(HOURLY_UNTIL, CHARTED_UNTIL, STEP_AFTER)]).astype(
        np.float64
    )


def oxygen_fraction(need: Floats) -> Floats:
    """Return the FiO2 (percent, steps of 5) that a need for oxygen gets."""
    return np.asarray(np.clip(5.0 * np.round((43.0 + 14.0 * np.maximum(need, -0.6)) / 5.0), 30.0, 100.0))


def pressor_dose(need: Floats) -> Floats:
    """Return norepinephrine in mcg/kg/min; 0 below the threshold of need."""
    dose = PRESSOR_DOSE * np.exp(PRESSOR_GROWTH * (need - PRESSOR_FROM))
    return np.asarray(np.where(need > PRESSOR_FROM, np.clip(dose, 0.0, 1.5), 0.0).round(3))


def _values(rng: np.random.Generator, drivers_sk: Drivers) -> dict[str, Floats]:
    values = {name: draw(rng, quantity, drivers_sk) for name, quantity in BEDSIDE.items()}
    values["fio2"] = oxygen_fraction(values["oxygen_need"])
    values["pressor_dose"] = pressor_dose(values["pressor_need"])
    values["mean_pressure"] = values["mean_pressure"] + PRESSOR_LIFT * (values["pressor_dose"] > 0)
    return values


def _ventilation(rng: np.random.Generator, stays: Stays) -> tuple[Bools, Floats, Floats]:
    """Draw who is ventilated, from when and until when, in hours since ICU admission."""
    latents, n = stays.latents, stays.stay_id.size
    lungs, brain = latents.organs[:, ORGANS.index("respiration")], latents.organs[:, ORGANS.index("brain")]
    shift = by_unit("ventilated")[latents.unit]
    chance = logistic(VENTILATION_LOGIT + 0.9 * lungs + 0.4 * latents.lung + 0.4 * brain + shift)
    start = np.where(shift > 1.0, 0.1, rng.exponential(3.0, n))
    length = np.where(shift > 1.0, 10.0, 34.0) * np.exp(0.3 * lungs + rng.normal(0.0, 0.7, n))
    return rng.random(n) < chance, start, np.minimum(start + np.clip(length, 3.0, 600.0), stays.hours)


def draw_support(rng: np.random.Generator, stays: Stays, female: Bools) -> Support:
    """Draw support and bedside quantities; ``female`` has one entry a stay (it sets height and weight)."""
    n = stays.stay_id.size
    first = stays.intime.astype("datetime64[h]").astype("datetime64[s]") + np.timedelta64(3600, "s")
    time_sk = first[:, None] + hours(grid_hours())[None, :]
    hour_sk = np.asarray((time_sk - stays.intime[:, None]).astype(np.float64) / 3600.0)
    ventilated, start, end = _ventilation(rng, stays)
    heart = stays.latents.organs[:, ORGANS.index("circulation")]
    arterial = logistic(ARTERIAL_LOGIT + 0.9 * heart + by_unit("arterial")[stays.latents.unit])
    height = np.where(female, rng.normal(162, 7, n), rng.normal(176, 8, n)).round()
    weight = np.where(female, 27.5, 28.0) * (height / 100) ** 2 * np.exp(rng.normal(0.0, 0.2, n))
    return Support(
        hour_sk=hour_sk,
        time_sk=time_sk,
        charted_sk=time_sk < stays.outtime[:, None],
        values=_values(rng, drivers(stays, hour_sk)),
        ventilated=ventilated & (end > start + 1.0),
        ventilated_from_h=start,
        ventilated_to_h=end,
        arterial_line=rng.random(n) < arterial,
        catheter=rng.random(n) < CATHETER_SHARE,
        weight_kg=np.clip(weight, 35.0, 220.0).round(1),
        height_cm=height,
    )


def four_hourly(points: int) -> Ints:
    """Return 1 for the grid points of a four-hourly round, of all ``points``."""
    k = np.arange(points)
    return np.asarray((k % 4 == 0) | (k >= HOURLY_UNTIL), dtype=np.int64)
