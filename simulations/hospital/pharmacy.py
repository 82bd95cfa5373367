"""Prescriptions: antibiotics for suspicions, prophylaxis, and everything else, as ``prescriptions`` lists it.

Why the rest: the rules for systemic antibiotics exclude carriers (drug_type BASE), topical routes and ear or eye drops,
so these must be there to be excluded. An antibiotic started in the emergency department is ordered again in the unit.
Rows: ``E`` suspicions, ``R`` rows of the table.
"""

from dataclasses import dataclass, field

import numpy as np

from simulations.hospital.course import SUBJECT, Admissions, Stays, Times, hours, to_minute
from simulations.hospital.infection import Suspicions
from simulations.hospital.latents import SOURCES, UNITS, Ints
from simulations.hospital.mimic_csv import Column, labels

REORDERED, ROUTE_MISSING, OTHER_DRUGS = 0.5, 0.01, 7.0
PROPHYLAXIS = {"CVICU": 0.65, "TSICU": 0.3, "Unit (SICU)": 0.3, "Neuro SICU": 0.3}
DAYS_OF_TREATMENT = (1.0, 8.0)

# drug, drug_type, route; names as MIMIC-IV spells them
DRUGS: tuple[tuple[str, str, str | None], ...] = (
    ("Vancomycin", "MAIN", "IV"),
    ("CefePIME", "MAIN", "IV"),
    ("Piperacillin-Tazobactam", "MAIN", "IV"),
    ("Meropenem", "MAIN", "IV"),
    ("CefTRIAXone", "MAIN", "IV"),
    ("MetRONIDAZOLE (FLagyl)", "MAIN", "IV"),
    ("Azithromycin ", "MAIN", "IV"),
    ("Levofloxacin", "MAIN", "IV"),
    ("CefazoLIN", "MAIN", "IV"),
    ("0.9% Sodium Chloride", "BASE", "IV"),
    ("Iso-Osmotic Dextrose", "BASE", "IV"),
    ("0.9% Sodium Chloride (Mini Bag Plus)", "BASE", "IV"),
    ("Insulin", "MAIN", "SC"),
    ("Sodium Chloride 0.9%  Flush", "MAIN", "IV"),
    ("Furosemide", "MAIN", "IV"),
    ("Heparin", "MAIN", "SC"),
    ("Acetaminophen", "MAIN", "PO/NG"),
    ("Metoprolol Tartrate", "MAIN", "PO/NG"),
    ("Magnesium Sulfate", "MAIN", "IV"),
    ("Potassium Chloride", "MAIN", "PO"),
    ("Senna", "MAIN", "PO/NG"),
    ("Pantoprazole", "MAIN", "PO"),
    ("Propofol", "MAIN", "IV DRIP"),
    ("OxycoDONE (Immediate Release) ", "MAIN", "PO/NG"),
    ("Mupirocin Cream 2%", "MAIN", "TP"),
    ("Neomycin-Polymyxin-Bacitracin", "MAIN", "TP"),
    ("Ciprofloxacin 0.3% Ophth Soln", "MAIN", "LEFT EAR"),
    ("Erythromycin 0.5% Ophth Oint", "MAIN", "BOTH EYES"),
)
_CODES = {name: code for code, (name, _, _) in enumerate(DRUGS)}
_CARRIERS = tuple(code for code, (_, kind, _) in enumerate(DRUGS) if kind == "BASE")
_TOPICAL = 4  # at the end of DRUGS
_OTHERS = np.arange(_CODES["Insulin"], len(DRUGS))

# source: the drugs that may treat it, with the share of treatments that hold each
REGIMENS: dict[str, dict[str, float]] = {
    "lung": {
        "Vancomycin": 0.75,
        "CefePIME": 0.5,
        "Piperacillin-Tazobactam": 0.25,
        "CefTRIAXone": 0.25,
        "Azithromycin ": 0.25,
        "Levofloxacin": 0.2,
    },
    "urine": {"CefTRIAXone": 0.7, "CefePIME": 0.3, "Vancomycin": 0.35},
    "abdomen": {
        "Piperacillin-Tazobactam": 0.6,
        "MetRONIDAZOLE (FLagyl)": 0.45,
        "Vancomycin": 0.5,
        "Meropenem": 0.25,
    },
    "line": {"Vancomycin": 0.95, "CefePIME": 0.4, "Meropenem": 0.2},
}
FALLBACK = {"lung": "CefePIME", "urine": "CefTRIAXone", "abdomen": "Meropenem", "line": "Vancomycin"}


@dataclass
class _Orders:
    """Orders in the making: admission, drug, start and stop."""

    columns: list[tuple[Ints, Ints, Times, Times]] = field(default_factory=list)

    def add(self, admission: Ints, drug: Ints, start: Times, stop: Times) -> None:
        self.columns.append((admission, drug, start, stop))


