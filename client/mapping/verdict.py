"""What keeps a site from being ready, and what it can live without: sentences for the person who maps the extract."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from client.mapping.account import Account
from client.mapping.config import FIRST_TABLES
from client.mapping.coverage import WORDS, ConceptCoverage
from client.mapping.targets import TARGETS
from client.mapping.times import TimeCheck
from shared_model.features import MEASURED

_MOSTLY, _PARTLY, _LOST, _UNREAD = 0.6, 0.1, 0.1, 0.01
_FEW, _MOST_NAMED = 20, 8
_MOST_COUNTED = 20_000_000  # rows, for copies to be counted here; `prepare` counts them anyway
_PERSONS = tuple(f"tables.{name}" for name in FIRST_TABLES)
# Features that come from other concepts, or from drugs and devices.
_DERIVED = ("gcs", "pao2fio2", "ventilation", "vasopressor")
_GCS_PARTS = ("gcs_eyes", "gcs_verbal", "gcs_motor")
# Concepts without which SOFA, and so Sepsis-3, cannot be told.
_FOR_SEPSIS3 = ("heart_rate", "mbp", "creatinine", "platelets", "bilirubin", "pao2")


@dataclass(frozen=True, kw_only=True)
class UnmappedCode:
    """A local code that nothing maps, with the concept that it may be."""

    step: str
    code: str
    label: str
    rows: int
    suggestion: str = ""
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class UnitDoubt:
    """A concept whose values look as if they were in another unit."""

    concept: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a mapped extract. ``unmapped``: the most frequent codes; ``empty``: tables without a row."""

    connection: duckdb.DuckDBPyConnection
    account: Account
    concepts: tuple[ConceptCoverage, ...]
    times: tuple[TimeCheck, ...]
    unit_doubts: tuple[UnitDoubt, ...]
    unmapped: tuple[UnmappedCode, ...]
    empty: tuple[str, ...]


def what_is_wrong(facts: Facts, flow: list[dict[str, Any]], deaths: int | None) -> Iterator[str]:
    """What a site must mend first. ``flow`` and ``deaths`` are of the cohort; None where it is empty."""
    for line in facts.account.lines:
        rejected = sum(line.rejected.values())
        judged = rejected + line.mapped
        limit = _LOST if line.step.startswith(_PERSONS) else _MOSTLY
        if judged and rejected / judged > limit:
            most = max(line.rejected, key=lambda rule: line.rejected[rule])
            yield f"{line.step}: {rejected:,} of {judged:,} rows are rejected, most often: {most}"
        unread = line.rejected.get("line cannot be read", 0)
        if judged and unread / judged > _UNREAD:
            yield f"{line.step}: {unread:,} of {judged:,} {_UNREADABLE}"
    has_values = {concept.concept for concept in facts.concepts if concept.events}
    yield from (f.sentence for f in facts.account.refused if f.share > _MOSTLY and f.concept not in has_values)
    yield from (doubt.message for doubt in facts.unit_doubts)
    yield from (doubt for check in facts.times if check.grave for doubt in check.doubts)
    if deaths is not None:
        yield from _deaths(flow[-1]["stays"], deaths)
    yield from _strangers(facts.connection)
    yield from _no_arterial_blood(facts.connection)


def _deaths(stays: int, deaths: int) -> Iterator[str]:
    if stays >= _FEW and deaths > stays / 2:
        yield f"{deaths:,} of {stays:,} stays end in death: is hospital_expire_flag the other way round?"
    if stays >= 5 * _FEW and deaths == 0:
        yield f"none of {stays:,} stays ends in death: what does hospital_expire_flag say?"


