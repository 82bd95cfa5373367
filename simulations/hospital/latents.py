"""How ill the synthetic patients are, and whether they die: the hidden half of the model in ``synthetic``.

Why: a score is only worth reporting when the best attainable one is known. Every stay here carries its true risk, and
one risk function serves all care units, so the units differ in whom they admit and never in how illness kills.

Sizes: ``N`` rows (one per admission with intensive care), 6 organs in the order of ``ORGANS``.
"""

from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ORGANS = ("circulation", "respiration", "kidneys", "liver", "coagulation", "brain")
SOURCES = ("lung", "urine", "abdomen", "line")
SOURCE_SHARES = (0.42, 0.25, 0.20, 0.13)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One care unit: its size and death rate in MIMIC-IV, whom it admits, and what it does differently."""

    name: str
    stays: int
    """Stays in MIMIC-IV v3.1, see docs; only the proportions matter."""
    death_rate: float
    """In-hospital deaths per stay in MIMIC-IV v3.1, see docs."""
    severity: float
    """Mean severity of its patients, solved numerically so that the one risk function gives ``death_rate``."""
    infected: float
    """Share of stays with an infection at ICU admission."""
    age: float
    """Mean age, years."""
    organs: dict[str, float] = field(default_factory=dict)
    """The organs that bring patients to this unit, on the scale of severity."""
    ventilated: float = 0.0
    """Shift of the logit of invasive ventilation."""
    arterial: float = 0.0
    """Shift of the logit of an arterial line."""
    celsius: float = 0.03
    """Share of stays whose temperature is charted in degrees Celsius."""
    notes: float = 0.0
    """Shift of the logit of a radiology report."""
    lab_interval: float = 1.0
    """How much rarer (above one) or more frequent (below one) its laboratory draws are."""
    emergency: float = 0.6
    """Share of admissions through the emergency department."""


UNITS: tuple[Unit, ...] = (
    Unit(
        name="Medical Intensive Care Unit (MICU)",
        stays=20_703,
        death_rate=0.166,
        severity=0.12,
        infected=0.68,
        age=64,
        emergency=0.75,
    ),
    Unit(
        name="Medical/Surgical Intensive Care Unit (MICU/SICU)",
        stays=15_449,
        death_rate=0.155,
        severity=0.06,
        infected=0.65,
        age=64,
        organs={"liver": 0.1},
        emergency=0.72,
    ),
    Unit(
        name="Cardiac Vascular Intensive Care Unit (CVICU)",
        stays=14_771,
        death_rate=0.044,
        severity=-0.83,
        infected=0.22,
        age=67,
        organs={"coagulation": 0.3},
        ventilated=1.8,
        arterial=2.6,
        celsius=0.85,
        notes=0.4,
        lab_interval=0.8,
        emergency=0.12,
    ),
    Unit(
        name="Surgical Intensive Care Unit (SICU)",
        stays=13_009,
        death_rate=0.119,
        severity=-0.12,
        infected=0.54,
        age=63,
        ventilated=0.4,
        arterial=0.8,
        emergency=0.55,
    ),
    Unit(
        name="Coronary Care Unit (CCU)",
        stays=10_775,
        death_rate=0.137,
        severity=0.04,
        infected=0.40,
        age=68,
        organs={"circulation": 0.3},
    ),
    Unit(
        name="Trauma SICU (TSICU)",
        stays=10_474,
        death_rate=0.110,
        severity=-0.04,
        infected=0.46,
        age=58,
        organs={"brain": 0.2},
        ventilated=0.4,
        arterial=0.5,
        celsius=0.25,
        emergency=0.7,
    ),
    Unit(
        name="Neuro Intermediate",
        stays=5_776,
        death_rate=0.020,
        severity=-1.33,
        infected=0.20,
        age=62,
        organs={"brain": 0.4},
        ventilated=-1.5,
        arterial=-1.0,
        notes=-0.9,
        lab_interval=1.3,
    ),
    Unit(
        name="Neuro Surgical Intensive Care Unit (Neuro SICU)",
        stays=1_751,
        death_rate=0.271,
        severity=0.88,
        infected=0.48,
        age=62,
        organs={"brain": 0.4},
        ventilated=0.4,
        arterial=0.8,
        notes=-0.2,
    ),
    Unit(
        name="Neuro Stepdown",
        stays=1_421,
        death_rate=0.017,
        severity=-1.45,
        infected=0.18,
        age=63,
        organs={"brain": 0.3},
        ventilated=-2.0,
        arterial=-1.5,
        notes=-1.1,
        lab_interval=1.4,
        emergency=0.5,
    ),
)

# Log odds of death in hospital, per unit of each latent; age in steps of AGE_STEP years from AGE_CENTRE.
RISK = {"base": -3.5, "severity": 1.62, "age": 0.5, "chronic": 0.2, "lung": 0.75, "infection": 0.3}
AGE_CENTRE, AGE_STEP, AGE_SD = 64.0, 16.0, 16.0
MINOR_SHARE = 0.008
ORGAN_SD = 0.2
INFECTION_SEVERITY = 0.4  # infected patients are more severely ill
LUNG_SOURCE_BURDEN = 0.7  # an infection of the lung adds this to the lung burden
TREATED_WITHOUT_INFECTION = 0.12
ACQUIRED_IN_ICU = 0.07


@dataclass(frozen=True, kw_only=True)
class Latents:
    """What the hospital cannot see, one row per admission with intensive care."""

    unit: Ints
    age: Floats
    chronic: Floats
    severity: Floats
    organs: Floats
    """N x 6: severity as each organ feels it."""
    lung: Floats
    """Lung burden: told by the radiology notes, only hinted at by the measurements."""
    infected: Bools
    """Infected at ICU admission, or within the six hours after it."""
    acquired: Bools
    """Infected later in the stay; no part of the risk, which is that at admission."""
    treated: Bools
    """Treated for an infection that is none."""
    source: Ints
    onset_h: Floats
    """Onset of the infection, or of its treatment, in hours from ICU admission."""
    risk: Floats
    died: Bools

    def take(self, rows: Ints | Bools) -> "Latents":
        """Return the given rows, repeated or left out as asked."""
        return Latents(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def by_unit(attribute: str) -> Floats:
    """Return one number of every unit, in the order of ``UNITS``."""
    return np.array([getattr(unit, attribute) for unit in UNITS], dtype=np.float64)


def unit_shares() -> Floats:
    """Return the units' shares of all stays."""
    stays = by_unit("stays")
    return np.asarray(stays / stays.sum())


