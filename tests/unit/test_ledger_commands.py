"""`consilium-site ledger` as a privacy officer meets it: what it tells, and its exit status."""

import json
from pathlib import Path

import pytest
from builders import patients, tiny_config, write_site, write_store
from click.testing import Result
from typer.testing import CliRunner

from client.cli import app
from client.ledger import Ledger
from client.private_run import open_account
from client.site import load_site
from shared_model.errors import ConfigError
from shared_model.privacy import epsilon_of

COUNT = 200


def told(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["ledger", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two runs of one project: one that has spent a round, and one that is closed and has spent nothing."""
    path = write_site(tmp_path, privacy={"public_counts": True, "total": 3.5, "projects": {"sepsis": 3.0}})
    for name in ("first", "second"):
        config = tiny_config(
            privacy_unit="patient", privacy_accountant="rdp", privacy_epsilon=1.5, batch_size=COUNT, name=name,
            privacy_project="sepsis", validation_fraction=0.0,
        )  # fmt: skip
        plan = open_account(load_site(path), config, name, 9, lambda: (COUNT, 60)).plan
    with Ledger.of(load_site(path)) as ledger:
        ledger.charge("first", plan.round, "train", 1, "a", "c")
        ledger.close("second")
    return path


def test_runs_are_told_with_what_they_spent_and_what_is_left(site: Path) -> None:
    found = json.loads(told("show", site, "--json").stdout)
    first, second = found["runs"]
    with Ledger.of(load_site(site)) as ledger:
        spent = epsilon_of(ledger.runs["first"].spent, 1e-5)
    assert (first["spent"], first["state"], first["patients"]) == (pytest.approx(spent), "open", COUNT)
    assert first["left"] == pytest.approx(first["epsilon"] - spent) and 1.45 < first["epsilon"] <= 1.5
    assert (second["spent"], second["left"], second["state"]) == (0.0, 0.0, "closed")
    assert [(row["of"], row["cap"]) for row in found["totals"]] == [("all runs", 3.5), ("project 'sepsis'", 3.0)]
    assert {row["committed"] for row in found["totals"]} == {first["epsilon"]}
    table = told("show", site)
    assert table.exit_code == 0
    assert all(word in table.stdout for word in ("first", "second", "closed", f"{spent:.4g}", "3.5", "at delta 1e-05"))


def test_a_ledger_is_verified_and_a_changed_line_told(site: Path) -> None:
    done = told("verify", site)
    assert done.exit_code == 0 and "whole, 6 entries of 2 runs" in done.stdout
    digest = done.stdout.split()[-1]
    assert "line 6's" in told("verify", site, "--expect", digest).stdout
    assert told("verify", site, "--expect", digest[::-1]).exit_code == 1
    path = load_site(site).ledger_file
    path.write_bytes(path.read_bytes().replace(b'"steps":1', b'"steps":0'))
    done = told("verify", site)
    assert done.exit_code == 1 and "not what was written" in done.stderr


def test_a_run_is_closed_once_and_by_its_name(site: Path) -> None:
    done = told("close", site, "first")
    assert done.exit_code == 0 and done.stdout.startswith("closed: first; it has spent epsilon ")
    with Ledger.of(load_site(site)) as ledger:
        assert ledger.runs["first"].closed
    for name in ("first", "unknown"):
        error = told("close", site, name).exception
        assert isinstance(error, ConfigError) and "open runs: none" in str(error)


def test_a_planned_run_is_priced_without_spending(site: Path) -> None:
    write_store(site.parent / "store", patients(COUNT))
    before = load_site(site).ledger_file.read_bytes()
    plan = ("--rounds", 2, "--batch-size", 50, "--local-steps", 1, "--accountant", "rdp", "--project", "sepsis")
    fits = told("cost", site, "--epsilon", 1.2, *plan, "--json")
    found = json.loads(fits.stdout)
    assert fits.exit_code == 0 and found["fits"] and 1.1 < found["epsilon"] <= 1.2 and found["steps"] == 2
    dear = told("cost", site, "--epsilon", 3.0, *plan)
    assert dear.exit_code == 1 and "it does not fit: " in dear.stdout and "the site's cap is 3" in dear.stdout
    assert told("cost", site, "--epsilon", 0.5, *plan[:-1], "stroke").exit_code == 1
    assert load_site(site).ledger_file.read_bytes() == before


def test_a_site_that_never_took_part_has_spent_nothing(tmp_path: Path) -> None:
    site = write_site(tmp_path)
    assert "no run has spent anything" in told("show", site).stdout
    assert "whole, 0 entries of 0 runs" in told("verify", site).stdout
    assert [file.name for file in tmp_path.iterdir()] == ["site.yaml"]
