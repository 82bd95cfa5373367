"""The audit log: on the disk before anything leaves, whole after a crash, and one line for every answer."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from client.audit import AuditLog
from client.audit_chain import START, entries, read_head, verify
from shared_model.errors import AuditError, ReleaseRefused

FIELDS = {"site": "Mercy", "kind": "train", "outcome": "released", "run": "r", "run_id": "1", "round": 1}


def append(path: Path, count: int = 1) -> AuditLog:
    for _ in range(count):
        with AuditLog.held(path) as audit:
            audit.append(FIELDS)
    return AuditLog(path)


def whole(audit: AuditLog) -> bool:
    return not verify(audit.path, audit.head_file).problem


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.audit.jsonl"


def test_every_line_follows_the_one_before(path: Path) -> None:
    audit = append(path, 3)
    found = list(entries(path))
    assert [entry["n"] for entry in found] == [1, 2, 3]
    assert [entry["previous"] for entry in found] == [START, *(entry["digest"] for entry in found[:-1])]
    assert verify(path, audit.head_file).digest == read_head(audit.head_file).digest == found[-1]["digest"]
    assert sorted(file.name for file in path.parent.iterdir() if not file.name.endswith(".lock")) == [
        "store.audit.head", "store.audit.jsonl",
    ]  # fmt: skip


def test_appending_reads_only_the_head(path: Path) -> None:
    """What was written before is not read again, so a damaged beginning is for `verify` to find."""
    audit = append(path, 2)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    append(path)
    assert verify(path, audit.head_file).problem.startswith("line 1: not what was written")


def test_a_crash_between_line_and_head_is_healed(path: Path) -> None:
    audit = append(path)
    before = audit.head_file.read_bytes()
    append(path)
    audit.head_file.write_bytes(before)
    found = verify(path, audit.head_file)
    assert found.behind and not found.problem
    append(path)
    assert whole(audit) and [entry["n"] for entry in entries(path)] == [1, 2, 3]


def test_a_crash_before_the_first_head_is_healed(path: Path) -> None:
    audit = append(path)
    audit.head_file.unlink()
    assert verify(path, audit.head_file).behind
    append(path)
    assert whole(audit) and read_head(audit.head_file).count == 2


def test_a_torn_last_line_is_kept_aside_and_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    audit = append(path, 2)
    with path.open("ab") as file:
        file.write(b'{"bytes":12,"cli')
    assert "line 3: torn" in verify(path, audit.head_file).problem
    append(path)
    assert audit.torn_file.read_bytes() == b'{"bytes":12,"cli\n' and "line 3 was torn" in caplog.text
    assert whole(audit) and read_head(audit.head_file).count == 3


@pytest.mark.parametrize("spoil", ["cut", "emptied", "removed", "grown", "two lines ahead", "no head", "another head"])
def test_nothing_is_appended_to_a_log_that_is_not_its_heads(spoil: str, path: Path, tmp_path: Path) -> None:
    audit = append(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    {
        "cut": lambda: path.write_bytes(b"".join(lines[:2])),
        "emptied": lambda: path.write_bytes(b""),
        "removed": path.unlink,
        "grown": lambda: path.write_bytes(b"".join([*lines, lines[-1]])),
        "two lines ahead": lambda: audit.head_file.write_bytes(append(tmp_path / "o.jsonl").head_file.read_bytes()),
        "no head": audit.head_file.unlink,
        "another head": lambda: audit.head_file.write_bytes(b"{}\n"),
    }[spoil]()
    with pytest.raises(ReleaseRefused, match="audit log is damaged"):
        append(path)
    assert not whole(audit)


def test_a_disk_that_is_full_stops_the_message_and_leaves_the_log_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = append(path)
    for failing in (1, 2, 3):  # the line, the head, the folder

        def full(descriptor: int, real=os.fsync, calls=[], failing=failing) -> None:  # noqa: B006
            calls.append(descriptor)
            if len(calls) == failing:
                raise OSError(28, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ReleaseRefused, match="audit log cannot be written"):
            append(path)
        monkeypatch.undo()
        assert whole(audit) and append(path) and whole(audit)


def test_a_folder_that_cannot_be_written_stops_the_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ReleaseRefused, match="audit log cannot be written"):
        append(tmp_path / "file" / "store.audit.jsonl")
    (tmp_path / "store.audit.jsonl").mkdir()
    with pytest.raises(ReleaseRefused, match="audit log cannot be written"):
        append(tmp_path / "store.audit.jsonl")


def test_two_processes_of_one_site_append_in_turn(path: Path) -> None:
    """Processes as ClientApps are, and threads of one."""
    code = (
        "import sys; from pathlib import Path; from client.audit import AuditLog\n"
        f"for _ in range(10):\n    with AuditLog.held(Path({str(path)!r})) as a: a.append({FIELDS!r})"
    )
    root = Path(__file__).parents[2]
    started = [subprocess.Popen([sys.executable, "-c", code], cwd=root) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: append(path, 5), range(2)))
    assert [process.wait(timeout=60) for process in started] == [0, 0]
    assert whole(AuditLog(path)) and read_head(AuditLog(path).head_file).count == 30


def test_a_process_that_is_killed_while_it_appends_leaves_a_log_that_goes_on(path: Path) -> None:
    code = (
        "from pathlib import Path; from client.audit import AuditLog\n"
        f"while True:\n    with AuditLog.held(Path({str(path)!r})) as a: a.append({FIELDS!r})"
    )
    for lines in (1, 5):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
        while not path.exists() or path.read_bytes().count(b"\n") < lines:
            assert process.poll() is None
        process.kill()
        process.wait()
        assert whole(append(path))


def test_entries_of_a_damaged_log_are_refused_by_their_line(path: Path) -> None:
    append(path, 2)
    path.write_bytes(path.read_bytes().replace(b'"n":2', b'"n":7'))
    with pytest.raises(AuditError, match="line 2 is not what was written"):
        list(entries(path))
    assert json.loads(path.read_bytes().splitlines()[1])["n"] == 7
