"""The chain of an audit log, or a ledger: how a line is written and read, and whether a log is what its head says.

A line is the canonical JSON of an entry: sorted keys, no spaces, ASCII. ``digest`` is the SHA-256 of the entry without
it; ``previous`` is the digest of the line before, and of nothing in the first line.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from shared_model.errors import AuditError, BlocksError, ConsiliumError, LedgerError

Entry = dict[str, Any]
START = "0" * 64  # what the first line follows


@dataclass(frozen=True, kw_only=True)
class Book:
    """Which log it is, in errors: its name, the group of commands that knows it, and the class."""

    name: str
    command: str
    error: type[ConsiliumError]

    @property
    def hint(self) -> str:
        """What tells more."""
        return f"`consilium-site {self.command} verify`"


AUDIT = Book(name="audit log", command="audit", error=AuditError)
LEDGER = Book(name="privacy ledger", command="ledger", error=LedgerError)
BLOCKS = Book(name="memory of blocks", command="blocks", error=BlocksError)


@dataclass(frozen=True, kw_only=True)
class Head:
    """How many lines the log has, in how many bytes, and the digest of the last."""

    count: int = 0
    size: int = 0
    digest: str = START

    def text(self) -> bytes:
        """The file's bytes."""
        return _canonical(asdict(self)) + b"\n"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Of a whole log. ``problem`` is empty where it is what was written. ``behind``: the last line is one that its head
    does not know, as a crash leaves it."""

    count: int
    digest: str
    problem: str = ""
    behind: bool = False
    found: int | None = None  # the line with the digest that was looked for


def line_of(body: Mapping[str, Any], previous: str) -> tuple[bytes, Entry]:
    """An entry that follows ``previous``, and its line."""
    entry = {**body, "previous": previous}
    entry["digest"] = sha256(_canonical(entry)).hexdigest()
    return _canonical(entry) + b"\n", entry


def read_entry(line: bytes) -> Entry | None:
    """The entry of one line; None unless the line is whole and, to the byte, what ``line_of`` wrote."""
    try:
        entry = json.loads(line)
        if not isinstance(entry, dict) or line != _canonical(entry) + b"\n":
            return None
        digest = sha256(_canonical({key: value for key, value in entry.items() if key != "digest"})).hexdigest()
    except (ValueError, RecursionError):
        return None
    return entry if entry.get("digest") == digest and {"n", "previous"} <= entry.keys() else None


def after(head: Head, entry: Entry, length: int) -> Head:
    """The head when one more line is written."""
    return Head(count=head.count + 1, size=head.size + length, digest=entry["digest"])


def read_head(path: Path, book: Book = AUDIT) -> Head:
    """The head; that of an empty log where there is no file. Raises the book's error where it is none."""
    try:
        raw = path.read_bytes()
        head = Head(**json.loads(raw))
    except FileNotFoundError:
        return Head()
    except (ValueError, TypeError, RecursionError) as error:
        raise book.error(f"{path}: is no head of the {book.name}; {book.hint} tells more") from error
    if raw != head.text() or type(head.count) is not int or type(head.size) is not int:
        raise book.error(f"{path}: is no head of the {book.name}; {book.hint} tells more")
    return head


def entries(path: Path, book: Book = AUDIT) -> Iterator[Entry]:
    """The entries of a log in their order. Raises the book's error at a line that is none."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            entry = read_entry(line)
            if entry is None:
                raise book.error(f"{path}: line {number} is not what was written; {book.hint}")
            yield entry


def verify(path: Path, head_file: Path, expect: str = "", book: Book = AUDIT) -> Verdict:
    """Read a whole log and its head. ``expect``: a digest that was noted at another time and must be in it."""
    held, found, known = Head(), None, Head()
    try:
        head = read_head(head_file, book)
        for line in _lines(path):
            held, known = _next(held, line, book), held
            found = held.count if held.digest == expect else found
    except book.error as error:
        return Verdict(count=held.count, digest=held.digest, problem=str(error))
    behind = head != held and head == known
    problem = "" if behind or head == held else _mismatch(head, held, head_file)
    if not problem and expect and found is None:
        problem = f"no line has the digest {expect}: the log was cut, or is another one"
    return Verdict(count=held.count, digest=held.digest, problem=problem, behind=behind, found=found)


def _lines(path: Path) -> Iterator[bytes]:
    if path.exists():
        with path.open("rb") as file:
            yield from file


def _next(held: Head, line: bytes, book: Book) -> Head:
    number, entry = held.count + 1, read_entry(line)
    if entry is None and not line.endswith(b"\n"):
        raise book.error(f"line {number}: torn, as a crash leaves it, or cut; the next answer puts it aside")
    if entry is None:
        raise book.error(f"line {number}: not what was written")
    if entry["previous"] != held.digest or entry["n"] != number:
        raise book.error(f"line {number}: does not follow line {held.count}; a line was taken out, put in or moved")
    return after(held, entry, len(line))


def _mismatch(head: Head, held: Head, head_file: Path) -> str:
    if head.count > held.count:
        return f"line {held.count + 1}: missing; {head_file.name} says that there are {head.count}"
    if head.count < held.count:
        return f"line {head.count + 1}: more than {head_file.name} knows, which says that there are {head.count}"
    return f"line {held.count}: another than {head_file.name} knows"


def _canonical(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
