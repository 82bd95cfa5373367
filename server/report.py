"""``report.html``: one self-contained page drawn from ``results.json`` and from nothing else.

Why one file without scripts or outside requests: it is mailed between hospitals and opened on machines
without a network. Site and unit names come from other institutions, so everything is escaped.

This module decides what the page says (headline, alarms, rows), ``report_page`` where, ``figures`` draws.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from server.figures import draw_figures
from server.report_features import feature_table
from server.report_page import PAGE
from server.report_privacy import NAMES, spending_table
from server.report_rows import left_out_forest, reference_of, scale_for, site_forest, subgroup_forest, unit_forest
from server.report_style import STYLE
from server.report_tuning import tuning_table
from server.report_words import NBSP, count, digits, duration, interval, known, number, share, size, undefined
from server.results import Estimate, RunResults
from shared_model.atomic import write_text

LEAK_AUROC = 0.95  # honest early-window models of this task reach 0.80 to 0.88
JUDGED_DEATHS = 10
_WORDS = ["No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve"]


def render_report(results: RunResults) -> str:
    """The whole page. The same results give the same bytes."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters.update(number=number, count=count, share=share, interval=interval, size=size, digits=digits)
    page.filters["duration"], page.tests["known"] = duration, known
    forests = (unit_forest, subgroup_forest, site_forest, left_out_forest)
    return page.from_string(PAGE).render(
        run=results,
        shown=results.performance,
        where=evaluated_on(results),
        style=Markup(STYLE),  # noqa: S704 - our own constant
        figures={name: Markup(svg) for name, svg in draw_figures(results).items()},  # noqa: S704 - escaped there
        headline=headline(results),
        leaks=list(leaks(results)),
        facts=key_figures(results),
        comparison_scale=scale_for(row.auroc for row in results.comparison),
        federated=reference_of(results.heldout),
        tuning=tuning_table(results),
        spending=spending_table(results.privacy),
        names=NAMES,
        features=feature_table(results.features),
        **{forest.__name__: forest(results) for forest in forests},
    )


def write_report(results: RunResults, path: Path) -> None:
    """A reader sees the old page or the new one."""
    write_text(path, render_report(results))


def evaluated_on(results: RunResults) -> str:
    """Whose figures the report leads with: without a held-out set, those of the sites' validation patients, which in a
    private run carry noise."""
    if results.heldout or not results.validation:
        return "held-out"
    return "noised validation" if results.validation.noise else "validation"


def metric(results: RunResults, name: str) -> Estimate:
    """A leading metric; an estimate without a value where it was not computed."""
    return (results.performance.metrics.get(name) if results.performance else None) or Estimate(value=None)


def headline(results: RunResults) -> str:
    """The outcome in one sentence."""
    admitted = sum(site.admitted for site in results.sites)
    word = _WORDS[admitted] if admitted < len(_WORDS) else str(admitted)
    who = f"{word} hospital{'' if admitted == 1 else 's'}, one model" if admitted else "One model"
    if results.sites and not admitted:
        who = "No hospital admitted"
    auroc, shown = metric(results, "auroc"), results.performance
    if shown is None:
        return f"{who}: {'no held-out result yet' if results.status == 'partial' else 'no held-out result'}"
    where = f"{who}: {evaluated_on(results)} AUROC"
    if not known(auroc.value):
        return f"{where} {undefined(shown.patients, shown.deaths)}"
    bounds = interval(auroc, 2).strip("()")
    return f"{where} {number(auroc.value, 2)}" + (f" (95{NBSP}% CI {bounds})" if bounds else "")


def leaks(results: RunResults) -> Iterator[str]:
    """Every place with an AUROC too good to be true, named with its value.

    A few deaths are ranked perfectly by chance, so below ``JUDGED_DEATHS`` only the leading set as a whole is named.
    """
    shown = results.performance
    if shown is None:
        return
    whole = "held-out set" if results.heldout else "validation patients"
    places: list[tuple[str, int, float | None]] = [(whole, shown.deaths, metric(results, "auroc").value)]
    if shown.deaths >= JUDGED_DEATHS:
        places += [
            (f"unit {u.unit}", u.deaths, u.auroc.value) for u in (results.heldout.by_unit if results.heldout else [])
        ]
        places += [
            (f"site {s.site}", s.deaths, s.auroc.value)
            for s in (results.validation.sites if results.validation else [])
        ]
        places += [(row.model, shown.deaths, row.auroc.value) for row in results.comparison]
    for place, died, value in places:
        if value is not None and value >= LEAK_AUROC and (died >= JUDGED_DEATHS or place == whole):
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
        at_least = "\u2265" + NBSP if None in counts else ""
        total = sum(n or 0 for n in counts)
        deaths = sum(site.deaths or 0 for site in admitted)
        whole = all(site.deaths is not None for site in admitted)
        note = f"{count(deaths)} deaths ({share(deaths, total)})" if whole else ""
        note = note or (f"at least {count(deaths)} deaths" if deaths else "deaths suppressed")
        yield Fact(name="Training patients", value=at_least + count(total), note=note)
    shown = results.performance
    if shown:
        note = f"{count(shown.deaths)} deaths ({share(shown.deaths, shown.patients)})"
        yield Fact(name=f"{evaluated_on(results).capitalize()} patients", value=count(shown.patients), note=note)


def _run(results: RunResults) -> Iterator[Fact]:
    refused = sum(not site.admitted for site in results.sites)
    if results.sites:
        note = f"{refused} not admitted" if refused else "none turned away"
        yield Fact(name="Sites admitted", value=str(len(results.sites) - refused), note=note)
    kept = f"model of round {results.best_round} kept" if results.best_round is not None else ""
    yield Fact(name="Rounds", value=str(len(results.rounds)), note=kept)
    if results.privacy:
        limit, delta = digits(results.privacy.epsilon), digits(results.privacy.delta)
        yield Fact(name=f"Privacy of each {results.privacy.unit}", value=f"ε \u2264 {limit}", note=f"δ = {delta}")


def _scores(results: RunResults) -> Iterator[Fact]:
    for name in ("auroc", "auprc"):
        estimate = metric(results, name)
        bounds = interval(estimate).strip("()")
        note = f"95{NBSP}% CI {bounds}" if bounds else ""
        yield Fact(name=f"{evaluated_on(results).capitalize()} {name.upper()}", value=number(estimate.value), note=note)
    oracle = results.data.oracle_auroc if results.data else None
    if known(oracle):
        yield Fact(name="Best possible AUROC", value=number(oracle), note="from the patients\u2019 true risk")
    overhead = results.timing.federation_overhead
    if known(overhead):
        value = f"{number(overhead, 2)}{NBSP}\u00d7"
        yield Fact(name="Federation overhead", value=value, note="wall time over local training")
