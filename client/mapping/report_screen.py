"""The mapping report in a terminal: the verdict first, then what to do about it, then the figures."""

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from client.mapping.coverage import WORDS, ConceptCoverage
from client.mapping.report import MappingReport

MOST_CODES = 15
_BAR = 10


def render(report: MappingReport) -> RenderableType:
    """Everything but the codes beyond the most frequent ones."""
    return Group(*_parts(report))


def _parts(report: MappingReport) -> Iterator[RenderableType]:
    if report.lines:
        yield _account(report.lines)
    yield _coverage(report)
    if report.unmapped:
        yield _codes(report)
    if report.row_checks:
        yield _checks(report.row_checks)
    if report.empty_tables:
        yield Text(f"Empty tables: {', '.join(report.empty_tables)}\n")
    if report.flow:
        yield _flow(report)
    yield _verdict(report)


def _verdict(report: MappingReport) -> RenderableType:
    """Last, where a terminal stops."""
    style = {"ready": "bold green", "ready with gaps": "bold yellow", "not ready": "bold red"}[report.verdict]
    lines = [Text(f"{report.site}: {report.verdict}", style=style)]
    lines += [Text(f"  - {reason}") for reason in report.reasons]
    return Group(*lines)


def _account(lines: Iterable[dict[str, Any]]) -> Table:
    table = _table("Where the rows went: rows = mapped + rejected + ignored")
    table.add_column("step", overflow="fold")
    for name in ("rows", "mapped", "rejected", "ignored"):
        table.add_column(name, justify="right")
    for line in lines:
        rejected, ignored = sum(line["rejected"].values()), sum(line["ignored"].values())
        read = "" if line["source"] == "extract" else f" [dim]{escape(line['source'])}[/dim]"
        table.add_row(
            escape(line["step"]) + read, *(_count(n) for n in (line["rows"], line["mapped"], rejected, ignored))
        )
        for kind in ("rejected", "ignored", "notes"):
            for reason, rows in line[kind].items():
                place = {"rejected": ("", "", _count(rows), ""), "ignored": ("", "", "", _count(rows))}
                table.add_row(f"  [dim]{escape(reason)}[/dim]", *place.get(kind, ("", _count(rows), "", "")))
    return table


def _coverage(report: MappingReport) -> Table:
    doubted = {doubt.concept for doubt in report.unit_doubts}
    table = _table("Concepts: patients with a value, values in the plausible range, median (5 % to 95 %)")
    table.add_column("concept", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("patients", no_wrap=True)
    table.add_column("values", justify="right")
    table.add_column("in range", justify="right")
    table.add_column("median (5-95 %)")
    for concept in report.concepts:
        table.add_row(*_concept(concept, doubted=concept.concept in doubted))
    return table


def _concept(concept: ConceptCoverage, *, doubted: bool) -> tuple[str, ...]:
    if not concept.events:
        return concept.concept, concept.unit, "[dim]not measured[/dim]", "", "", ""
    full = round(concept.patients_share * _BAR)
    bar = "█" * full + "·" * (_BAR - full)
    q = concept.quantiles
    few = "" if concept.unit == WORDS else "too few patients"
    spread = f"{q['p50']:.3g} ({q['p05']:.3g}-{q['p95']:.3g})" if q else few
    doubt = " ? unit" if doubted else ""
    return (
        concept.concept,
        concept.unit,
        f"{bar} {concept.patients_share:4.0%}",
        _count(concept.events),
        f"{concept.in_range:.1%}",
        spread + doubt,
    )


def _codes(report: MappingReport) -> RenderableType:
    table = _table("Codes that nothing maps, the most frequent first")
    table.add_column("code", overflow="fold")
    table.add_column("name", overflow="fold")
    table.add_column("rows", justify="right")
    table.add_column("may be", overflow="fold")
    for code in report.unmapped[:MOST_CODES]:
        guess = f"{code.suggestion} ({code.why})" if code.suggestion else ""
        table.add_row(escape(code.code), escape(code.label), _count(code.rows), escape(guess))
    more = len(report.unmapped) - MOST_CODES + report.unmapped_more
    return Group(table, Text(f"... and {more:,} more: --json or --html list them\n")) if more > 0 else table


def _checks(checks: Iterable[dict[str, Any]]) -> Table:
    table = _table("Checks of rows")
    table.add_column("table", overflow="fold")
    table.add_column("rule", overflow="fold")
    table.add_column("rows were")
    table.add_column("rows", justify="right")
    for check in checks:
        table.add_row(escape(check["table"]), escape(check["rule"]), check["action"], _count(check["rows"]))
    return table


def _flow(report: MappingReport) -> Table:
    table = _table("Cohort" if report.deaths is None else f"Cohort ({report.deaths:,} deaths)")
    table.add_column("what remained after each step", overflow="fold")
    table.add_column("patients", justify="right")
    table.add_column("stays", justify="right")
    for step in report.flow:
        table.add_row(escape(step["step"]), _count(step["patients"]), _count(step["stays"]))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _count(number: int) -> str:
    return f"{number:,}" if number else "-"
