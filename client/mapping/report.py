"""The mapping report: what is mapped, what is not, and what looks wrong, with a plain verdict.

It is for the people of the site and stays there. It holds counts, codes and, for at least ten patients, quantiles: no
row, no identifier.
"""

from collections.abc import Iterable
from typing import Any, Literal

import duckdb
from pydantic import BaseModel, ConfigDict

from client.mapping.account import CodeFound, Line
from client.mapping.coverage import ConceptCoverage, TimeCheck, cover_concepts, look_at_times
from client.mapping.mistakes import LONGEST_VALUE, one_line
from client.mapping.suggest import suggest
from client.mapping.suspicion import suspect_unit
from shared_model.features import MEASURED

Verdict = Literal["ready", "ready with gaps", "not ready"]
MOST_CODES = 200  # unmapped codes that the report lists, the most frequent first
_MOSTLY_REJECTED = 0.5
_MOST_NAMED = 8
# Features that come from other concepts, or from drugs and devices.
_DERIVED = ("gcs", "pao2fio2", "ventilation", "vasopressor")
_GCS_PARTS = ("gcs_eyes", "gcs_verbal", "gcs_motor")
# Concepts without which SOFA, and so Sepsis-3, cannot be told.
_FOR_SEPSIS3 = ("heart_rate", "mbp", "creatinine", "platelets", "bilirubin", "pao2")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class UnmappedCode(_Part):
    """A local code that nothing maps, with the concept that it may be."""

    step: str
    code: str
    label: str
    rows: int
    suggestion: str = ""
    why: str = ""


class UnitDoubt(_Part):
    """A concept whose values look as if they were in another unit."""

    concept: str
    message: str


class MappingReport(_Part):
    """Everything that `consilium-site check` tells."""

    site: str
    source: str
    verdict: Verdict
    reasons: tuple[str, ...]
    lines: tuple[dict[str, Any], ...]
    concepts: tuple[ConceptCoverage, ...]
    unmapped: tuple[UnmappedCode, ...]
    unmapped_more: int
    unit_doubts: tuple[UnitDoubt, ...]
    times: tuple[TimeCheck, ...]
    time_doubts: tuple[str, ...]
    row_checks: tuple[dict[str, Any], ...]
    absent: tuple[str, ...]
    empty_tables: tuple[str, ...]
    flow: tuple[dict[str, Any], ...]
    deaths: int | None


def report_on(
    connection: duckdb.DuckDBPyConnection,
    told: dict[str, Any],
    *,
    site: str,
    source: str,
    cohort: str,
    flow: list[dict[str, Any]],
    deaths: int | None,
    cohort_problem: str = "",
) -> MappingReport:
    """Look at the checked tables of ``connection`` and at what the extract told of its mapping.

    ``flow`` and ``deaths`` are of the cohort; where it is empty, ``cohort_problem`` says at which step.
    """
    mapping = told.get("mapping", {"lines": [], "codes": [], "absent": []})
    concepts = cover_concepts(connection)
    times = look_at_times(connection)
    doubts = tuple(_unit_doubts(concepts))
    unmapped = [found for found in mapping["codes"] if found["concept"] is None and not found["ignored"]]
    empty = tuple(name for name, rows in told["rows"].items() if rows == 0)
    time_doubts = tuple(doubt for check in times for doubt in check.doubts)
    grave = [*_grave(mapping["lines"]), *([cohort_problem] if cohort_problem else [])]
    grave += [doubt.message for doubt in doubts]
    gaps = [*_gaps(concepts, cohort, empty), *time_doubts, *_encoding_gaps(mapping["lines"])]
    gaps += [f"absent from the extract: {name}" for name in mapping["absent"]]
    listed = tuple(_unmapped(found) for found in unmapped[:MOST_CODES])
    gaps += _look_mappable(listed)
    return MappingReport(
        site=site,
        source=source,
        verdict="not ready" if grave else "ready with gaps" if gaps else "ready",
        reasons=(*grave, *gaps),
        lines=tuple(mapping["lines"]),
        concepts=concepts,
        unmapped=listed,
        unmapped_more=max(0, len(unmapped) - MOST_CODES),
        unit_doubts=doubts,
        times=times,
        time_doubts=time_doubts,
        row_checks=tuple(told["row_checks"]),
        absent=tuple(mapping["absent"]),
        empty_tables=empty,
        flow=tuple(flow),
        deaths=deaths,
    )


def _unmapped(found: dict[str, Any]) -> UnmappedCode:
    code = CodeFound(**found)
    suggestion = suggest(code.code, code.label)
    return UnmappedCode(
        step=code.step,
        code=_readable(code.code),
        label=_readable(code.label),
        rows=code.rows,
        suggestion=suggestion.concept if suggestion else "",
        why=suggestion.why if suggestion else "",
    )


def _readable(text: str) -> str:
    """A text of the extract as every terminal can show it."""
    short = one_line(text[: LONGEST_VALUE + 1])
    return short if len(short) <= LONGEST_VALUE else f"{short[: LONGEST_VALUE - 3]}..."


def _look_mappable(unmapped: Iterable[UnmappedCode]) -> Iterable[str]:
    found = [f"{code.code} ({code.suggestion}?)" for code in unmapped if code.suggestion]
    if found:
        more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        yield f"nothing maps codes that look like a concept: {', '.join(found[:_MOST_NAMED])}{more}"


def _unit_doubts(concepts: Iterable[ConceptCoverage]) -> Iterable[UnitDoubt]:
    for concept in concepts:
        if concept.quantiles:
            found = suspect_unit(concept.concept, concept.quantiles, concept.events)
            if found is not None:
                yield UnitDoubt(concept=concept.concept, message=found.message)


def _grave(lines: list[dict[str, Any]]) -> Iterable[str]:
    """What a site must mend first."""
    for line in (Line(**line) for line in lines):
        rejected = sum(line.rejected.values())
        judged = rejected + line.mapped
        if judged and rejected / judged > _MOSTLY_REJECTED:
            most = max(line.rejected, key=lambda rule: line.rejected[rule])
            yield f"{line.step}: {rejected:,} of {judged:,} rows are rejected, most often: {most}"


def _encoding_gaps(lines: list[dict[str, Any]]) -> Iterable[str]:
    for line in (Line(**line) for line in lines):
        unread = line.rejected.get("line cannot be read", 0)
        if unread:
            yield f"{line.step}: {unread:,} lines cannot be read; rejects/ says why (delimiter, quote, encoding?)"


def _gaps(concepts: tuple[ConceptCoverage, ...], cohort: str, empty: tuple[str, ...]) -> Iterable[str]:
    """What is missing and can be lived without."""
    covered = {concept.concept for concept in concepts if concept.events}
    spared = {*_DERIVED, *(_GCS_PARTS if "gcs" in covered else ())}
    missing = [name for name in MEASURED if name not in covered | spared]
    if missing:
        yield f"not measured: {', '.join(missing)}"
    if cohort == "sepsis3":
        needed = [name for name in _FOR_SEPSIS3 if name not in covered]
        if needed:
            yield f"SOFA without {', '.join(needed)} scores them 0, so fewer stays meet Sepsis-3"
        for name in ("prescriptions", "microbiologyevents"):
            if name in empty:
                yield f"{name} is empty: suspicion of infection, and so Sepsis-3, needs it"
