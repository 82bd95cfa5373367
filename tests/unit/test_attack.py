"""The attack command: what it refuses, what it says, its page, and its exit status."""

import json
import re
from pathlib import Path

import pytest
from builders import patients, tiny_config, write_store
from federation import STUDY, WINDOWS

from server.results import Estimate
from shared_model.errors import ConfigError, PrivacyError, RunFolderError, StoreError
from simulations import attack as attacks
from simulations import attack_jobs
from simulations.attack import Attempt, run_attack
from simulations.attack_command import attack as command
from simulations.attack_command import epsilons_of
from simulations.attack_page import headline, render_attack, tables
from simulations.attack_results import Attack, AuditRow, InferenceRow
from simulations.experiment import Scenario
from simulations.sources import Synthetic


class Silent:
    """A Watcher."""

    def stage(self, name: str) -> None:
        pass

    def event(self, event: object) -> None:
        pass

    def count(self, done: int, of: int) -> None:
        pass


def row(build: str = "right", *, found: float = 0.2, claimed: float = 1.0, most: float = 5.0) -> AuditRow:
    return AuditRow(
        build=build, title=f"<{build}>", claimed=claimed, found=found, most=most, delta=1e-5, rounds=9,
        noise_multiplier=2.0, sample_rate=0.5, canaries=600, guesses=60, correct=40, share=0.9,
    )  # fmt: skip


def document(*audits: AuditRow) -> Attack:
    known = Estimate(value=0.6, low=0.5, high=0.7)
    inference = [
        InferenceRow(epsilon=e, attack="loss threshold", auroc=known, tpr=known, most_tpr=1.0, model_auroc=None)
        for e in (None, 3.0)
    ]
    return Attack(
        consilium_version="1", status="complete", source="<b>a</b>", patients=100, inference=inference,
        audits=list(audits),
    )  # fmt: skip


def test_verdicts() -> None:
    assert row().verdict == "holds" and row(found=1.0).verdict == "holds" and row(found=1.1).verdict == "VIOLATED"
    assert row("no-noise", found=1.1).verdict == "caught" and row("no-noise").verdict == "missed"
    assert row("no-noise", most=0.9).verdict == "too few canaries to tell"
    assert document(row(), row("no-noise", found=1.1)).violated is False and document(row(found=2)).violated is True


def test_the_page_holds_every_row_and_runs_nothing() -> None:
    found = document(row(), row("no-noise", found=4.0))
    page = render_attack(found)
    assert page == render_attack(Attack.model_validate_json(found.model_dump_json()))
    assert "&lt;right&gt;" in page and "&lt;no-noise&gt;" in page and "<b>a" not in page and "<right>" not in page
    assert "epsilon 3" in page and "without privacy" in page and "Privacy violated" not in page
    assert "1 of 1 builds broken on purpose were caught" in headline(found)
    assert "<script" not in page and not re.search(r'(src|href)="(?!#|data:)', page)
    assert "Privacy violated" in render_attack(document(row(found=2.0)))
    assert [table.title[:10] for table in tables(document())] == ["Membership"]


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "one", "1,,2"])
def test_an_epsilon_is_a_number_above_0(text: str) -> None:
    with pytest.raises(ConfigError, match="--epsilon"):
        epsilons_of(text)


def test_epsilons() -> None:
    assert epsilons_of("inf, 8,1.5,8") == (None, 8.0, 1.5)


def test_mistakes_are_named_before_anything_is_trained(tmp_path: Path) -> None:
    scenario, out = Scenario(source=Synthetic(100, 1)), tmp_path / "run"
    for attempt, what in (
        (Attempt(shadows=5), "--shadows 5"), (Attempt(shadows=2), "--shadows 2"),
        (Attempt(canaries=100), "--canaries 100"), (Attempt(epsilons=()), "--epsilon"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=what):
            run_attack(scenario, attempt, out, Silent())
    with pytest.raises(ConfigError, match="lies in --out"):
        run_attack(scenario, Attempt(), out, Silent(), store=out / "store", replace=True)
    assert not out.exists()
    with pytest.raises(ConfigError, match="give one of them"):
        command(epsilon="1", store=tmp_path, synthetic=5)
    with pytest.raises(StoreError):
        command(epsilon="1", store=tmp_path / "nowhere", out=out)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"holds no attack\.json"):
        run_attack(scenario, Attempt(), tmp_path, Silent(), replace=True)
    assert (tmp_path / "notes.txt").exists()


def test_a_store_too_small_for_privacy_is_told_and_the_run_says_that_it_is_partial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attacks, "_all", lambda work, jobs, watcher: [work(job) for job in jobs])  # in this process
    config = tiny_config(**STUDY)
    store = write_store(tmp_path / "store", patients(150, windows=WINDOWS, notes=0), study=config.study)
    scenario = Scenario(source=Synthetic(100, 1), config=config)
    with pytest.raises(PrivacyError, match="fewer than 100"):
        run_attack(scenario, Attempt(epsilons=(1.0,)), tmp_path / "run", Silent(), store=store)
    assert json.loads((tmp_path / "run" / "attack.json").read_text())["status"] == "partial"


def test_everything_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small store, real training in this process: no model is the same with privacy, and every build is audited."""
    monkeypatch.setattr(attacks, "_all", lambda work, jobs, watcher: [work(job) for job in jobs])
    monkeypatch.setattr(attack_jobs, "RATE", 1.0)  # noise for it is found in no time
    config = tiny_config(**STUDY, rounds=1, bootstrap=20, privacy_accountant="rdp", batch_size=120)
    store = write_store(tmp_path / "store", patients(240, windows=WINDOWS, notes=2), study=config.study)
    scenario = Scenario(source=Synthetic(100, 1), config=config)
    attempt = Attempt(epsilons=(None, 1.0), shadows=4, canaries=200, audit_rounds=2, curious_runs=10)
    found = run_attack(scenario, attempt, tmp_path / "run", Silent(), store=store)
    assert found == Attack.model_validate_json((tmp_path / "run" / "attack.json").read_text())
    assert (found.status, found.patients, found.members) == ("complete", 240, 120)
    assert [(one.epsilon, one.attack[:4]) for one in found.inference] == [
        (None, "loss"), (None, "like"), (1.0, "loss"), (1.0, "like"),
    ]  # fmt: skip
    assert [one.build for one in found.audits] == ["right", "no-noise", "reset-accountant"]
    right, silent, _ = found.audits
    assert right.verdict == "holds" and silent.noise_multiplier < 1e-5 < right.noise_multiplier
    assert "Membership inference" in (tmp_path / "run" / "attack.html").read_text()


@pytest.mark.parametrize(("bound", "status"), [(0.5, None), (2.0, 1)])
def test_the_exit_status_says_whether_privacy_is_violated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: float, status: int | None
) -> None:
    import typer

    monkeypatch.setattr(attacks, "run_attack", lambda *args, **kwargs: document(row(found=bound)))
    if status is None:
        command(epsilon="1", out=tmp_path)
        return
    with pytest.raises(typer.Exit) as told:
        command(epsilon="1", out=tmp_path)
    assert told.value.exit_code == status
