"""Suspicions of infection and their cultures: ``microbiologyevents`` of the synthetic hospitals.

Why suspicions: the rules pair an antibiotic with a culture close in time, so both are drawn from one list. A suspicion
can be right or wrong, and only a right one grows organisms (contaminants aside). Screening swabs without a suspicion,
cultures without a time and cancelled ones are in the table too, as a rule has to tell them apart.
Rows: ``E`` suspicions (at most one a stay), ``R`` rows of the table.
"""

from dataclasses import dataclass, field

import numpy as np

from simulations.hospital.course import Stays, Times, hours, to_minute
from simulations.hospital.latents import SOURCES, Bools, Floats, Ints
from simulations.hospital.mimic_csv import Column, labels, nullable

CULTURE_FIRST = 0.8  # else the antibiotic comes first
UNTIMED, SCREENED, CANCELLED, CONTAMINATED = 0.06, 0.12, 0.005, 0.03

# specimen: spec_itemid, test_itemid, test name, days until a negative result is stored
SPECIMENS: dict[str, tuple[int, int, str, float]] = {
    "BLOOD CULTURE": (70012, 90201, "Blood Culture, Routine", 5.5),
    "URINE": (70079, 90039, "URINE CULTURE", 1.5),
    "SPUTUM": (70062, 90055, "RESPIRATORY CULTURE", 2.2),
    "PERITONEAL FLUID": (70053, 90268, "FLUID CULTURE", 3.0),
    "CATHETER TIP-IV": (70023, 90046, "WOUND CULTURE", 2.5),
    "MRSA SCREEN": (70091, 90189, "MRSA SCREEN", 1.5),
}
# source: share of suspicions from which each specimen is taken
TAKEN = {
    "lung": {"BLOOD CULTURE": 0.95, "URINE": 0.7, "SPUTUM": 0.75},
    "urine": {"BLOOD CULTURE": 0.9, "URINE": 0.97, "SPUTUM": 0.1},
    "abdomen": {"BLOOD CULTURE": 0.95, "URINE": 0.7, "PERITONEAL FLUID": 0.4},
    "line": {"BLOOD CULTURE": 0.99, "URINE": 0.7, "CATHETER TIP-IV": 0.4},
}
# source: share of right suspicions in which each specimen grows
GROWS = {
    "lung": {"BLOOD CULTURE": 0.15, "SPUTUM": 0.6},
    "urine": {"BLOOD CULTURE": 0.35, "URINE": 0.85},
    "abdomen": {"BLOOD CULTURE": 0.3, "PERITONEAL FLUID": 0.7},
    "line": {"BLOOD CULTURE": 0.75, "CATHETER TIP-IV": 0.7},
}
ORGANISMS = {
    "lung": ((80023, "STAPH AUREUS COAG +"), (80026, "PSEUDOMONAS AERUGINOSA"), (80004, "KLEBSIELLA PNEUMONIAE")),
    "urine": ((80002, "ESCHERICHIA COLI"), (80017, "PROTEUS MIRABILIS"), (80053, "ENTEROCOCCUS SP.")),
    "abdomen": ((80002, "ESCHERICHIA COLI"), (80112, "BACTEROIDES FRAGILIS GROUP"), (80053, "ENTEROCOCCUS SP.")),
    "line": ((80155, "STAPHYLOCOCCUS, COAGULASE NEGATIVE"), (80023, "STAPH AUREUS COAG +"), (80075, "YEAST")),
}
CONTAMINANT, CANCELLATION = (80155, "STAPHYLOCOCCUS, COAGULASE NEGATIVE"), (90760, "CANCELLED")
SENSITIVITIES = ((90012, "GENTAMICIN"), (90028, "CEFEPIME"), (90029, "MEROPENEM"))


@dataclass(frozen=True, kw_only=True)
class Suspicions:
    """Who was suspected of an infection, and when culture and antibiotic came."""

    stay: Ints
    """Row of the stay."""
    right: Bools
    """Whether there is an infection."""
    source: Ints
    culture_h: Floats
    """Hours since ICU admission."""
    antibiotic_h: Floats


def draw_suspicions(rng: np.random.Generator, stays: Stays) -> Suspicions:
    """Draw the times of culture and first antibiotic: a few hours after the onset and close to one another."""
    latents = stays.latents
    infected = latents.infected | latents.acquired
    stay = np.flatnonzero((infected | latents.treated) & (stays.since_first_h == 0.0))
    n = stay.size
    culture = latents.onset_h[stay] + rng.uniform(0.5, 4.0, n)
    culture = np.minimum(culture, stays.hours[stay] - 1.5)
    later, sooner = rng.gamma(2.0, 1.0, n), -rng.uniform(0.3, 4.0, n)
    antibiotic = culture + np.where(rng.random(n) < CULTURE_FIRST, later, sooner)
    return Suspicions(
        stay=stay,
        right=infected[stay],
        source=latents.source[stay],
        culture_h=culture,
        antibiotic_h=np.minimum(antibiotic, stays.hours[stay] - 1.0),
    )


@dataclass
class _Specimens:
    """Specimens in the making: stay, kind, time in hours, organism (code; -1 for none) and its source."""

    columns: list[tuple[Ints, Ints, Floats, Ints]] = field(default_factory=list)

    def add(self, kind: str, stay: Ints, hour: Floats, organism: Ints) -> None:
        self.columns.append((stay, np.full(stay.size, list(SPECIMENS).index(kind)), hour, organism))


