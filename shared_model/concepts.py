"""The concept dictionary: what is measured, under which codes, in which unit, in which plausible range.

Why data and not code: a clinician can review it, a site can be mapped to it, and a change to it changes the contract.
Item ids are MIMIC-IV's (``chart``: icu/chartevents, ``lab``: hosp/labevents). A value outside ``[low, high]`` after
conversion is read once more by the concept's ``alternates`` (another unit that people write into the same field), each
counted under its rule; what fits none is rejected and counted, never clipped. Ranges start from notes of the field
(ricu's concept dictionary; mimic-code's filters).
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Alternate:
    """A raw value in ``(low, high]`` that its own conversion puts out of range is value * factor + offset instead."""

    rule: str
    low: float
    high: float
    factor: float
    offset: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One measured quantity; ``conversions`` maps an item id to (factor, offset): value * factor + offset. ``crowded``:
    most values lie near ``low``, so the bins of its histograms are narrow there (shared_model/distribution.py)."""

    name: str
    unit: str
    low: float
    high: float
    chart: tuple[int, ...] = ()
    lab: tuple[int, ...] = ()
    conversions: dict[int, tuple[float, float]] = field(default_factory=dict)
    alternates: tuple[Alternate, ...] = ()
    crowded: bool = False


# Item ids of our own, for what other hospitals measure and MIMIC-IV has no item for.
PROCALCITONIN, GCS_TOTAL = 9_000_001, 9_000_002
FAHRENHEIT = (5 / 9, -160 / 9)
POUND, INCH = 0.45359237, 2.54

# Events that are no single chart or laboratory value; client/events.py derives them.
VASOPRESSOR = Concept(name="vasopressor", unit="mcg/kg/min", low=0, high=20, crowded=True)
URINE = Concept(name="urine", unit="mL", low=-5000, high=5000)
GCS = Concept(name="gcs", unit="points", low=3, high=15)
PAO2FIO2 = Concept(name="pao2fio2", unit="mmHg", low=10, high=4000, crowded=True)
VENTILATION = Concept(name="ventilation", unit="level", low=0, high=4)

# The state of breathing support as a level of the concept ``ventilation``; the names are those of sepsis_rules.
VENTILATION_LEVELS: dict[str, int] = {
    "None": 0,
    "SupplementalOxygen": 1,
    "HFNC": 2,
    "NonInvasiveVent": 3,
    "InvasiveVent": 4,
    "Tracheostomy": 4,
}

# mcg/kg/min of norepinephrine for one unit of the drug's own rate; vasopressin's is units/hour.
NOREPINEPHRINE_EQUIVALENT: dict[int, float] = {
    221906: 1.0,  # norepinephrine
    221289: 1.0,  # epinephrine
    221749: 0.1,  # phenylephrine
    221662: 0.01,  # dopamine
    222315: 2.5 / 60,  # vasopressin
}
URINE_ITEMIDS = (
    226557,
    226558,
    226559,
    226560,
    226561,
    226563,
    226564,
    226565,
    226567,
    226584,
    227488,
    227489,
)
URINE_IRRIGANT_IN = 227488

