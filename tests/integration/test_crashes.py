"""SIGKILL to each process of a real federation at each step of the protocol; the run ends with the weights of one that
nothing happened to."""

import json
import subprocess
from collections.abc import Iterator
from uuid import uuid4

import psutil
import pytest
import torch
from consortium import Consortium, undisturbed

from shared_model.messages import Weights
from simulations.runner import ended_afterwards, marked

STEPS = ("describe", "statistics", "train-1", "train-2", "evaluate")
TARGETS = ("ClientApp", "SuperNode", "ServerApp", "SuperLink")
RUN = {"strategy": "scaffold"}


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    mark = uuid4().hex
    with ended_afterwards(mark):
        held = Consortium(tmp_path_factory.mktemp("crashes"), mark)
        held.open(Mercy=60, Avon=80)
        yield held
        held.close()
    assert not marked(mark), "processes outlived the federation"


@pytest.fixture(scope="module")
def expected(consortium: Consortium, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Of a run that nothing happens to."""
    return undisturbed(consortium, tmp_path_factory.mktemp("whole"), **RUN)


def _same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Step:
    """Waits until a site is at work on a step, by its audit log: the step before has been released, and a ClientApp has
    been started since."""

    def __init__(self, consortium: Consortium, site: str = "Mercy") -> None:
        self.consortium, self.site = consortium, site
        self.home = consortium.folder / site
        self.since = len(consortium.audit(site))

    def reached(self, step: str) -> psutil.Process:
        """The ClientApp that works on it."""
        before = set(self._apps()) if step == "describe" else set()
        order = ["", *STEPS]
        previous = order[order.index(step) - 1]
        if previous:
            self.consortium.until(lambda: previous in self._released(), f"{self.site} to release {previous}")
            before = set(self._apps())
        return self.consortium.until(lambda: next(iter(set(self._apps()) - before), None), f"{self.site} at {step}")

    def _apps(self) -> list[psutil.Process]:
        return list(self.consortium.processes("flwr-clientapp", self.home))

    def _released(self) -> set[str]:
        entries = self.consortium.audit(self.site)[self.since :]
        kinds = [(str(entry["kind"]), entry.get("round")) for entry in entries]
        return {f"{kind}-{number}" if kind == "train" else kind for kind, number in kinds}


def _kill(consortium: Consortium, target: str, app: psutil.Process, site: str = "Mercy") -> None:
    words = {"SuperNode": "client.supernode", "ServerApp": "flwr-serverapp", "SuperLink": "server.superlink"}
    if target == "ClientApp":
        app.kill()
        return
    home = consortium.folder / site if target == "SuperNode" else consortium.centre
    for process in consortium.processes(words[target], home):
        process.kill()


def _run_with(consortium: Consortium, name: str, kills: dict[str, str], *arguments: str) -> int:
    """A run in whose steps these targets are killed; how its command ended."""
    step = Step(consortium)
    process = consortium.start("consilium-server", "run", consortium.centre, *arguments)
    for at, target in kills.items():
        _kill(consortium, target, step.reached(at))
    try:
        return process.wait(timeout=300)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{name}: the run hangs\n{consortium.logs()}")
    finally:
        consortium.daemons.remove(process)


def test_a_storm_changes_nothing(consortium: Consortium, expected: Weights) -> None:
    """Every process is killed once: the sites' work by messages that are sent again, the centre's by resuming from the
    checkpoint, as the command itself says."""
    kills = {"describe": "ClientApp", "statistics": "SuperNode", "train-2": "ServerApp"}
    assert _run_with(consortium, "storm", kills, *consortium.named("storm", **RUN)) == 1
    said = (consortium.folder / f"consilium-server-{len(consortium.daemons)}.out").read_text(encoding="utf-8")
    assert "its ServerApp was killed" in said and "--resume storm" in said
    _resumed(consortium, "storm", "SuperLink", after="describe")
    _resume(consortium, "storm")
    assert _same(consortium.weights("storm"), expected)
    told = (consortium.centre / "runs" / "storm" / "progress.jsonl").read_text(encoding="utf-8").splitlines()
    assert [event["round"] for event in map(json.loads, told) if event["event"] == "resumed"] == [1, 1]


def _resumed(consortium: Consortium, name: str, target: str, *, after: str) -> None:
    """Go on with a run, and kill ``target`` at the first training step that comes."""
    step = Step(consortium)
    process = consortium.start("consilium-server", "run", consortium.centre, "--resume", name)
    consortium.until(lambda: after in step._released(), f"{after} again")
    before = set(step._apps())
    app = consortium.until(lambda: next(iter(set(step._apps()) - before), None), "the next step")
    _kill(consortium, target, app)
    assert process.wait(timeout=300) == 1
    consortium.daemons.remove(process)


@pytest.mark.slow(minutes=1.5)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("target", TARGETS)
def test_each_process_is_killed_at_each_step(consortium: Consortium, expected: Weights, target: str, step: str) -> None:
    name = f"{target}-{step}"
    status = _run_with(consortium, name, {step: target}, *consortium.named(name, **RUN))
    if target in ("ClientApp", "SuperNode"):
        assert status == 0, consortium.logs()
    if status:
        _resume(consortium, name)
    assert _same(consortium.weights(name), expected)


def _resume(consortium: Consortium, name: str) -> None:
    consortium.until(lambda: "serving" in consortium.status(), "the SuperLink")
    consortium.command("consilium-server", "run", consortium.centre, "--resume", name)