_ORGANISMS: list[tuple[int, str]] = sorted(
    {CONTAMINANT, CANCELLATION, *(organism for found in ORGANISMS.values() for organism in found)}
)


def _organisms(rng: np.random.Generator, seen: Suspicions, kind: str) -> Ints:
    """Return what grows in each suspicion's specimen of a kind: the source's organism, a contaminant, or nothing."""
    n = seen.stay.size
    pick = rng.integers(0, 3, n)
    codes = np.array([[_ORGANISMS.index(found) for found in ORGANISMS[source]] for source in SOURCES])
    chance = np.array([GROWS[source].get(kind, 0.0) for source in SOURCES])[seen.source]
    grown = np.where(seen.right & (rng.random(n) < chance), codes[seen.source, pick], -1)
    contaminated = (grown < 0) & (kind == "BLOOD CULTURE") & (rng.random(n) < CONTAMINATED)
    grown = np.where(contaminated, _ORGANISMS.index(CONTAMINANT), grown)
    return np.where(rng.random(n) < CANCELLED, _ORGANISMS.index(CANCELLATION), grown)


def _specimens(rng: np.random.Generator, stays: Stays, seen: Suspicions) -> _Specimens:
    made = _Specimens()
    for kind in ("BLOOD CULTURE", "BLOOD CULTURE", "URINE", "SPUTUM", "PERITONEAL FLUID", "CATHETER TIP-IV"):
        chance = np.array([TAKEN[source].get(kind, 0.0) for source in SOURCES])[seen.source]
        hour = seen.culture_h + rng.exponential(0.4, seen.stay.size)
        taken = (rng.random(seen.stay.size) < chance) & (hour < stays.hours[seen.stay] - 0.5)
        made.add(kind, seen.stay[taken], hour[taken], _organisms(rng, seen, kind)[taken])
    screened = np.flatnonzero(rng.random(stays.stay_id.size) < SCREENED)
    none = np.full(screened.size, -1)
    made.add("MRSA SCREEN", screened, rng.uniform(0.2, 4.0, screened.size), none)
    return made


def microbiologyevents(rng: np.random.Generator, stays: Stays, seen: Suspicions, *, first_id: int) -> dict[str, Column]:
    """Return the table's columns, sorted by stay and time; an organism has a row per antibiotic tested."""
    stay, kind, hour, organism = (
        np.concatenate(part) for part in zip(*_specimens(rng, stays, seen).columns, strict=True)
    )
    order = np.lexsort((kind, hour, stay))
    tested = np.where(organism[order] >= 0, rng.integers(1, len(SENSITIVITIES) + 1, order.size), 1)
    tested = np.where(organism[order] == _ORGANISMS.index(CANCELLATION), 1, tested)
    specimen = np.repeat(np.arange(order.size), tested)
    number = np.arange(specimen.size) - np.repeat(np.cumsum(tested) - tested, tested)
    rows = order[specimen]
    drawn = to_minute(stays.intime[stay] + hours(hour))
    days = np.array([spec[3] for spec in SPECIMENS.values()])[kind] * rng.uniform(0.8, 1.2, kind.size)
    stored = to_minute(drawn + hours(24.0 * np.where(organism >= 0, np.maximum(days * 0.6, 1.5), days)))
    untimed = rng.random(kind.size) < UNTIMED
    return {
        "microevent_id": first_id + np.arange(rows.size),
        "subject_id": stays.subject_id[stay[rows]],
        "hadm_id": stays.hadm_id[stay[rows]],
        "micro_specimen_id": first_id + specimen,
        "chartdate": _day(drawn[rows]),
        "charttime": np.where(untimed[rows], np.datetime64("NaT", "s"), drawn[rows]),
        "test_seq": np.ones(rows.size, dtype=np.int64),
        "storedate": _day(stored[rows]),
        "storetime": stored[rows],
        **_test_names(kind[rows]),
        **_findings(rng, organism[rows], number),
    }


def _day(times: Times) -> Times:
    return times.astype("datetime64[D]").astype("datetime64[s]")


def _test_names(kind: Ints) -> dict[str, Column]:
    items, tests, names, _ = zip(*SPECIMENS.values(), strict=True)
    return {
        "spec_itemid": np.array(items)[kind],
        "spec_type_desc": labels(list(SPECIMENS), kind),
        "test_itemid": np.array(tests)[kind],
        "test_name": labels(names, kind),
    }


def _findings(rng: np.random.Generator, organism: Ints, number: Ints) -> dict[str, Column]:
    """Return organism and sensitivity of each row; ``number`` counts the antibiotics tested on a specimen."""
    none = organism < 0
    untested = none | (organism == _ORGANISMS.index(CANCELLATION))
    item, name = zip(*_ORGANISMS, strict=True)
    drug, drug_name = zip(*SENSITIVITIES, strict=True)
    verdict = np.where(untested, 2, (rng.random(organism.size) < 0.2).astype(np.int64))
    return {
        "org_itemid": nullable(np.array(item)[organism], none),
        "org_name": labels(name, organism),
        "isolate_num": nullable(np.ones(organism.size, dtype=np.int64), none),
        "ab_itemid": nullable(np.array(drug)[number], untested),
        "ab_name": labels([*map(str, drug_name), None], np.where(untested, len(drug_name), number)),
        "interpretation": labels(["S", "R", None], verdict),
        "comments": labels([None, "NO GROWTH.  "], none.astype(np.int64)),
    }
