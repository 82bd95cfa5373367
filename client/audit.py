"""The record of everything that a site answered, beside its store: what left, when, for which run.

Why before the message leaves and not after: then a full disk stops the message, and not only its record. Every line
holds the digest of the line before, so no line can be changed, moved or taken out without the chain breaking
(client/audit_chain.py), and the head file says how many there are, so none can be cut off at the end.

``STORE.audit.jsonl``  one line an answer; appended, never rewritten
``STORE.audit.head``   count, length and last digest; at most one line behind, after a crash between the two
``STORE.audit.torn``   what a crash in the middle of a line had written of it
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client.audit_chain import Entry, Head, after, line_of, read_entry, read_head
from client.policy import Kind
from shared_model.atomic import replacing_file, to_disk
from shared_model.errors import AuditError, ReleaseRefused

log = logging.getLogger("consilium.client")
LOCK_SECONDS = 60
_SUFFIX = ".jsonl"


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


class AuditLog:
    """The log of one site, held by one process at a time: ``with AuditLog.held(path) as audit``."""

    def __init__(self, path: Path) -> None:
        self.path, self.head_file = path, path.with_name(path.name.removesuffix(_SUFFIX) + ".head")
        self.torn_file = path.with_name(path.name.removesuffix(_SUFFIX) + ".torn")

    @classmethod
    @contextmanager
    def held(cls, path: Path) -> Iterator["AuditLog"]:
        """For the block, this process alone appends. Raises ReleaseRefused where that cannot be."""
        from filelock import FileLock, Timeout

        try:
            with FileLock(path.with_name(path.name.removesuffix(_SUFFIX) + ".lock"), timeout=LOCK_SECONDS):
                yield cls(path)
        except (OSError, Timeout) as error:
            log.error("audit log %s: %s", path, error)
            raise ReleaseRefused("the site's audit log cannot be written; nothing was sent") from error
        except AuditError as error:
            log.error("%s", error)
            raise ReleaseRefused("the site's audit log is damaged; nothing was sent") from error

    def append(self, fields: dict[str, Any]) -> Entry:
        """Write one line and return when it is on the disk. Raises OSError, or AuditError where the log is not the one
        that its head speaks of."""
        head = self._healed()
        body = {"n": head.count + 1, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
        line, entry = line_of(body, head.digest)
        try:
            self._write(line)
        except OSError:
            with suppress(OSError):
                os.truncate(self.path, head.size)
            raise
        self._write_head(after(head, entry, len(line)))  # where that fails, an answer is told that did not leave
        return entry

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

    def _healed(self) -> Head:
        """The head, after what a crash left behind is put in order. Reads only what the head does not know yet."""
        head = read_head(self.head_file)
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < head.size:
            raise AuditError(f"{self.path}: shorter than {self.head_file.name} says; `consilium-site audit verify`")
        if size == head.size:
            return head
        with self.path.open("rb") as file:
            file.seek(head.size)
            rest = file.read()
        entry = read_entry(rest)
        if entry is not None and entry["previous"] == head.digest and entry["n"] == head.count + 1:
            return after(head, entry, len(rest))  # written by the append that follows
        if b"\n" in rest:
            raise AuditError(f"{self.path}: line {head.count + 1} does not follow; `consilium-site audit verify`")
        self._put_aside(rest, head)
        return head

    def _put_aside(self, torn: bytes, head: Head) -> None:
        with self.torn_file.open("ab") as file:
            file.write(torn + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.truncate(self.path, head.size)
        log.warning("audit log %s: line %d was torn by a crash; kept in %s", self.path, head.count + 1, self.torn_file)

    def _write(self, line: bytes) -> None:
        fresh = not self.path.exists()
        with self.path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if fresh:
            to_disk(self.path.parent)  # a new name is on the disk only when its folder is

    def _write_head(self, head: Head) -> None:
        with replacing_file(self.head_file) as temporary:
            temporary.write_bytes(head.text())
