"""The report's jinja2 template.

Why a Python string: the Flower app bundle carries only .py files. Rendered with autoescape on; ``style`` and
``figures`` alone come marked as safe. The policy in the head lets a browser load nothing and run nothing,
whatever
a site calls itself. The order of the page is the order of this file.
"""

from server.report_cohort import COHORT
from server.report_features import FEATURES
from server.report_groups import GROUPS
from server.report_privacy import PRIVACY
from server.report_style import MACROS
from server.report_tuning import TUNING

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src
data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ headline }}</title>
<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16
16'%3E%3Cpath
 d='M2 13C3 6 7 3 14 3' fill='none' stroke='%230067a5' stroke-width='2.4'/%3E%3C/svg%3E">
<style>{{ style }}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">consilium: sepsis prognosis, trained together</p>
<h1>{% for part in headline.split("held-out") %}{{ part }}
{%- if not loop.last %}<span class="whole">held-out</span>{% endif %}{% endfor %}</h1>
{% if run.data %}
<p class="lede">Risk of death in {{ "the ICU" if run.data.label == "in_icu" else "hospital" }},
{% if run.data.profile == "paper" %}seen from the end of the stay.{% else %}predicted
{{ run.data.prediction_hours|digits }} hours after admission to intensive care.{% endif %} Source:
{{ run.data.source }}. Cohort: {{ run.data.cohort }}.</p>
{% endif %}
</header>
{% if run.status != "complete" %}
<p class="ribbon" role="status">Status: {{ run.status }}. The run was still going on, or had been
interrupted, when
this page was written; {{ run.rounds|length }} round{{ "" if run.rounds|length == 1 else "s" }} are in it.</p>
{% endif %}
{% if run.data and run.data.profile == "paper" %}
<div class="box alarm" role="alert">
<h2>Profile “paper”: this model has seen the future</h2>
<p>Its inputs reach to the end of the stay: lengths of stay, whole-stay extremes, diagnosis codes and summaries of
this admission. It repeats a published retrospective method for comparison. Its figures do not say how well anybody
could have been warned, and no deployed site serves it.</p></div>
{% endif %}
{% if leaks %}
<div class="box alarm" role="alert">
<h2>AUROC of 0.95 or more: treat as a leak until proven otherwise</h2>
<p>Models that see only the first day of a stay reach about 0.80 to 0.88. Too good usually means that the
outcome
is among the inputs; in a unit with a handful of deaths it can be chance.</p>
<ul>{% for leak in leaks %}<li>{{ leak }}</li>{% endfor %}</ul></div>
{% endif %}
{% if run.warnings %}
<div class="box">
<h2>{{ run.warnings|length }} warning{{ "" if run.warnings|length == 1 else "s" }}</h2>
<ul>{% for warning in run.warnings %}<li>{{ warning }}</li>{% endfor %}</ul></div>
{% endif %}
<dl class="facts">
{% for fact in facts %}
<div><dt>{{ fact.name }}</dt><dd class="value">{{ fact.value }}</dd><dd class="note">{{ fact.note
}}</dd></div>
{% endfor %}
</dl>
"""

_PERFORMANCE = """
<section>
<h2>{{ where|capitalize }} performance</h2>
{% if shown %}
{% if not run.heldout %}
<div class="box">
<h2>There is no held-out set</h2>
<p>These figures are on the sites\u2019 own validation patients. Each site sent a histogram of its predicted
risks{% if run.config.get("secure-aggregation") %}, under a mask: only their sum is known{% endif %};
{% if run.validation.noise %}the merged one has noise of {{ run.validation.noise|number(1) }} patients (SD) in each of
its bars, for privacy. Negative bars were taken away, which pulls an AUROC towards 0.5. The bootstrap intervals span the
noise, too; the bars of the calibration do not. The same patients chose the threshold, so what depends on it is a little
too good.{% else %}merged, they give every figure exactly for risks rounded to 0.005: each patient counts with the
middle of the bar. The same patients chose the round and the threshold, so the figures are a little too
good.{% endif %}</p></div>
{% endif %}
<div class="figures">
{{ figure("roc", "ROC curve", "Every threshold at once: deaths found against survivors flagged. The dot is the
threshold chosen on the sites\u2019 validation patients.", "Not defined: it needs deaths and survivors.") }}
{{ figure("pr", "Precision and recall", "Of the patients flagged, the share who died. A model that knows
nothing
stays on the prevalence line.", "Not defined: it needs deaths.") }}
{{ figure("calibration", "Calibration", "Observed mortality by predicted risk. Dot areas grow with the number
of
patients; bars are 95\u00a0% Wilson intervals.", "No patients to group by risk.") }}
</div>
<dl class="metrics">
{% for name, text in [("auroc", "AUROC"), ("auprc", "AUPRC"), ("brier", "Brier score"), ("log_loss", "Log loss"),
 ("calibration_slope", "Calibration slope"), ("sensitivity", "Sensitivity"), ("specificity", "Specificity"),
 ("accuracy", "Accuracy"), ("f1", "F1"), ("calibration_intercept", "Calibration intercept")] %}
{% set e = shown.metrics.get(name) %}
<div><dt>{{ text }}</dt><dd class="value">{{ (e.value if e else none)|number }}</dd>
<dd class="note">{{ e|interval }}</dd></div>
{% endfor %}
</dl>
<p class="hint">Sensitivity, specificity, accuracy and F1 at the threshold of {{ shown.threshold|number }}. Calibration
is right at slope 1 and intercept 0; a slope below 1 says that risks are too extreme. In parentheses the 95\u00a0%
bootstrap interval over patients.</p>
{% else %}
<p class="missing">This run has no held-out evaluation.</p>
{% endif %}
</section>
<section class="keep">
<h2>Training</h2>
{% if run.rounds %}
<div class="figures">
{{ figure("validation", "Validation AUROC by round", "The model after each round, on the sites\u2019
validation patients." ~ (" The dashed line is the kept model on the held-out set." if run.heldout),
"No site reported a validation AUROC.") }}
{{ figure("loss", "Loss by round", "Mean focal loss: in training during the round, and of the model after it on
the validation patients.", "No finite loss was reported.") }}
{{ figure("rate", "Learning rate by round", "The rate that every site used in the round.",
 "No learning rate was recorded.") }}
</div>
{% else %}
<p class="missing">No round has been completed.</p>
{% endif %}
</section>
"""

_COMPARISON = """
<section class="keep">
<h2>Federated, pooled, or alone</h2>
{% if run.comparison %}
<p class="hint">The same model code and budget, three ways: trained together without sharing rows, on all
rows in
one place, and by one unit alone. All on the whole held-out set.</p>
<figure class="forest">
<table>
<thead><tr><th>Model</th><th class="plot">{{ axis(comparison_scale) }}</th>
<th class="n">AUROC (95\u00a0% CI)</th><th class="n">AUPRC (95\u00a0% CI)</th></tr></thead>
<tbody>
{% for row in run.comparison %}
{% set kind = row.model if row.model in ("federated", "pooled") else "local" %}
<tr><th class="name" scope="row">{{ row.model }}</th>
<td class="plot">{{ strip(comparison_scale, [(kind, row.auroc)], federated) }}</td>
<td class="n" data-label="AUROC">{{ estimate(row.auroc, "not defined") }}</td>
<td class="n" data-label="AUPRC">{{ estimate(row.auprc, "not defined") }}</td></tr>
{% endfor %}
</tbody>
</table>
<figcaption>AUROC with 95\u00a0% CI. {{ key("reference", "the federated model") }}</figcaption>
</figure>
{% else %}
<p class="missing">No pooled or local-only model was trained: outside a simulation no one place holds the
rows.</p>
{% endif %}
</section>
{% if unit_forest.lines or not (site_forest.lines or (run.validation and run.validation.noise)) %}
<section class="keep">
<h2>By unit</h2>
{% if unit_forest.lines %}
<figure class="forest">
{{ forest(unit_forest) }}
<figcaption>AUROC with 95\u00a0% CI on the unit\u2019s own held-out patients. {{ key("federated",
"federated") }}
{{ key("local", "trained by the unit alone") }} {{ key("reference", "federated, all units") }}</figcaption>
</figure>
{% else %}
<p class="missing">No unit was evaluated.</p>
{% endif %}
</section>
{% endif %}
"""

_PEOPLE = """
<section class="keep">
<h2>Sites at admission</h2>
{% if run.sites %}
<div class="scroll" tabindex="0" role="region" aria-label="Sites at admission">
<table>
<thead><tr><th>Site</th><th class="n">Training patients</th><th class="n">Deaths</th>
<th class="n">Mortality</th><th>Device</th><th>Status</th></tr></thead>
<tbody>
{% for site in run.sites %}
<tr><th class="name" scope="row">{{ site.site }}</th>
<td class="n">{{ site.patients|count("suppressed") }}</td>
<td class="n">{{ site.deaths|count("suppressed") }}</td>
<td class="n">{{ site.deaths|share(site.patients) }}</td><td>{{ site.device or "n/a" }}</td>
<td class="words">{% if site.admitted %}admitted{% else %}<span class="refused">not admitted</span>
{%- if site.reason %}: {{ site.reason }}{% endif %}{% endif %}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="hint">A site suppresses a count below its smallest cell, and the server never learns it.
{% if run.sites|selectattr("counts", "equalto", "noised")|list %}Counts carry noise, for privacy.{% endif %}</p>
{% else %}
<p class="missing">No site has asked for admission.</p>
{% endif %}
</section>
"""

_RECORD = """
<section>
<h2>Rounds and traffic</h2>
{% if run.rounds %}
<p>All sites together sent {{ run.rounds|sum(attribute="bytes_up")|size }} in {{ run.rounds|length }}
round{{ "" if run.rounds|length == 1 else "s" }};
{% set failed = run.rounds|map(attribute="failed")|map("length")|sum %}
{{ failed or "no" }} repl{{ "y" if failed == 1 else "ies" }} went missing.
{% if run.timing.total is not none %}The run took {{ run.timing.total|duration }}.{% endif %}</p>
<details>
<summary>Every round</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Rounds">
<table>
<thead><tr><th class="n">Round</th><th class="n">Learning rate</th><th class="n">Training loss</th>
<th class="n">Validation loss</th><th class="n">Validation AUROC</th><th class="n">Replies</th>
<th class="n">To each site</th><th class="n">From all sites</th><th
class="n">Seconds</th><th>Missing</th></tr></thead>
<tbody>
{% for round in run.rounds %}
<tr><td class="n">{{ round.round }}{{ "*" if round.round == run.best_round else "" }}</td>
{% set rate = round.learning_rate %}
<td class="n">{{ rate|number(6) if rate >= 0.00001 else rate|digits }}</td>
<td class="n">{{ round.train_loss|number(4) }}</td><td class="n">{{ round.validation_loss|number(4) }}</td>
<td class="n">{{ round.validation_auroc|number }}</td><td class="n">{{ round.replied|length }}</td>
<td class="n">{{ round.bytes_down|size }}</td><td class="n">{{ round.bytes_up|size }}</td>
<td class="n">{{ run.timing.rounds[loop.index0]|number(1) if loop.index0 < run.timing.rounds|length else
"n/a" }}</td>
<td class="words">{% for site, why in round.failed.items() %}{{ site }}: {{ why }}{{ "" if loop.last else ";
" }}
{%- else %}<span class="quiet">none</span>{% endfor %}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% if run.best_round is not none %}<p class="hint">* the round whose model was kept.</p>{% endif %}
</details>
{% else %}
<p class="missing">No round has been completed.</p>
{% endif %}
</section>
<section class="keep">
<h2>Configuration and provenance</h2>
<dl class="pairs wide">
{{ pair("Contract digest", run.contract_digest or "n/a") }}{{ pair("Plan digest", run.plan_digest or "n/a") }}
{{ pair("Text encoder", run.encoder or "none: no notes") }}
{{ pair("Profile", run.data.profile if run.data else "n/a") }}
{{ pair("Sepsis rules", run.data.rules_version if run.data else "n/a") }}
{{ pair("Model parameters", run.parameters|count) }}{{ pair("consilium", run.consilium_version) }}
{{ pair("Results schema", run.schema_version) }}
</dl>
{% if run.config %}
<dl class="pairs">{% for name, value in run.config.items() %}
{{ pair(name, value|lower if value is boolean else value) }}{% endfor %}</dl>
{% endif %}
</section>
<section class="keep">
<h2>How to read this</h2>
<p>AUROC is the chance that a patient who died was given a higher risk than one who lived: 0.5 is a coin, 1 is
perfect. AUPRC is the precision averaged over recall, and has to be read against the prevalence. Intervals come
from resampling patients; two models whose intervals overlap may still differ, since both saw the
same
patients. Ranking well is not enough to act on a risk: calibration shows whether 20\u00a0% means one in five.
A unit
with few deaths has a wide interval, and its AUROC says little. {% if run.heldout %}No patient of the held-out set was
used to train, to choose the round, or to choose the threshold.{% endif %} This is a research result and
not a medical device.</p>
</section>
<footer>Drawn from results.json alone, by consilium {{ run.consilium_version }}. This page loads nothing and
runs
no script.</footer>
</main>
</body>
</html>
"""

_SECTIONS = (_HEAD, _PERFORMANCE, _COMPARISON, GROUPS, TUNING, FEATURES, _PEOPLE, PRIVACY, COHORT, _RECORD)
PAGE = MACROS.strip() + "\n" + "".join(_SECTIONS)
