"""The privacy ledger: nothing private leaves that was not authorised and paid for, once, also through crashes."""

import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from math import sqrt
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from builders import patients, tiny_config, write_site, write_store
from federation import WINDOWS, answers_of, small_config, small_federation
from flwr.app import Context, Message, RecordDict
from test_secure_site import SITES, Talk

from client import private_run
from client.account import Account
from client.app import app
from client.audit_chain import LEDGER, entries
from client.ledger import Ledger
from client.private_reply import check_private
from client.private_run import account_of, open_account
from client.release import occasion_of
from client.site import SiteConfig, load_site
from client.site_state import state_folder
from client.task import Asked
from server.admission import admit
from shared_model.config import RunConfig
from shared_model.errors import BudgetExceeded, ConfigError, LedgerError, PrivacyError, ReleaseRefused
from shared_model.mergeable import Validation
from shared_model.messages import DESCRIBE, EVALUATE, STATISTICS, TRAIN, SiteCard, TrainReply, trial_content
from shared_model.packing import unpacked
from shared_model.privacy import Mechanism, count_mechanism, epsilon_of
from shared_model.records import serialised
from shared_model.refusal import refusal_of
from shared_model.secure.messages import MaskedReply
from shared_model.trial import THE_RUN

ROOT = Path(__file__).parents[2]
COUNT = 200  # training patients; a step takes them all, which calibrates fast


def site_of(folder: Path, **privacy: object) -> SiteConfig:
    return load_site(write_site(folder, privacy={"public_counts": True, **privacy}))


def config_of(name: str = "one", **changes: object) -> RunConfig:
    held: dict[str, object] = {"privacy_unit": "patient", "privacy_accountant": "rdp", "privacy_epsilon": 2.0}
    held |= {"batch_size": COUNT, "validation_fraction": 0.0, "privacy_project": "sepsis", "rounds": 2}
    return tiny_config(**(held | {"name": name, **STUDY} | changes))


STUDY = {"prediction_hours": float(WINDOWS)}


