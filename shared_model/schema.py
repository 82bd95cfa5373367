"""MIMIC-IV-style tables, each column declared once.

Why: every site is mapped to these tables, so everything behind the mapping (cohort, features) is written once. Names
and meanings are MIMIC-IV 3.1's; only the columns that consilium reads are declared. Types are DuckDB's. Times are naive
local times of the hospital, as in MIMIC-IV.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table: where MIMIC-IV keeps it, its columns with their types, and whether a cohort can do without it."""

    name: str
    folder: str
    columns: dict[str, str]
    required: bool = False


_ID, _TIME, _TEXT, _NUM = "BIGINT", "TIMESTAMP", "VARCHAR", "DOUBLE"

PATIENTS = Table(
    name="patients",
    folder="hosp",
    required=True,
    columns={"subject_id": _ID, "gender": _TEXT, "anchor_age": _NUM, "anchor_year": "INTEGER"},
)
ADMISSIONS = Table(
    name="admissions",
    folder="hosp",
    required=True,
    columns={
        "subject_id": _ID,
        "hadm_id": _ID,
        "admittime": _TIME,
        "dischtime": _TIME,
        "deathtime": _TIME,
        "admission_type": _TEXT,
        "hospital_expire_flag": "INTEGER",
    },
)
DIAGNOSES = Table(
    name="diagnoses_icd",
    folder="hosp",
    columns={"subject_id": _ID, "hadm_id": _ID, "icd_code": _TEXT, "icd_version": "INTEGER"},
)
SERVICES = Table(
    name="services",
    folder="hosp",
    columns={"subject_id": _ID, "hadm_id": _ID, "transfertime": _TIME, "curr_service": _TEXT},
)
ICUSTAYS = Table(
    name="icustays",
    folder="icu",
    required=True,
    columns={
        "subject_id": _ID,
        "hadm_id": _ID,
        "stay_id": _ID,
        "first_careunit": _TEXT,
        "intime": _TIME,
        "outtime": _TIME,
    },
)
CHARTEVENTS = Table(
    name="chartevents",
    folder="icu",
    required=True,
    columns={
        "subject_id": _ID,
        "stay_id": _ID,
        "charttime": _TIME,
        "storetime": _TIME,
        "itemid": "INTEGER",
        "value": _TEXT,
        "valuenum": _NUM,
        "valueuom": _TEXT,
    },
)
LABEVENTS = Table(
    name="labevents",
    folder="hosp",
    required=True,
    columns={
        "subject_id": _ID,
        "hadm_id": _ID,
        "specimen_id": _ID,
        "itemid": "INTEGER",
        "charttime": _TIME,
        "storetime": _TIME,
        "value": _TEXT,
        "valuenum": _NUM,
        "valueuom": _TEXT,
    },
)
MICROBIOLOGYEVENTS = Table(
    name="microbiologyevents",
    folder="hosp",
    columns={
        "subject_id": _ID,
        "hadm_id": _ID,
        "micro_specimen_id": _ID,
        "chartdate": _TIME,
        "charttime": _TIME,
        "storetime": _TIME,
        "spec_type_desc": _TEXT,
        "org_itemid": "INTEGER",
        "org_name": _TEXT,
    },
)
PRESCRIPTIONS = Table(
    name="prescriptions",
    folder="hosp",
    columns={
        "subject_id": _ID,
        "hadm_id": _ID,
        "starttime": _TIME,
        "stoptime": _TIME,
        "drug_type": _TEXT,
        "drug": _TEXT,
        "route": _TEXT,
    },
)
INPUTEVENTS = Table(
    name="inputevents",
    folder="icu",
    columns={
        "subject_id": _ID,
        "stay_id": _ID,
        "starttime": _TIME,
        "endtime": _TIME,
        "storetime": _TIME,
        "itemid": "INTEGER",
        "rate": _NUM,
        "rateuom": _TEXT,
        "patientweight": _NUM,
    },
)
OUTPUTEVENTS = Table(
    name="outputevents",
    folder="icu",
    columns={
        "subject_id": _ID,
        "stay_id": _ID,
        "charttime": _TIME,
        "storetime": _TIME,
        "itemid": "INTEGER",
        "value": _NUM,
    },
)
_NOTE = {
    "note_id": _TEXT,
    "subject_id": _ID,
    "hadm_id": _ID,
    "charttime": _TIME,
    "storetime": _TIME,
    "text": _TEXT,
}
RADIOLOGY = Table(name="radiology", folder="note", columns=_NOTE)
DISCHARGE = Table(name="discharge", folder="note", columns=_NOTE)

TABLES: tuple[Table, ...] = (
    PATIENTS,
    ADMISSIONS,
    DIAGNOSES,
    SERVICES,
    ICUSTAYS,
    CHARTEVENTS,
    LABEVENTS,
    MICROBIOLOGYEVENTS,
    PRESCRIPTIONS,
    INPUTEVENTS,
    OUTPUTEVENTS,
    RADIOLOGY,
    DISCHARGE,
)
