"""Whether a site's daemon is connected, told from the lines that Flower's SuperNode writes, and kept in a small file so
that `consilium-site status` knows it too."""

import json
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from shared_model.atomic import write_text

CONNECTED, RETRYING, STARTING, ENDED = "connected", "retrying", "starting", "ended"
NOT_ACCEPTED, NOT_ACTIVATED = "not accepted", "Failed to activate SuperNode"
REFUSED = "refused to run what the server sent"
ANSWERED = "the SuperLink answers, by a refusal"  # written by client/fleet.py, as Flower writes nothing then
_NODE = re.compile(r"SuperNode ID: (\d+)")


@dataclass(frozen=True, kw_only=True)
class State:
    """``since``: UTC, ISO 8601. ``node``: the number that the SuperLink gave this site, once it was connected."""

    state: str
    since: str
    detail: str = ""
    node: str = ""
    health_port: int = 0


def read_state(path: Path) -> State | None:
    """What the daemon wrote last; None when it never ran."""
    try:
        return State(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


class Watch:
    """Reads the SuperNode's lines. Each change is told once and written to ``path``."""

    def __init__(self, path: Path, address: tuple[str, int], health_port: int, tell: Callable[[str], None]) -> None:
        before = read_state(path)
        self._path, self._address, self._tell, self._health = path, address, tell, health_port
        self._superlink = f"{address[0]}:{address[1]}"
        self.node = before.node if before else ""
        self._activated, self._lock = False, threading.Lock()
        self.state = ""
        self.put(STARTING)

    def line(self, line: str) -> None:
        """One line of the SuperNode's output."""
        if "Starting Flower SuperNode" in line:
            self._activated = False
        elif found := _NODE.search(line):
            self._activated, self.node = True, found[1]
            self.put(CONNECTED, f"connected to {self._superlink}")
        elif self._activated and ("Connection successful" in line or line.startswith(ANSWERED)):
            self.put(CONNECTED, f"connected to {self._superlink}")
        elif "Connection attempt failed" in line and self.state != RETRYING:
            reason = why_unreachable(*self._address)
            what = f"does not answer ({reason})" if reason else "drops or refuses the connection"
            self.put(RETRYING, f"{self._superlink} {what}; trying again")
        elif NOT_ACTIVATED in line and self.node:
            self.put(NOT_ACCEPTED, f"{self._superlink} does not accept this site, or counts it as connected still")
        elif line.startswith(REFUSED):
            self._say(line)

    def put(self, state: str, told: str = "") -> None:
        """Change to ``state`` and say so."""
        with self._lock:  # lines come from a thread of their own
            if state == self.state:
                return
            self._write(state, told)
        if told:
            self._say(told)

    def ended(self, told: str) -> None:
        """The SuperNode ended and is started again; why it does not connect may be known already."""
        if self.state in (STARTING, CONNECTED):
            self.put(RETRYING, told)

    def close(self, why: str) -> None:
        """The daemon ends."""
        with self._lock:
            self._write(ENDED, why)

    def _say(self, told: str) -> None:
        with suppress(OSError):  # nobody reads on: no reason to end
            self._tell(told)

    def _write(self, state: str, told: str) -> None:
        self.state = state
        now = datetime.now(UTC).isoformat(timespec="seconds")
        held = State(state=state, since=now, detail=told, node=self.node, health_port=self._health)
        with suppress(OSError):  # a full disk: the SuperNode runs all the same
            write_text(self._path, json.dumps(asdict(held)) + "\n")


def why_unreachable(host: str, port: int, seconds: float = 5.0) -> str:
    """Empty where a connection can be made."""
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except socket.gaierror:
        return "this name is not known here"
    except TimeoutError:
        return "timed out; is there a firewall?"
    except OSError as error:
        return (error.strerror or "network failure").lower()
    return ""
