"""The report's part on features: what each tells of death before any model, and how the plan treats them.

Bars share one line a feature (Wu 2024, doi 10.12677/mos.2024.136583, Figure 2 draws them as two charts), so that names
are written once and the two can be compared on a phone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from server.results import FeatureSummary

SHOWN = 25


@dataclass(frozen=True, kw_only=True)
class FeatureTable:
    """``drawn``: the most informative static features; ``treatments``: how many kept features get each treatment."""

    drawn: Sequence[FeatureSummary]
    static: int  # those that could have been drawn
    kept: int
    total: int
    dropped: Sequence[FeatureSummary]
    treatments: Sequence[tuple[str, int]]
    most_information: float
    most_correlation: float


def feature_table(features: Sequence[FeatureSummary]) -> FeatureTable:
    """Static features by mutual information (ties by name), and what was dropped in the order of the plan."""
    known = [f for f in features if f.kind == "static" and f.mutual_information is not None]
    drawn = sorted(known, key=lambda f: (-(f.mutual_information or 0), f.name))[:SHOWN]
    kept = [f for f in features if f.kept]
    treatments = Counter(f"the {f.imputation} for what is missing and {_SCALED[f.scaling]}" for f in kept)
    return FeatureTable(
        drawn=drawn,
        static=len(known),
        kept=len(kept),
        total=len(features),
        dropped=[f for f in features if not f.kept],
        treatments=sorted(treatments.items(), key=lambda pair: (-pair[1], pair[0])),
        most_information=max((f.mutual_information or 0 for f in drawn), default=0) or 1,
        most_correlation=max((abs(f.correlation or 0) for f in drawn), default=0) or 1,
    )


_SCALED = {"zscore": "z-scores", "minmax": "a scale from 0 to 1"}

FEATURES = """
{% if features.total %}
<section>
<h2>{{ features_title|default("What the features tell") }}</h2>
{% if features.drawn %}
<figure class="features">
<div class="scroll" tabindex="0" role="region" aria-label="Features">
<table>
<thead><tr><th>Feature</th><th colspan="2">Mutual information with death (nats)</th>
<th colspan="2">Correlation with death</th></tr></thead>
<tbody>
{% for feature in features.drawn %}
{% set r = feature.correlation %}
<tr{{ "" if feature.kept else ' class="quiet"'|safe }}><th class="name" scope="row">
{%- for part in feature.name.split("_") %}{{ part }}{% if not loop.last %}_<wbr>{% endif %}{% endfor %}</th>
<td class="bar"><svg aria-hidden="true" focusable="false"><rect height="100%"
 width="{{ "%.1f"|format(100 * [feature.mutual_information, 0]|max / features.most_information) }}%"/></svg></td>
<td class="n">{{ feature.mutual_information|number }}</td>
<td class="bar"><svg aria-hidden="true" focusable="false">
{% if r is known %}
{% set wide = 50 * r|abs / features.most_correlation %}
<rect class="{{ "less" if r < 0 else "more" }}" height="100%" x="{{ "%.1f"|format(50 - wide if r < 0 else 50) }}%"
 width="{{ "%.1f"|format(wide) }}%"/>{% endif %}
<line x1="50%" x2="50%" y1="-40%" y2="140%"/></svg></td>
<td class="n">{{ r|number(2) }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<figcaption>Among the training patients of all sites, one feature at a time; the
{{ features.drawn|length }} most informative of {{ features.static }} static features. Correlation is point-biserial:
{{ swatch("more", "higher values with death") }} {{ swatch("less", "lower values with death") }}
{% if features.drawn|rejectattr("kept")|list %}A name in grey was dropped.{% endif %}</figcaption>
</figure>
{% endif %}
<p class="sum">{{ features.kept|count }} of {{ features.total|count }} features are kept
{%- for words, many in features.treatments %}{{ ": " if loop.first else ", " }}{{ many|count }} with
{{ words }}{% endfor %}.</p>
{% if features.dropped %}
<details>
<summary>{{ features.dropped|length }} dropped feature{{ "" if features.dropped|length == 1 else "s" }}</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Dropped features">
<table>
<thead><tr><th>Feature</th><th>Kind</th><th class="n">Patients without it</th><th>Why</th></tr></thead>
<tbody>
{% for feature in features.dropped %}
<tr><th class="name" scope="row">{{ feature.name }}</th><td>{{ feature.kind }}</td>
<td class="n">{{ feature.missing|share(1) }}</td><td class="words">{{ feature.reason or "no reason given" }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
</details>
{% endif %}
</section>
{% endif %}
"""