def opened(site: SiteConfig, config: RunConfig, count: int = COUNT, entropy: Random | None = None) -> Account:
    return open_account(site, config, config.name, 7, lambda: (count, count // 3), entropy or Random(1))


def charge(site: SiteConfig, run: str, mechanism: Mechanism, kind: str = "train", asked: str = "a") -> float:
    with Ledger.of(site) as ledger:
        ledger.charge(run, mechanism, kind, 1, asked, "c")  # type: ignore[arg-type]
        return ledger.receipt(run).epsilon


def kinds(site: SiteConfig) -> list[str]:
    return [entry["entry"] for entry in entries(site.ledger_file, LEDGER)]


def asked_of(site: Path, kind: str, config: RunConfig) -> RecordDict:
    context = Context(1, 1, {"site-config": str(site)}, RecordDict(), config.to_flat())
    reply = app(Message(trial_content(THE_RUN), dst_node_id=1, message_type=kind), context)
    return unpacked(reply.content)


def reason(content: RecordDict) -> tuple[str, str]:
    found = refusal_of(Message(content, dst_node_id=1, message_type=TRAIN))
    assert found is not None
    return found.kind, found.reason


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A site with a store, whose budget is for one run."""
    write_store(tmp_path / "store", patients(COUNT, windows=WINDOWS), study=config_of().study)
    return write_site(tmp_path, privacy={"public_counts": True, "total": 2.5})


def test_a_run_is_told_the_same_noised_counts_for_as_long_as_it_lasts(tmp_path: Path) -> None:
    site, config = site_of(tmp_path, public_counts=False), config_of(batch_size=32, local_steps=2)
    told = opened(site, config, entropy=Random(1))
    assert told == opened(site, config, 900, Random(2)) == account_of(site, config, "one")
    assert (told.patients, told.deaths) != (COUNT, COUNT // 3) and told.plan.count is not None
    assert kinds(site) == ["counted", "authorized"]
    assert told.plan.training.sample_rate == 32 / told.patients


def test_counts_have_the_noise_of_their_mechanism_and_stay_counts(tmp_path: Path) -> None:
    site, config, entropy = site_of(tmp_path, public_counts=False), config_of(), Random(3)
    drawn = [private_run._told(site, config, "r", 1, (4000, 1000), entropy) for _ in range(300)]
    noise = count_mechanism(2.0, 1e-5, "rdp").noise_multiplier * sqrt(2)
    for values, true in ([d.patients for d in drawn], 4000), ([d.deaths for d in drawn], 1000):
        assert statistics.stdev(values) == pytest.approx(noise, rel=0.15)
        assert statistics.mean(values) == pytest.approx(true, abs=4 * noise / sqrt(300))
    few = [private_run._told(site, config, "r", 1, (3, 2), entropy) for _ in range(50)]
    assert all(0 <= one.deaths <= one.patients for one in few) and len({one.patients for one in few}) > 10
    assert not site.ledger_file.exists()


def test_the_noise_of_counts_comes_from_the_operating_system(tmp_path: Path) -> None:
    told = set()
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        site = site_of(tmp_path / name, public_counts=False)
        config = config_of(batch_size=32, local_steps=1, rounds=1)
        account = open_account(site, config, "one", 7, lambda: (5000, 2000))
        told.add((account.patients, account.deaths))
    assert len(told) > 1


def test_caps_of_project_and_total_hold_over_runs_and_a_closed_run_frees_what_it_did_not_spend(tmp_path: Path) -> None:
    site = site_of(tmp_path, total=3.2, projects={"sepsis": 2.5, "stroke": 9.0})
    account = opened(site, config_of())
    with pytest.raises(BudgetExceeded, match=r"project 'sepsis' would come to epsilon .* cap is 2.5"):
        opened(site, config_of("two"))
    with pytest.raises(BudgetExceeded, match=r"all runs together .* cap is 3.2"):
        opened(site, config_of("three", privacy_project="stroke", privacy_epsilon=3.0))
    with pytest.raises(BudgetExceeded, match=r"above the site's cap, 0"):
        opened(site, config_of("four", privacy_project="unknown"))
    with pytest.raises(PrivacyError, match="not authorised"):
        account_of(site, config_of("two"), "two")
    spent = charge(site, "one", account.plan.round)
    assert spent == pytest.approx(epsilon_of([account.plan.round], 1e-5)) and 0 < spent < 2
    with Ledger.of(site) as ledger:
        ledger.close("one")
    with pytest.raises(PrivacyError, match="closed"):
        account_of(site, config_of(), "one")
    with pytest.raises(BudgetExceeded):
        charge(site, "one", account.plan.round)
    assert opened(site, config_of("two", privacy_epsilon=1.0)).plan.epsilon == 1.0  # it was not authorised, so it may


def test_a_run_that_was_counted_twice_has_paid_for_both(tmp_path: Path) -> None:
    site = site_of(tmp_path, public_counts=False, total=3.0)
    opened(site, config_of("other", batch_size=20))
    for epsilon in (2.9, 2.5):
        with pytest.raises(BudgetExceeded):
            opened(site, config_of(privacy_epsilon=epsilon, batch_size=20))
    with Ledger.of(site) as ledger:
        assert ledger.runs["one"].spent == tuple(count_mechanism(e, 1e-5, "rdp") for e in (2.9, 2.5))
    plan = opened(site, config_of(privacy_epsilon=0.5, batch_size=20)).plan
    with Ledger.of(site) as ledger:
        assert len(ledger.runs["one"].committed) == 2 + len(plan.mechanisms)


def test_caps_are_reckoned_at_the_sites_delta_not_the_runs(tmp_path: Path) -> None:
    site = site_of(tmp_path, total=2.0, delta=1e-7)
    with pytest.raises(BudgetExceeded):
        opened(site, config_of(privacy_delta=1e-4))
    assert opened(site, config_of("same", privacy_delta=1e-7)).plan.delta == 1e-7


def test_an_answer_that_the_plan_does_not_hold_is_refused(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    plan = opened(site, config_of()).plan
    for other in (replace(plan.round, steps=plan.training.steps + 1), replace(plan.round, noise_multiplier=9.0)):
        with pytest.raises(BudgetExceeded, match="authorised are 2"):
            charge(site, "one", other)
    for asked in ("1", "2"):
        charge(site, "one", plan.round, asked=asked)
    charge(site, "one", plan.statistics, "statistics")
    for kind, mechanism in ("train", plan.round), ("statistics", plan.statistics), ("evaluate", plan.statistics):
        with pytest.raises(BudgetExceeded):
            charge(site, "one", mechanism, kind, asked="3")
    assert charge(site, "one", plan.validation, "evaluate") == pytest.approx(epsilon_of(plan.mechanisms, 1e-5))
    with pytest.raises(PrivacyError, match="not authorised"):
        charge(site, "other", plan.round)


@pytest.mark.parametrize("changed", [{"rounds": 3}, {"privacy_epsilon": 1.0}, {"seed": 9}, {"privacy_project": "x"}])
def test_a_run_that_comes_back_with_other_settings_is_refused(changed: dict[str, object], tmp_path: Path) -> None:
    site = site_of(tmp_path)
    opened(site, config_of())
    for ask in (opened, lambda site, config: account_of(site, config, "one")):
        with pytest.raises(PrivacyError, match="other settings"):
            ask(site, config_of(**changed))
    assert kinds(site) == ["counted", "authorized"]


@pytest.mark.parametrize("public", [True, False])
def test_a_site_of_five_patients_is_refused(public: bool, tmp_path: Path) -> None:
    site = site_of(tmp_path, public_counts=public)
    with pytest.raises(PrivacyError, match="fewer than 100"):
        opened(site, config_of(batch_size=2), 5)
    assert kinds(site) == ["counted"]  # that much a refusal tells, and it is told of the same draw
    with pytest.raises(PrivacyError, match="fewer than 100"):
        opened(site, config_of(batch_size=2), 5, Random(2))
    assert kinds(site) == ["counted"]


def test_counts_are_not_drawn_beyond_the_budget(tmp_path: Path) -> None:
    site = site_of(tmp_path, public_counts=False, total=0.01)
    with pytest.raises(BudgetExceeded):
        opened(site, config_of())
    assert kinds(site) == []


def test_two_processes_cannot_spend_the_same_budget(tmp_path: Path) -> None:
    site, forked = site_of(tmp_path, total=2.5), multiprocessing.get_context("fork")
    together = forked.Barrier(2)

    def spend(name: str) -> None:
        together.wait()
        try:
            opened(site, config_of(name))
        except BudgetExceeded:
            os._exit(3)

    started = [forked.Process(target=spend, args=(name,)) for name in ("one", "two")]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert sorted(process.exitcode or 0 for process in started) == [0, 3]
    assert kinds(site).count("authorized") == 1


def test_the_same_question_gets_the_same_bytes_and_is_paid_once(real: Path) -> None:
    site, config = load_site(real), config_of()
    assert reason(asked_of(real, STATISTICS, config))[0] == "PrivacyError"  # before describe, nothing is authorised
    card = SiteCard.read(asked_of(real, DESCRIBE, config))
    assert (card.patients, card.stays, card.counts) == (COUNT, COUNT, "exact")
    first, again = (serialised(asked_of(real, STATISTICS, config)) for _ in range(2))
    assert first == again and kinds(site) == ["counted", "authorized", "charged"]
    log = list(entries(site.audit_file))
    assert [e["outcome"] for e in log] == ["refused", "released", "released", "released"]
    assert log[1]["epsilon"] == 0.0 and 0 < log[2]["epsilon"] == log[3]["epsilon"] < 2
    last = list(entries(site.ledger_file, LEDGER))[-1]
    assert log[2]["ledger"] == log[3]["ledger"] == [last["n"], last["digest"]] and log[0]["ledger"] is None
    assert last["content"] == log[2]["content"] == log[3]["content"]
    [kept] = (state_folder(site.store, "one") / "answers").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    kept.write_bytes(b"x")  # what was not paid for does not leave, nor is it paid twice
    told = reason(asked_of(real, STATISTICS, config))
    assert told == ("BudgetExceeded", "the site's budget does not allow this run")
    assert kinds(site).count("charged") == 1


def test_an_unmasked_count_of_a_run_without_public_counts_is_what_the_ledger_holds(tmp_path: Path) -> None:
    config = config_of(batch_size=32, local_steps=1, rounds=1)
    write_store(tmp_path / "store", patients(COUNT, windows=WINDOWS), study=config.study)
    site = write_site(tmp_path)
    first, again = (SiteCard.read(asked_of(site, DESCRIBE, config)) for _ in range(2))
    [counted] = [e for e in entries(load_site(site).ledger_file, LEDGER) if e["entry"] == "counted"]
    assert first == again and first.counts == "noised"
    assert (first.patients, first.stays) == (counted["patients"], counted["patients"])
    assert list(entries(load_site(site).audit_file))[-1]["epsilon"] > 0


def test_under_masks_an_answer_is_paid_once_and_may_leave_again_in_another_session(tmp_path: Path) -> None:
    config = config_of("masked", secure_aggregation=True, min_sites=2)
    for number, name in enumerate(SITES):
        write_store(tmp_path / name / "store", patients(COUNT, seed=number, windows=WINDOWS), study=config.study)
    talk = Talk(tmp_path, config)
    path = write_site(tmp_path / "Site 1", site="Site 1", privacy={"public_counts": True})
    talk.ask("Site 1", DESCRIBE, RecordDict())
    vectors = []
    for session in (talk, talk, talk.again()):
        if session is not talk or not vectors:
            session.keys()
            session.shares()
        answer = session.ask("Site 1", STATISTICS, session.question())
        assert isinstance(answer, RecordDict)
        vectors.append(MaskedReply.read(answer).vector.limbs_K2)
    assert (vectors[0] == vectors[1]).all() and (vectors[0] != vectors[2]).any()
    site = load_site(path)
    assert kinds(site) == ["counted", "authorized", "charged"]
    log = [(e["kind"], e["epsilon"] or 0) for e in entries(site.audit_file) if e["outcome"] == "released"]
    assert all((epsilon > 0) == (kind == "statistics") for kind, epsilon in log)
    assert len([kind for kind, _ in log if kind == "statistics"]) == 3


@pytest.mark.parametrize("spoil", ["restored", "missing", "tampered", "cut"])
def test_a_ledger_that_is_not_the_one_behind_the_audit_log_lets_nothing_out(spoil: str, real: Path) -> None:
    site, config = load_site(real), config_of()
    head = site.ledger_file.with_name("store.ledger.head")
    asked_of(real, DESCRIBE, config)
    for path in (site.ledger_file, head):
        shutil.copy(path, path.with_suffix(".backup"))
    asked_of(real, STATISTICS, config)
    lines = site.ledger_file.read_bytes()
    match spoil:
        case "restored":
            for path in (site.ledger_file, head):
                shutil.copy(path.with_suffix(".backup"), path)
        case "missing":
            site.ledger_file.unlink()
            head.unlink()
        case "tampered":
            site.ledger_file.write_bytes(lines.replace(b'"steps":1', b'"steps":0', 1))
        case "cut":
            site.ledger_file.write_bytes(b"".join(lines.splitlines(keepends=True)[:-1]))
    for kind, other in ((DESCRIBE, config), (DESCRIBE, config_of("new")), (STATISTICS, config)):
        told = reason(asked_of(real, kind, other))
        assert told == ("LedgerError", "the site's privacy ledger cannot be used; nothing was sent")
    with pytest.raises(LedgerError):
        opened(site, config)


def test_a_site_with_a_cap_answers_no_run_without_noise(real: Path) -> None:
    for unit in ("none", "site"):
        config = config_of(privacy_unit=unit)
        for kind in (STATISTICS, TRAIN, EVALUATE):
            name, told = reason(asked_of(real, kind, config))
            assert name == "PrivacyError" and "epsilon would be infinite" in told
        assert SiteCard.read(asked_of(real, DESCRIBE, config)).patients == COUNT
    write_site(real.parent, privacy={"total": 2.5})
    assert reason(asked_of(real, DESCRIBE, config_of(privacy_unit="none")))[0] == "PrivacyError"
    write_site(real.parent, privacy={"projects": {}})
    assert reason(asked_of(real, STATISTICS, config_of(privacy_unit="none")))[0] == "PrivacyError"


@pytest.mark.parametrize("wrong", [{"total": -1}, {"projects": {"a": float("inf")}}, {"delta": 0}, {"epsilon": 3}])
def test_caps_that_are_none_are_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="privacy"):
        site_of(tmp_path, **wrong)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from flwr.supercore.task_identity import TaskIdentity
sys.path[:0] = ["tests", "tests/unit"]
from test_ledger import DESCRIBE, STATISTICS, asked_of, config_of
from client import private_run, release
from client.ledger import Ledger

import opacus.accountants
TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
torch.set_num_threads(1)

def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
def after(function):
    def ends(*args, **kwargs):
        function(*args, **kwargs); die()
    return ends

POINTS = {
    "before settling": lambda: setattr(release, "settle", die),
    "kept": lambda: setattr(private_run, "_keep", after(private_run._keep)),
    "before charging": lambda: setattr(Ledger, "charge", die),
    "in the ledger, not its head": lambda: setattr(Ledger, "_write_head", die),
    "charged": lambda: setattr(Ledger, "charge", after(Ledger.charge)),
    "before the audit": lambda: setattr(release, "_recorded", die),
    "in the audit log, not its head": lambda: setattr(release.AuditLog, "_write_head", die),
    "audited": lambda: setattr(release.AuditLog, "append", after(release.AuditLog.append)),
}

def child(work):
    pid = os.fork()
    if not pid:
        work(); os._exit(0)
    return os.waitpid(pid, 0)[1]

site = Path(sys.argv[1])
def sent(kind, name): return lambda: asked_of(site, kind, config_of(name))
for number, (point, patch) in enumerate(POINTS.items()):
    name = f"run{number}"
    assert child(sent(DESCRIBE, name)) == 0
    assert child(lambda: (patch(), sent(STATISTICS, name)())) == signal.SIGKILL, point
    Path(f"{site}.{name}").write_bytes(Path(site.parent / "store.ledger.jsonl").read_bytes())
    assert child(sent(STATISTICS, name)) == 0
    assert child(sent(STATISTICS, name)) == 0
"""


def test_a_process_that_is_killed_at_any_step_has_released_nothing_unpaid_and_pays_once(real: Path) -> None:
    """Real processes, killed by SIGKILL; each step is a run of its own. Afterwards the same question is answered."""
    write_site(real.parent, privacy={"public_counts": True})
    done = subprocess.run([sys.executable, "-c", KILLED, str(real)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    site, runs = load_site(real), {f"run{number}" for number in range(8)}
    charged = [e for e in entries(site.ledger_file, LEDGER) if e["entry"] == "charged"]
    released = [e for e in entries(site.audit_file) if (e["kind"], e["outcome"]) == ("statistics", "released")]
    assert sorted(e["run"] for e in charged) == sorted(runs) == sorted({e["run"] for e in released})
    content = {e["run"]: e["content"] for e in charged}
    assert all(e["content"] == content[e["run"]] for e in released)
    killed = {run: b'"entry":"charged"' in _lines(Path(f"{real}.{run}"), run) for run in runs}
    assert [killed[f"run{number}"] for number in range(8)] == [False] * 3 + [True] * 5
    assert [sum(e["run"] == f"run{number}" for e in released) for number in range(8)] == [2] * 6 + [3] * 2


def _lines(path: Path, run: str) -> bytes:
    return b"".join(line for line in path.read_bytes().splitlines() if f'"run":"{run}"'.encode() in line)


def test_a_site_whose_budget_is_spent_refuses_and_the_others_go_on(tmp_path: Path) -> None:
    config = small_config(
        privacy_unit="patient", privacy_accountant="rdp", privacy_epsilon=3.0, batch_size=32, local_steps=1, name="fed"
    )
    grid = small_federation(tmp_path, config, sizes=(250, 300, 280))
    capped = write_site(tmp_path / "site1", site="Site 1", privacy={"total": 1.0})
    grid.nodes[1] = answers_of(capped, 1, config)
    admission = admit(grid, config, encoder="")
    assert sorted(admission.names) == ["Site 2", "Site 3"]
    assert admission.refused == {"Site 1": "BudgetExceeded: the site's budget does not allow this run"}
    ledgers = [load_site(tmp_path / f"site{n}" / "site.yaml").ledger_file for n in (1, 2, 3)]
    authorised = [sum(e["entry"] == "authorized" for e in entries(path, LEDGER)) for path in ledgers]
    assert authorised == [0, 1, 1]


def test_a_run_that_no_number_of_patients_would_make_fit_costs_nothing(tmp_path: Path) -> None:
    site = site_of(tmp_path, public_counts=False, total=1.5)
    with pytest.raises(BudgetExceeded, match=r"epsilon 2 is above the site's cap, 1.5"):
        opened(site, config_of())
    assert kinds(site) == []


def test_a_cap_that_was_lowered_stops_a_run_that_was_authorised(tmp_path: Path) -> None:
    plan = opened(site_of(tmp_path, total=2.5), config_of()).plan
    charge(site_of(tmp_path, total=2.5), "one", plan.statistics, "statistics")
    with pytest.raises(BudgetExceeded, match=r"the site's cap is 0\.5"):
        charge(site_of(tmp_path, total=0.5), "one", plan.round)


def test_another_study_under_the_same_name_is_another_run(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    opened(site, config_of())
    with pytest.raises(PrivacyError, match="other settings"):
        opened(site, config_of(label="in_icu"))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("train_loss", 0.3),
        ("seconds", 2.0),
        ("examples", COUNT + 1),
        ("validation", Validation.of(np.array([0.5]), np.array([True]), loss_sum=0.1)),
        ("control", {"w": torch.zeros(2)}),
        ("mechanism", None),
    ],
)
def test_what_is_not_paid_for_does_not_ride_along(part: str, value: object, tmp_path: Path) -> None:
    site, config = site_of(tmp_path), config_of()
    account = opened(site, config)
    reply = TrainReply(
        round=1, weights={"w": torch.zeros(2)}, examples=COUNT, train_loss=None, seconds=None,
        validation=Validation(), mechanism=account.plan.round,
    )  # fmt: skip
    occasion = occasion_of("train", RecordDict(), config.to_flat(), 7)
    asked = Asked(content=RecordDict(), site=site, config=config, run_id=7, occasion=occasion, account=account)
    check_private(reply, asked)
    with pytest.raises(ReleaseRefused, match=r"paid for|without a mechanism"):
        check_private(replace(reply, **{part: value}), asked)
    with pytest.raises(ReleaseRefused, match="has not authorised"):
        check_private(reply, replace(asked, account=None))
