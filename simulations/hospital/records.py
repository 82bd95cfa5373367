"""The registry of the synthetic hospitals: ``patients``, ``admissions``, ``icustays``, ``services``, ``diagnoses_icd``.

Chronic conditions follow the chronic burden and age and stay with the patient, so the codes of an earlier admission say
something about a later one. Acute codes belong to one admission and are assigned at its discharge.
Shapes: ``PC`` patients x chronic conditions.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from simulations.hospital.course import SUBJECT, Admissions, People, Stays, hours, to_minute
from simulations.hospital.latents import AGE_CENTRE, AGE_STEP, UNITS, Bools, Floats, Ints, logistic
from simulations.hospital.mimic_csv import Column, labels

CODED = 0.9  # share of admissions in which a condition that is there is coded
AGE_EFFECT = 0.4


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A diagnosis: its name in a note, its codes, and for a chronic one the log odds ``base + slope x burden``."""

    name: str
    icd9: str
    icd10: str
    base: float = 0.0
    slope: float = 0.0


CHRONIC: tuple[Condition, ...] = (
    Condition(name="hypertension", icd9="4019", icd10="I10", base=0.3, slope=0.4),
    Condition(name="diabetes", icd9="25000", icd10="E119", base=-1.0, slope=0.6),
    Condition(name="congestive heart failure", icd9="4280", icd10="I509", base=-1.4, slope=0.9),
    Condition(name="chronic obstructive lung disease", icd9="496", icd10="J449", base=-1.7, slope=0.6),
    Condition(name="chronic kidney disease", icd9="5859", icd10="N189", base=-1.6, slope=1.0),
    Condition(name="old myocardial infarction", icd9="412", icd10="I252", base=-2.2, slope=0.6),
    Condition(name="peripheral vascular disease", icd9="4439", icd10="I739", base=-2.5, slope=0.7),
    Condition(name="dementia", icd9="2948", icd10="F0390", base=-3.2, slope=0.6),
    Condition(name="cirrhosis", icd9="5715", icd10="K7460", base=-2.7, slope=0.8),
    Condition(name="lung cancer", icd9="1629", icd10="C3490", base=-3.2, slope=0.8),
    Condition(name="metastatic cancer", icd9="1977", icd10="C787", base=-3.2, slope=1.1),
    Condition(name="rheumatoid arthritis", icd9="7140", icd10="M069", base=-3.2, slope=0.3),
    Condition(name="human immunodeficiency virus infection", icd9="042", icd10="B20", base=-4.6, slope=0.5),
)
INFECTIONS: tuple[Condition, ...] = (
    Condition(name="pneumonia", icd9="486", icd10="J189"),
    Condition(name="urinary tract infection", icd9="5990", icd10="N390"),
    Condition(name="peritonitis", icd9="5679", icd10="K659"),
    Condition(name="central line infection", icd9="99932", icd10="T80211A"),
)
SEPSIS = Condition(name="sepsis", icd9="99591", icd10="A419")
ADMITTED_FOR: tuple[Condition, ...] = (
    Condition(name="respiratory failure", icd9="51881", icd10="J9601"),
    Condition(name="gastrointestinal bleeding", icd9="5789", icd10="K922"),
    Condition(name="coronary bypass surgery", icd9="41401", icd10="I2510"),
    Condition(name="bowel obstruction", icd9="5609", icd10="K56609"),
    Condition(name="acute myocardial infarction", icd9="41071", icd10="I214"),
    Condition(name="multiple injuries", icd9="9598", icd10="T07XXXA"),
    Condition(name="ischemic stroke", icd9="43491", icd10="I639"),
    Condition(name="subarachnoid hemorrhage", icd9="430", icd10="I609"),
    Condition(name="subdural hematoma", icd9="4321", icd10="I6200"),
)
"""The reason for a unit's patients, in the order of ``UNITS``."""
CONDITIONS = (*CHRONIC, *INFECTIONS, SEPSIS, *ADMITTED_FOR)

# The service that admits a unit's patients, in the order of ``UNITS``; general medicine admits everybody else.
_SERVICES = ("MED", "MED", "CSURG", "SURG", "CMED", "TRAUM", "NMED", "NSURG", "NSURG", "MED")
_GROUPS = ("2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019", "2020 - 2022")
_ICD10_SHARE = np.array([0.0, 0.0, 0.4, 1.0, 1.0])  # the United States changed over in October 2015
_TYPES = ("EW EMER.", "URGENT", "OBSERVATION ADMIT", "SURGICAL SAME DAY ADMISSION", "ELECTIVE")
_LOCATIONS = ("EMERGENCY ROOM", "TRANSFER FROM HOSPITAL", "PHYSICIAN REFERRAL")
_GOING = ("DIED", "HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY", "REHAB", "HOSPICE")
_INSURANCE, _MARRIED = ("Medicare", "Medicaid", "Private", "Other"), ("MARRIED", "SINGLE", "WIDOWED", "DIVORCED")
_RACES = ("WHITE", "BLACK/AFRICAN AMERICAN", "ASIAN", "HISPANIC/LATINO - PUERTO RICAN", "OTHER", "UNKNOWN")
_RACE_SHARES = (0.68, 0.11, 0.04, 0.04, 0.05, 0.08)


def year_groups(rng: np.random.Generator, people: People) -> Ints:
    """Draw each patient's true period, as a code."""
    return rng.integers(0, len(_GROUPS), people.subject_id.size)


