"""What the latents do to the body: every measured quantity as data, and one function that draws them all.

A quantity is ``base + sum(effect x latent) + a habit of the patient + a slow wander + a measurement error``, on a
natural or a logarithmic scale. Effects are per unit of the latent (severity as the organ feels it, lung burden, active
infection, chronic burden, age in steps of 16 years), so each measurement hints at the latents and only many of them
reveal these.

After its first 24 hours a stay drifts: those who will die worsen, the others recover. Before that the outcome has no
say. Shapes: ``SK`` is stays x time points.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from simulations.hospital.course import Stays
from simulations.hospital.latents import AGE_CENTRE, AGE_STEP, ORGANS, Bools, Floats

Drivers = Mapping[str, Floats]

DRIFT_AFTER_H, DRIFT_PER_DAY, DRIFT_MOST = 24.0, 0.35, 1.5
LUNG_DRIFT = 0.6
WANDER_MEMORY = 0.85


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A measured quantity: its usual value, what moves it, its three spreads and its limits, in MIMIC-IV's unit."""

    base: float
    effects: dict[str, float] = field(default_factory=dict)
    habit: float = 0.0
    """SD between patients who are equally ill."""
    wander: float = 0.0
    """SD of the slow movement within a stay."""
    error: float = 0.0
    """SD of the single measurement."""
    log: bool = False
    """Whether base, effects and SDs are those of the natural logarithm (base is given as the median itself)."""
    low: float
    high: float
    decimals: int = 0


BEDSIDE: dict[str, Quantity] = {
    "heart_rate": Quantity(
        base=84,
        effects={"circulation": 7.5, "infection": 4},
        habit=3.1,
        wander=4,
        error=3,
        low=28,
        high=210,
    ),
    "mean_pressure": Quantity(
        base=74,
        effects={"circulation": -6.0, "age": 1.0},
        habit=2.1,
        wander=3,
        error=3,
        low=25,
        high=160,
    ),
    "pulse_pressure": Quantity(
        base=50, effects={"circulation": -4, "age": 4}, habit=4.2, wander=3, error=3, low=12, high=120
    ),
    "respiratory_rate": Quantity(
        base=18.0,
        effects={"respiration": 2.4, "lung": 0.9, "infection": 0.7},
        habit=0.77,
        wander=1.3,
        error=1.5,
        low=5,
        high=60,
    ),
    "saturation": Quantity(
        base=96.6,
        effects={"respiration": -0.9, "lung": -0.35},
        habit=0.56,
        wander=0.6,
        error=0.8,
        low=60,
        high=100,
    ),
    "temperature": Quantity(
        base=98.4,
        effects={"infection": 0.8, "circulation": 0.1},
        habit=0.35,
        wander=0.4,
        error=0.2,
        low=90,
        high=107,
        decimals=1,
    ),
    "awareness": Quantity(
        base=0.0, effects={"brain": 1.0}, habit=0.1, wander=0.2, error=0.45, low=-9, high=9, decimals=3
    ),
    "urine_rate": Quantity(
        base=75, effects={"kidneys": -0.4}, habit=0.21, wander=0.2, error=0.45, log=True, low=0, high=900
    ),
    "glucose": Quantity(
        base=130, effects={"circulation": 0.14}, habit=0.12, wander=0.1, error=0.1, log=True, low=25, high=900
    ),
    "pressor_need": Quantity(
        base=0.0, effects={"circulation": 1.0}, habit=0.21, wander=0.2, low=-9, high=9, decimals=3
    ),
    "oxygen_need": Quantity(
        base=0.0,
        effects={"respiration": 0.8, "lung": 0.3},
        habit=0.28,
        wander=0.2,
        low=-9,
        high=9,
        decimals=3,
    ),
}


def drift(died: Bools, hour: Floats) -> Floats:
    """Return how far severity has moved from its value in the first 24 hours, towards death or recovery."""
    days = np.maximum(hour - DRIFT_AFTER_H, 0.0) / 24.0
    return np.asarray(np.where(died, 1.0, -1.0) * DRIFT_MOST * np.tanh(DRIFT_PER_DAY * days / DRIFT_MOST))


def infection_course(stays: Stays, hour_sk: Floats) -> Floats:
    """Return 0 before an infection's onset and 1 some hours after it."""
    latents = stays.latents
    since_onset = hour_sk + stays.since_first_h[:, None] - latents.onset_h[:, None]
    return np.asarray((latents.infected | latents.acquired)[:, None] / (1.0 + np.exp(-since_onset / 2.0)))


def drivers(stays: Stays, hour_sk: Floats) -> Drivers:
    """Return what moves the measurements at hours since ICU admission: each latent over time."""
    latents = stays.latents
    moved = drift(latents.died[:, None], hour_sk + stays.since_first_h[:, None])
    still = np.ones_like(hour_sk)
    courses = {organ: latents.organs[:, [i]] + moved for i, organ in enumerate(ORGANS)}
    return courses | {
        "lung": latents.lung[:, None] + LUNG_DRIFT * moved,
        "infection": infection_course(stays, hour_sk),
        "chronic": latents.chronic[:, None] * still,
        "age": (latents.age[:, None] - AGE_CENTRE) / AGE_STEP * still,
    }


def wander(rng: np.random.Generator, shape: tuple[int, ...], sd: float) -> Floats:
    """Return a stationary first-order autoregression along the second axis."""
    steps = rng.normal(0.0, sd, shape)
    steps[:, 1:] *= np.sqrt(1.0 - WANDER_MEMORY**2)
    for k in range(1, shape[1]):
        steps[:, k] += WANDER_MEMORY * steps[:, k - 1]
    return steps


def draw(rng: np.random.Generator, quantity: Quantity, drivers_sk: Drivers) -> Floats:
    """Draw one quantity at all time points, within its limits and rounded as it is charted."""
    shape = drivers_sk["age"].shape
    value = rng.normal(0.0, quantity.habit, (shape[0], 1)) + rng.normal(0.0, quantity.error, shape)
    if quantity.wander:
        value += wander(rng, shape, quantity.wander)
    for name, effect in quantity.effects.items():
        value += effect * drivers_sk[name]
    value = quantity.base * np.exp(value) if quantity.log else quantity.base + value
    return np.asarray(np.round(np.clip(value, quantity.low, quantity.high), quantity.decimals))
