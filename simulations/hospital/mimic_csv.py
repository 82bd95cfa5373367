"""MIMIC-IV v3.1's files: their columns in the official order, and how the synthetic hospitals write them.

Why gzip members: a chunk of patients is compressed on its own, so that chunks can be made by several processes and the
parts appended in order; concatenated members are one valid gzip file. Every member is written without a time stamp, so
the same rows give the same bytes.
"""

import gzip
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
from numpy.typing import NDArray

Column: TypeAlias = Any  # NDArray or pyarrow.Array, which has no types
Columns = Mapping[str, Column]

_HOSP = {
    "patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
    "admissions": "subject_id hadm_id admittime dischtime deathtime admission_type admit_provider_id "
    "admission_location discharge_location insurance language marital_status race edregtime "
    "edouttime hospital_expire_flag",
    "labevents": "labevent_id subject_id hadm_id specimen_id itemid order_provider_id charttime storetime value "
    "valuenum valueuom ref_range_lower ref_range_upper flag priority comments",
    "d_labitems": "itemid label fluid category",
    "microbiologyevents": "microevent_id subject_id hadm_id micro_specimen_id order_provider_id chartdate charttime "
    "spec_itemid spec_type_desc test_seq storedate storetime test_itemid test_name org_itemid org_name isolate_num "
    "quantity ab_itemid ab_name dilution_text dilution_comparison dilution_value interpretation comments",
    "prescriptions": "subject_id hadm_id pharmacy_id poe_id poe_seq order_provider_id starttime stoptime drug_type "
    "drug formulary_drug_cd gsn ndc prod_strength form_rx dose_val_rx dose_unit_rx form_val_disp form_unit_disp "
    "doses_per_24_hrs route",
    "services": "subject_id hadm_id transfertime prev_service curr_service",
    "diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
}
_ICU = {
    "icustays": "subject_id hadm_id stay_id first_careunit last_careunit intime outtime los",
    "chartevents": "subject_id hadm_id stay_id caregiver_id charttime storetime itemid value valuenum valueuom warning",
    "inputevents": "subject_id hadm_id stay_id caregiver_id starttime endtime storetime itemid amount amountuom rate "
    "rateuom orderid linkorderid ordercategoryname secondaryordercategoryname ordercomponenttypedescription "
    "ordercategorydescription patientweight totalamount totalamountuom isopenbag continueinnextdept statusdescription "
    "originalamount originalrate",
    "outputevents": "subject_id hadm_id stay_id caregiver_id charttime storetime itemid value valueuom",
    "procedureevents": "subject_id hadm_id stay_id caregiver_id starttime endtime storetime itemid value valueuom "
    "location locationcategory orderid linkorderid ordercategoryname ordercategorydescription patientweight isopenbag "
    "continueinnextdept statusdescription originalamount originalrate",
    "d_items": "itemid label abbreviation linksto category unitname param_type lownormalvalue highnormalvalue",
}
_NOTE = "note_id subject_id hadm_id note_type note_seq charttime storetime text"

HEADERS: dict[str, tuple[str, ...]] = (
    {f"hosp/{name}": tuple(columns.split()) for name, columns in _HOSP.items()}
    | {f"icu/{name}": tuple(columns.split()) for name, columns in _ICU.items()}
    | {"note/radiology": tuple(_NOTE.split()), "note/discharge": tuple(_NOTE.split())}
)
DICTIONARIES = ("hosp/d_labitems", "icu/d_items")

# Files whose texts hold commas, quotes or line breaks.
_QUOTED = {"hosp/d_labitems", "hosp/microbiologyevents", "icu/d_items", "note/radiology", "note/discharge"}


def labels(vocabulary: Sequence[str | None], codes: NDArray[np.int64]) -> pa.Array:
    """Return the text of each code; None and negative codes are empty fields."""
    return pa.array(vocabulary, pa.string()).take(pa.array(codes, mask=codes < 0))


def nullable(values: NDArray[np.generic], missing: NDArray[np.bool_]) -> pa.Array:
    """Return ``values`` with an empty field where ``missing``."""
    return pa.array(values, mask=missing)


def arrow_table(name: str, columns: Columns) -> pa.Table:
    """Return all official columns of a file in order, the absent ones empty; NaN and NaT become empty fields."""
    length = len(next(iter(columns.values())))
    unknown = set(columns) - set(HEADERS[name])
    if unknown:
        raise KeyError(f"{name} has no columns {sorted(unknown)}")
    arrays = [
        pa.array(columns[column], from_pandas=True) if column in columns else pa.nulls(length, pa.string())
        for column in HEADERS[name]
    ]
    return pa.table(dict(zip(HEADERS[name], arrays, strict=True)))


def header_member(name: str) -> bytes:
    """Return the header line as a gzip member."""
    return gzip.compress((",".join(HEADERS[name]) + "\n").encode(), compresslevel=1, mtime=0)


def rows_member(name: str, table: pa.Table) -> bytes:
    """Return the rows as a gzip member, without a header."""
    text = BytesIO()
    style = "needed" if name in _QUOTED else "none"
    options = arrow_csv.WriteOptions(include_header=False, quoting_style=style)
    arrow_csv.write_csv(table, text, options)
    return gzip.compress(text.getvalue(), compresslevel=1, mtime=0)