def _regimens(rng: np.random.Generator, source: Ints) -> tuple[Ints, Ints]:
    """Return (suspicion, drug) pairs; a treatment left without any drug gets its source's usual one."""
    drugs = sorted({drug for regimen in REGIMENS.values() for drug in regimen})
    share = np.array([[REGIMENS[name].get(drug, 0.0) for drug in drugs] for name in SOURCES])
    given = rng.random((source.size, len(drugs))) < share[source]
    usual = np.array([drugs.index(FALLBACK[name]) for name in SOURCES])[source]
    empty = np.flatnonzero(~given.any(axis=1))
    given[empty, usual[empty]] = True
    suspicion, column = np.nonzero(given)
    return suspicion, np.array([_CODES[drug] for drug in drugs])[column]


def _treat(rng: np.random.Generator, orders: _Orders, stays: Stays, admissions: Admissions, seen: Suspicions) -> None:
    """Order the antibiotics of suspicions: at once, again in the unit when begun before it, and some changed later."""
    suspicion, drug = _regimens(rng, seen.source)
    stay, n = seen.stay[suspicion], suspicion.size
    admission, begun = stays.admission[stay], seen.antibiotic_h[suspicion] + rng.exponential(0.5, n)
    in_unit = np.minimum(rng.uniform(0.3, 9.0, seen.stay.size)[suspicion], stays.hours[stay] - 0.3)
    later = in_unit + 24.0 * rng.uniform(1.5, 3.5, n)
    every = np.ones(n, dtype=bool)
    changed = (rng.random(n) < REORDERED) & (later < stays.hours[stay] - 1.0)
    for hour, wanted in ((begun, every), (in_unit, begun < 0.0), (later, changed)):
        start = np.maximum(stays.intime[stay] + hours(hour), admissions.admitted[admission])
        start = to_minute(start) + np.timedelta64(60, "s")
        stop = start + hours(24.0 * rng.uniform(*DAYS_OF_TREATMENT, n))
        orders.add(admission[wanted], drug[wanted], start[wanted], stop[wanted])
        orders.add(admission[wanted], rng.choice(_CARRIERS, int(wanted.sum())), start[wanted], stop[wanted])


def _prevent(rng: np.random.Generator, orders: _Orders, stays: Stays, seen: Suspicions) -> None:
    """Order a day of cefazolin after surgery, for patients whom nobody suspects of an infection."""
    share = np.array([max((s for key, s in PROPHYLAXIS.items() if key in u.name), default=0.0) for u in UNITS])
    wanted = (rng.random(stays.stay_id.size) < share[stays.latents.unit]) & (stays.since_first_h == 0.0)
    wanted[seen.stay] = False
    stay = np.flatnonzero(wanted)
    start = stays.intime[stay] + hours(rng.uniform(0.2, 3.0, stay.size))
    start = to_minute(start)
    orders.add(stays.admission[stay], np.full(stay.size, _CODES["CefazoLIN"]), start, start + hours(stay * 0.0 + 24.0))


def _everything_else(rng: np.random.Generator, orders: _Orders, admissions: Admissions) -> None:
    number = rng.poisson(OTHER_DRUGS, admissions.hadm_id.size)
    admission = np.repeat(np.arange(number.size), number)
    weight = np.where(np.arange(_OTHERS.size) >= _OTHERS.size - _TOPICAL, 0.1, 1.0)
    drug = rng.choice(_OTHERS, size=admission.size, p=weight / weight.sum())
    span = (admissions.discharged - admissions.admitted).astype(np.float64)[admission] / 3600.0
    start = admissions.admitted[admission] + hours(np.floor(span * rng.random(admission.size) ** 2))
    orders.add(admission, drug, start, start + hours(24.0 * rng.uniform(0.3, 6.0, admission.size)))


def prescriptions(
    rng: np.random.Generator, stays: Stays, admissions: Admissions, seen: Suspicions, *, first_id: int
) -> dict[str, Column]:
    """Return the table's columns, sorted by admission and start; nothing outlasts the admission."""
    orders = _Orders()
    _treat(rng, orders, stays, admissions, seen)
    _prevent(rng, orders, stays, seen)
    _everything_else(rng, orders, admissions)
    admission, drug, start, stop = (np.concatenate(part) for part in zip(*orders.columns, strict=True))
    order = np.lexsort((drug, start, admission))
    order = order[start[order] < admissions.discharged[admission[order]]]
    admission, drug, start, stop = admission[order], drug[order], start[order], stop[order]
    names, kinds, routes = zip(*DRUGS, strict=True)
    route = np.where(rng.random(drug.size) < ROUTE_MISSING, len(DRUGS), drug)
    return {
        "subject_id": SUBJECT + admissions.person[admission],
        "hadm_id": admissions.hadm_id[admission],
        "pharmacy_id": first_id + np.arange(drug.size),
        "starttime": start,
        "stoptime": np.minimum(stop, admissions.discharged[admission]),
        "drug_type": labels(kinds, drug),
        "drug": labels(names, drug),
        "route": labels([*routes, None], route),
    }
