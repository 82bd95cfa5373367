"""``report.html``: one self-contained page drawn from ``results.json`` and from nothing else.

Why one file without scripts or outside requests: it is mailed between hospitals and opened on machines
without a network. Site and unit names come from other institutions, so everything is escaped.

This module decides what the page says (headline, alarms, rows), ``report_page`` where, ``figures`` draws.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.figures import draw_figures
from server.report_page import PAGE
from server.report_style import STYLE
from server.results import ComparisonRow, Estimate, RunResults, SiteSummary, UnitEvaluation

LEAK_AUROC = 0.95  # honest early-window models of this task reach 0.80 to 0.88
JUDGED_DEATHS = 10
_MISSING = "n/a"
_NBSP, _DASH, _MINUS = "\u00a0", "\u2013", "\u2212"
_WORDS = ["No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve"]
_LOCAL = "local-only: "


def render_report(results: RunResults) -> str:
    """The whole page. The same results give the same bytes."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters.update(number=number, count=count, share=share, interval=interval, size=size, digits=digits)
    page.filters["duration"], page.tests["known"] = duration, known
    units = unit_rows(results)
    return page.from_string(PAGE).render(
        run=results,
        style=Markup(STYLE),  # noqa: S704 - our own constant
        figures={name: Markup(svg) for name, svg in draw_figures(results).items()},  # noqa: S704 - escaped there
        headline=headline(results),
        leaks=list(leaks(results)),
        facts=key_figures(results),
        units=units,
        comparison_scale=scale_for(row.auroc for row in results.comparison),
        unit_scale=scale_for([e for row in units for e in (row.federated, row.local)]),
        federated=federated_auroc(results),
    )


def write_report(results: RunResults, path: Path) -> None:
    """Write atomically: a reader sees the old page or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(render_report(results), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def known(value: float | None) -> bool:
    """Whether there is a number to print; a diverged loss is a NaN, and is none."""
    return value is not None and math.isfinite(value)


def number(value: float | None, places: int = 3) -> str:
    """A decimal with a true minus sign, or 'n/a'."""
    return f"{value:.{places}f}".replace("-", _MINUS) if value is not None and known(value) else _MISSING


def digits(value: float | None) -> str:
    """Four significant digits, for figures whose magnitude is not known beforehand."""
    return f"{value:.4g}".replace("-", _MINUS) if value is not None and known(value) else _MISSING


def count(value: int | None, missing: str = _MISSING) -> str:
    return missing if value is None else f"{value:,}"


def share(part: int | None, whole: int | None) -> str:
    """A percentage with one decimal; 'n/a' of nothing."""
    return _MISSING if part is None or not whole else f"{100 * part / whole:.1f}{_NBSP}%"


def size(number_of_bytes: int) -> str:
    """Bytes in decimal units, as networks are sold."""
    value, units = float(number_of_bytes), iter(("B", "kB", "MB", "GB"))
    unit = next(units)
    while value >= 999.5 and unit != "GB":
        value, unit = value / 1000, next(units)
    return f"{value:.0f}{_NBSP}{unit}" if unit == "B" or value >= 99.95 else f"{value:.1f}{_NBSP}{unit}"


def duration(seconds: float) -> str:
    """Seconds as a reader says them."""
    minutes, hours = round(seconds / 60), int(seconds // 3600)
    if seconds < 120:
        return f"{seconds:.0f}{_NBSP}s"
    return f"{minutes}{_NBSP}min" if not hours else f"{hours}{_NBSP}h {minutes - 60 * hours}{_NBSP}min"


def interval(estimate: Estimate | None, places: int = 3) -> str:
    """The 95 % interval in parentheses, or nothing where there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    if not known(estimate.value) or not known(estimate.low) or not known(estimate.high):
        return ""
    return f"({number(estimate.low, places)}{_DASH}{number(estimate.high, places)})"


