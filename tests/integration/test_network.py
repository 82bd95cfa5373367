"""What a hospital's network does to a federation: the line to a hospital is cut, slow or dead, the SuperLink goes away.
Every run ends, with the weights of an undisturbed one or with the reason by the hospital's name."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
import torch
from consortium import Consortium, undisturbed
from link import Link

from server.progress import Event, events
from server.results import RunResults, read_results
from shared_model.messages import Weights
from simulations.runner import ended_afterwards, marked

RUN = {"min-sites": 2, "expected-sites": 3}
SLOW, TOO_SLOW = 20_000, 300  # bytes a second: a message takes a second; none comes in time
LATE = "NoReply: no reply within the time limit"


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
def expected(consortium: Consortium, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Of a run that nothing happens to."""
    return undisturbed(consortium, tmp_path_factory.mktemp("whole"), **RUN)


@pytest.fixture(autouse=True)
def sound_lines(consortium: Consortium, links: dict[str, Link]) -> Iterator[None]:
    """Each test finds everybody online, and leaves sound lines."""
    consortium.until(lambda: consortium.status().count(" online") == 3, "everybody online")
    yield
    for link in links.values():
        link.restored()


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

    @contextmanager
    def held(self) -> Iterator[None]:
        """Its ServerApp does not go on."""
        process = int((self.consortium.centre / "runs" / self.name / "serverapp.pid").read_text())
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process, signal.SIGCONT)

    def results(self) -> RunResults:
        """Once it has ended well."""
        self.ended(0)
        return read_results(self.consortium.centre / "runs" / self.name / "results.json")

    def ended(self, status: int) -> None:
        try:
            assert self.process.wait(timeout=200) == status, self.consortium.logs()
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name}: the run hangs\n{self.consortium.logs()}")
        finally:
            self.consortium.daemons.remove(self.process)


def _same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _connection(consortium: Consortium, site: str) -> str:
    """What the site's own status says about its connection."""
    said = consortium.command("consilium-site", "status", consortium.sites[site], status=None)
    return next(line for line in said.splitlines() if line.startswith("connection"))


def _training(consortium: Consortium, run: Run, site: str, before: int) -> None:
    """Wait until the site has been asked for more updates than ``before``; what it sends next is large."""
    consortium.until(
        lambda: _trained(consortium, site) > before or run.process.poll() is not None,
        f"{site} to be asked for an update",
    )


def _trained(consortium: Consortium, site: str) -> int:
    log = consortium.folder / site / "site.federation" / "logs" / "supernode.log"
    return log.read_text(encoding="utf-8").count("Receiving: train message")


def test_a_cut_within_a_reply_and_a_slow_line_change_nothing(
    consortium: Consortium, links: dict[str, Link], expected: Weights
) -> None:
    before = _trained(consortium, "Avon")
    run = Run(consortium, "cut")
    _training(consortium, run, "Avon", before)
    links["Clare"].slow(SLOW)
    links["Avon"].within_the_next_upload(links["Avon"].broken)
    results = run.results()
    assert links["Avon"].struck == 1
    assert [one.failed for one in results.rounds] == [{}, {}]
    assert _same(consortium.weights("cut"), expected)


def test_a_site_that_cannot_be_reached_for_a_round(consortium: Consortium, links: dict[str, Link]) -> None:
    """The others go on; it comes back by itself, and takes part again."""
    run = Run(consortium, "unreachable", rounds=3, absence_timeout=1)
    run.after(rounds=1)
    links["Avon"].cut()
    consortium.until(lambda: "retrying since" in _connection(consortium, "Avon"), "Avon to notice")
    run.after(rounds=2)
    with run.held():  # the next round would be over before the site tries again
        links["Avon"].restored()
        consortium.until(lambda: "connected since" in _connection(consortium, "Avon"), "Avon to come back")
        consortium.until(lambda: consortium.status().count(" online") == 3, "the SuperLink to see it")
    results = run.results()
    assert [one.failed for one in results.rounds] == [{}, {"Avon": "NoReply: not connected for 1 s"}, {}]
    assert [len(one.replied) for one in results.rounds] == [3, 2, 3]
    assert "Avon missed at least one round; see the rounds" in results.warnings


