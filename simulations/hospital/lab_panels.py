"""The laboratory's catalogue: how each value follows from the latents, who gets which panel, units and normal limits.

Why data: effect sizes are the model, so they are read in one place. Medians and spreads are near those of MIMIC-IV's
intensive-care patients; units are MIMIC-IV's. Keys are MIMIC-IV itemids.
"""

from dataclasses import dataclass

import numpy as np

from simulations.hospital.physiology import Quantity

LABS: dict[int, Quantity] = {
    50912: Quantity(
        base=1.15,
        effects={"kidneys": 0.40, "chronic": 0.10, "age": 0.05},
        habit=0.091,
        error=0.06,
        log=True,
        low=0.2,
        high=14.9,
        decimals=1,
    ),
    51006: Quantity(
        base=17,
        effects={"kidneys": 0.34, "chronic": 0.15, "age": 0.12},
        habit=0.1,
        error=0.07,
        log=True,
        low=3,
        high=220,
    ),
    50885: Quantity(
        base=0.92,
        effects={"liver": 0.50, "coagulation": 0.10},
        habit=0.2,
        error=0.08,
        log=True,
        low=0.1,
        high=45,
        decimals=1,
    ),
    51265: Quantity(base=172, effects={"coagulation": -0.30}, habit=0.1, error=0.06, log=True, low=5, high=1150),
    51301: Quantity(
        base=9.2,
        effects={"infection": 0.35, "circulation": 0.2},
        habit=0.17,
        error=0.10,
        log=True,
        low=0.1,
        high=90,
        decimals=1,
    ),
    51222: Quantity(
        base=10.8,
        effects={"chronic": -0.6, "coagulation": -0.55, "age": -0.1},
        habit=0.56,
        error=0.35,
        low=3.5,
        high=18.5,
        decimals=1,
    ),
    50983: Quantity(base=138.6, effects={"kidneys": 0.9}, habit=1.7, error=1.2, low=112, high=164),
    50971: Quantity(
        base=4.15, effects={"kidneys": 0.24, "chronic": 0.05}, habit=0.17, error=0.18, low=2.2, high=8.5, decimals=1
    ),
    50882: Quantity(base=24.0, effects={"circulation": -1.9, "kidneys": -0.7}, habit=0.7, error=0.9, low=4, high=46),
    50868: Quantity(base=13.6, effects={"circulation": 1.3, "kidneys": 0.7}, habit=0.56, error=0.9, low=4, high=40),
    50931: Quantity(base=128, effects={"circulation": 0.14}, habit=0.13, error=0.12, log=True, low=25, high=900),
    51237: Quantity(
        base=1.22,
        effects={"coagulation": 0.13, "liver": 0.10},
        habit=0.077,
        error=0.04,
        log=True,
        low=0.8,
        high=12,
        decimals=1,
    ),
    50813: Quantity(
        base=1.65, effects={"circulation": 0.42}, habit=0.1, error=0.12, log=True, low=0.4, high=24, decimals=1
    ),
    50820: Quantity(
        base=7.38,
        effects={"circulation": -0.025, "respiration": -0.012},
        habit=0.021,
        error=0.015,
        low=6.82,
        high=7.68,
        decimals=2,
    ),
    50818: Quantity(
        base=40, effects={"respiration": 1.2, "lung": 0.6, "circulation": -0.8}, habit=3.1, error=2.5, low=14, high=130
    ),
    50889: Quantity(
        base=22,
        effects={"infection": 1.3, "circulation": 0.25},
        habit=0.35,
        error=0.1,
        log=True,
        low=0.3,
        high=420,
        decimals=1,
    ),
    50862: Quantity(
        base=3.3,
        effects={"liver": -0.22, "chronic": -0.22, "infection": -0.1},
        habit=0.17,
        error=0.12,
        low=1.0,
        high=5.2,
        decimals=1,
    ),
}
OXYGENATION = Quantity(  # PaO2/FiO2, mmHg
    base=270, effects={"respiration": -0.26, "lung": -0.17}, habit=0.13, error=0.15, log=True, low=45, high=560
)
OXYGEN_NEED = Quantity(
    base=0.0, effects={"respiration": 0.8, "lung": 0.3}, habit=0.28, error=0.2, low=-9, high=9, decimals=3
)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Items measured on one specimen, and the logit of a draw's including them: ``base + slope x severity``."""

    items: tuple[int, ...]
    base: float
    slope: float


PANELS: tuple[Panel, ...] = (
    Panel(items=(50868, 50882, 50902, 50912, 50931, 50971, 50983, 51006), base=3.0, slope=0.2),
    Panel(items=(51221, 51222, 51265, 51301), base=2.2, slope=0.2),
    Panel(items=(51237,), base=-0.1, slope=0.6),
    Panel(items=(50862, 50885), base=-0.7, slope=0.6),
    Panel(items=(50889,), base=-3.6, slope=0.3),
)
GAS_ITEMS = (52033, 50820, 50821, 50818, 50816, 50813)
# Logit of a blood gas: base, per unit of severity, with an arterial line; share of gases with lactate.
GAS_LOGIT, GAS_SLOPE, GAS_LINE, GAS_LACTATE = -0.9, 0.7, 1.8, 0.85

# itemid: unit as MIMIC-IV writes it, lower and upper limit of normal
REFERENCE: dict[int, tuple[str | None, float, float]] = {
    50813: ("mmol/L", 0.5, 2.0),
    50816: ("%", np.nan, np.nan),
    50818: ("mm Hg", 35, 45),
    50820: ("units", 7.35, 7.45),
    50821: ("mm Hg", 85, 105),
    50862: ("g/dL", 3.5, 5.2),
    50868: ("mEq/L", 8, 20),
    50882: ("mEq/L", 22, 32),
    50885: ("mg/dL", 0.0, 1.5),
    50889: ("mg/L", 0.0, 5.0),
    50902: ("mEq/L", 96, 108),
    50912: ("mg/dL", 0.5, 1.2),
    50931: ("mg/dL", 70, 105),
    50971: ("mEq/L", 3.3, 5.1),
    50983: ("mEq/L", 133, 145),
    51006: ("mg/dL", 6, 20),
    51221: ("%", 36, 52),
    51222: ("g/dL", 12, 17.5),
    51237: (None, 0.9, 1.1),
    51265: ("K/uL", 150, 440),
    51301: ("K/uL", 4.0, 11.0),
    52033: (None, np.nan, np.nan),
}