def chronic_conditions(rng: np.random.Generator, people: People) -> Bools:
    """Draw which chronic conditions each patient has, PC."""
    base, slope = np.array([c.base for c in CHRONIC]), np.array([c.slope for c in CHRONIC])
    age = AGE_EFFECT * (people.anchor_age - AGE_CENTRE) / AGE_STEP
    chance = logistic(base + slope * people.chronic[:, None] + age[:, None])
    return np.asarray(rng.random(chance.shape) < chance)


def patients(people: People, group: Ints) -> dict[str, Column]:
    """Return the table's columns; dod is a date."""
    return {
        "subject_id": people.subject_id,
        "gender": labels(["M", "F"], people.female.astype(np.int64)),
        "anchor_age": people.anchor_age.astype(np.int64),
        "anchor_year": people.anchor_year,
        "anchor_year_group": labels(_GROUPS, group),
        "dod": pa.array(people.died_at.astype("datetime64[D]")),
    }


def admissions(rng: np.random.Generator, people: People, rows: Admissions) -> dict[str, Column]:
    """Return the table's columns, sorted by patient and time."""
    n, person = rows.hadm_id.size, rows.person - (people.subject_id[0] - SUBJECT)
    size = people.subject_id.size
    arrived = to_minute(rows.admitted - hours(rng.uniform(2.5, 7.0, n)))
    left = rows.admitted + np.timedelta64(3600, "s")
    never = np.datetime64("NaT", "s")
    kind = np.where(rows.emergency, rng.choice([0, 2], n, p=[0.85, 0.15]), rng.choice([1, 3, 4], n, p=[0.5, 0.3, 0.2]))
    place = np.where(rows.emergency, 0, np.where(kind == 1, 1, 2))
    going = np.where(rows.died, 0, rng.choice(np.arange(1, 6), n, p=[0.4, 0.3, 0.18, 0.1, 0.02]))
    return {
        "subject_id": SUBJECT + rows.person,
        "hadm_id": rows.hadm_id,
        "admittime": rows.admitted,
        "dischtime": rows.discharged,
        "deathtime": np.where(rows.died, rows.discharged, never),
        "admission_type": labels(_TYPES, kind),
        "admission_location": labels(_LOCATIONS, place),
        "discharge_location": labels(_GOING, going),
        "insurance": labels(_INSURANCE, rng.choice(4, size, p=[0.5, 0.15, 0.25, 0.1])[person]),
        "language": labels(["ENGLISH", "?"], (rng.random(size) < 0.1).astype(np.int64)[person]),
        "marital_status": labels(_MARRIED, rng.choice(4, size, p=[0.45, 0.33, 0.13, 0.09])[person]),
        "race": labels(_RACES, rng.choice(len(_RACES), size, p=_RACE_SHARES)[person]),
        "edregtime": np.where(rows.emergency, arrived, never),
        "edouttime": np.where(rows.emergency, left, never),
        "hospital_expire_flag": rows.died.astype(np.int64),
    }


def icustays(stays: Stays) -> dict[str, Column]:
    """Return the table's columns; ``los`` is in days."""
    names = [unit.name for unit in UNITS]
    return {
        "subject_id": stays.subject_id,
        "hadm_id": stays.hadm_id,
        "stay_id": stays.stay_id,
        "first_careunit": labels(names, stays.latents.unit),
        "last_careunit": labels(names, stays.last_unit),
        "intime": stays.intime,
        "outtime": stays.outtime,
        "los": (stays.hours / 24.0).round(6),
    }


def services(rows: Admissions) -> dict[str, Column]:
    """Return the service that each admission began with."""
    names = np.where(rows.unit >= 0, rows.unit, len(_SERVICES) - 1)
    return {
        "subject_id": SUBJECT + rows.person,
        "hadm_id": rows.hadm_id,
        "transfertime": rows.admitted,
        "curr_service": labels(_SERVICES, names),
    }


def admission_conditions(rows: Admissions, chronic: Bools, severity: Floats) -> Bools:
    """Return which of ``CONDITIONS`` hold in each admission; ``chronic`` and ``severity`` have its rows."""
    size = rows.hadm_id.size
    reason = np.zeros((size, len(ADMITTED_FOR)), dtype=bool)
    intensive = rows.unit >= 0
    reason[intensive, rows.unit[intensive]] = True
    source = np.zeros((size, len(INFECTIONS)), dtype=bool)
    source[rows.infected, rows.source[rows.infected]] = True
    sepsis = (rows.infected & (severity > -0.8))[:, None]
    return np.concatenate([chronic, source, sepsis, reason], axis=1)


def diagnoses_icd(rng: np.random.Generator, rows: Admissions, conditions: Bools, group: Ints) -> dict[str, Column]:
    """Return the codes assigned at discharge, acute ones first; ``group`` is the patient's period per admission."""
    coded = conditions & (rng.random(conditions.shape) < CODED)
    coded[~coded.any(axis=1), 0] = True
    acute_first = np.roll(np.arange(len(CONDITIONS)), -len(CHRONIC))
    row, place = np.nonzero(coded[:, acute_first])
    number = np.arange(row.size) - np.searchsorted(row, row) + 1
    tenth = (rng.random(rows.hadm_id.size) < _ICD10_SHARE[group])[row]
    codes = [c.icd9 for c in CONDITIONS] + [c.icd10 for c in CONDITIONS]
    return {
        "subject_id": SUBJECT + rows.person[row],
        "hadm_id": rows.hadm_id[row],
        "seq_num": number,
        "icd_code": labels(codes, acute_first[place] + len(CONDITIONS) * tenth),
        "icd_version": np.where(tenth, 10, 9),
    }
