"""Discharge summaries: ``note/discharge``, one for each admission, stored at discharge.

They name the conditions and the outcome, so this admission's summary gives the label away while that of an earlier
admission is fair to use: a pipeline has to keep them apart by time.
"""

import numpy as np
import pyarrow as pa

from simulations.hospital.course import SUBJECT, Admissions
from simulations.hospital.latents import Bools
from simulations.hospital.mimic_csv import Column
from simulations.hospital.radiology import note_columns
from simulations.hospital.records import CHRONIC, CONDITIONS

_COURSES = (
    "The patient was treated on the floor and in the unit as needed and recovered step by step.",
    "Over the following days the condition improved and support could be withdrawn.",
    "Treatment was adjusted to the results, and the further course was uneventful.",
)
_DEATHS = (
    "Despite full support the condition worsened, and after talks with the family care was directed at comfort.",
    "Organ failure progressed under maximal treatment, and the patient died with the family present.",
)
_TEXT = (
    "Name:  ___                 Unit No:   ___\n\nDate of Birth:  ___             Sex:   {sex}\n\n"
    "Chief Complaint:\n{complaint}\n\nPast Medical History:\n{history}\n\nBrief Hospital Course:\n"
    "___ year old patient admitted with {complaint}.  {course}\n\nDischarge Diagnosis:\n{diagnoses}\n\n"
    "Discharge Condition:\n{condition}\n"
)


def _names(present: list[bool]) -> tuple[list[str], list[str]]:
    """Return the chronic and the acute conditions by name."""
    names = [(i < len(CHRONIC), c.name) for i, c in enumerate(CONDITIONS) if present[i]]
    return [name for chronic, name in names if chronic], [name for chronic, name in names if not chronic]


def _text(present: list[bool], female: bool, died: bool, u: float) -> str:
    history, acute = _names(present)
    courses = _DEATHS if died else _COURSES
    return _TEXT.format(
        sex="F" if female else "M",
        complaint=acute[-1] if acute else "weakness",
        history=", ".join(history) or "none",
        course=courses[int(u * len(courses))],
        diagnoses=", ".join(acute) or "observation",
        condition="Expired" if died else "Stable, ambulatory with help",
    )


def discharge(rng: np.random.Generator, rows: Admissions, conditions: Bools, *, female: Bools) -> dict[str, Column]:
    """Return the table's columns; ``conditions`` and ``female`` have one entry an admission."""
    choices = rng.random(rows.hadm_id.size).tolist()
    texts = zip(conditions.tolist(), female.tolist(), rows.died.tolist(), choices, strict=True)
    return {
        **note_columns(SUBJECT + rows.person, "DS"),
        "hadm_id": rows.hadm_id,
        "charttime": rows.discharged,
        "storetime": rows.discharged,
        "text": pa.array([_text(*row) for row in texts], pa.string()),
    }
