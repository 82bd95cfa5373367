"""From the unit that a hospital writes to the concept's: a factor and a shift, or nothing.

pint does the arithmetic. Ours is only what no library knows: how laboratories spell units, and the molar masses of what
they measure. A text that is no unit gives None, so that a row is rejected and counted instead of taken for something.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from client.mapping.targets import TARGETS

if TYPE_CHECKING:
    from pint import UnitRegistry

Own = Mapping[str, Mapping[str, float]]
Conversion = tuple[float, float]
LONGEST = 40
_NONE: Own = {}
# g/mol of what is measured: bun is the nitrogen of urea (two atoms a molecule), hemoglobin the monomer, lactate the
# acid.
MOLAR_MASS: dict[str, float] = {
    "creatinine": 113.12,
    "glucose": 180.156,
    "lactate": 90.08,
    "bilirubin": 584.66,
    "bun": 28.014,
    "hemoglobin": 16114.5,
    "magnesium": 24.305,
}
UREA_MASS = 60.06
# The concepts' own units, and how pint spells them.
_CANONICAL = {
    "": "",
    "/min": "1/min",
    "mmHg": "mmHg",
    "C": "degC",
    "%": "percent",
    "points": "",
    "mg/dL": "mg/dL",
    "mmol/L": "mmol/L",
    "K/uL": "1e9/L",
    "g/dL": "g/dL",
    "mg/L": "mg/L",
    "ng/mL": "ng/mL",
    "kg": "kg",
    "cm": "cm",
    "mcg/kg/min": "ug/kg/min",
    "units/hour": "unit/hour",
    "U/L": "unit/L",
    "mL": "mL",
    "L/min": "L/min",
}
_COUNTS = {"platelets", "wbc"}
_BARE = {
    "": {"ph", "unit", "units", "inr", "ratio", "1", "points", "punkte", "point", "score", "none", "n/a", "-", "[ph]"}
}
_BARE["points"] = _BARE[""]
# Spellings, in lower case without blanks, and what pint reads for them.
_SPELLINGS = {
    "bpm": "1/min",
    "/min": "1/min",
    "min-1": "1/min",
    "min^-1": "1/min",
    "beats/min": "1/min",
    "beats/minute": "1/min",
    "breaths/min": "1/min",
    "breaths/minute": "1/min",
    "insp/min": "1/min",
    "schläge/min": "1/min",
    "atemzüge/min": "1/min",
    "{beats}/min": "1/min",
    "{breaths}/min": "1/min",
    "mm[hg]": "mmHg",
    "mmhg": "mmHg",
    "torr": "mmHg",
    "kpa": "kPa",
    "cel": "degC",
    "c": "degC",
    "degc": "degC",
    "deg.c": "degC",
    "°c": "degC",
    "gradc": "degC",
    "celsius": "degC",
    "f": "degF",
    "degf": "degF",
    "[degf]": "degF",
    "deg.f": "degF",
    "°f": "degF",
    "fahrenheit": "degF",
    "k": "kelvin",
    "%": "percent",
    "percent": "percent",
    "prozent": "percent",
    "vol%": "percent",
    "fraction": "1",
    "ratio": "1",
    "l/l": "1",
    "mmofhg": "mmHg",
    "u/l": "unit/L",
    "iu/l": "unit/L",
    "ie/l": "unit/L",
    "units/l": "unit/L",
    "[iu]/l": "unit/L",
    "[iu]/h": "unit/hour",
    "[iu]/min": "unit/min",
    "uhr": "unit/hour",  # MIMIC-III's spellings
    "umin": "unit/min",
    "mcgkgmin": "ug/kg/min",
    "mcgmin": "ug/min",
    "u/h": "unit/hour",
    "u/hr": "unit/hour",
    "units/h": "unit/hour",
    "units/hr": "unit/hour",
    "units/hour": "unit/hour",
    "iu/h": "unit/hour",
    "ie/h": "unit/hour",
    "e/h": "unit/hour",
    "u/min": "unit/min",
    "units/min": "unit/min",
    "ie/min": "unit/min",
    "iu/min": "unit/min",
    "lb": "lb",
    "lbs": "lb",
    "pound": "lb",
    "oz": "oz",
    "in": "inch",
    "inch": "inch",
    "inches": "inch",
    "zoll": "inch",
    "[in_i]": "inch",
    "[lb_av]": "lb",
    "cc": "mL",
    "ml": "mL",
    "cl": "cL",
    "dl": "dL",
    "l": "L",
    "l/min": "L/min",
    "lpm": "L/min",
    "kg": "kg",
    "g": "g",
    "cm": "cm",
    "m": "m",
    "mm": "mm",
}
# Of counts of cells only: G is giga there, and # and 'cells' say what is counted.
_COUNTED = {
    "1e11/L": "lakhs/cumm lakh/cumm lacs/cumm lakhs/ul",
    "1e9/L": "k/ul k/mm3 k/cmm thou/ul thou/cumm th/ul tsd/ul tsd./ul 10^3/ul 10*3/ul 10e3/ul x10^3/ul x10e3/ul"
    " x10*3/ul 1000/ul x1000/ul /nl 10^3/mm3 x1000 x10^3/mcl 10^9/l 10*9/l 10e9/l"
    " x10^9/l x10e9/l x10*9/l g/l gpt/l giga/l",
    "1e6/L": "/ul #/ul cells/ul {cells}/ul 1/ul /mm3 cells/mm3 /cmm /cumm cells/cumm",
    "1/L": "/l 1/l",
}
_COUNT_SPELLINGS = {spelling: unit for unit, spellings in _COUNTED.items() for spelling in spellings.split()}
_PLAIN = re.compile(r"[A-Za-z1]+(?:/[A-Za-z]+){0,3}")
_UREA = re.compile(r"(?P<unit>[a-z]+/[a-z]+)(?:urea|harnstoff)")

# In which other units hospitals report a concept: the candidates when its values look wrong.
_OTHER: dict[str, tuple[str, ...]] = {
    "creatinine": ("umol/L",),
    "glucose": ("mmol/L",),
    "lactate": ("mg/dL",),
    "bilirubin": ("umol/L",),
    "bun": ("mmol/L", "mg/dL urea"),
    "hemoglobin": ("g/L", "mmol/L"),
    "hematocrit": ("L/L",),
    "platelets": ("/uL",),
    "wbc": ("/uL",),
    "temperature": ("degF",),
    "fio2": ("fraction",),
    "fio2_sample": ("fraction",),
    "spo2": ("fraction",),
    "pao2": ("kPa",),
    "paco2": ("kPa",),
    "sbp": ("kPa",),
    "dbp": ("kPa",),
    "mbp": ("kPa",),
    "crp": ("mg/dL",),
    "albumin": ("g/L",),
    "magnesium": ("mmol/L",),
    "weight": ("lb", "g"),
    "height": ("inch", "m"),
    "urine": ("L",),
    **dict.fromkeys(("norepinephrine", "epinephrine", "phenylephrine", "dopamine"), ("mcg/min", "mg/h", "mg/kg/min")),
    "vasopressin": ("units/min",),
}


def conversion(concept: str, unit: str, own: Own = _NONE) -> Conversion | None:
    """``(factor, shift)`` so that value * factor + shift is in the concept's unit; None where there is none.

    An empty unit is the concept's own. ``own`` are the site's factors by concept and unit, which win.
    """
    text = unit.strip()
    if text in own.get(concept, {}):
        return float(own[concept][text]), 0.0
    canonical = TARGETS[concept].unit
    if not text or text == canonical or _squeezed(text) in _BARE.get(canonical, ()):
        return 1.0, 0.0
    return None if canonical in _BARE or len(text) > LONGEST else _converted(concept, text)


def per_weight(concept: str, unit: str, own: Own = _NONE) -> Conversion | None:
    """``(factor, 0)`` for a rate that is not per kg: value * factor / weight in kg is in the concept's unit.

    None where the concept's unit is not per kg, or the unit is no mass in a time.
    """
    if TARGETS[concept].unit != "mcg/kg/min" or len(unit) > LONGEST:
        return None
    mass, _, time = _spelled(concept, unit).partition("/")
    found = conversion(concept, f"{mass}/kg/{time}", own) if time and "/" not in time else None
    return found if found is None else (found[0], 0.0)


def other_units(concept: str) -> tuple[str, ...]:
    """Units besides its own in which hospitals report the concept."""
    return _OTHER.get(concept, ())


def _squeezed(text: str) -> str:
    """Without blanks, in lower case, with one sign for a millionth."""
    bare = re.sub(r"/\((\w+)[.*](\w+)\)", r"/\1/\2", re.sub(r"\s+|\{[^{}]*\}", "", text) or "1")
    bare = bare.replace("µ", "u").replace("μ", "u").replace("³", "3").replace("⁹", "^9")
    return re.sub(r"\bmc(?=[gl]\b)", "u", bare.lower())


def _spelled(concept: str, text: str) -> str:
    """The text as pint spells it."""
    low = _squeezed(text)
    if concept in _COUNTS:
        return _COUNT_SPELLINGS.get(low, _SPELLINGS.get(low, low))
    if low in _SPELLINGS:
        return _SPELLINGS[low]
    low = re.sub(r"\bmeq\b", "mmol", low)  # of ions with one charge
    low = re.sub(r"^(m|u)?(g|gm)%$", r"\1g/dl", low)  # in 100 mL
    low = re.sub(r"/lit(?:re|er)?\b", "/l", re.sub(r"\bgm(?=/)", "g", low))
    low = re.sub(r"/(?:hr|std|hour|stunde)\b", "/h", low)
    return re.sub(r"(?<=/)(d|c|m|u|n)?l\b", lambda found: f"{found[1] or ''}L", low)


@cache
def _converted(concept: str, text: str) -> Conversion | None:
    urea = _UREA.fullmatch(_squeezed(text)) if concept == "bun" else None
    if urea:
        found = _converted(concept, urea["unit"])
        return None if found is None else (found[0] * MOLAR_MASS["bun"] / UREA_MASS, 0.0)
    spelled = _spelled(concept, text)
    if not (spelled in _SPELLINGS.values() or spelled in _COUNT_SPELLINGS.values() or _PLAIN.fullmatch(spelled)):
        return None
    try:
        return _by_pint(spelled, _CANONICAL[TARGETS[concept].unit], MOLAR_MASS.get(concept))
    except Exception:  # pint raises many kinds for a text that is no unit; all mean the same
        return None


def _by_pint(unit: str, canonical: str, molar_mass: float | None) -> Conversion | None:
    registry = _registry()
    target = registry.parse_expression(canonical)
    scale = target.magnitude if hasattr(target, "magnitude") else float(target)
    mass = {} if molar_mass is None else {"mw": registry.Quantity(molar_mass, "g/mol")}
    contexts = ("chemistry",) if mass else ()

    def canonical_value(value: float) -> float:
        quantity = _quantity(registry, value, unit)
        return float(quantity.to(target.units, *contexts, **mass).magnitude / scale)

    shift = canonical_value(0.0)
    factor = canonical_value(1.0) - shift
    return (factor, shift) if factor > 0 else None


def _quantity(registry: "UnitRegistry[Any]", value: float, unit: str) -> Any:
    if unit in ("degC", "degF", "kelvin"):
        return registry.Quantity(value, unit)
    parsed = registry.parse_expression(unit)
    return registry.Quantity(value * getattr(parsed, "magnitude", parsed), getattr(parsed, "units", "dimensionless"))


@cache
def _registry() -> "UnitRegistry[Any]":
    from pint import UnitRegistry

    registry: UnitRegistry[Any] = UnitRegistry()
    registry.define("unit = [biological_activity]")
    return registry
