"""A run that is killed at any message goes on from its checkpoint and ends with the same weights, whatever the
strategy; a damaged checkpoint is passed over; a full disk ends the run with the last good one kept."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from federation import small_config, small_federation
from flwr.app import Message
from full_disk import full_disk
from safetensors.torch import load_file

from server.app import federate
from server.checkpoint import FOLDER, KEPT, load_checkpoint
from server.progress import Progress
from server.results import RunResults, read_results
from shared_model.config import RunConfig
from shared_model.errors import ConfigError, FederationError
from shared_model.messages import DESCRIBE, EVALUATE, STATISTICS, TRAIN, Weights

SITES = (60, 70, 80, 90, 100, 110, 120)
FEW = SITES[:2]
STEPS = [(DESCRIBE, 1), (STATISTICS, 1), (TRAIN, 1), (TRAIN, 2), (TRAIN, 3), (EVALUATE, 1)]


class Killed(BaseException):
    """What SIGKILL is to the ServerApp: nothing of it runs any more."""


def _config(folder: Path, **settings: object) -> RunConfig:
    held = {"rounds": 3, "name": "one", "bootstrap": 0, "local_steps": 2, "output": str(folder / "run")}
    return small_config(**(held | settings))


def _federate(
    folder: Path, config: RunConfig, *, sizes: tuple[int, ...] = FEW, kill: tuple[str, int] | None = None
) -> RunResults:
    """``kill``: the ServerApp ends as the n-th batch of a kind is answered, the sites' work done and lost."""
    grid = small_federation(folder, config, sizes=sizes)
    answered: dict[str, int] = {}
    answers = grid.answers

    def watched(asked: dict[int, Message]) -> list[Message]:
        replies = answers(asked)
        for kind in {message.metadata.message_type for message in asked.values()}:
            answered[kind] = answered.get(kind, 0) + 1
            if kill == (kind, answered[kind]):
                raise Killed
        return replies

    grid.answers = watched  # type: ignore[method-assign]
    return federate(grid, config, Progress(Path(config.output)))


def _weights(config: RunConfig) -> Weights:
    return load_file(Path(config.output) / "model" / "model.safetensors")


def _same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _events(config: RunConfig) -> list[dict[str, object]]:
    return [json.loads(line) for line in (Path(config.output) / "progress.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[RunConfig, RunResults]]:
    """The uninterrupted run of a strategy: its config and results."""
    done: dict[str, tuple[RunConfig, RunResults]] = {}

    def run(strategy: str) -> tuple[RunConfig, RunResults]:
        if strategy not in done:
            folder = tmp_path_factory.mktemp(strategy)
            config = _config(folder, strategy=strategy)
            done[strategy] = config, _federate(folder, config)
        return done[strategy]

    return run


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[0]}-{step[1]}")
def test_a_run_killed_at_any_step_resumes_to_the_same_weights(tmp_path: Path, step: tuple[str, int], whole) -> None:
    """SCAFFOLD, since both the server and the sites remember something."""
    uninterrupted, expected = whole("scaffold")
    config = _config(tmp_path, strategy="scaffold")
    with pytest.raises(Killed):
        _federate(tmp_path, config, kill=step)
    found = _federate(tmp_path, config.model_copy(update={"resume": True}))
    assert _same(_weights(config), _weights(uninterrupted))
    assert (found.status, found.best_round, found.plan_digest) == (
        "complete",
        expected.best_round,
        expected.plan_digest,
    )
    assert found.rounds == expected.rounds and found.validation == expected.validation
    done = max(step[1] - 1, 0) if step[0] == TRAIN else 3 if step[0] == EVALUATE else 0
    assert [event["round"] for event in _events(config) if event["event"] == "resumed"] == [done]


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_a_strategy_with_a_memory_gets_it_back(tmp_path: Path, strategy: str, whole) -> None:
    config = _config(tmp_path, strategy=strategy)
    with pytest.raises(Killed):
        _federate(tmp_path, config, kill=(TRAIN, 3))
    assert load_checkpoint(Path(config.output)).strategy
    _federate(tmp_path, config.model_copy(update={"resume": True}))
    assert _same(_weights(config), _weights(whole(strategy)[0]))


@pytest.mark.parametrize(
    "strategy", ["fedavg", "fedprox", "qfedavg", "fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan"]
)
def test_the_other_strategies_have_none(tmp_path: Path, strategy: str) -> None:
    """What they hold after a round is what they were made with, so a new one goes on like the old."""
    config = _config(tmp_path, strategy=strategy, local_steps=1, rounds=2)
    with pytest.raises(Killed):
        _federate(tmp_path, config, sizes=SITES, kill=(TRAIN, 2))
    assert load_checkpoint(Path(config.output)).strategy == {}


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "foreign"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage: str, whole, caplog) -> None:
    config = _config(tmp_path)
    with pytest.raises(Killed):
        _federate(tmp_path, config, kill=(EVALUATE, 1))
    newest = Path(config.output) / FOLDER / "round-00003.safetensors"
    content = newest.read_bytes()
    flipped = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    newest.write_bytes({"truncated": content[:-9], "empty": b"", "flipped": flipped, "foreign": b"{}" * 99}[damage])
    assert load_checkpoint(Path(config.output)).round == 2
    assert "round-00003.safetensors: damaged" in caplog.text
    _federate(tmp_path, config.model_copy(update={"resume": True}))
    assert _same(_weights(config), _weights(whole("fedavg")[0]))


