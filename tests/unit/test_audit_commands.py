"""`consilium-site audit` as a privacy officer meets it: a real process, its exit status and what it prints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import write_site
from click.testing import Result
from typer.testing import CliRunner

from client.audit import AuditLog
from client.audit_commands import app

COMMAND = Path(sys.executable).parent / "consilium-site"
FIELDS = {
    "site": "Mercy", "kind": "train", "run": "sepsis-1", "run_id": "77", "round": 1, "trial": "", "asked": "0",
    "outcome": "released", "rule": "", "arrays": [["arrays/w", [4, 3], "float32"]], "keys": ["metrics/train-loss"],
    "bytes": 2_500_000, "content": "0", "norms": {"update": 0.75, "control": None}, "clipped": True, "epsilon": None,
}  # fmt: skip


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(COMMAND), "audit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | {"COLUMNS": "200"})


def told(*arguments: str | Path) -> Result:
    """The same in this process, for what needs no exit status of a process."""
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})


@pytest.fixture
def site(tmp_path: Path) -> Path:
    changes = [{}, {"round": 2}, {"run": "sepsis-2", "outcome": "refused", "rule": "ReleaseRefused: [red]no[/red]"}]
    for changed in changes:
        with AuditLog.held(tmp_path / "store.audit.jsonl") as audit:
            audit.append({**FIELDS, **changed})
    return write_site(tmp_path)


def test_a_whole_log_is_verified_and_its_digest_told(site: Path) -> None:
    done = run("verify", site)
    assert done.returncode == 0 and "whole, 3 answers" in done.stdout and done.stderr == ""
    digest = done.stdout.split()[-1]
    again = told("verify", site, "--expect", digest)
    assert again.exit_code == 0 and "line 3's" in again.stdout
    other = told("verify", site, "--expect", digest[::-1])
    assert other.exit_code == 1 and "no line has the digest" in other.stderr


def test_a_changed_log_is_told_by_its_line(site: Path) -> None:
    path = site.parent / "store.audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"round":2', b'"round":3'))
    done = run("verify", site)
    assert done.returncode == 1 and done.stdout == "" and "line 2: not what was written" in done.stderr
    shown = run("show", site)
    assert shown.returncode == 2 and shown.stderr.startswith("error: ") and "line 2" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_answers_are_shown_as_a_table_and_as_json(site: Path) -> None:
    table = told("show", site)
    assert table.exit_code == 0
    assert all(word in table.stdout for word in ("sepsis-1", "sepsis-2", "1 arrays, train-loss", "0.75 (clipped)"))
    assert "[red]no[/red]" in table.stdout and "2.500" in table.stdout
    for choice, numbers in ((["--last", "1"], [3]), (["--run", "sepsis-1"], [1, 2]), (["--run", "77"], [1, 2, 3])):
        lines = told("show", site, "--json", *choice).stdout.splitlines()
        assert [json.loads(line)["n"] for line in lines] == numbers
    assert told("show", site, "--run", "none").stdout == "nothing has left this site in the run 'none'\n"


def test_a_site_that_never_answered_has_a_whole_log_of_nothing(tmp_path: Path) -> None:
    site = write_site(tmp_path)
    assert "whole, 0 answers" in told("verify", site).stdout
    assert told("show", site).stdout == "nothing has left this site\n"
    assert [file.name for file in tmp_path.iterdir()] == ["site.yaml"]
    assert run("verify", tmp_path / "absent.yaml").returncode == 2
