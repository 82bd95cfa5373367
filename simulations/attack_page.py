"""``attack.html``, and the same tables for a terminal: drawn from ``attack.json`` and from nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.report_style import MACROS, STYLE
from server.report_words import count, interval, number
from server.results import Estimate
from simulations.attack_results import Attack, AuditRow, CuriousRow, InferenceRow

_PAGE = (
    MACROS.strip()
    + """
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Does the privacy hold?</title>
<style>{{ style }}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">consilium: attacks and audit</p>
<h1>{{ headline }}</h1>
<p class="lede">Source: {{ attack.source }}. Cohort: {{ attack.cohort }}. {{ attack.patients|count }} patients, of whom
{{ attack.members|count }} trained the attacked models and the others did not.</p>
</header>
{% if attack.violated %}
<div class="box alarm" role="alert"><h2>Privacy violated</h2>
<p>This version tells more of a patient than its ledger or its smallest cell says. Do not train with it.</p></div>
{% endif %}
{% for table in tables %}
<section class="keep">
<h2>{{ table.title }}</h2>
<div class="scroll" tabindex="0" role="region" aria-label="{{ table.title }}">
<table>
<thead><tr>{% for head in table.heads %}<th{% if not loop.first %} class="n"{% endif %}>{{ head }}</th>{% endfor %}</tr>
</thead>
<tbody>
{% for row in table.rows %}
<tr>{% for cell in row %}
{% if loop.first %}<th class="name" scope="row">{{ cell }}</th>{% else %}<td class="n">{{ cell }}</td>{% endif %}
{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% for text in table.said %}<p class="hint">{{ text }}</p>{% endfor %}
</section>
{% endfor %}
<footer>Drawn from attack.json alone, by consilium {{ attack.consilium_version }}. This page loads nothing and runs no
script.</footer>
</main>
</body>
</html>
"""
)


@dataclass(frozen=True)
class Table:
    """A table with what has to be said to read it."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    said: tuple[str, ...]


def render_attack(attack: Attack) -> str:
    """The whole page. The same document gives the same bytes."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters.update(number=number, count=count, interval=interval)
    page.tests["known"] = lambda value: value is not None
    return page.from_string(_PAGE).render(
        attack=attack,
        headline=headline(attack),
        tables=tables(attack),
        style=Markup(STYLE),  # noqa: S704 - our own constant
    )


def headline(attack: Attack) -> str:
    """The outcome in one line: the audit's and subtraction's, as an attack that fails proves nothing."""
    if attack.violated:
        return "Privacy violated: this version tells more than its ledger or its smallest cell says"
    seen = attack.verdicts.count("caught")
    broken = len(attack.verdicts) - attack.verdicts.count("holds")
    what = "No claimed epsilon was refuted" if attack.audits else "No epsilon was audited"
    return f"{what}, nothing of too few patients was found; {seen} of {broken} builds broken on purpose were caught"


def tables(attack: Attack) -> list[Table]:
    """Audit first, then membership inference; a table without rows is left out."""
    every = [_audit_table(attack.audits), _curious_table(attack.curious), _inference_table(attack)]
    return [table for table in every if table.rows]


def _curious_table(found: list[CuriousRow]) -> Table:
    rows = [
        (row.title, count(row.answers), count(row.values), count(row.scores), count(row.inputs), count(row.singles),
         row.verdict)
        for row in found
    ]  # fmt: skip
    heads = ("Site", "Answers", "Sums of a feature", "Counts of an outcome", "Inputs", "Single patients", "Verdict")
    first = found[0] if found else None
    how = "" if first is None else (
        f"A site of {first.patients} patients answers {first.runs} runs of a curious server: validation fractions that"
        " differ by a hair, seeds, folds, a left-out site; and its store is prepared anew with one patient more, one"
        " corrected, one gone, another label. Small cells are counted in every answer."
    )  # fmt: skip
    cell = 0 if first is None else first.cell
    what = (
        f"Found, each of fewer than {cell} patients: sums of a feature by subtracting two statistics, right to the bit;"
        " deaths or survivals by subtracting two validations; one patient's inputs by the gradient of one step on a"
        " batch of one; patients whose values follow from all statistics together, for who knows who is in which. The"
        " site as it is tells of whole blocks of patients; the broken one lets the run choose them."
    )
    return Table("Subtraction: is anything told of too few?", heads, rows, (how, what))


def _audit_table(audits: list[AuditRow]) -> Table:
    rows = [
        (row.title, number(row.claimed, 2), number(row.found, 2), f"{row.correct} of {row.guesses}",
         number(row.most, 2), row.verdict)
        for row in audits
    ]  # fmt: skip
    first = audits[0] if audits else None
    how = "" if first is None else (
        f"{first.canaries:,} canaries, each in the training data by the toss of a coin; {first.rounds} rounds of one"
        f" step, delta {first.delta:g}, RDP accountant, a small model. At least"
        f" {100 * min(row.share for row in audits):.0f} % of a canary's gradient"
        " falls on weights of its own, and the auditor sees every round's. The epsilon claimed is the ledger's for the"
        " whole run; training alone is audited, which is the larger part."
    )  # fmt: skip
    what = (
        "Epsilon found: a lower bound at 95 % confidence (Steinke, Nasr and Jagielski 2023, arXiv 2305.08846, Theorem"
        " 5.2). A bound above the claim refutes it; one below does not prove it. Most it could show: had every guess"
        " been right."
    )
    heads = ("Build", "Epsilon claimed", "Epsilon found", "Right guesses", "Most it could show", "Verdict")
    return Table("Audit: is epsilon what the ledger says?", heads, rows, (how, what))


def _inference_table(attack: Attack) -> Table:
    rows = [
        (_model(row), row.attack, _told(row.auroc), _told(row.tpr), number(row.most_tpr), number(row.model_auroc))
        for row in attack.inference
    ]
    heads = (
        "Model",
        "Attack",
        "AUROC (95 % CI)",
        "Members found at 1 % false alarms (95 % CI)",
        "Most that epsilon allows",
        "The model's own AUROC",
    )
    said = (
        "Loss threshold: Yeom et al. 2018 (arXiv 1709.01604). Likelihood ratio: LiRA, Carlini et al. 2022 (arXiv"
        f" 2112.03570), online, with {attack.shadows} shadow models, each trained on a random half of the patients."
        " A patient is the unit; intervals are over patients (bootstrap). AUROC 0.5: no better than a coin.",
        "All models are trained centrally on the pooled patients, by the functions that train at a site. Members also"
        " fitted the preprocessing plan, without noise. The model's own AUROC is on the patients that it has not seen,"
        " after the last round.",
    )
    return Table("Membership inference: was a patient in the training data?", heads, rows, said)


def _model(row: InferenceRow) -> str:
    return "without privacy" if row.epsilon is None else f"epsilon {row.epsilon:g}"


def _told(estimate: Estimate) -> str:
    return f"{number(estimate.value)} {interval(estimate)}".strip()
