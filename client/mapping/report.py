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
from client.mapping.mistakes import one_line, shortened
from client.mapping.suggest import suggest
from client.mapping.suspicion import suspect_unit
from client.mapping.times import TimeCheck, look_at_times
from client.mapping.verdict import Facts, UnitDoubt, UnmappedCode, what_is_missing, what_is_wrong

Verdict = Literal["ready", "ready with gaps", "not ready"]
MOST_CODES = 200  # unmapped codes that the report lists, the most frequent first


class MappingReport(BaseModel):
    """Everything that `consilium-site check` tells."""

    model_config = ConfigDict(frozen=True)

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
    account = Account.of(told["mapping"]) if "mapping" in told else Account()
    facts = _gather(connection, account, told["rows"])
    grave = [*([cohort_problem] if cohort_problem else []), *what_is_wrong(facts, flow, deaths)]
    gaps = list(what_is_missing(facts, cohort))
    return MappingReport(
        site=site,
        source=source,
        verdict="not ready" if grave else "ready with gaps" if gaps else "ready",
        reasons=(*grave, *gaps),
        lines=tuple(line.as_dict() for line in account.lines),
        concepts=facts.concepts,
        unmapped=facts.unmapped,
        unmapped_more=len(account.unmapped) - len(facts.unmapped),
        unit_doubts=facts.unit_doubts,
        times=facts.times,
        time_doubts=tuple(doubt for check in facts.times for doubt in check.doubts),
        row_checks=tuple(told["row_checks"]),
        absent=tuple(account.absent),
        empty_tables=facts.empty,
        flow=tuple(flow),
        deaths=deaths,
    )


def _gather(connection: duckdb.DuckDBPyConnection, account: Account, rows: dict[str, int]) -> Facts:
    concepts = cover_concepts(connection)
    return Facts(
        connection=connection,
        account=account,
        concepts=concepts,
        times=look_at_times(connection),
        unit_doubts=tuple(_unit_doubts(concepts)),
        unmapped=tuple(_unmapped(code) for code in account.unmapped[:MOST_CODES]),
        empty=tuple(name for name, count in rows.items() if count == 0),
    )


def _unmapped(code: CodeFound) -> UnmappedCode:
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
    return shortened(one_line(text))


def _unit_doubts(concepts: Iterable[ConceptCoverage]) -> Iterable[UnitDoubt]:
    for concept in concepts:
        if concept.quantiles:
            found = suspect_unit(concept.concept, concept.quantiles, concept.events)
            if found is not None:
                yield UnitDoubt(concept=concept.concept, message=found.message)
