"""A log of a site that is only ever appended to: one line an entry, chained, and on the disk before ``append`` returns.

``NAME.jsonl``  the lines
``NAME.head``   count, length and last digest; at most one line behind, after a crash between the two
``NAME.torn``   what a crash in the middle of a line had written of it
``NAME.lock``   held by the process that appends
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

from client.audit_chain import Book, Entry, Head, after, line_of, read_entry, read_head
from shared_model.atomic import replacing_file, to_disk
from shared_model.errors import ConsiliumError

log = logging.getLogger("consilium.client")
LOCK_SECONDS = 60
_SUFFIX = ".jsonl"


class ChainedLog:
    """What the audit log and the privacy ledger have in common. ``refusal`` is what the other side gets to know."""

    book: ClassVar[Book]
    refusal: ClassVar[type[ConsiliumError]]

    def __init__(self, path: Path) -> None:
        self.path, self.head_file = path, path.with_name(path.name.removesuffix(_SUFFIX) + ".head")
        self.torn_file = path.with_name(path.name.removesuffix(_SUFFIX) + ".torn")

    @classmethod
    @contextmanager
    def held(cls, path: Path) -> Iterator[Self]:
        """For the block, this process alone appends. Raises ``refusal`` where that cannot be."""
        from filelock import FileLock, Timeout

        try:
            with FileLock(path.with_name(path.name.removesuffix(_SUFFIX) + ".lock"), timeout=LOCK_SECONDS):
                yield cls(path)
        except (OSError, Timeout) as error:
            log.error("%s %s: %s", cls.book.name, path, error)
            raise cls.refusal(f"the site's {cls.book.name} cannot be written; nothing was sent") from error
        except cls.book.error as error:
            log.error("%s", error)
            raise cls.refusal(f"the site's {cls.book.name} is damaged; nothing was sent") from error

    def append(self, fields: dict[str, Any]) -> Entry:
        """Write one line and return when it is on the disk. Raises OSError, or the book's error where the log is not
        the one that its head speaks of."""
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

    def _healed(self) -> Head:
        """The head, after what a crash left behind is put in order. Reads only what the head does not know yet."""
        head = read_head(self.head_file, self.book)
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < head.size:
            raise self.book.error(f"{self.path}: shorter than {self.head_file.name} says; {self.book.hint}")
        if size == head.size:
            return head
        with self.path.open("rb") as file:
            file.seek(head.size)
            rest = file.read()
        entry = read_entry(rest)
        if entry is not None and entry["previous"] == head.digest and entry["n"] == head.count + 1:
            return after(head, entry, len(rest))  # written by the append that follows
        if b"\n" in rest:
            raise self.book.error(f"{self.path}: line {head.count + 1} does not follow; {self.book.hint}")
        self._put_aside(rest, head)
        return head

    def _put_aside(self, torn: bytes, head: Head) -> None:
        with self.torn_file.open("ab") as file:
            file.write(torn + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.truncate(self.path, head.size)
        told = (self.book.name, self.path, head.count + 1, self.torn_file)
        log.warning("%s %s: line %d was torn by a crash; kept in %s", *told)

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
