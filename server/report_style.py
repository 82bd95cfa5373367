"""How the report looks: its style sheet, and the jinja2 macros that its sections are drawn with.

Why a module: the Flower app bundle carries only .py files. System fonts, one accent colour and Okabe-Ito-like
hues that colour-blind readers can tell apart; tables and figures share one type size from phone to print.
"""

STYLE = """
:root {
  color-scheme: light;
  --ink: #1d2733; --soft: #57626f; --rule: #d8dde4; --wash: #f5f7f9;
  --blue: #0067a5; --orange: #c85a00; --grey: #737d8a; --alarm: #a3161f;
  --sans: -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --serif: Charter, "Iowan Old Style", Palatino, "Palatino Linotype", Georgia, serif;
  --mono: ui-monospace, "SF Mono", Consolas, "Liberation Mono", monospace;
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink); font: 15px/1.55 var(--sans);
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
main { max-width: 1160px; margin: 0 auto; padding: 44px 24px 64px; }
p { max-width: 44rem; margin: 0 0 .8em; }
h1 { font: 600 clamp(1.65rem, 1.1rem + 2.2vw, 2.5rem)/1.2 var(--serif); margin: .3em 0 .45em; max-width: 30em;
  text-wrap: balance; }
.whole { white-space: nowrap; }
h2 { font: 600 1.3rem/1.3 var(--serif); margin: 0 0 .35em; }
section { margin-top: 44px; padding-top: 20px; border-top: 1px solid var(--rule); }
.eyebrow { margin: 0; color: var(--blue); font-size: .8rem; font-weight: 600; letter-spacing: .05em; }
.lede, .hint, .missing, figcaption { color: var(--soft); }
.ribbon, .box { margin: 20px 0 0; padding: 12px 16px; border-left: 4px solid var(--orange); background:
  #fdf5ec; }
.ribbon { font-weight: 600; max-width: none; }
.box h2 { font: 600 1rem/1.4 var(--sans); }
.box ul { margin: 0; padding-left: 1.15em; }
.box p { margin: 0 0 .4em; }
.alarm { border-color: var(--alarm); background: #fcefef; }
.alarm h2 { color: var(--alarm); }

.facts, .metrics { display: grid; grid-template-columns: repeat(4, 1fr); margin: 30px 0 0; gap: 22px 28px; }
.facts div, .metrics div { border-top: 2px solid var(--ink); padding-top: 7px; min-width: 0; }
.metrics { grid-template-columns: repeat(5, 1fr); gap: 16px; margin: 26px 0 14px; }
.metrics div { border-top: 1px solid var(--rule); }
.facts dt, .metrics dt { color: var(--soft); font-size: .85rem; line-height: 1.35; }
.facts dd, .metrics dd { margin: 0; }
.facts .value { font: 600 1.75rem/1.3 var(--serif); font-variant-numeric: lining-nums tabular-nums; }
.metrics .value { font-weight: 600; }
.facts .note, .metrics .note { color: var(--soft); font-size: .85rem; line-height: 1.4; }
.metrics .note { font-size: .9em; }

figure { margin: 0; min-width: 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 30px
  32px;
  margin-top: 18px; }
.figures svg, .beside svg { display: block; width: 100%; height: auto; overflow: visible; }
.figures svg * { stroke-linejoin: round; }
figure svg text { font-family: var(--sans) !important; }
figure h3 { font: 600 .95rem/1.4 var(--sans); margin: 0 0 .5em; }
figure .missing { border: 1px dashed var(--rule); padding: 2.2em 1.4em; margin: 0; text-align: center; }
figcaption { font-size: .85rem; line-height: 1.45; margin-top: .6em; max-width: 44rem; }

.scroll { overflow-x: auto; margin-top: 12px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; line-height: 1.4; overflow-wrap: normal; }
th, td { text-align: left; font-weight: 400; padding: 7px 18px 7px 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--soft); font-size: .92em; border-bottom: 1px solid var(--ink); vertical-align:
  bottom; }
.n { text-align: right; white-space: nowrap; }
thead th.n { white-space: normal; }
.n + td:not(.n, .plot), .n + th:not(.n, .plot) { padding-left: 14px; }
table + .hint, .scroll + .hint, details .hint { margin-top: 10px; }
td.words { min-width: 11rem; }
.name { min-width: 6.5rem; overflow-wrap: anywhere; }
.ci, .quiet { color: var(--soft); }
.refused { color: var(--orange); }
td.bar { width: 30%; min-width: 7rem; }
.bar svg { display: block; width: 100%; height: 12px; margin-top: 4px; fill: var(--blue); }
.forest { margin-top: 12px; }
.forest td, .forest th { vertical-align: middle; }
.forest thead th { vertical-align: bottom; }
.forest .plot { width: 34%; padding: 0 18px 0 0; position: relative; }
.forest td.plot { height: 36px; }
.forest td .strip { position: absolute; inset: 0 auto auto 0; width: calc(100% - 18px); height: 100%; }
.strip, .axis { display: block; width: 100%; overflow: visible; }
.axis { height: 17px; margin-bottom: 5px; fill: var(--soft); font-size: 12px; }
.strip line { stroke-width: 1.6; }
.strip .reference { stroke: var(--grey); stroke-width: 1; stroke-dasharray: 4 3; }
.strip .federated { stroke: var(--blue); fill: var(--blue); }
.strip .pooled { stroke: var(--ink); fill: var(--ink); }
.strip .local { stroke: var(--orange); fill: #fff; stroke-width: 1.6; }
.key { white-space: nowrap; margin-right: 1em; }
.key svg { width: 26px; height: 9px; margin-right: 6px; display: inline-block; }
.features { margin-top: 12px; }
.features td, .features th { padding-top: 3px; padding-bottom: 3px; vertical-align: middle; }
.features td.bar { width: 32%; min-width: 4rem; padding-right: 10px; }
.features .bar svg { overflow: visible; margin: 0; }
.features .bar line { stroke: var(--grey); stroke-width: 1; }
.features .name { min-width: 0; white-space: nowrap; }
.features tr.quiet .name { color: var(--soft); }
.more { fill: var(--orange); }
.less { fill: var(--blue); }
.swatch { width: 12px; height: 9px; margin-right: 6px; display: inline-block; }
.sum { margin-top: 14px; }
.beside { display: grid; grid-template-columns: minmax(0, 22rem) minmax(0, 1fr); gap: 30px 36px; margin-top: 18px; }
.beside > .scroll { margin-top: 0; }
.chosen th, .chosen td { background: #fdf5ec; font-weight: 600; }

details { margin-top: 12px; }
summary { cursor: pointer; color: var(--blue); font-weight: 600; padding: 4px 0; }
.pairs { columns: 2; column-gap: 48px; margin: 14px 0 0; font-size: .9rem; }
.pairs.wide { columns: 1; }
.pairs div { display: grid; grid-template-columns: minmax(9rem, 2fr) 3fr; gap: 14px; padding: 5px 0;
  align-items: baseline; border-bottom: 1px solid var(--rule); break-inside: avoid; }
.pairs.wide div { grid-template-columns: 11rem 1fr; }
.pairs dt { color: var(--soft); }
.pairs dd { margin: 0; font-family: var(--mono); font-size: .92em; }
footer { margin-top: 44px; padding-top: 14px; border-top: 1px solid var(--rule); color: var(--soft);
  font-size: .85rem; }

@media screen and (max-width: 700px) {
  main { padding: 26px 16px 48px; }
  section { margin-top: 34px; }
  .facts, .metrics { grid-template-columns: repeat(2, 1fr); gap: 16px 20px; }
  .facts .value { font-size: 1.5rem; }
  .metrics { gap: 12px 20px; }
  .metrics dd { display: inline; }
  td.bar { min-width: 4.5rem; }
  th, td { padding-right: 12px; }
  .features .name { white-space: normal; overflow-wrap: normal; }
  .features td, .features th { padding-right: 8px; }
  .pairs { columns: 1; }
  .pairs.wide div, .pairs div { grid-template-columns: 2fr 3fr; }
}
@media screen and (max-width: 860px) {
  .beside { grid-template-columns: minmax(0, 1fr); }
  .forest table, .forest thead, .forest tbody { display: block; }
  .forest tr { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 14px; padding: 9px 0 7px;
    border-bottom: 1px solid var(--rule); }
  .forest th, .forest td { border: 0; padding: 0; text-align: left; }
  .forest thead tr { padding: 0; border-color: var(--ink); }
  .forest thead th:not(.plot) { display: none; }
  .forest .name { flex: 1 0 100%; font-weight: 600; }
  .forest .plot { flex: 1 0 100%; width: 100%; padding: 0; }
  .forest td.plot { height: 28px; }
  .forest td .strip { width: 100%; }
  .forest td.empty { display: none; }
  .forest td[data-label]::before { content: attr(data-label) " "; color: var(--soft); }
}
@media print {
  @page { margin: 15mm 14mm; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  h1 { font-size: 20pt; }
  .box, .ribbon { padding: 7px 12px; margin-top: 12px; }
  section { margin-top: 18px; padding-top: 10px; }
  .figures { grid-template-columns: repeat(3, 1fr); gap: 18px; }
  .figures svg text { font-size: 11px !important; }
  .figures h3 { font-size: 9.5pt; }
  figcaption, .hint { font-size: 8pt; }
  .facts .value { font-size: 16pt; }
  .facts { gap: 14px 18px; margin-top: 20px; }
  .metrics { gap: 6px 18px; font-size: 9pt; margin: 14px 0 8px; }
  .metrics dd { display: inline; }
  .scroll { overflow: visible; }
  table { font-size: 8.5pt; }
  th, td { padding-right: 10px; }
  .forest .plot { width: 28%; }
  .forest td.plot { height: 28px; }
  figure, tr, .box, .facts div, .metrics, .keep { break-inside: avoid; }
  h2, h3, summary { break-after: avoid; }
  .metrics + .hint { break-before: avoid; }
  thead { display: table-header-group; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
  summary { list-style: none; color: inherit; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

MACROS = """
{% macro figure(name, title, caption, otherwise) %}
<figure>
<h3>{{ title }}</h3>
{% if name in figures %}{{ figures[name] }}
<figcaption>{{ caption }}</figcaption>
{% else %}<figcaption class="missing">{{ otherwise }}</figcaption>
{% endif %}
</figure>
{% endmacro %}
{% macro strip(scale, marks, reference) %}
<svg class="strip" role="img" aria-label="{% for kind, e in marks if e and e.value is known %}{{ kind }}
 {{ e.value|number }} {{ e|interval }} {% else %}no value{% endfor %}">
{% if reference is not none %}
<line class="reference" y1="0" y2="100%" x1="{{ scale.at(reference) }}" x2="{{ scale.at(reference) }}"/>
{% endif %}
{% for kind, e in marks if e and e.value is known %}
{% set y = "%d%%" % (100 * loop.index / (loop.length + 1)) %}
{% if e|interval %}
<line class="{{ kind }}" x1="{{ scale.at(e.low) }}" x2="{{ scale.at(e.high) }}" y1="{{ y }}" y2="{{ y }}"/>
{% endif %}
<circle class="{{ kind }}" cx="{{ scale.at(e.value) }}" cy="{{ y }}" r="4"/>
{% endfor %}
</svg>
{% endmacro %}
{% macro axis(scale) %}
<svg class="axis" role="img" aria-label="AUROC axis from {{ scale.low|number(1) }} to {{ scale.high|number(1)
}}">
{% for tick in scale.ticks() %}
<text x="{{ scale.at(tick) }}" y="12" text-anchor="middle">{{ tick|number(1) }}</text>
{% endfor %}
</svg>
{% endmacro %}
{% macro key(kind, words) %}
<span class="key"><svg class="strip" aria-hidden="true" focusable="false">
<line class="{{ kind }}" x1="0" x2="100%" y1="50%" y2="50%"/>
{% if kind != "reference" %}<circle class="{{ kind }}" cx="50%" cy="50%" r="4"/>{% endif %}
</svg>{{ words }}</span>
{% endmacro %}
{% macro swatch(kind, words) %}
<span class="key"><svg class="swatch" aria-hidden="true" focusable="false"><rect class="{{ kind }}" width="100%"
 height="100%"/></svg>{{ words }}</span>
{% endmacro %}
{% macro estimate(e, words="") %}
{% if e and e.value is known %}{{ e.value|number }} <span class="ci">{{ e|interval }}</span>
{%- else %}<span class="quiet">{{ words or "n/a" }}</span>{% endif %}
{% endmacro %}
{% macro forest(table) %}
{% set scale = table.scale %}
<table>
<thead><tr><th>{{ table.first }}</th><th class="n">{{ table.patients }}</th><th class="n">Deaths</th>
<th class="plot">{{ axis(scale) }}</th>
{% for column in table.columns %}<th class="n">{{ column.head }} (95\u00a0% CI)</th>{% endfor %}</tr></thead>
<tbody>
{% for line in table.lines %}
<tr><th class="name" scope="row">{{ line.name }}</th>
{% if line.refused and line.patients is none %}
<td class="refused" colspan="{{ 3 + table.columns|length }}">not admitted: {{ line.refused }}</td>
{% else %}
<td class="n" data-label="Patients">{{ line.patients|count }}</td>
<td class="n" data-label="Deaths">{{ line.deaths|count }}</td>
<td class="plot{{ "" if table.drawn(line) else " empty" }}">
{{- strip(scale, table.marks(line), table.reference) }}</td>
{% for column in table.columns %}
<td class="n" data-label="{{ column.label }}">{{ estimate(line.estimates[loop.index0], line.words if loop.first) }}
{% if loop.last and line.refused %}<br><span class="refused">not admitted: {{ line.refused }}</span>{% endif %}</td>
{% endfor %}
{% endif %}</tr>
{% endfor %}
</tbody>
</table>
{% endmacro %}
{% macro pair(name, value) %}
<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>
{% endmacro %}
"""
