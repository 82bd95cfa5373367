"""What a running ServerApp tells: one JSON line an event in ``progress.jsonl``, for whoever watches the run.

Events: ``admitted``, ``round``, ``evaluated``, ``done``, ``error``; every line has ``event`` and ``time`` (Unix
seconds).
"""

import json
import time
from pathlib import Path

FILE = "progress.jsonl"


class Progress:
    """Appends events; each is flushed, so that a reader sees it at once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE

    def tell(self, event: str, **facts: object) -> None:
        """Append one event."""
        line = json.dumps({"event": event, "time": time.time(), **facts})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
