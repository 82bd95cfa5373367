"""Trials inside one federation: cross-validation over a grid or random draws, and training without each site.

Every site folds its own blocks of patients, so no list of patients crosses the wire, and the plan of a fold is
fitted on that fold's training patients alone. A fold's score is that of the last round's model, which nothing chose.
What is finished is in ``tuning.jsonl``, a line a fold, so an interrupted search goes on where it was.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from flwr.serverapp import Grid

from server.admission import Admission
from server.checkpoint import OPERATIONAL
from server.results import Trial as TrialResult
from server.results import Tuning
from server.rounds import run_rounds, validate_at
from server.statistics import ask_statistics
from server.strategies import build_strategy
from server.training import Training
from shared_model.config import RunConfig
from shared_model.contract import contract_digest
from shared_model.errors import FederationError
from shared_model.features import digest_of
from shared_model.fitting import plan_from
from shared_model.mergeable import Validation
from shared_model.messages import RoundOrder, Statistics
from shared_model.model import build_model
from shared_model.plan import PreprocessingPlan
from shared_model.search import Settings, read_grid, search_settings, with_settings
from shared_model.trial import THE_RUN, Trial

JOURNAL = "tuning.jsonl"
Score = dict[str, float | None]  # auroc and loss of a fold
Tell = Callable[[int, int], None]


def tune(grid: Grid, admission: Admission, config: RunConfig, folder: Path, on_fold: Tell) -> Tuning:
    """Score every setting of ``config.grid`` on ``config.folds`` folds; ``on_fold`` is told (done, of).

    The best has the highest mean AUROC over its folds; of equals, the first. Raises FederationError when no fold of any
    setting could be validated, and ConfigError for a grid that breaks a rule.
    """
    parts = read_grid(config.grid)
    searched = search_settings(parts, config)
    journal, statistics = _Journal(folder / JOURNAL, admission, config), _Statistics(grid, admission, config)
    scores: list[list[Score]] = []
    for settings in searched:
        scores.append([])
        for fold in range(config.folds):
            trial = Trial(settings=settings, fold=fold, folds=config.folds)
            plan = plan_from(statistics.of(trial), with_settings(config, settings))
            found = journal.held(trial, plan)
            if found is None:
                found = journal.keep(trial, plan, _train(grid, admission, config, trial, plan))
            scores[-1].append(found)
            on_fold(sum(map(len, scores)), len(searched) * config.folds)
    trials = [_result(settings, folds) for settings, folds in zip(searched, scores, strict=True)]
    known = [n for n, trial in enumerate(trials) if trial.mean is not None]
    if not known:
        raise FederationError(
            f"search: no site has enough deaths in its validation patients for {config.folds} folds; use fewer folds"
        )
    best = max(known, key=lambda n: trials[n].mean or 0.0)
    return Tuning(folds=config.folds, parameters=list(parts), trials=trials, best=best)


def left_out(grid: Grid, admission: Admission, config: RunConfig, run: Trial = THE_RUN) -> dict[str, Validation]:
    """For each site, on all of its patients: the kept model of a run that it took no part in, with the settings of
    ``run``. A site that withholds its validation, or does not answer, is missing."""
    found: dict[str, Validation] = {}
    for node in sorted(admission.sites, key=admission.name_of):
        others = replace(admission, sites={n: card for n, card in admission.sites.items() if n != node})
        alone = replace(admission, sites={node: admission.sites[node]})
        trial = replace(run, name=f"without {admission.name_of(node)}")
        plan = plan_from(_Statistics(grid, others, config).of(trial), config)
        training = _train(grid, others, config, trial, plan)
        everyone = replace(trial, folds=1)  # the one fold that everybody is in
        order = RoundOrder(round=training.best_round, learning_rate=config.learning_rate, plan=plan, trial=everyone)
        replies = validate_at(grid, alone, training.weights, order, config)
        found |= {site: reply.validation for site, reply in replies.items() if reply.validation.count}
    return found


class _Statistics:
    """The sites' statistics of a fold, asked for once: the settings of a search change the plan, not them."""

    def __init__(self, grid: Grid, admission: Admission, config: RunConfig) -> None:
        self.grid, self.admission, self.config = grid, admission, config
        self.folds: dict[tuple[int, int], list[Statistics]] = {}

    def of(self, trial: Trial) -> list[Statistics]:
        """In the order of the sites' names."""
        key = trial.fold, trial.folds
        if key not in self.folds:
            sites, _ = ask_statistics(self.grid, self.admission, self.config, replace(trial, settings={}))
            self.folds[key] = list(sites.values())
        return self.folds[key]


def _train(grid: Grid, admission: Admission, config: RunConfig, trial: Trial, plan: PreprocessingPlan) -> Training:
    settings = with_settings(config, trial.settings)
    initial = dict(build_model(settings.model_for(plan), seed=settings.seed).state_dict())
    strategy = build_strategy(settings, len(admission.sites))
    return run_rounds(grid, admission, strategy, initial, plan, settings, trial=trial)


class _Journal:
    """Finished folds of this search on disk; a line that was not written to its end does not count."""

    def __init__(self, path: Path, admission: Admission, config: RunConfig) -> None:
        sites = sorted(admission.name_of(node) for node in admission.sites)
        self.path, self.search = path, [contract_digest(config), sites, _without_search(config)]
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.scores: dict[str, Score] = dict(line for line in map(_line, lines) if line)

    def held(self, trial: Trial, plan: PreprocessingPlan) -> Score | None:
        """The score of a fold that was finished before."""
        return self.scores.get(self._key(trial, plan))

    def keep(self, trial: Trial, plan: PreprocessingPlan, training: Training) -> Score:
        """Append a finished fold, on disk before this returns."""
        score: Score = {"auroc": training.last.auroc, "loss": training.last.loss}
        line = {"fold": self._key(trial, plan), "settings": trial.settings, **score}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return score

    def _key(self, trial: Trial, plan: PreprocessingPlan) -> str:
        """The plan tells whether the sites' patients are still the same."""
        return digest_of([self.search, trial.to_json(), plan.digest])


def _line(text: str) -> tuple[str, Score] | None:
    try:
        line = json.loads(text)
        return line["fold"], {"auroc": line["auroc"], "loss": line["loss"]}
    except (ValueError, KeyError, TypeError):
        return None


def _without_search(config: RunConfig) -> Settings:
    """What decides a fold's score besides its settings: not the grid it came from, nor where results go."""
    others = OPERATIONAL | {"grid", "trials", "folds", "leave-one-out", "name"}
    return {key: value for key, value in config.to_flat().items() if key not in others}


def _result(settings: Settings, folds: list[Score]) -> TrialResult:
    aurocs, losses = [fold["auroc"] for fold in folds], [fold["loss"] for fold in folds]
    known, lost = [a for a in aurocs if a is not None], [x for x in losses if x is not None]
    missing = len(folds) - len(known)
    return TrialResult(
        settings=settings,
        fold_auroc=aurocs,
        mean=mean(known) if known else None,
        sd=stdev(known) if len(known) > 1 else None,
        mean_loss=mean(lost) if lost else None,
        status=f"{missing} of {len(folds)} folds without a validation" if missing else "complete",
    )
