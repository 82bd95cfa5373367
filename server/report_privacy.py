"""The report's part on differential privacy: what each site spent, and on what."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.results_privacy import PrivacyAccount, PrivacySummary

NAMES = {
    "counts": "Counts of patients",
    "statistics": "Distributions of features",
    "training": "Training",
    "validation": "Validation",
    "update": "Updates",
}


@dataclass(frozen=True, kw_only=True)
class SpendingRow:
    """One holder: epsilon of each kind of answer by itself, in the order of the table's columns, and of all."""

    holder: str
    alone: Sequence[float | None]
    together: float | None
    share: float  # of the limit, as a percentage for the bar


@dataclass(frozen=True, kw_only=True)
class SpendingTable:
    """``columns``: the kinds of answers that anybody gave."""

    columns: Sequence[str]
    rows: Sequence[SpendingRow]


def spending_table(privacy: PrivacySummary | None) -> SpendingTable | None:
    """A row a holder; None where nothing was to be protected."""
    if privacy is None:
        return None
    given = [release.what for account in privacy.accounts for release in account.releases]
    kinds = [*(kind for kind in NAMES if kind in given), *sorted(set(given) - NAMES.keys())]
    rows = [_row(account, kinds, privacy.epsilon) for account in privacy.accounts]
    return SpendingTable(columns=[NAMES.get(kind, kind) for kind in kinds], rows=rows)


def _row(account: PrivacyAccount, kinds: Sequence[str], limit: float) -> SpendingRow:
    alone = {release.what: release.epsilon for release in account.releases}
    return SpendingRow(
        holder=account.holder,
        alone=[alone.get(kind) for kind in kinds],
        together=account.epsilon,
        share=min(100.0, 100 * (account.epsilon or 0.0) / limit),
    )


PRIVACY = """
{% if spending %}
<section class="keep">
<h2>Privacy</h2>
<p>Differential privacy for {{ "each patient" if run.privacy.unit == "patient" else "each site as a whole" }}: at most
ε\u00a0=\u00a0{{ run.privacy.epsilon|digits }} at δ\u00a0=\u00a0{{ run.privacy.delta|digits }}. Whether
{% if run.privacy.unit == "patient" %}any one patient, with all stays, was among a site\u2019s training and validation
patients{% else %}any one site took part{% endif %} makes everything that this run
{{ "let out of the site" if run.privacy.unit == "patient" else "released" }} at most e<sup>ε</sup> times more or less
likely, but for a chance of about δ.</p>
{% if spending.rows %}
<div class="scroll" tabindex="0" role="region" aria-label="Privacy spent">
<table>
<thead><tr><th>{{ "Site" if run.privacy.unit == "patient" else "Unit" }}</th>
{% for column in spending.columns %}<th class="n">{{ column }}</th>{% endfor %}
<th class="n">All together</th><th>Of the limit of {{ run.privacy.epsilon|digits }}</th></tr></thead>
<tbody>
{% for row in spending.rows %}
<tr><th class="name" scope="row">{{ row.holder }}</th>
{% for epsilon in row.alone %}<td class="n">{{ epsilon|number(2) }}</td>{% endfor %}
<td class="n"><strong>{{ row.together|number(2) }}</strong></td>
<td class="bar"><svg aria-hidden="true" focusable="false"><rect height="100%"
 width="{{ "%.1f"|format(row.share) }}%"/></svg></td></tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="hint">ε of each kind of answer by itself, and of all of them by composition
({{ run.privacy.accountant|upper }} accountant)
{%- if spending.columns|length > 1 %}, which is less than their sum{% endif %}. The server\u2019s reckoning, in which
every round that ran counts{% if run.privacy.unit == "patient" %}; what a site\u2019s own ledger says is
authoritative{% endif %}.
{{ "A patient\u2019s gradient" if run.privacy.unit == "patient" else "A site\u2019s update" }} was clipped to an L2 norm
of {{ run.privacy.clip|digits }}.</p>
<details>
<summary>Every mechanism</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Mechanisms">
<table>
<thead><tr><th>{{ "Site" if run.privacy.unit == "patient" else "Unit" }}</th><th>Released</th><th>Mechanism</th>
<th class="n">Noise multiplier</th><th class="n">Sample rate</th><th class="n">Steps</th><th class="n">ε alone</th></tr>
</thead>
<tbody>
{% for account in run.privacy.accounts %}{% for release in account.releases %}
<tr><th class="name" scope="row">{{ account.holder }}</th><td>{{ names.get(release.what, release.what) }}</td>
<td class="words">{{ release.mechanism }}</td><td class="n">{{ release.noise_multiplier|number(3) }}</td>
<td class="n">{{ release.sample_rate|number(4) if release.sample_rate < 1 else "all" }}</td>
<td class="n">{{ release.steps|count }}</td><td class="n">{{ release.epsilon|number(3) }}</td></tr>
{% endfor %}{% endfor %}
</tbody>
</table>
</div>
<p class="hint">The noise multiplier is the noise\u2019s standard deviation over the most that one
{{ run.privacy.unit }} can change (L2); the sample rate, the chance of each {{ run.privacy.unit }} to be in a step.</p>
</details>
{% else %}
<p class="missing">No site told a count from which its spending could be reckoned.</p>
{% endif %}
</section>
{% endif %}
"""