def test_a_full_disk_ends_the_run_with_one_line_and_the_last_good_checkpoint(tmp_path: Path, whole) -> None:
    config = _config(tmp_path)
    with pytest.raises(Killed):
        _federate(tmp_path, config, kill=(TRAIN, 2))
    resumed = config.model_copy(update={"resume": True})
    with full_disk(after=20_000), pytest.raises(FederationError, match=r"round 2: .*takes no checkpoint .*make room"):
        _federate(tmp_path, resumed)
    names = [path.name for path in (Path(config.output) / FOLDER).iterdir()]
    assert names == ["round-00001.safetensors"]
    _federate(tmp_path, resumed)
    assert _same(_weights(config), _weights(whole("fedavg")[0]))


def test_a_few_checkpoints_are_kept(tmp_path: Path) -> None:
    config = _config(tmp_path, rounds=KEPT + 2, local_steps=1)
    _federate(tmp_path, config)
    names = sorted(path.name for path in (Path(config.output) / FOLDER).iterdir())
    assert names == [f"round-{n:05}.safetensors" for n in range(3, KEPT + 3)]


def test_a_resumed_run_keeps_its_settings_and_a_complete_one_is_not_resumed(tmp_path: Path) -> None:
    config = _config(tmp_path)
    with pytest.raises(Killed):
        _federate(tmp_path, config, kill=(TRAIN, 2))
    other = config.model_copy(update={"resume": True, "learning_rate": 0.5})
    with pytest.raises(ConfigError, match=r"resume: learning-rate was 0\.001 and is 0\.5 now"):
        _federate(tmp_path, other)
    resumed = config.model_copy(update={"resume": True, "round_timeout": 99.0})
    assert _federate(tmp_path, resumed).status == "complete"
    assert read_results(Path(config.output) / "results.json").config["resume"] is True
    with pytest.raises(ConfigError, match="is complete"):
        _federate(tmp_path, resumed)


def test_a_search_is_resumed_with_the_settings_it_found(tmp_path: Path) -> None:
    grid = {"grid": "learning-rate: [0.0001, 0.01]", "folds": 2, "rounds": 2, "local_steps": 1}
    whole, config = _config(tmp_path / "whole", **grid), _config(tmp_path / "killed", **grid)
    expected = _federate(tmp_path / "whole", whole)
    with pytest.raises(Killed):
        _federate(tmp_path / "killed", config, kill=(TRAIN, 2 * 2 * 2 + 2))  # every fold, then the run's second round
    found = _federate(tmp_path / "killed", config.model_copy(update={"resume": True}))
    assert _same(_weights(config), _weights(whole))
    assert found.config["learning-rate"] == expected.config["learning-rate"]
    assert found.tuning == expected.tuning
