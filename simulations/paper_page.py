"""``paper.html``: the paper's table and figures, drawn from ``paper.json`` and from nothing else, as one page without
scripts."""

from server.figure_style import SQUARE, WIDE
from server.figures import draw_figure
from server.report_features import FEATURES, feature_table
from server.report_style import MACROS, STYLE
from server.report_words import NBSP, count, interval, known, number, share
from simulations.benchmark_summary import told
from simulations.paper_figures import draw_pr, draw_rates, draw_roc
from simulations.paper_results import IMPOSSIBLE, LOSSES, METRICS, PUBLISHED, Leak, Paper

_PAGE = (
    MACROS.strip()
    + """
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Wu 2024, federated</title>
<style>{{ style }}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">consilium: Wu 2024, federated</p>
<h1>{{ headline }}</h1>
<p class="lede">{{ sentence }}</p>
<p class="lede">Wu, \u201cICU sepsis prognosis with multimodal fusion\u201d (2024, doi 10.12677/mos.2024.136583),
repeated by {{ paper.runs[0].hospitals }} hospitals that shared no patient. Source: {{ paper.source }}. Cohort:
{{ paper.cohort }}.</p>
</header>
<div class="box alarm" role="alert">
<h2>The profile \u201cpaper\u201d has seen the future</h2>
<p>It reads the whole stay, this admission\u2019s codes and the lengths of stay, as the paper\u2019s features do. Its
figures do not say how well anybody could have been warned. The profile \u201cearly\u201d reads what was known at the
prediction time.</p></div>
<section class="keep">
<h2>Table 1: focal loss</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Table 1">
<table>
<thead><tr><th>Model</th>{% for name in metrics.values() %}<th class="n">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for loss, values in published.items() %}
<tr class="quiet"><th class="name" scope="row">published, {{ losses[loss] }}</th>
{% for value in values %}<td class="n">{{ value|number(4) }}</td>{% endfor %}</tr>
{% endfor %}
{% for run in paper.runs %}
<tr><th class="name" scope="row">{{ run.name }}</th>
{% for metric in metrics %}<td class="n">{{ estimate(run.heldout.metrics[metric], "not defined") }}</td>{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="hint">Ours on {{ paper.runs[0].heldout.patients|count }} held-out patients
({{ paper.runs[0].heldout.deaths|count }} deaths), with 95\u00a0% bootstrap intervals over patients; all but the AUROC
at the threshold with the best Youden index on the hospitals\u2019 validation patients, or at 0.5 where they are too few
for their counts to leave the hospitals. {{ impossible }}</p>
</section>
<section class="keep">
<h2>Figures 4, 5 and 6</h2>
<div class="figures">
{{ figure("roc", "Figure 5: ROC curves", "Dashed: without focal loss.",
 "Not defined: it needs deaths and survivors.") }}
{{ figure("pr", "Figure 6: precision and recall", "Dashed: without focal loss. The grey line is the prevalence.",
 "Not defined: it needs deaths.") }}
{{ figure("rate", "Figure 4: learning rate", "The same in all four federations, and at every hospital.",
 "No round was completed.") }}
</div>
</section>
"""
    + FEATURES
    + """
<section class="keep">
<h2>What was done</h2>
<p>Four federations of the same hospitals, one a care unit: both profiles, each trained with cross-entropy and with
focal loss. The same patients are held out of all four. The profile \u201cpaper\u201d also has the paper\u2019s windows
(24 hours: max, min, mean, SD), cleaning (a feature that more than 20\u00a0% of patients lack is dropped; bounds of 1.5
interquartile ranges; z-scores for what is near normal and min-max for the rest) and a selection of features by
relevance; \u201cearly\u201d has hourly means. So the difference between the profiles is that of
the leaking inputs together with that of the preprocessing.</p>
</section>
<footer>Drawn from paper.json alone, by consilium {{ paper.consilium_version }}. This page loads nothing and runs no
script.</footer>
</main>
</body>
</html>
"""
)


def render_paper(paper: Paper) -> str:
    """The whole page. The same document gives the same bytes."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters.update(number=number, count=count, share=share, interval=interval)
    page.tests["known"] = known
    painters = {"roc": (SQUARE, draw_roc), "pr": (SQUARE, draw_pr), "rate": (WIDE, draw_rates)}
    drawn = {name: draw_figure(name, size, paint, paper) for name, (size, paint) in painters.items()}
    return page.from_string(_PAGE).render(
        paper=paper,
        headline=headline(paper.leaks[-1]),
        sentence=sentence(paper.leaks[-1]),
        features_title="Figure 2: mutual information and correlation, profile \u201cpaper\u201d",
        features=feature_table(next(run.features for run in paper.runs if run.profile == "paper")),
        figures={name: Markup(svg) for name, svg in drawn.items() if svg},  # noqa: S704 - escaped there
        style=Markup(STYLE),  # noqa: S704 - our own constant
        metrics=METRICS,
        losses=LOSSES,
        published=PUBLISHED,
        impossible=IMPOSSIBLE,
    )


def headline(leak: Leak) -> str:
    """The outcome in one line."""
    if not known(leak.invented.value):
        return "Too few patients to compare the profiles"
    bounds = interval(leak.invented, 2).strip("()")
    within = f" (95{NBSP}% CI {bounds})" if bounds else ""
    return f"Reading the future adds {number(leak.invented.value, 2)} to the AUROC{within}"


def sentence(leak: Leak) -> str:
    """How much AUROC the leaking profile invents."""
    if not known(leak.invented.value):
        return f"On the same {leak.patients:,} held-out patients ({leak.deaths:,} deaths) an AUROC is not defined."
    low, high = leak.invented.low, leak.invented.high
    unsure = known(low) and known(high) and low <= 0 <= high
    return (
        f"On the same {leak.patients:,} held-out patients ({leak.deaths:,} deaths), both {LOSSES[leak.loss]}, the"
        f" profile paper reaches an AUROC of {number(leak.paper.value)} and the profile early"
        f" {number(leak.early.value)}: the leaking profile invents {told(leak.invented)}"
        + (", which so few patients do not tell from nothing." if unsure else ".")
    )