def metric(results: RunResults, name: str) -> Estimate:
    """A held-out metric; an estimate without a value where it was not computed."""
    return (results.heldout.metrics.get(name) if results.heldout else None) or Estimate(value=None)


def headline(results: RunResults) -> str:
    """The outcome in one sentence."""
    admitted = sum(site.admitted for site in results.sites)
    word = _WORDS[admitted] if admitted < len(_WORDS) else str(admitted)
    who = f"{word} hospital{'' if admitted == 1 else 's'}, one model" if admitted else "One model"
    if results.sites and not admitted:
        who = "No hospital admitted"
    auroc = metric(results, "auroc")
    if results.heldout is None:
        return f"{who}: {'no held-out result yet' if results.status == 'partial' else 'no held-out result'}"
    if not known(auroc.value):
        return f"{who}: held-out AUROC {undefined(results.heldout.patients, results.heldout.deaths)}"
    bounds = interval(auroc, 2).strip("()")
    return f"{who}: held-out AUROC {number(auroc.value, 2)}" + (f" (95{_NBSP}% CI {bounds})" if bounds else "")


def undefined(patients: int, deaths: int) -> str:
    """Why an AUROC is not defined: it compares those who died with those who lived."""
    if not patients:
        return "not defined: no patients"
    if not deaths:
        return "not defined: no deaths"
    return "not defined: no survivors" if deaths == patients else "not defined"


def leaks(results: RunResults) -> Iterator[str]:
    """Every place with an AUROC too good to be true, named with its value.

    A few deaths are ranked perfectly by chance, so below ``JUDGED_DEATHS`` only the held-out set as a whole is named.
    """
    if results.heldout is None:
        return
    deaths = results.heldout.deaths
    places: list[tuple[str, int, float | None]] = [("held-out set", deaths, metric(results, "auroc").value)]
    if deaths >= JUDGED_DEATHS:
        places += [(f"unit {u.unit}", u.deaths, u.auroc.value) for u in results.heldout.by_unit]
        places += [(row.model, deaths, row.auroc.value) for row in results.comparison]
    for place, died, value in places:
        if value is not None and value >= LEAK_AUROC and (died >= JUDGED_DEATHS or place == "held-out set"):
            few = "" if died >= JUDGED_DEATHS else ": too few to judge"
            yield f"{place}: {number(value)} on {died} death{'' if died == 1 else 's'}{few}"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One key figure: its name, its value, and what it needs to be read rightly."""

    name: str
    value: str
    note: str = ""


def key_figures(results: RunResults) -> list[Fact]:
    """The figures that a reader in a hurry leaves with."""
    return [*_people(results), *_run(results), *_scores(results)]


def _people(results: RunResults) -> Iterator[Fact]:
    admitted = [site for site in results.sites if site.admitted]
    if admitted:
        counts = [site.patients for site in admitted]
        at_least = "\u2265" + _NBSP if None in counts else ""
        total = sum(n or 0 for n in counts)
        deaths = sum(site.deaths or 0 for site in admitted)
        whole = all(site.deaths is not None for site in admitted)
        note = f"{count(deaths)} deaths ({share(deaths, total)})" if whole else ""
        note = note or (f"at least {count(deaths)} deaths" if deaths else "deaths suppressed")
        yield Fact(name="Training patients", value=at_least + count(total), note=note)
    held = results.heldout
    if held:
        note = f"{count(held.deaths)} deaths ({share(held.deaths, held.patients)})"
        yield Fact(name="Held-out patients", value=count(held.patients), note=note)


def _run(results: RunResults) -> Iterator[Fact]:
    refused = sum(not site.admitted for site in results.sites)
    if results.sites:
        note = f"{refused} not admitted" if refused else "none turned away"
        yield Fact(name="Sites admitted", value=str(len(results.sites) - refused), note=note)
    kept = f"model of round {results.best_round} kept" if results.best_round is not None else ""
    yield Fact(name="Rounds", value=str(len(results.rounds)), note=kept)


def _scores(results: RunResults) -> Iterator[Fact]:
    for name in ("auroc", "auprc"):
        estimate = metric(results, name)
        bounds = interval(estimate).strip("()")
        note = f"95{_NBSP}% CI {bounds}" if bounds else ""
        yield Fact(name=f"Held-out {name.upper()}", value=number(estimate.value), note=note)
    oracle = results.data.oracle_auroc if results.data else None
    if known(oracle):
        yield Fact(name="Best possible AUROC", value=number(oracle), note="from the patients\u2019 true risk")
    overhead = results.timing.federation_overhead
    if known(overhead):
        value = f"{number(overhead, 2)}{_NBSP}\u00d7"
        yield Fact(name="Federation overhead", value=value, note="wall time over local training")


def federated_auroc(results: RunResults) -> float | None:
    """The dashed line of the forest plots."""
    rows = [row.auroc.value for row in results.comparison if row.model == "federated"]
    value = next(iter(rows), metric(results, "auroc").value)
    return value if known(value) else None


@dataclass(frozen=True, kw_only=True)
class UnitRow:
    """One unit's line: on the same patients, the federated model and the one that the unit trains alone."""

    unit: str
    patients: int | None = None
    deaths: int | None = None
    federated: Estimate | None = None
    local: Estimate | None = None
    words: str = ""
    refused: str = ""

    @property
    def drawn(self) -> bool:
        """Whether there is a dot to draw."""
        return any(known(estimate.value) for estimate in (self.federated, self.local) if estimate)


