"""The line to the sites: a Grid that gets its answers in spite of what a hospital network does.

Why not Flower's own ``send_and_receive``: it looks for replies every three seconds, which is most of a short round;
what a site lost (its process was killed, it was restarted, its connection broke in the middle) is never asked for
again; and it waits the whole time limit for a site that is gone. A message asks for the same work however often it is
sent (docs/decisions/0014), so it is simply sent again.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from shared_model.errors import ContractError
from shared_model.packing import packed, unpacked

log = logging.getLogger("consilium.server")
SOONEST, LATEST = 0.05, 1.0  # seconds between two looks for a reply
SHARE = 0.05  # of the time waited: a reply is noticed late by so much at most
LOOK_AROUND = 2.0  # seconds between two looks at who is connected
_LOST = {
    ErrorCode.MESSAGE_UNAVAILABLE: "the message was lost",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "its reply was lost",
    ErrorCode.NODE_UNAVAILABLE: "it lost its connection",
    ErrorCode.CLIENT_APP_CRASHED: "its process was killed",
}
_WORDS = {
    ErrorCode.INVALID_FAB: "the site does not approve this app's code (release.apps in its YAML)",
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "the site cannot load the app; see its log",
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: "the app failed at the site; see its log",
}


@dataclass
class _Asked:
    """A message on its way, and why it was sent again."""

    message: Message
    activated: str  # when the node had last connected as the message was sent
    lost: str = ""  # why it must be sent again, once the node is there
    done: threading.Event = field(default_factory=threading.Event)  # nobody waits for it any more


class _Pulls:
    """A thread for each message that is waited for. A reply whose sender stalls in the middle of it keeps the one who
    pulls it for minutes, so nobody pulls two."""

    def __init__(self, grid: Grid) -> None:
        self._grid, self._found = grid, SimpleQueue[list[Message] | Exception]()

    def start(self, name: str, done: threading.Event) -> None:
        """Look for the reply to the message of this name until there is one or ``done`` is set."""
        threading.Thread(target=self._look, args=(name, done), daemon=True).start()

    def wait(self, seconds: float) -> list[Message]:
        """What came first; empty after so many seconds. Raises what pulling raised."""
        try:
            found = self._found.get(timeout=max(seconds, 0))
        except Empty:
            return []
        if isinstance(found, Exception):
            raise found
        return found

    def _look(self, name: str, done: threading.Event) -> None:
        start = time.monotonic()
        try:
            while not done.is_set():
                if found := list(self._grid.pull_messages([name])):
                    self._found.put(found)
                    return
                done.wait(min(max(SOONEST, (time.monotonic() - start) * SHARE), LATEST))
        except Exception as error:  # of a thread that nobody waits for nobody would hear
            if not done.is_set():
                self._found.put(error)


class Line(Grid):
    """A Grid around another. ``resends``: how often one message is sent again; ``absence``: seconds that a node may be
    away before a message to it counts as unanswered."""

    def __init__(self, grid: Grid, *, resends: int, absence: float) -> None:
        self.grid, self.resends, self.absence = grid, resends, absence
        self._away: dict[int, float] = {}  # node -> since when (monotonic)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """One reply to each message that was answered in time, or an error that says why there is none; a message to a
        node that stays away gets its error when the node has been away for ``absence``."""
        replies: list[Message] = []
        tries: dict[int, int] = {}
        with _all_done_afterwards() as waiting:
            pulls = _Pulls(self.grid)
            self._push(list(messages), waiting, pulls)
            look, end = (
                time.monotonic() + LOOK_AROUND,
                time.monotonic() + (float("inf") if timeout is None else timeout),
            )
            while waiting and (now := time.monotonic()) < end:
                self._take(pulls.wait(min(look, end) - now), waiting, replies, tries)
                if time.monotonic() >= look:
                    self._look_around(waiting, replies, tries, pulls)
                    look = time.monotonic() + LOOK_AROUND
        return replies

    def _push(self, messages: list[Message], waiting: dict[str, _Asked], pulls: _Pulls) -> None:
        activated = self._activated()
        wire: dict[int, RecordDict] = {}  # a strategy sends the same content to many
        for message in messages:
            if id(message.content) not in wire:
                wire[id(message.content)] = packed(message.content)
        packets = [_with(message, wire[id(message.content)]) for message in messages]
        for message, name in zip(messages, self.grid.push_messages(packets), strict=False):
            if name:  # else the SuperLink did not take it, and silence is its answer
                waiting[name] = _Asked(message, activated.get(message.metadata.dst_node_id, ""))
                pulls.start(name, waiting[name].done)

    def _take(
        self, received: list[Message], waiting: dict[str, _Asked], replies: list[Message], tries: dict[int, int]
    ) -> None:
        """What has come: a reply, or the news that a message was lost."""
        for reply in received:
            one = waiting.get(reply.metadata.reply_to_message_id)
            if one is None or one.lost:
                continue
            why = _LOST.get(reply.error.code, "") if reply.has_error() else ""
            if why and self._once_more(one.message, tries):
                one.lost = why
                continue
            replies.append(_worded(reply, one.message))
            del waiting[reply.metadata.reply_to_message_id]

    def _once_more(self, message: Message, tries: dict[int, int]) -> bool:
        node = message.metadata.dst_node_id
        tries[node] = tries.get(node, 0) + 1
        return tries[node] <= self.resends

    def _look_around(
        self, waiting: dict[str, _Asked], replies: list[Message], tries: dict[int, int], pulls: _Pulls
    ) -> None:
        """Send again what was lost to nodes that are there, and give up on those that have been away for long."""
        present, now = self._activated(), time.monotonic()
        for name, one in list(waiting.items()):
            node = one.message.metadata.dst_node_id
            if node not in present:
                since = self._away.setdefault(node, now)
                if now - since >= self.absence:
                    replies.append(_unanswered(one.message, f"not connected for {self.absence:.0f} s"))
                    waiting.pop(name).done.set()
                continue
            self._away.pop(node, None)
            restarted = present[node] != one.activated and bool(one.activated)
            if restarted and not one.lost and self._once_more(one.message, tries):
                one.lost = "it was restarted"
            if one.lost:
                log.warning("node %s: %s; sent again", node, one.lost)
                waiting.pop(name).done.set()
                self._push([one.message], waiting, pulls)

    def _activated(self) -> dict[int, str]:
        """Connected nodes, and when each connected."""
        return {node.node_id: node.last_activated_at for node in self.grid.get_nodes()}

    def get_node_ids(self) -> Iterable[int]:
        """As the grid within says."""
        return self.grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As the grid within does."""
        return self.grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As the grid within does."""
        return self.grid.pull_messages(message_ids)

    def set_run(self, run: Run) -> None:
        """As the grid within does."""
        self.grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run of the grid within."""
        return self.grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """As the grid within does."""
        return self.grid.create_message(content, message_type, dst_node_id, group_id, ttl)


@contextmanager
def _all_done_afterwards() -> Iterator[dict[str, _Asked]]:
    waiting: dict[str, _Asked] = {}
    try:
        yield waiting
    finally:
        for one in waiting.values():
            one.done.set()


def _with(message: Message, content: RecordDict) -> Message:
    """A new message to the same node with other content."""
    kept = message.metadata
    return Message(content, kept.dst_node_id, kept.message_type, group_id=kept.group_id)


def _worded(reply: Message, message: Message) -> Message:
    """Flower's errors come from the SuperLink's own address and in its own words; here they come from the site's, in
    ours."""
    if not reply.has_error():
        try:
            reply.content = unpacked(reply.content)
        except ContractError as error:
            return _unanswered(message, str(error))
        return reply
    words = _LOST | _WORDS
    return _unanswered(message, words.get(reply.error.code, f"error {reply.error.code} of Flower; see the site's log"))


def _unanswered(message: Message, reason: str) -> Message:
    return Message(Error(code=ErrorCode.NODE_UNAVAILABLE, reason=reason), reply_to=message)
