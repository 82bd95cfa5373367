"""The report's part on tuning: which settings were tried by cross-validation, and which one was taken."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.report_words import digits, known
from server.results import RunResults, Trial, Tuning

SHOWN = 30


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One trial with its rank by mean AUROC; ``settings`` in the order of the parameters, as text."""

    rank: int
    trial: Trial
    settings: Sequence[str]
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class TuningTable:
    """The best trials, and always the chosen one."""

    folds: int
    parameters: Sequence[str]
    rows: Sequence[Tried]
    trials: int


def ranked(tuning: Tuning) -> list[Tried]:
    """All trials by mean AUROC, those without one last; equal ones in the order they were tried."""
    means = [trial.mean if known(trial.mean) else -1.0 for trial in tuning.trials]
    best_first = sorted(enumerate(tuning.trials), key=lambda pair: -means[pair[0]])
    return [
        Tried(
            rank=rank,
            trial=trial,
            settings=[_setting(trial.settings.get(name, "")) for name in tuning.parameters],
            chosen=place == tuning.best,
        )
        for rank, (place, trial) in enumerate(best_first, start=1)
    ]


def shown(tuning: Tuning) -> list[Tried]:
    """The first ``SHOWN`` of the ranking, with the chosen trial in any case."""
    return [row for row in ranked(tuning) if row.rank <= SHOWN or row.chosen]


def tuning_table(results: RunResults) -> TuningTable | None:
    """What the section shows; None where nothing was tuned."""
    tuning = results.tuning
    if tuning is None:
        return None
    return TuningTable(folds=tuning.folds, parameters=tuning.parameters, rows=shown(tuning), trials=len(tuning.trials))


def _setting(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return digits(value) if isinstance(value, float) else str(value)


TUNING = """
{% if tuning %}
<section>
<h2>Tuning</h2>
<p class="hint">{{ tuning.trials }} setting{{ "" if tuning.trials == 1 else "s" }} of
{{ tuning.parameters|join(", ") }}, each trained {{ tuning.folds }} times and tried on the fold of training patients
it had not seen. {% if run.heldout %}No held-out patient took part.{% endif %}</p>
<div class="beside">
{{ figure("tuning", "AUROC by setting" if tuning.parameters|length == 1 else "AUROC by trial",
 "Grey strokes: single folds. Blue: their mean with one standard deviation. The ring is the chosen setting.",
 "No trial has an AUROC.") }}
<div class="scroll" tabindex="0" role="region" aria-label="Trials">
<table>
<thead><tr><th class="n">Trial</th>{% for name in tuning.parameters %}<th class="n">{{ name }}</th>{% endfor %}
<th class="n">Mean AUROC</th><th class="n">SD</th><th class="n">Mean loss</th></tr></thead>
<tbody>
{% for row in tuning.rows %}
<tr{{ ' class="chosen"'|safe if row.chosen }}><th class="n" scope="row">{{ row.rank }}{{ "*" if row.chosen }}</th>
{% for setting in row.settings %}<td class="n">{{ setting }}</td>{% endfor %}
{% if row.trial.mean is known %}
<td class="n">{{ row.trial.mean|number }}</td><td class="n">{{ row.trial.sd|number }}</td>
<td class="n">{{ row.trial.mean_loss|number(4) }}</td></tr>
{% else %}
<td class="n refused" colspan="3">{{ row.trial.status }}</td></tr>
{% endif %}
{% endfor %}
</tbody>
</table>
<p class="hint">* the chosen setting.
{% if tuning.rows|length < tuning.trials %}The best {{ tuning.rows|length }} of {{ tuning.trials }} trials are shown.
{% endif %}</p>
</div>
</div>
</section>
{% endif %}
"""