def unit_rows(results: RunResults) -> list[UnitRow]:
    """Units of the held-out set in their order, then those that trained alone or were not admitted."""
    local = {row.model.removeprefix(_LOCAL): row for row in results.comparison if _is_local(row)}
    refused = {site.site: site for site in results.sites if not site.admitted}
    evaluated = {unit.unit: unit for unit in (results.heldout.by_unit if results.heldout else [])}
    names = dict.fromkeys([*evaluated, *local, *refused])
    return [_unit_row(name, evaluated.get(name), local.get(name), refused.get(name)) for name in names]


def _is_local(row: ComparisonRow) -> bool:
    return row.model.startswith(_LOCAL)


def _unit_row(
    name: str, unit: UnitEvaluation | None, local: ComparisonRow | None, refused: SiteSummary | None
) -> UnitRow:
    parts: dict[str, Any] = {}
    if unit:
        parts = {"patients": unit.patients, "deaths": unit.deaths, "federated": unit.auroc}
        parts["words"] = "" if known(unit.auroc.value) else undefined(unit.patients, unit.deaths)
    reason = (refused.reason or "no reason given") if refused else ""
    return UnitRow(unit=name, local=local.own_unit_auroc if local else None, refused=reason, **parts)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The common AUROC axis of a forest plot's rows."""

    low: float
    high: float

    def at(self, value: float) -> str:
        """Where a value lies, as a percentage of the row's width; 6 % stay free on either side."""
        inside = min(max(value, self.low), self.high)
        return f"{6 + 88 * (inside - self.low) / (self.high - self.low):.2f}%"

    def ticks(self) -> list[float]:
        """Every tenth, or every fifth where they would crowd."""
        step = 0.1 if self.high - self.low < 0.45 else 0.2
        return [self.low + step * n for n in range(int((self.high - self.low) / step + 1e-6) + 1)]


def scale_for(estimates: Iterable[Estimate | None]) -> Scale:
    """From the tenth below the lowest bound to the tenth above the highest."""
    values = [value for e in estimates if e for value in (e.value, e.low, e.high)]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    low = math.floor(round(min(finite, default=0.5) * 10, 6)) / 10
    high = math.ceil(round(max(finite, default=1.0) * 10, 6)) / 10
    return Scale(low=low, high=max(high, low + 0.1))
