"""Radiology reports: what ``note/radiology`` says about the lung burden, in words.

Why words: the lung burden is a part of the risk that the measurements only hint at, so a model that reads has something
to gain. A report grades the burden in six steps, with an error of reading; phrasing is put together from fragments, so
two reports of one grade differ. Chest studies tell it in findings and impression, an abdominal CT in a remark on the
lung bases, a head CT not at all. All fragments were written for this module.
Rows: ``R`` reports, sorted by patient and time.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from simulations.hospital.course import Admissions, Stays, hours, to_minute
from simulations.hospital.latents import UNITS, Bools, Floats, Ints, by_unit, logistic
from simulations.hospital.mimic_csv import Column, labels, nullable
from simulations.hospital.physiology import LUNG_DRIFT, drift
from simulations.hospital.report_phrases import (
    ABDOMEN,
    ABDOMEN_REASONS,
    BASES,
    BONES,
    CHANGE,
    CHEST,
    CHEST_EXAMS,
    HEAD,
    HEART,
    PARENCHYMA,
    PLEURA,
    QUESTIONS,
    REASONS,
    SIDES,
    SUMMARY,
    TUBES,
    ZONES,
)
from simulations.hospital.support import Support

GRADE_CUTS = (-0.9, -0.25, 0.4, 1.05, 1.75)
READING_ERROR, BASES_ERROR = 0.1, 0.4
FIRST_DAY_LOGIT, FIRST_DAY_SLOPE = 2.4, 0.7
EMERGENCY_SHARE, LATER_SHARE, LATER_DAYS = 0.6, 0.4, 7
STORE_HOURS = (0.8, 5.0)
CHEST_STUDY, ABDOMEN_STUDY, HEAD_STUDY = 0, 1, 2
SHARES, NEURO_SHARES = (0.93, 0.05, 0.02), (0.7, 0.03, 0.27)
CHOICES = 16  # uniform numbers a report spends on its phrasing


@dataclass(frozen=True, kw_only=True)
class _Reports:
    """When and of what: row of the stay, hours since ICU admission."""

    stay: Ints
    hour: Floats


def _schedule(rng: np.random.Generator, stays: Stays, admissions: Admissions) -> _Reports:
    """Draw reports in the emergency department, in the first day (more for the sicker) and about every other day."""
    n, latents = stays.stay_id.size, stays.latents
    delay = (stays.intime - admissions.admitted[stays.admission]).astype(np.float64) / 3600.0
    emergency = admissions.emergency[stays.admission] & (stays.since_first_h == 0.0)
    willing = by_unit("notes")[latents.unit]
    before = np.flatnonzero(emergency & (rng.random(n) < EMERGENCY_SHARE * logistic(1.5 + willing)))
    chance = logistic(FIRST_DAY_LOGIT + FIRST_DAY_SLOPE * latents.severity + willing)
    first = np.flatnonzero(rng.random(n) < chance)
    later, day = np.nonzero(rng.random((n, LATER_DAYS)) < LATER_SHARE * logistic(1.0 + willing)[:, None])
    hour = np.concatenate(
        [
            -delay[before] - rng.uniform(0.2, 2.0, before.size),
            rng.uniform(0.2, 1.0, first.size) * np.minimum(14.0, 0.8 * stays.hours[first]),
            24.0 * day + rng.uniform(14.0, 38.0, later.size),
        ]
    )
    stay = np.concatenate([before, first, later])
    inside = hour < stays.hours[stay] - 0.5
    return _Reports(stay=stay[inside], hour=hour[inside])


def _studies(rng: np.random.Generator, unit: Ints) -> Ints:
    """Draw what is examined; neurological units look at heads."""
    neuro = np.array(["Neuro" in each.name for each in UNITS])[unit]
    u = rng.random(unit.size)
    usual, other = (np.searchsorted(np.cumsum(shares)[:2], u) for shares in (SHARES, NEURO_SHARES))
    return np.where(neuro, other, usual)


def _grades(rng: np.random.Generator, stays: Stays, reports: _Reports, study: Ints) -> Ints:
    """Return the grade that the radiologist reads off the lung burden at that time."""
    hour = reports.hour + stays.since_first_h[reports.stay]
    moved = drift(stays.latents.died[reports.stay], hour)
    error = np.where(study == CHEST_STUDY, READING_ERROR, BASES_ERROR)
    burden = stays.latents.lung[reports.stay] + LUNG_DRIFT * moved + error * rng.normal(size=hour.size)
    return np.searchsorted(np.array(GRADE_CUTS), burden)


def _pick(options: tuple[str, ...], u: float) -> str:
    return options[int(u * len(options))]


def _chest(grade: int, tube: bool, patient: str, u: list[float]) -> str:
    """Put a chest report together."""
    side, zone = _pick(SIDES, u[0]), _pick(ZONES, u[1])
    findings = [
        _pick(TUBES, u[2]) if tube else "",
        _pick(PARENCHYMA[grade], u[3]).format(side=side, zone=zone),
        _pick(PLEURA[grade], u[4]).format(side=side, zone=zone),
        _pick(HEART, u[5]),
        _pick(BONES, u[6]) if u[7] < 0.5 else "",
    ]
    return CHEST.format(
        exam=_pick(CHEST_EXAMS, u[8]),
        patient=patient,
        reason=_pick(REASONS[grade // 2], u[9]),
        question=_pick(QUESTIONS, u[10]),
        findings="  ".join(sentence for sentence in findings if sentence),
        summary=_pick(SUMMARY[grade], u[11]).format(side=side, zone=zone),
        change=_pick(CHANGE[grade], u[12]),
    )


def _text(study: int, grade: int, tube: bool, female: bool, u: list[float]) -> str:
    patient = f"___ year old {'woman' if female else 'man'}"
    if study == CHEST_STUDY:
        return _chest(grade, tube, patient, u)
    if study == ABDOMEN_STUDY:
        bases = _pick(BASES[grade], u[0])
        return _pick(ABDOMEN, u[1]).format(patient=patient, reason=_pick(ABDOMEN_REASONS, u[9]), bases=bases)
    return _pick(HEAD, u[1]).format(patient=patient)


def radiology(
    rng: np.random.Generator,
    stays: Stays,
    admissions: Admissions,
    support: Support,
    *,
    female: Bools,
) -> dict[str, Column]:
    """Return the table's columns; ``female`` has one entry a stay. Reports are stored some hours later."""
    drawn = _schedule(rng, stays, admissions)
    order = np.lexsort((drawn.hour, drawn.stay))
    reports = _Reports(stay=drawn.stay[order], hour=drawn.hour[order])
    stay, hour = reports.stay, reports.hour
    study = _studies(rng, stays.latents.unit[stay])
    grade = _grades(rng, stays, reports, study)
    tube = support.ventilated[stay] & (hour > support.ventilated_from_h[stay]) & (hour < support.ventilated_to_h[stay])
    choices = rng.random((stay.size, CHOICES)).tolist()
    rows = zip(study.tolist(), grade.tolist(), tube.tolist(), female[stay].tolist(), choices, strict=True)
    charted = to_minute(stays.intime[stay] + hours(hour))
    subject = stays.subject_id[stay]
    return {
        **note_columns(subject, "RR"),
        "hadm_id": nullable(stays.hadm_id[stay], charted < admissions.admitted[stays.admission[stay]]),
        "charttime": charted,
        "storetime": to_minute(charted + hours(rng.uniform(*STORE_HOURS, stay.size))),
        "text": pa.array([_text(*row) for row in rows], pa.string()),
    }


def note_columns(subject: Ints, kind: str) -> dict[str, Column]:
    """Return identifier, patient, type and number of notes that are sorted by patient."""
    number = np.arange(subject.size) - np.searchsorted(subject, subject) + 1
    names = [f"{who}-{kind}-{which}" for who, which in zip(subject.tolist(), number.tolist(), strict=True)]
    return {
        "note_id": pa.array(names, pa.string()),
        "subject_id": subject,
        "note_type": labels([kind], number * 0),
        "note_seq": number,
    }
