"""The report's part on where the patients come from: the flow of the cohort, and what was wrong with the extract."""

COHORT = """
<section class="keep">
<h2>Cohort flow</h2>
{% if run.data and run.data.flow %}
{% set most = run.data.flow|map(attribute="patients")|max %}
<div class="scroll" tabindex="0" role="region" aria-label="Cohort flow">
<table>
<thead><tr><th>What remained after each step</th><th></th><th class="n">Patients</th><th class="n">Stays</th>
<th class="n">Patients removed</th></tr></thead>
<tbody>
{% for step in run.data.flow %}
<tr><th class="name" scope="row">{{ step.step }}</th>
<td class="bar"><svg aria-hidden="true" focusable="false"><rect height="100%"
 width="{{ "%.1f"|format(100 * step.patients / most if most else 0) }}%"/></svg></td>
<td class="n">{{ step.patients|count }}</td><td class="n">{{ step.stays|count }}</td>
<td class="n">{{ "" if loop.first else (loop.previtem.patients - step.patients)|count }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% else %}
<p class="missing">No cohort flow was recorded.</p>
{% endif %}</section>
{% if run.data and run.data.checks %}
<section>
<h2>Checks of the extract</h2>
<p>{{ run.data.checks|selectattr("action", "equalto", "dropped")|sum(attribute="rows")|count }} rows were dropped and
{{ run.data.checks|selectattr("action", "equalto", "converted")|sum(attribute="rows")|count }} converted, each by a
stated rule; the dropped ones are kept at the site that prepared them.</p>
<details>
<summary>Every rule that met a row</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Checks of the extract">
<table>
<thead><tr><th>Table</th><th>Rule</th><th>Rows were</th><th class="n">Rows</th></tr></thead>
<tbody>
{% for check in run.data.checks %}
<tr><th class="name" scope="row">{{ check.table }}</th><td class="words">{{ check.rule }}</td>
<td>{{ check.action }}</td><td class="n">{{ check.rows|count }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
</details>
</section>
{% endif %}
"""
