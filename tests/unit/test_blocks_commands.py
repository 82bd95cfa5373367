"""`consilium-site blocks` as a hospital meets it: what it tells, its exit status, and a person's decision."""

import json
from pathlib import Path

import pytest
from builders import patients, write_site, write_store
from click.testing import Result
from typer.testing import CliRunner

from client.audit_chain import entries
from client.block_memory import memory_of, open_blocks, trouble_with
from client.cli import app
from client.site import load_site
from shared_model.errors import BlocksError, ConfigError

CELL = 10
REASON = "the extract was corrected; the ethics committee knows"


def told(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["blocks", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def site(tmp_path: Path) -> Path:
    write_store(tmp_path / "store", patients(90))
    return write_site(tmp_path)


def opened(site: Path) -> Path:
    store = load_site(site).store
    open_blocks(store, CELL)
    return store


def test_blocks_are_shown_with_who_waits_and_nothing_of_a_patient(site: Path) -> None:
    store = opened(site)
    write_store(store, patients(95))
    shown = told("show", site)
    assert shown.exit_code == 0
    assert "no longer told of" in shown.stdout  # other patients under the old numbers: every block has changed
    assert "95 patients of the store are in no block that is told of" in shown.stdout
    assert "they wait until 10 who died and 10 who survived have never been told of" in shown.stdout
    assert not any(str(number) in shown.stdout for number in range(1000, 1095))


def test_a_fresh_site_has_nothing_to_show_and_a_whole_one_shows_every_block(site: Path) -> None:
    store = load_site(site).store
    for file in store.parent.glob("store.blocks.*"):
        file.unlink()
    assert "has told of no patients yet" in told("show", site).stdout
    opened(site)
    shown = told("show", site).stdout
    assert shown.count("told of") == 3 + 1 and "0 patients of the store" in shown


def test_a_memory_is_verified_and_a_changed_line_or_key_told(site: Path) -> None:
    store = opened(site)
    done = told("verify", site)
    assert done.exit_code == 0 and "whole, 2 lines" in done.stdout
    digest = done.stdout.split()[-1]
    assert "line 2's" in told("verify", site, "--expect", digest).stdout
    assert told("verify", site, "--expect", "0" * 64).exit_code == 1
    memory = memory_of(store)
    key, lines = memory.key, memory.path.read_bytes()
    memory.key_file.write_bytes(b"another")
    done = told("verify", site)
    assert done.exit_code == 1 and "is not the key" in done.stderr
    memory.key_file.write_bytes(key)
    memory.path.write_bytes(lines.replace(b'"cell":10', b'"cell":11', 1))
    done = told("verify", site)
    assert done.exit_code == 1 and "line 2: not what was written" in done.stderr


@pytest.mark.parametrize("reason", ["", "   ", "because", "a reason\nof two lines"])
def test_a_decision_without_a_reason_is_none(site: Path, reason: str) -> None:
    store = opened(site)
    before = memory_of(store).newest
    done = told("restart", site, "--reason", reason)
    assert isinstance(done.exception, ConfigError) and "--reason" in str(done.exception)
    assert memory_of(store).newest == before


def test_a_person_decides_and_it_is_on_record(site: Path) -> None:
    store = opened(site)
    done = told("restart", site, "--reason", REASON)
    assert done.exit_code == 0 and f"{store.name}.blocks.old-1" in done.stdout
    assert (store.parent / "store.blocks.old-1" / "store.blocks.jsonl").exists()
    assert told("verify", site).exit_code == 0
    [entry] = entries(load_site(site).audit_file)
    assert (entry["kind"], entry["outcome"], entry["rule"]) == ("blocks", "decided", REASON)
    shown = CliRunner().invoke(app, ["audit", "show", str(site)], env={"COLUMNS": "300"})
    assert REASON in shown.stdout and "decided" in shown.stdout
    opened(site)
    assert told("restart", site, "--reason", REASON).stdout.count("old-2") == 1


def test_a_restart_that_was_interrupted_lets_nothing_out_and_can_be_said_again(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(site)
    assert told("restart", site, "--reason", REASON).exit_code == 0
    opened(site)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for step in ("BlockMemory.begin", "AuditLog.append"):
        with monkeypatch.context() as patched:
            patched.setattr(f"client.block_memory.{step}", interrupted)
            assert told("restart", site, "--reason", REASON).exit_code != 0
        with pytest.raises(BlocksError):
            open_blocks(store, CELL)
    assert told("restart", site, "--reason", REASON).exit_code == 0
    assert open_blocks(store, CELL).numbers == (1, 2, 3)


def test_the_audit_log_tells_which_blocks_an_answer_was_made_of(tmp_path: Path) -> None:
    from test_block_memory import told as answered

    write_store(tmp_path / "store", patients(90))
    site = write_site(tmp_path)
    answered(site, validation_fraction=0.34)
    shown = CliRunner().invoke(app, ["audit", "show", str(site)], env={"COLUMNS": "300"}).stdout
    [entry] = entries(load_site(site).audit_file)
    (one, two), (held,) = entry["blocks"]
    assert f"blocks {one}, {two} train, {held} validate" in shown
    found = CliRunner().invoke(app, ["audit", "show", str(site), "--json"]).stdout
    assert json.loads(found)["told"] == list(memory_of(tmp_path / "store").newest)


def test_trouble_with_the_memory_is_told_in_one_line_and_is_gone_after_a_decision(site: Path) -> None:
    store = opened(site)
    assert trouble_with(store) == ""
    assert told("restart", site, "--reason", REASON).exit_code == 0  # from here on the audit log names the memory
    memory_of(store).path.unlink()
    memory_of(store).head_file.unlink()
    trouble = trouble_with(store)
    assert "is gone, whose newest answer was made by its line 1" in trouble and "blocks restart" in trouble
    assert trouble.endswith("until then no exact answer leaves") and "\n" not in trouble
    assert told("verify", site).exit_code == 1
    assert told("restart", site, "--reason", REASON).exit_code == 0 and trouble_with(store) == ""