def logistic(x: Floats) -> Floats:
    """Return 1 / (1 + exp(-x))."""
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def true_risk(*, severity: Floats, age: Floats, chronic: Floats, lung: Floats, infected: Bools) -> Floats:
    """Return the probability of death in hospital: the same function of the latents in every unit."""
    log_odds = (
        RISK["base"]
        + RISK["severity"] * severity
        + RISK["age"] * (age - AGE_CENTRE) / AGE_STEP
        + RISK["chronic"] * chronic
        + RISK["lung"] * lung
        + RISK["infection"] * infected
    )
    return logistic(np.asarray(log_odds))


def draw_ages(rng: np.random.Generator, unit: Ints) -> Floats:
    """Draw ages in whole years; above 89 MIMIC-IV says 91, and a few are minors."""
    ages = np.round(rng.normal(by_unit("age")[unit], AGE_SD))
    ages = np.where(ages > 89, 91, np.clip(ages, 18, None))
    minors = rng.random(unit.size) < MINOR_SHARE
    return np.asarray(np.where(minors, rng.integers(14, 18, unit.size), ages), dtype=np.float64)


def draw_latents(rng: np.random.Generator, *, unit: Ints, age: Floats, chronic: Floats) -> Latents:
    """Draw severity, organs, lung burden, infection, risk and outcome of one admission a row."""
    n = unit.size
    infected = rng.random(n) < by_unit("infected")[unit]
    acquired = ~infected & (rng.random(n) < ACQUIRED_IN_ICU)
    treated = ~infected & ~acquired & (rng.random(n) < TREATED_WITHOUT_INFECTION)
    source = rng.choice(len(SOURCES), size=n, p=SOURCE_SHARES)
    severity = rng.normal(by_unit("severity")[unit], 1.0) + INFECTION_SEVERITY * infected
    tilt = np.array([[unit_.organs.get(organ, 0.0) for organ in ORGANS] for unit_ in UNITS])
    organs = severity[:, None] + tilt[unit] + rng.normal(0.0, ORGAN_SD, (n, len(ORGANS)))
    lung = rng.normal(size=n) + LUNG_SOURCE_BURDEN * (infected & (source == SOURCES.index("lung")))
    early, late = np.clip(rng.normal(-3.0, 5.0, n), -20.0, 6.0), rng.uniform(30.0, 150.0, n)
    risk = true_risk(severity=severity, age=age, chronic=chronic, lung=lung, infected=infected)
    return Latents(
        unit=unit,
        age=age,
        chronic=chronic,
        severity=severity,
        organs=organs,
        lung=lung,
        infected=infected,
        acquired=acquired,
        treated=treated,
        source=source,
        onset_h=np.where(acquired, late, early),
        risk=risk,
        died=rng.random(n) < risk,
    )
