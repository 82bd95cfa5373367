"""The mapping report: what is mapped, what is not, and what looks wrong, with a plain verdict.

It is for the people of the site and stays there. It holds counts, codes and, for at least ten patients, quantiles: no
row, no identifier.
"""

from collections.abc import Iterable
from typing import Any, Literal

import duckdb
from pydantic import BaseModel, ConfigDict

from client.mapping.account import Account, CodeFound
from client.mapping.coverage import ConceptCoverage, cover_concepts
from client.mapping.mistakes import LONGEST_VALUE, one_line
from client.mapping.suggest import suggest
from client.mapping.suspicion import suspect_unit
from client.mapping.times import TimeCheck, look_at_times
from client.mapping.verdict import Facts, what_is_missing, what_is_wrong

Verdict = Literal["ready", "ready with gaps", "not ready"]
MOST_CODES = 200  # unmapped codes that the report lists, the most frequent first


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
    mapping = told.get("mapping", Account().as_dict())
    concepts = cover_concepts(connection)
    times = look_at_times(connection)
    doubts = tuple(_unit_doubts(concepts))
    unmapped = [found for found in mapping["codes"] if found["concept"] is None and not found["ignored"]]
    empty = tuple(name for name, rows in told["rows"].items() if rows == 0)
    time_doubts = tuple(doubt for check in times for doubt in check.doubts)
    listed = tuple(_unmapped(found) for found in unmapped[:MOST_CODES])
    facts = Facts(
        connection=connection,
        account=Account.of(mapping),
        concepts=concepts,
        times=times,
        unit_doubts=[doubt.message for doubt in doubts],
        mappable=[f"{code.label or code.code} ({code.suggestion}?)" for code in listed if code.suggestion],
        empty=empty,
        cohort=cohort,
        stays=flow[-1]["stays"] if flow else 0,
        deaths=deaths,
    )
    grave = [*([cohort_problem] if cohort_problem else []), *what_is_wrong(facts)]
    gaps = list(what_is_missing(facts))
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


def _unit_doubts(concepts: Iterable[ConceptCoverage]) -> Iterable[UnitDoubt]:
    for concept in concepts:
        if concept.quantiles:
            found = suspect_unit(concept.concept, concept.quantiles, concept.events)
            if found is not None:
                yield UnitDoubt(concept=concept.concept, message=found.message)
