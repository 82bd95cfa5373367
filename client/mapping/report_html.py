"""The mapping report as one page that needs nothing else: no script, no font, no request."""

from client.mapping.report import MappingReport

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d9dee5; --ground: #fbfcfd; --card: #fff;
  --bar: #3a6ea5; --good: #1d7a46; --gaps: #946200; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa6b5; --line: #333d4a; --ground: #12161c;
  --card: #1a2029; --bar: #79aee6; --good: #6fd19a; --gaps: #e8b95a; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
p { margin: .3rem 0; } .soft, caption { color: var(--soft); }
.verdict { border-left: .35rem solid var(--tone); background: var(--card); padding: .9rem 1.1rem; margin: 1.2rem 0; }
.verdict strong { color: var(--tone); font-size: 1.15rem; }
.ready { --tone: var(--good); } .gaps { --tone: var(--gaps); } .not { --tone: var(--bad); }
.verdict ul { margin: .5rem 0 0; padding-left: 1.2rem; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .4rem; }
.scroll:focus-visible { outline: 2px solid var(--bar); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .5rem .8rem; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .32rem .8rem; border-top: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; font-size: .85rem; white-space: nowrap; }
tbody th { font-weight: 500; } .n { text-align: right; white-space: nowrap; }
tr.why td, tr.why th { border-top: 0; padding-top: 0; color: var(--soft); font-weight: 400; font-size: .9rem; }
tr.why th { padding-left: 1.8rem; } .bar { display: inline-block; width: 6rem; height: .6rem; background: var(--line); }
.bar i { display: block; height: 100%; background: var(--bar); } .doubt { color: var(--bad); font-weight: 600; }
code { font-size: .92em; overflow-wrap: anywhere; }
@media print { body { background: #fff; } .scroll { overflow: visible; border: 0; } }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ r.site }}: {{ r.verdict }}</title><style>{{ style }}</style></head><body><main>
<h1>{{ r.site }}</h1>
<p class="soft">How the extract {{ r.source }} maps to MIMIC-IV-style tables. This page stays at the site.</p>
<section class="verdict {{ {"ready": "ready", "ready with gaps": "gaps", "not ready": "not"}[r.verdict] }}">
<strong>{{ r.verdict|capitalize }}</strong>
{% if r.reasons %}<ul>{% for reason in r.reasons %}<li>{{ reason }}</li>{% endfor %}</ul>
{% else %}<p>Nothing is missing and nothing looks wrong.</p>{% endif %}</section>
{% macro table(name, caption) %}<div class="scroll" tabindex="0" role="region" aria-label="{{ name }}"><table>
<caption>{{ caption }}</caption>{{ caller() }}</table></div>{% endmacro %}
{% if r.lines %}<h2>Where the rows went</h2>
{% call table("Where the rows went", "rows = mapped + rejected + ignored; rejected rows are kept in rejects/") %}
<thead><tr><th scope="col">Step</th><th scope="col" class="n">Rows</th><th scope="col" class="n">Mapped</th>
<th scope="col" class="n">Rejected</th><th scope="col" class="n">Ignored</th></tr></thead><tbody>
{% for line in r.lines %}<tr><th scope="row"><code>{{ line.step }}</code>
{% if line.source != "extract" %}<span class="soft">{{ line.source }}</span>{% endif %}</th>
<td class="n">{{ line.rows|count }}</td>
<td class="n">{{ line.mapped|count }}</td><td class="n">{{ line.rejected.values()|sum|count }}</td>
<td class="n">{{ line.ignored.values()|sum|count }}</td></tr>
{% for reason, rows in line.rejected.items() %}<tr class="why"><th scope="row">{{ reason }}</th><td></td><td></td>
<td class="n">{{ rows|count }}</td><td></td></tr>{% endfor %}
{% for reason, rows in line.ignored.items() %}<tr class="why"><th scope="row">{{ reason }}</th>
<td></td><td></td><td></td>
<td class="n">{{ rows|count }}</td></tr>{% endfor %}
{% for reason, rows in line.notes.items() %}<tr class="why"><th scope="row">{{ reason }}</th><td></td>
<td class="n">{{ rows|count }}</td><td></td><td></td></tr>{% endfor %}
{% endfor %}</tbody>{% endcall %}{% endif %}
<h2>Concepts</h2>
{% call table("Concepts", "patients of those with an ICU stay; plausible range; quantiles from ten patients on") %}
<thead><tr><th scope="col">Concept</th><th scope="col">Unit</th><th scope="col">Patients</th>
<th scope="col" class="n">Values</th><th scope="col" class="n">In range</th><th scope="col" class="n">5 %</th>
<th scope="col" class="n">Median</th><th scope="col" class="n">95 %</th><th scope="col"></th></tr></thead><tbody>
{% for c in r.concepts %}<tr><th scope="row">{{ c.concept }}</th><td>{{ c.unit }}</td>
{% if c.events %}<td><span class="bar" aria-hidden="true">
<i style="width:{{ "%.0f"|format(100 * c.patients_share) }}%"></i></span>
{{ "%.0f"|format(100 * c.patients_share) }} %</td><td class="n">{{ c.events|count }}</td>
<td class="n">{{ "%.1f"|format(100 * c.in_range) }} %</td>
{% for level in ("p05", "p50", "p95") %}<td class="n">
{{ "%.4g"|format(c.quantiles[level]) if c.quantiles else "" }}</td>{% endfor %}
<td class="doubt">{{ "unit?" if c.concept in doubted else "" }}</td>
{% else %}<td class="soft" colspan="7">not measured</td>{% endif %}</tr>{% endfor %}</tbody>{% endcall %}
{% if r.unmapped %}<h2>Codes that nothing maps</h2>
{% call table("Codes that nothing maps", "the most frequent first") %}
<thead><tr><th scope="col">Code</th><th scope="col">Name</th><th scope="col">Where</th>
<th scope="col" class="n">Rows</th>
<th scope="col">May be</th></tr></thead><tbody>
{% for c in r.unmapped %}<tr><th scope="row"><code>{{ c.code }}</code></th><td>{{ c.label }}</td>
<td><code>{{ c.step }}</code></td>
<td class="n">{{ c.rows|count }}</td><td>{% if c.suggestion %}<code>{{ c.suggestion }}</code>
<span class="soft">{{ c.why }}</span>{% endif %}</td></tr>{% endfor %}</tbody>{% endcall %}
{% if r.unmapped_more %}<p class="soft">and {{ r.unmapped_more|count }} rarer ones</p>{% endif %}{% endif %}
{% if r.times %}<h2>Times</h2>
{% call table("Times", "rows at exactly midnight, and more than a day outside their own ICU stay") %}
<thead><tr><th scope="col">Table</th><th scope="col" class="n">Rows</th><th scope="col" class="n">Midnight</th>
<th scope="col" class="n">Outside the stay</th><th scope="col"></th></tr></thead><tbody>
{% for t in r.times %}<tr><th scope="row">{{ t.table }}</th><td class="n">{{ t.rows|count }}</td>
<td class="n">{{ "%.1f"|format(100 * t.midnight) }} %</td>
<td class="n">{{ "%.1f %%"|format(100 * t.outside) if t.outside is not none else "" }}</td>
<td class="doubt">{{ t.doubts|join("; ") }}</td></tr>{% endfor %}</tbody>{% endcall %}{% endif %}
{% if r.row_checks %}<h2>Checks of rows</h2>
{% call table("Checks of rows", "duplicated keys, contradictions and rows that cannot be read") %}
<thead><tr><th scope="col">Table</th><th scope="col">Rule</th><th scope="col">Rows were</th>
<th scope="col" class="n">Rows</th></tr></thead><tbody>
{% for c in r.row_checks %}<tr><th scope="row">{{ c.table }}</th><td>{{ c.rule }}</td><td>{{ c.action }}</td>
<td class="n">{{ c.rows|count }}</td></tr>{% endfor %}</tbody>{% endcall %}{% endif %}
{% if r.flow %}<h2>Cohort</h2>
{% call table("Cohort", (r.deaths|count ~ " deaths") if r.deaths is not none else "") %}
<thead><tr><th scope="col">What remained after each step</th><th scope="col" class="n">Patients</th>
<th scope="col" class="n">Stays</th></tr></thead><tbody>
{% for s in r.flow %}<tr><th scope="row">{{ s.step }}</th><td class="n">{{ s.patients|count }}</td>
<td class="n">{{ s.stays|count }}</td></tr>{% endfor %}</tbody>{% endcall %}{% endif %}
{% if r.empty_tables %}<p class="soft">Empty tables: {{ r.empty_tables|join(", ") }}</p>{% endif %}
</main></body></html>
"""


def render_html(report: MappingReport) -> str:
    """The whole report; every text of the extract is escaped."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["count"] = lambda number: f"{number:,}" if number else "-"
    doubted = {doubt.concept for doubt in report.unit_doubts}
    return environment.from_string(_PAGE).render(r=report, style=Markup(_STYLE), doubted=doubted)  # noqa: S704 - ours
