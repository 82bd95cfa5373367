"""The search and the runs without a site, over real ClientApp handlers with real stores, through Flower's wire."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from builders import MemoryGrid
from federation import small_config, small_federation
from flwr.app import Message

from server.admission import Admission, admit
from server.app import federate
from server.progress import Progress
from server.released import load_released
from server.results import RunResults
from server.tuning import JOURNAL, left_out, tune
from shared_model.config import RunConfig
from shared_model.errors import ConfigError, FederationError
from shared_model.messages import STATISTICS, TRAIN

GRID = "learning-rate: [0.0001, 0.01]"


def kind(message: Message) -> str:
    return message.metadata.message_type


def _started(tmp_path: Path, *, cell: int = 3, **settings: object) -> tuple[MemoryGrid, Admission, RunConfig]:
    config = small_config(**({"folds": 3, "grid": GRID} | settings))
    grid = small_federation(tmp_path, config, cell=cell)
    return grid, admit(grid, config, encoder=""), config


def test_the_search_scores_every_setting_on_every_fold_and_prefers_the_one_that_learns(tmp_path: Path) -> None:
    grid, admission, config = _started(tmp_path)
    told: list[tuple[int, int]] = []
    found = tune(grid, admission, config, tmp_path, lambda done, of: told.append((done, of)))
    assert [trial.settings for trial in found.trials] == [{"learning-rate": 0.0001}, {"learning-rate": 0.01}]
    assert found.best == 1 and found.trials[1].mean > found.trials[0].mean
    assert all(len(trial.fold_auroc) == 3 and trial.status == "complete" for trial in found.trials)
    assert told == [(n, 6) for n in range(1, 7)]
    asked = [kind(message) for message in grid.sent]
    assert asked.count(STATISTICS) == 3 * 2  # once a fold and site: settings do not change the patients
    assert asked.count(TRAIN) == 2 * 3 * 2 * 2


def test_the_search_gives_the_same_again_and_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    grid, admission, config = _started(tmp_path / "a")
    whole = tune(grid, admission, config, tmp_path, lambda done, of: None)
    journal = tmp_path / JOURNAL
    lines = journal.read_text().splitlines()
    assert len(lines) == 6
    journal.write_text("\n".join(lines[:4]) + "\n" + lines[4][: len(lines[4]) // 2])  # killed while writing the fifth
    sent = len(grid.sent)
    assert tune(grid, admission, config, tmp_path, lambda done, of: None) == whole
    trained = [message for message in grid.sent[sent:] if kind(message) == TRAIN]
    assert len(trained) == 2 * 2 * 2  # two folds, two rounds, two sites


def test_a_journal_of_another_run_is_not_taken_over(tmp_path: Path) -> None:
    grid, admission, config = _started(tmp_path)
    tune(grid, admission, config, tmp_path, lambda done, of: None)
    other = config.model_copy(update={"seed": 2})
    sent = len(grid.sent)
    tune(grid, admission, other, tmp_path, lambda done, of: None)
    assert sum(kind(message) == TRAIN for message in grid.sent[sent:]) == 24


def test_settings_that_change_the_models_inputs_can_be_searched(tmp_path: Path) -> None:
    grid, admission, config = _started(tmp_path, grid="select-features: [5, 20]", folds=2)
    found = tune(grid, admission, config, tmp_path, lambda done, of: None)
    assert all(trial.mean is not None for trial in found.trials)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("learning-rat: [0.1]", r"'learning-rat' is no setting that can be tuned; did you mean 'learning-rate'\?"),
        ("seed: [1, 2]", "'seed' is no setting that can be tuned"),
        ("learning-rate: [7]", "learning-rate = 7: input should be less than or equal to 1"),
        ("learning-rate: []", "learning-rate: write a list of values"),
        ("dropout: {low: 0.1, high: 0.5}", "dropout: a range needs trials"),
        ("dropout: {low: 0.5, high: 0.1}", "dropout: low must be below high"),
        ("[]", "grid: write key"),
        ("a: [", "grid: is no YAML"),
    ],
)
def test_a_grid_that_breaks_a_rule_is_told_before_anything_is_trained(tmp_path: Path, text: str, rule: str) -> None:
    grid, admission, config = _started(tmp_path, grid=text)
    with pytest.raises(ConfigError, match=rule):
        tune(grid, admission, config, tmp_path, lambda done, of: None)
    assert TRAIN not in map(kind, grid.sent)


def test_folds_without_deaths_are_told_and_stop_the_search_only_when_no_fold_has_any(tmp_path: Path) -> None:
    """Sites withhold a validation of fewer deaths than a cell has patients: here, that is every one."""
    grid, admission, config = _started(tmp_path, cell=25, rounds=1, grid="dropout: [0.1]")
    with pytest.raises(FederationError, match="use fewer folds"):
        tune(grid, admission, config, tmp_path, lambda done, of: None)
    scores = [json.loads(line)["auroc"] for line in (tmp_path / JOURNAL).read_text().splitlines()]
    assert scores == [None] * 3


def test_each_site_is_left_out_of_training_and_validated_on_all_of_its_patients(tmp_path: Path) -> None:
    grid, admission, config = _started(tmp_path)
    torch.manual_seed(0)
    found = left_out(grid, admission, config)
    assert {site: held.count for site, held in found.items()} == {"Site 1": 90, "Site 2": 120}
    assert all(held.auroc is not None and held.auroc > 0.5 for held in found.values())
    trained = [m.metadata.dst_node_id for m in grid.sent if kind(m) == TRAIN]
    assert trained == [2, 2, 1, 1]  # the one left out is never asked to train


@pytest.mark.parametrize("personalisation", ["none", "finetune"])
def test_the_run_after_the_search_trains_with_the_best_settings_at_the_sites_too(
    tmp_path: Path, personalisation: str
) -> None:
    """Settings of the server (strategy), of the model (its size) and of a site (L2, loss): the model is, to the last
    bit, that of a run which was told them at once."""
    best = {"strategy": "scaffold", "static-hidden": 7, "weight-decay": 0.5, "loss": "cross_entropy"}
    grid = yaml.safe_dump({key: [value] for key, value in best.items()})
    flat = small_config(personalisation=personalisation, leave_one_out=True).to_flat()
    searched = _federated(tmp_path / "searched", RunConfig.from_flat(flat | {"folds": 2, "grid": grid}))
    told = _federated(tmp_path / "told", RunConfig.from_flat(flat | best))
    assert searched.tuning is not None and told.tuning is None
    assert searched.leave_one_out == told.leave_one_out and searched.validation == told.validation
    models = [load_released(tmp_path / name / "out" / "model").model.state_dict() for name in ("searched", "told")]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def _federated(folder: Path, config: RunConfig) -> RunResults:
    config = config.model_copy(update={"output": str(folder / "out")})
    return federate(small_federation(folder, config), config, Progress(folder / "out"))