@pytest.mark.slow(minutes=3)
def test_what_takes_longer_than_a_round_may_is_named(consortium: Consortium, links: dict[str, Link]) -> None:
    """A line that is too slow, and one that stalls in the middle of an update, whose other half never comes."""
    before = {site: _trained(consortium, site) for site in links}
    run = Run(consortium, "late", round_timeout=30)
    _training(consortium, run, "Avon", before["Avon"])
    links["Avon"].slow(TOO_SLOW)
    _training(consortium, run, "Clare", before["Clare"])
    links["Clare"].within_the_next_upload(links["Clare"].stalled)
    run.ended(1)
    assert links["Clare"].struck == 1
    reason = f"round 1: 1 of at least 2 usable replies (min-sites); Avon: {LATE}; Clare: {LATE}"
    assert run.told()[-1]["message"] == reason


@pytest.mark.slow(minutes=3)
def test_a_superlink_that_restarts_between_two_rounds(consortium: Consortium, expected: Weights) -> None:
    """The sites come back by themselves; resumed, the run ends as one that nothing happened to."""
    run = Run(consortium, "restart")
    run.after(rounds=1)
    consortium.command("consilium-server", "stop", consortium.centre)
    run.ended(1)
    consortium.start("consilium-server", "start", consortium.centre)
    for site in consortium.sites:
        consortium.until(lambda site=site: "connected since" in _connection(consortium, site), f"{site} to come back")
    consortium.until(lambda: consortium.status().count(" online") == 3, "everybody online again")
    consortium.command("consilium-server", "run", consortium.centre, "--resume", "restart")
    assert _same(consortium.weights("restart"), expected)


CENTRE, HOSPITALS, SUBNET = "consilium-c", "consilium-h", "10.213.7"


def _ip(*arguments: str, check: bool = True) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, check=check).returncode == 0


def _in(network: str) -> list[str]:
    return ["ip", "netns", "exec", network]


@pytest.fixture
def networks() -> Iterator[None]:
    """Two, with a line between them."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the command `ip`")
    try:
        if not _ip("netns", "add", CENTRE, check=False):
            pytest.skip("this machine makes no network namespaces")
        _ip("netns", "add", HOSPITALS)
        _ip("link", "add", "line-c", "netns", CENTRE, "type", "veth", "peer", "name", "line-h", "netns", HOSPITALS)
        for network, device, number in ((CENTRE, "line-c", 1), (HOSPITALS, "line-h", 2)):
            _ip("-n", network, "address", "add", f"{SUBNET}.{number}/24", "dev", device)
            for up in (device, "lo"):
                _ip("-n", network, "link", "set", up, "up")
        yield
    finally:
        for network in (CENTRE, HOSPITALS):
            _ip("netns", "del", network, check=False)


@pytest.mark.slow(minutes=3)
def test_a_line_between_two_networks_goes_down_and_comes_up(
    tmp_path_factory: pytest.TempPathFactory, networks: None
) -> None:
    mark = uuid4().hex
    with ended_afterwards(mark):
        held = Consortium(tmp_path_factory.mktemp("networks"), mark, host=f"{SUBNET}.1")
        held.inside = {"consilium-server": _in(CENTRE), "consilium-site": _in(HOSPITALS)}
        held.open(Avon=60, Mercy=60)
        run = Run(held, "down", expected_sites=2)
        run.after(rounds=1)
        _ip("-n", HOSPITALS, "link", "set", "line-h", "down")
        held.until(lambda: "retrying since" in _connection(held, "Avon"), "Avon to notice")
        _ip("-n", HOSPITALS, "link", "set", "line-h", "up")
        results = run.results()
        assert [one.failed for one in results.rounds] == [{}, {}]
        held.until(lambda: held.status().count(" online") == 2, "both online again")
        held.close()
    assert not marked(mark), "processes outlived the federation"
