"""The report's part on who the model works for: sex and age, each site's patients, and hospitals it has never seen."""

GROUPS = """
{% if subgroup_forest.lines %}
<section class="keep">
<h2>By sex and age</h2>
<figure class="forest">
{{ forest(subgroup_forest) }}
<figcaption>On the held-out patients of the group; sensitivity and specificity at the threshold of
{{ run.heldout.threshold|number }} that holds for all. {{ key("federated", "AUROC with 95\u00a0% CI") }}
{{ key("reference", "all patients") }}</figcaption>
</figure>
</section>
{% endif %}
{% if site_forest.lines %}
{% set personal = site_forest.columns|length == 2 %}
<section class="keep">
<h2>{{ "By site, shared and personalised" if personal else "By site" }}</h2>
<p class="hint">On each site\u2019s own validation patients, from its score histogram.
{% if personal %}A personalised model is the shared one, adapted by the site to its own training patients; it stays
there.{% endif %}</p>
<figure class="forest">
{{ forest(site_forest) }}
<figcaption>AUROC with 95\u00a0% CI. {{ key("federated", "shared model") }}
{% if personal %}{{ key("local", "personalised") }}{% endif %}
{{ key("reference", "shared model, all sites") }} A site withholds patients below its smallest cell.</figcaption>
</figure>
</section>
{% endif %}
{% if left_out_forest.lines %}
<section class="keep">
<h2>At a hospital that did not take part</h2>
<p class="hint">The federation was trained again without each site in turn, and the model tried on the patients of that
site: what a new hospital may expect.</p>
<figure class="forest">
{{ forest(left_out_forest) }}
<figcaption>AUROC with 95\u00a0% CI: without the site on all of its patients, with it on its validation patients.
{{ key("local", "trained without the site") }}
{{ key("federated", "trained with it") }}
{% if left_out_forest.reference is not none %}{{ key("reference", "trained with all, on all") }}{% endif %}</figcaption>
</figure>
</section>
{% endif %}
"""
