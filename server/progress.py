"""What a running ServerApp tells: one JSON line an event in ``progress.jsonl``, for whoever watches the run.

Events: ``admitted``, ``round``, ``evaluated``, ``done``, ``error``; every line has ``event`` and ``time`` (Unix
seconds).
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shared_model.atomic import write_text

FILE = "progress.jsonl"
PROCESS = "serverapp.pid"
Event = dict[str, Any]


class Progress:
    """Appends events; each is flushed, so that a reader sees it at once. Whose process tells is beside them: Flower
    lets the ServerApp of a stopped run go on, and two must not write one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE
        write_text(folder / PROCESS, str(os.getpid()))

    def tell(self, event: str, **facts: object) -> None:
        """Append one event."""
        line = json.dumps({"event": event, "time": time.time(), **facts})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def follow(path: Path, running: Callable[[], bool], *, offset: int = 0, pause: float = 0.1) -> Iterator[Event]:
    """Events from ``offset`` on as they are written, until ``running`` says no. A line that was not written to its end
    is none yet."""
    more = True
    while more:
        more = running()
        for event, end in _events(path, offset):
            yield event
            offset = end
        time.sleep(pause if more else 0)


def events(path: Path) -> list[Event]:
    """What was told until now."""
    return [event for event, _ in _events(path, 0)]


def lines_of(event: Event) -> list[str]:
    """An event as a watcher reads it; empty for what is not worth a line."""
    match event["event"]:
        case "admitted":
            refused = [f"not admitted: {site}: {why}" for site, why in event["refused"].items()]
            return [f"{len(event['sites'])} sites: {', '.join(event['sites'])}", *refused]
        case "fold":
            return [f"fold {event['done']} of {event['of']}"]
        case "round":
            missed = [f"{site} missed round {event['round']}: {why}" for site, why in event["failed"].items()]
            return [round_facts(event), *missed]
        case "evaluated":
            return [f"AUROC {_rounded(event['auroc'])} on the held-out set"]
        case _:
            return []


def round_facts(event: Event) -> str:
    """The line of a round."""
    auroc = event["auroc_before"]
    loss = "" if event["loss"] is None else f"  loss {event['loss']:.4f}"
    known = "" if auroc is None else f"  AUROC {auroc:.3f} after round {event['round'] - 1}"
    return f"round {event['round']}/{event['rounds']}  sites {event['sites']}{loss}{known}"


def _events(path: Path, offset: int) -> Iterator[tuple[Event, int]]:
    """Whole lines from ``offset`` on, each with where it ends."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        file.seek(offset)
        while (line := file.readline()).endswith("\n"):
            yield json.loads(line), file.tell()


def _rounded(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
