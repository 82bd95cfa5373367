"""The record of everything that a site answered, beside its store: what left, when, for which run.

Why before the message leaves and not after: then a full disk stops the message, and not only its record. Every line
holds the digest of the line before, so no line can be changed, moved or taken out without the chain breaking
(client/audit_chain.py), and the head file says how many there are, so none can be cut off at the end.

``STORE.audit.jsonl``  one line an answer; appended, never rewritten
``STORE.audit.head``   count, length and last digest; at most one line behind, after a crash between the two
``STORE.audit.torn``   what a crash in the middle of a line had written of it
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.audit_chain import AUDIT, Entry, read_entry
from client.chained_log import ChainedLog
from client.policy import Kind
from shared_model.errors import ReleaseRefused

_PIECE = 2**16  # bytes that are read at once from the end


@dataclass(frozen=True, kw_only=True)
class Occasion:
    """Which message is answered. ``run`` is the run's name, which a resumed run keeps; ``trial`` and ``asked`` are
    digests, of the trial (empty: the run itself) and of all that the server sent."""

    kind: Kind
    run: str
    run_id: str
    round: int | None
    trial: str
    asked: str

    def same_run(self, entry: Entry) -> bool:
        """By name; a run without a name is known by its id alone."""
        return bool(entry["run"] == self.run if self.run else entry["run_id"] == self.run_id)


class AuditLog(ChainedLog):
    """The log of one site, held by one process at a time: ``with AuditLog.held(path) as audit``."""

    book = AUDIT
    refusal = ReleaseRefused

    def updates(self, occasion: Occasion) -> set[tuple[Any, ...]]:
        """What the server asked for to get the updates that left in this run; the same question again is no other."""
        if not self.path.exists():
            return set()
        found = set()
        with self.path.open("rb") as file:
            for line in file:
                if b'"kind":"train"' in line and b'"outcome":"released"' in line:
                    entry = read_entry(line)
                    if entry is not None and occasion.same_run(entry):
                        found.add((entry["round"], entry["trial"], entry["asked"]))
        return found

    def newest_told(self) -> tuple[int, str] | None:
        """The line of the memory of blocks that the newest answer names; None where none does. Read from the end, so it
        takes no longer when the log is long. Raises AuditError where that line was altered."""
        for line in _backwards(self.path):
            if b'"told":[' in line:
                entry = read_entry(line)
                if entry is None:
                    raise AUDIT.error(f"{self.path}: a line that names the memory of blocks was altered; {AUDIT.hint}")
                return entry["told"][0], entry["told"][1]
        return None

    def has_told(self) -> bool:
        """Whether anything of patients has left without noise."""
        marks = (b'"outcome":"released"', b'"epsilon":null')
        return any(
            all(mark in line for mark in marks) and b'"kind":"secure_' not in line for line in _backwards(self.path)
        )


def _backwards(path: Path) -> Iterator[bytes]:
    """The whole lines of a file, the last one first."""
    if not path.exists():
        return
    with path.open("rb") as file:
        start, first, torn = file.seek(0, os.SEEK_END), b"", True
        while start:
            size = min(start, _PIECE)
            start = file.seek(start - size)
            first, *lines = (file.read(size) + first).split(b"\n")
            if torn and lines:  # after the last line's end there is nothing, unless a crash left half a line
                lines, torn = lines[:-1], False
            yield from (line + b"\n" for line in reversed(lines))
        if first and not torn:
            yield first + b"\n"