CONCEPTS: tuple[Concept, ...] = (
    Concept(name="heart_rate", unit="/min", low=0, high=300, chart=(220045,)),
    Concept(name="resp_rate", unit="/min", low=0, high=70, chart=(220210, 224690)),
    Concept(name="sbp", unit="mmHg", low=20, high=300, chart=(220179, 220050)),
    Concept(name="dbp", unit="mmHg", low=5, high=225, chart=(220180, 220051)),
    Concept(name="mbp", unit="mmHg", low=0, high=300, chart=(220052, 220181, 225312)),
    Concept(
        name="temperature",
        unit="C",
        low=32,
        high=42,
        chart=(223762, 223761),
        conversions={223761: FAHRENHEIT},
        alternates=(
            Alternate(
                rule="Fahrenheit in a Celsius item", low=89.5, high=107.7, factor=FAHRENHEIT[0], offset=FAHRENHEIT[1]
            ),
            Alternate(rule="Celsius in a Fahrenheit item", low=31.9, high=42.0, factor=1.0),
        ),
    ),
    Concept(name="spo2", unit="%", low=50, high=100, chart=(220277,)),
    Concept(
        name="fio2",
        unit="%",
        low=20,
        high=100,
        chart=(223835,),
        alternates=(Alternate(rule="fraction as percent", low=0.2, high=1.0, factor=100.0),),
    ),
    Concept(name="gcs_eyes", unit="points", low=1, high=4, chart=(220739,)),
    Concept(name="gcs_verbal", unit="points", low=1, high=5, chart=(223900,)),
    Concept(name="gcs_motor", unit="points", low=1, high=6, chart=(223901,)),
    Concept(name="glucose", unit="mg/dL", low=10, high=2000, crowded=True, chart=(220621,), lab=(50931,)),
    Concept(name="lactate", unit="mmol/L", low=0, high=50, crowded=True, lab=(50813,)),
    Concept(name="ph", unit="", low=6.8, high=7.8, lab=(50820,)),
    Concept(name="pao2", unit="mmHg", low=10, high=800, crowded=True, lab=(50821,)),
    Concept(name="paco2", unit="mmHg", low=5, high=200, lab=(50818,)),
    Concept(name="creatinine", unit="mg/dL", low=0, high=28, crowded=True, lab=(50912,)),
    Concept(name="bun", unit="mg/dL", low=0, high=300, crowded=True, lab=(51006,)),
    Concept(name="bilirubin", unit="mg/dL", low=0, high=100, crowded=True, lab=(50885,)),
    Concept(name="platelets", unit="K/uL", low=5, high=1200, lab=(51265,)),
    Concept(name="wbc", unit="K/uL", low=0, high=500, crowded=True, lab=(51301, 51300)),
    Concept(name="hemoglobin", unit="g/dL", low=2, high=25, lab=(51222,)),
    Concept(name="hematocrit", unit="%", low=5, high=75, lab=(51221,)),
    Concept(name="sodium", unit="mmol/L", low=110, high=165, lab=(50983,)),
    Concept(name="potassium", unit="mmol/L", low=1, high=12, lab=(50971,)),
    Concept(name="chloride", unit="mmol/L", low=60, high=150, lab=(50902,)),
    Concept(name="bicarbonate", unit="mmol/L", low=0, high=50, lab=(50882,)),
    Concept(name="aniongap", unit="mmol/L", low=-5, high=60, lab=(50868,)),
    Concept(name="inr", unit="", low=0.5, high=30, crowded=True, lab=(51237,)),
    Concept(name="crp", unit="mg/L", low=0, high=1000, crowded=True, chart=(227444, 220612), lab=(50889,)),
    Concept(name="pct", unit="ng/mL", low=0, high=1000, crowded=True, lab=(PROCALCITONIN,)),
    Concept(name="albumin", unit="g/dL", low=0.5, high=7, lab=(50862,)),
    Concept(name="alp", unit="U/L", low=0, high=4000, crowded=True, lab=(50863,)),
    Concept(name="alt", unit="U/L", low=0, high=20000, crowded=True, lab=(50861,)),
    Concept(name="ast", unit="U/L", low=0, high=30000, crowded=True, lab=(50878,)),
    Concept(name="magnesium", unit="mg/dL", low=0.2, high=10, lab=(50960,)),
    Concept(
        name="weight",
        unit="kg",
        low=20,
        high=400,
        chart=(226512, 224639, 226531),
        conversions={226531: (POUND, 0.0)},
    ),
    Concept(
        name="height",
        unit="cm",
        low=100,
        high=250,
        chart=(226730, 226707),
        conversions={226707: (INCH, 0.0)},
    ),
)

BY_NAME: dict[str, Concept] = {c.name: c for c in (*CONCEPTS, VASOPRESSOR, URINE, GCS, PAO2FIO2, VENTILATION)}
CHART_ITEMIDS = frozenset(i for c in CONCEPTS for i in c.chart)
LAB_ITEMIDS = frozenset(i for c in CONCEPTS for i in c.lab)
