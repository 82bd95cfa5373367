"""What a site keeps on its disk for a session of secure aggregation: in a deployment each of its four messages is a
process of its own.

``secure/SESSION.json``    the site's secrets and others' shares; only the owner can read it
``secure/SESSION.masked``  the masked answer as it left: the same message again gets the same one
``secure/opened.json``     which sessions there were, and for which sites each sum was opened

The secrets go when the unmask request is answered, or when the run's next session begins. What stays then is the answer
itself, should it have been lost, and no secret of this site is in it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.site_state import forget_old_runs, state_folder
from shared_model.atomic import write_private
from shared_model.errors import ReleaseRefused

LOCK_SECONDS = 60
_OPENED = "opened.json"


@dataclass(frozen=True)
class SessionFiles:
    """The files of one run at one site; used by one process at a time."""

    folder: Path

    @classmethod
    @contextmanager
    def held(cls, store: Path, run: str) -> Iterator["SessionFiles"]:
        """Raises ReleaseRefused where this process cannot have them for itself, or the disk does not take them."""
        from filelock import FileLock, Timeout

        folder = state_folder(store, run) / "secure"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock", timeout=LOCK_SECONDS):
                yield cls(folder)
        except (OSError, Timeout) as error:
            raise ReleaseRefused("the site's files of secure aggregation cannot be used; nothing was sent") from error

    def begin(self, session: str, held: dict[str, Any]) -> None:
        """A new session; the secrets of all earlier ones of the run go. Raises ReleaseRefused for a name that was used
        before."""
        record = self._record()
        if session in record["sessions"]:
            raise ReleaseRefused("secure aggregation: this session was held before; its keys are gone")
        for old in (*self.folder.glob("*.json"), *self.folder.glob("*.masked")):
            if old.name != _OPENED:
                old.unlink()
        forget_old_runs(self.folder)
        self._keep_record({**record, "sessions": [*record["sessions"], session]})
        self.keep(session, held)

    def load(self, session: str) -> dict[str, Any] | None:
        """What ``keep`` kept; None where nothing is."""
        path = self.folder / f"{session}.json"
        return self._json(path) if path.exists() else None

    def keep(self, session: str, held: dict[str, Any]) -> None:
        """On the disk before this returns; bytes as hexadecimal text."""
        write_private(self.folder / f"{session}.json", json.dumps(held).encode())

    def masked(self, session: str) -> bytes | None:
        """The masked answer that has left."""
        path = self.folder / f"{session}.masked"
        return path.read_bytes() if path.exists() else None

    def keep_masked(self, session: str, answer: bytes) -> None:
        """On the disk before it leaves."""
        write_private(self.folder / f"{session}.masked", answer)

    def opened(self, purpose: str) -> list[str] | None:
        """The sites whose answers for a purpose were added up, if a sum was opened."""
        held: list[str] | None = self._record()["opened"].get(purpose)
        return held

    def close(self, session: str, purpose: str, survivors: list[str], answer: dict[str, Any]) -> None:
        """The sum of a purpose is opened: noted for good first, then the secrets go."""
        record = self._record()
        self._keep_record({**record, "opened": {**record["opened"], purpose: survivors}})
        self.keep(session, answer)
        (self.folder / f"{session}.masked").unlink(missing_ok=True)

    def _record(self) -> dict[str, Any]:
        path = self.folder / _OPENED
        return self._json(path) if path.exists() else {"sessions": [], "opened": {}}

    def _keep_record(self, record: dict[str, Any]) -> None:
        write_private(self.folder / _OPENED, json.dumps(record).encode())

    def _json(self, path: Path) -> dict[str, Any]:
        try:
            held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ReleaseRefused("the site's files of secure aggregation are damaged; nothing was sent") from error
        return held
