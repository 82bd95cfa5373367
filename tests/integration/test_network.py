"""What a hospital's network does to a federation: the line to one hospital is cut, slow or dead, the SuperLink goes away.
Every run ends, with the weights of an undisturbed one or with the reason by the hospital's name."""

import subprocess
from collections.abc import Iterator
from uuid import uuid4

import pytest
import torch
from consortium import Consortium
from link import Link

from server.progress import Event, events
from server.results import RunResults, read_results
from shared_model.messages import Weights
from simulations.runner import ended_afterwards, marked

RUN = {"min-sites": 2, "expected-sites": 3}
UPDATE = 4_000  # bytes: after the first of them an update is on its way, and not yet there
TRICKLE = 2_000  # bytes a second: some requests take seconds


@pytest.fixture(scope="module")
def links() -> Iterator[dict[str, Link]]:
    held: dict[str, Link] = {}
    yield held
    for link in held.values():
        link.close()


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory, links: dict[str, Link]) -> Iterator[Consortium]:
    """Avon and Clare dial through a line of their own."""
    mark = uuid4().hex
    with ended_afterwards(mark):
        held = Consortium(tmp_path_factory.mktemp("network"), mark)
        for name in ("Avon", "Clare"):
            links[name] = Link(held.port)
            held.dials[name] = f"127.0.0.1:{links[name].port}"
        held.open(Avon=60, Clare=60, Mercy=60)
        yield held
        held.close()
    assert not marked(mark), "processes outlived the federation"


@pytest.fixture(scope="module")
def expected(consortium: Consortium) -> Weights:
    """Of a run that nothing happens to."""
    consortium.train("whole", **RUN)
    return consortium.weights("whole")


@pytest.fixture(autouse=True)
def sound_lines(consortium: Consortium, links: dict[str, Link]) -> Iterator[None]:
    """Each test finds sound lines and everybody online."""
    for link in links.values():
        link.restored()
    consortium.until(lambda: consortium.status().count(" online") == 3, "everybody online")
    yield


class Run:
    """A run that goes on while its test does something to the network."""

    def __init__(self, consortium: Consortium, name: str, **settings: object) -> None:
        self.consortium, self.name = consortium, name
        command = ("consilium-server", "run", consortium.centre)
        self.process = consortium.start(*command, *consortium.named(name, **RUN | settings))

    def told(self) -> list[Event]:
        return events(self.consortium.centre / "runs" / self.name / "progress.jsonl")

    def after(self, *, rounds: int) -> None:
        """Wait until so many rounds have ended."""
        self.consortium.until(
            lambda: sum(one["event"] == "round" for one in self.told()) >= rounds or self.process.poll() is not None,
            f"{rounds} rounds of {self.name}",
        )

    def ended(self, status: int = 0) -> RunResults:
        try:
            assert self.process.wait(timeout=200) == status, self.consortium.logs()
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name}: the run hangs\n{self.consortium.logs()}")
        finally:
            self.consortium.daemons.remove(self.process)
        return read_results(self.consortium.centre / "runs" / self.name / "results.json")


def _same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _statistics_released(consortium: Consortium, site: str, since: int) -> bool:
    return any(entry["kind"] == "statistics" for entry in consortium.audit(site)[since:])


def _connection(consortium: Consortium, site: str) -> str:
    """What the site's own status says about its connection."""
    said = consortium.command("consilium-site", "status", consortium.sites[site], status=None)
    return next(line for line in said.splitlines() if line.startswith("connection"))


def test_a_cut_within_a_reply_and_a_slow_line_change_nothing(
    consortium: Consortium, links: dict[str, Link], expected: Weights
) -> None:
    since = len(consortium.audit("Avon"))
    run = Run(consortium, "cut")
    consortium.until(lambda: _statistics_released(consortium, "Avon", since), "the statistics")
    links["Clare"].slow(TRICKLE * 10)
    run.after(rounds=0)
    links["Avon"].broken_after(UPDATE)
    results = run.ended()
    assert links["Avon"].cuts and [one.failed for one in results.rounds] == [{}, {}]
    assert _same(consortium.weights("cut"), expected)


def test_a_site_that_cannot_be_reached_for_a_round(consortium: Consortium, links: dict[str, Link]) -> None:
    run = Run(consortium, "unreachable", rounds=6, absence_timeout=1)
    run.after(rounds=1)
    links["Avon"].cut()
    consortium.until(lambda: "retrying since" in _connection(consortium, "Avon"), "Avon to notice")
    run.after(rounds=2)
    links["Avon"].restored()
    results = run.ended()
    assert results.rounds[1].failed == {"Avon": "not connected for 1 s"}
    assert results.rounds[1].replied == ["Clare", "Mercy"]
    assert results.rounds[-1].replied == ["Avon", "Clare", "Mercy"]
    assert "Avon missed at least one round; see the rounds" in results.warnings
    assert "connected since" in _connection(consortium, "Avon")


def test_a_superlink_that_restarts_between_two_rounds(consortium: Consortium, expected: Weights) -> None:
    run = Run(consortium, "restart")
    run.after(rounds=1)
    consortium.command("consilium-server", "stop", consortium.centre)
    run.process.wait(timeout=200)
    consortium.daemons.remove(run.process)
    consortium.start("consilium-server", "start", consortium.centre)
    consortium.until(lambda: consortium.status().count(" online") == 3, "everybody online again")
    consortium.command("consilium-server", "run", consortium.centre, "--resume", "restart")
    assert _same(consortium.weights("restart"), expected)


def test_what_takes_longer_than_a_round_may_is_named(consortium: Consortium, links: dict[str, Link]) -> None:
    """A line too slow in the first round; one that stalls within the update in the second."""
    since = len(consortium.audit("Avon"))
    run = Run(consortium, "late", round_timeout=10)
    consortium.until(lambda: _statistics_released(consortium, "Avon", since), "the statistics")
    links["Avon"].slow(TRICKLE / 10)
    run.after(rounds=1)
    links["Clare"].stalled()
    links["Avon"].restored()
    results = run.ended()
    print(results.rounds)