def what_is_missing(facts: Facts, cohort: str) -> Iterator[str]:
    """What can be lived without, and should be known."""
    yield from _unmeasured(facts, cohort)
    yield from (doubt for check in facts.times if not check.grave for doubt in check.doubts)
    for line in facts.account.lines:
        lost = sum(line.rejected.values())
        if line.step.startswith(_PERSONS) and 0 < lost <= _LOST * (lost + line.mapped):
            yield f"{line.step}: {lost:,} rows are rejected: {', '.join(line.rejected)}"
        unread = line.rejected.get("line cannot be read", 0)
        if unread and unread / line.rows <= _UNREAD:
            yield f"{line.step}: {unread:,} {_UNREADABLE}"
    yield from (f"absent from the extract: {name}" for name in facts.account.absent)
    yield from (f"relations.{name}: nothing reads it" for name in facts.account.unread)
    for concept in facts.concepts:
        if concept.unit == WORDS and concept.events and concept.in_range < _MOSTLY:
            yield f"{concept.concept}: {1 - concept.in_range:.0%} of its words say nothing; give its codes a `map`"
    yield from _one_sex(facts.connection)
    yield from _mappable(facts.unmapped)
    yield from _copies(facts.connection)


def _unmeasured(facts: Facts, cohort: str) -> Iterator[str]:
    covered = {concept.concept for concept in facts.concepts if concept.events}
    spared = {*_DERIVED, *(_GCS_PARTS if "gcs" in covered else ())}
    missing = [name for name in MEASURED if name not in covered | spared]
    if missing:
        yield f"not measured: {', '.join(missing)}"
    yield from (f.sentence for f in facts.account.refused if f.share > _PARTLY and f.concept in covered)
    if cohort == "sepsis3":
        needed = [name for name in _FOR_SEPSIS3 if name not in covered]
        if needed:
            yield f"SOFA without {', '.join(needed)} scores them 0, so fewer stays meet Sepsis-3"
        for name in ("prescriptions", "microbiologyevents"):
            if name in facts.empty:
                yield f"{name} is empty: suspicion of infection, and so Sepsis-3, needs it"


_UNREADABLE = "lines cannot be read; rejects/ says why (is csv right: delimiter, quote, encoding?)"


def _strangers(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """ICU stays of nobody: their identifiers are written in another way than those of the patients."""
    for name, key in (("patients", "subject_id"), ("admissions", "hadm_id")):
        query = f"SELECT count(*), count(*) FILTER ({key} NOT IN (SELECT {key} FROM {name})) FROM icustays"
        [(stays, strangers)] = connection.execute(query).fetchall()
        if strangers > _LOST * stays:
            yield f"icustays: {strangers:,} of {stays:,} stays have a {key} that is not in {name}"


def _no_arterial_blood(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    item = TARGETS["specimen_type"].items[0]
    query = f"SELECT count(*), count(*) FILTER (trim(value) = 'ART.') FROM labevents WHERE itemid = {item}"
    [(samples, arterial)] = connection.execute(query).fetchall()
    if samples and not arterial:
        yield f"specimen_type: of {samples:,} samples none is arterial (ART.): SOFA sees no PaO2/FiO2; give it a `map`"


def _one_sex(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    [(patients, sexes)] = connection.execute("SELECT count(*), count(DISTINCT gender) FROM patients").fetchall()
    if patients >= _FEW and sexes < 2:
        yield f"patients: all {patients:,} have the same sex, or none"


def _mappable(unmapped: tuple[UnmappedCode, ...]) -> Iterator[str]:
    found = [f"{code.label or code.code} ({code.suggestion}?)" for code in unmapped if code.suggestion]
    if found:
        more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        yield f"nothing maps codes that look like a concept: {', '.join(found[:_MOST_NAMED])}{more}"


def _copies(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    for name in ("chartevents", "labevents"):
        [(rows,)] = connection.execute(f"SELECT count(*) FROM {name}").fetchall()
        if 0 < rows <= _MOST_COUNTED:
            query = f"SELECT count(*) FROM (SELECT DISTINCT * EXCLUDE (storetime) FROM {name})"
            [(single,)] = connection.execute(query).fetchall()
            if rows - single > _UNREAD * rows:
                yield f"{name}: {rows - single:,} of {rows:,} rows are there twice; they are read once"
