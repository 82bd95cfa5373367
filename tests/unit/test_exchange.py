"""The line to the sites: what is lost is sent again, what never comes is named, nothing is waited for for ever."""

import threading
import time
from collections.abc import Iterable

import pytest
from builders import MemoryGrid
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo

from server.exchange import Line


class Flaky(MemoryGrid):
    """``trouble``: what happens to the n-th message to node 1: 'killed', 'silent' (its reply never comes), 'restart'
    (the site loses it and connects anew), 'away' (the site is gone until ``back`` looks around later)."""

    def __init__(self, *trouble: str, back: int = 3) -> None:
        super().__init__({1: _answer, 2: _answer})
        self.trouble, self.looks, self.back, self.connected, self.away = list(trouble), 0, back, "first", False

    def get_nodes(self) -> Iterable[NodeInfo]:
        self.looks += self.away
        self.away = self.away and self.looks < self.back
        here = [2] if self.away else [1, 2]
        return [NodeInfo(node_id=node, last_activated_at=self.connected if node == 1 else "first") for node in here]

    def answers(self, asked: dict[int, Message]) -> list[Message]:
        if 1 not in asked or not self.trouble:
            return super().answers(asked)
        what, message = self.trouble.pop(0), asked.pop(1)
        if what == "killed":
            error = Error(code=ErrorCode.CLIENT_APP_CRASHED, reason="crashed")
            return [*super().answers(asked), Message(error, reply_to=message)]
        if what == "refused":
            return [*super().answers(asked), Message(Error(code=ErrorCode.INVALID_FAB, reason="x"), reply_to=message)]
        self.away = what == "away"
        self.connected = "again" if what in ("restart", "away") else self.connected
        return super().answers(asked)


def _answer(message: Message) -> RecordDict:
    return RecordDict({"said": ConfigRecord({"node": message.metadata.dst_node_id})})


def _ask(grid: Flaky, monkeypatch: pytest.MonkeyPatch, *, resends: int = 3, absence: float = 60, timeout: float = 5):
    monkeypatch.setattr("server.exchange.LOOK_AROUND", 0.02)
    messages = [Message(RecordDict(), dst_node_id=node, message_type="train") for node in (1, 2)]
    replies = Line(grid, resends=resends, absence=absence).send_and_receive(messages, timeout=timeout)
    return {reply.metadata.src_node_id: reply for reply in replies}


@pytest.mark.parametrize(
    "trouble", [["killed"], ["restart"], ["away"], ["killed", "restart", "killed"]], ids=lambda held: "-".join(held)
)
def test_what_a_site_lost_is_sent_again(trouble: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Flaky(*trouble)
    replies = _ask(grid, monkeypatch)
    assert {node: reply.content["said"]["node"] for node, reply in replies.items()} == {1: 1, 2: 2}
    assert [m.metadata.dst_node_id for m in grid.sent].count(1) == 1 + len(trouble)
    assert [m.metadata.dst_node_id for m in grid.sent].count(2) == 1


def test_after_so_many_times_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    replies = _ask(Flaky(*["killed"] * 9), monkeypatch, resends=2)
    assert replies[1].has_error() and replies[1].error.reason == "its process was killed"
    assert replies[2].content["said"]["node"] == 2


def test_code_that_a_site_does_not_approve_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Flaky("refused")
    assert "does not approve this app's code" in _ask(grid, monkeypatch)[1].error.reason
    assert len(grid.sent) == 2


def test_a_site_that_stays_away_is_given_up_and_the_next_message_does_not_wait_for_it(monkeypatch) -> None:
    monkeypatch.setattr("server.exchange.LOOK_AROUND", 0.02)
    grid = Flaky("away", "away", back=10**9)
    line = Line(grid, resends=3, absence=0.3)
    for _ in range(2):
        messages = [Message(RecordDict(), dst_node_id=node, message_type="train") for node in (1, 2)]
        replies = {m.metadata.src_node_id: m for m in line.send_and_receive(messages, timeout=60)}
        assert replies[1].error.reason == "not connected for 0 s" and replies[2].has_content()


def test_silence_ends_at_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic()
    assert _ask(Flaky("silent"), monkeypatch, timeout=0.4).keys() == {2}
    assert time.monotonic() - start < 3


def test_who_stalls_within_a_reply_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulling such a reply takes until Flower gives it up; the others' are taken, and the time limit holds."""
    released = threading.Event()

    class Stalled(Flaky):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            found = list(super().pull_messages(message_ids))
            if any(message.metadata.src_node_id == 1 for message in found):
                released.wait(60)
            return found

    try:
        assert _ask(Stalled(), monkeypatch, timeout=0.5).keys() == {2}
        assert not released.is_set()
    finally:
        released.set()
