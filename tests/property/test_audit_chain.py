"""Whatever is changed in an audit log is found."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.audit import AuditLog
from client.audit_chain import Verdict, verify

LINES = 5


@pytest.fixture(scope="module")
def written() -> tuple[bytes, bytes]:
    """A log and its head."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "store.audit.jsonl"
        for number in range(LINES):
            with AuditLog.held(path) as audit:
                audit.append({"round": number, "norms": {"update": 0.1 * number, "control": None}, "arrays": ["é"]})
        return path.read_bytes(), audit.head_file.read_bytes()


def judged(log: bytes, head: bytes, expect: str = "") -> Verdict:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "store.audit.jsonl"
        path.write_bytes(log)
        audit = AuditLog(path)
        audit.head_file.write_bytes(head)
        return verify(path, audit.head_file, expect)


@settings(deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_found(written: tuple[bytes, bytes], data: st.DataObject) -> None:
    log, head = written
    assert not judged(log, head).problem
    place, byte = data.draw(st.integers(0, len(log) - 1)), data.draw(st.integers(0, 255))
    if log[place] != byte:
        found, line = judged(log[:place] + bytes([byte]) + log[place + 1 :], head), log[:place].count(b"\n") + 1
        assert found.problem.startswith(f"line {line}: ")


@settings(deadline=None)
@given(data=st.data())
def test_any_inserted_or_removed_byte_is_found(written: tuple[bytes, bytes], data: st.DataObject) -> None:
    log, head = written
    place, added = data.draw(st.integers(0, len(log))), data.draw(st.binary(max_size=3))
    removed = data.draw(st.integers(0, 3))
    changed = log[:place] + added + log[place + removed :]
    assert changed == log or judged(changed, head).problem


@given(st.integers(0, LINES - 1), st.integers(0, LINES - 1))
@settings(deadline=None)
def test_any_line_that_is_taken_out_repeated_or_moved_is_found(
    written: tuple[bytes, bytes], one: int, other: int
) -> None:
    log, head = written
    lines = log.splitlines(keepends=True)
    removed, repeated, swapped = [*lines], [*lines], [*lines]
    del removed[one]
    repeated.insert(other, lines[one])
    swapped[one], swapped[other] = lines[other], lines[one]
    for changed in (removed, repeated, *([swapped] if one != other else [])):
        assert judged(b"".join(changed), head).problem.startswith("line ")


@settings(deadline=None)
@given(data=st.data())
def test_any_cut_is_found(written: tuple[bytes, bytes], data: st.DataObject) -> None:
    log, head = written
    assert judged(log[: data.draw(st.integers(0, len(log) - 1))], head).problem
    assert judged(log[data.draw(st.integers(1, len(log))) :], head).problem


@settings(deadline=None)
@given(data=st.data())
def test_any_change_of_the_head_is_found(written: tuple[bytes, bytes], data: st.DataObject) -> None:
    log, head = written
    place, byte = data.draw(st.integers(0, len(head) - 1)), data.draw(st.integers(0, 255))
    changed = head[:place] + bytes([byte]) + head[place + 1 :]
    assert changed == head or judged(log, changed).problem


def test_log_and_head_replaced_together_are_found_by_a_digest_that_was_noted(written: tuple[bytes, bytes]) -> None:
    log, head = written
    digest = judged(log, head).digest
    assert judged(log, head, digest).found == LINES
    with TemporaryDirectory() as folder:
        path = Path(folder) / "store.audit.jsonl"
        for number in range(LINES):
            with AuditLog.held(path) as audit:
                audit.append({"round": number})
        assert not verify(path, audit.head_file).problem
        assert "was cut, or is another" in verify(path, audit.head_file, digest).problem
