"""The ClientApp itself: real messages to its registered handlers, a real store on disk."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders import model_sizes, patients, tiny_config, tiny_plan, write_site, write_store
from flwr.app import Context, Message, RecordDict

from client import task
from client.app import app
from client.audit_chain import entries
from client.site import SIMULATED_SITES
from client.task import Asked
from shared_model.config import RunConfig
from shared_model.contract import contract_digest
from shared_model.manifest import MANIFEST, TENSORS
from shared_model.messages import (
    DESCRIBE,
    EVALUATE,
    STATISTICS,
    TRAIN,
    EvaluateReply,
    RoundOrder,
    SiteCard,
    Statistics,
    TrainReply,
    weights_content,
)
from shared_model.model import build_model
from shared_model.packing import unpacked
from shared_model.refusal import REFUSAL, Refusal, refusal_of
from shared_model.study import EARLY

SECRET = "jane_doe_1961"  # noqa: S105 - a patient's, not a password
KINDS = (DESCRIBE, STATISTICS, TRAIN, EVALUATE)


def _context(site: Path | None, **run_config: object) -> Context:
    flat = tiny_config(**run_config).to_flat()
    node = {} if site is None else {"site-config": str(site)}
    return Context(run_id=1, node_id=7, node_config=node, state=RecordDict(), run_config=flat)


def _send(kind: str, context: Context, *, config: RunConfig | None = None) -> Message:
    weights = dict(build_model(model_sizes(config or tiny_config()), seed=0).state_dict())
    content = weights_content(weights, RoundOrder(round=1, learning_rate=1e-3, plan=tiny_plan()))
    reply = app(Message(content, dst_node_id=7, message_type=kind), context)
    reply.content = unpacked(reply.content)
    return reply


def _refusal(kind: str, context: Context, **kwargs: RunConfig) -> Refusal:
    reply = _send(kind, context, **kwargs)
    assert list(reply.content) == [REFUSAL]
    refusal = refusal_of(reply)
    assert refusal is not None
    return refusal


def test_the_client_app_answers_every_message_from_a_whole_store(tmp_path: Path) -> None:
    write_store(tmp_path / "store", patients(80))
    context = _context(write_site(tmp_path), validation_fraction=0.5)
    card = SiteCard.read(_send(DESCRIBE, context).content)
    assert (card.site, card.contract, card.encoder) == ("Mercy", contract_digest(EARLY), "e" * 64)
    assert card.patients == 40 and card.deaths in (13, 14)  # one of two blocks, by a key that the site drew
    assert Statistics.read(_send(STATISTICS, context).content).patients == 40
    update = TrainReply.read(_send(TRAIN, context).content)
    assert update.examples == update.validation.count == 40
    assert EvaluateReply.read(_send(EVALUATE, context).content).validation == update.validation
    assert update.weights.keys() == build_model(model_sizes(tiny_config()), seed=0).state_dict().keys()


def test_the_same_message_gets_the_same_update_to_the_last_bit(tmp_path: Path) -> None:
    write_store(tmp_path / "store", patients(30))
    context = _context(write_site(tmp_path))
    one, two = (TrainReply.read(_send(TRAIN, context).content).weights for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_small_site_refuses_through_the_client_app(tmp_path: Path) -> None:
    write_store(tmp_path / "store", patients(9))
    for kind in (DESCRIBE, STATISTICS, TRAIN):
        found = _refusal(kind, _context(write_site(tmp_path)))
        assert (found.site, found.kind) == ("Mercy", "ReleaseRefused")
        assert found.reason == "fewer than 10 training patients (release.smallest_cell)"


def test_a_deployed_site_refuses_the_leaking_profile(tmp_path: Path) -> None:
    write_store(tmp_path / "store", patients(30))
    for kind in (DESCRIBE, STATISTICS, TRAIN, EVALUATE):
        found = _refusal(kind, _context(write_site(tmp_path), profile="paper"))
        assert found.kind == "ContractError" and "simulation only" in found.reason


@pytest.mark.parametrize("study", [{"prediction_hours": 48.0}, {"label": "in_icu"}, {"window_statistics": "max"}])
def test_a_site_that_prepared_another_study_says_so(study: dict[str, object], tmp_path: Path) -> None:
    write_store(tmp_path / "store", patients(30))
    for kind in (DESCRIBE, STATISTICS):
        found = _refusal(kind, _context(write_site(tmp_path), **study))
        assert found.kind == "ContractError" and "another study" in found.reason


def test_every_answer_and_every_refusal_of_the_client_app_is_on_record(tmp_path: Path) -> None:
    write_store(tmp_path / "store", patients(80))
    site = write_site(tmp_path, release={"allow": ["describe", "train"]})
    for kind in KINDS:
        _send(kind, _context(site, name="one"))
    _send(TRAIN, _context(site, profile="paper"))
    found = list(entries(tmp_path / "store.audit.jsonl"))
    assert [(e["kind"], e["outcome"], e["run"]) for e in found] == [
        ("describe", "released", "one"), ("statistics", "refused", "one"), ("train", "released", "one"),
        ("evaluate", "refused", "one"), ("train", "refused", ""),
    ]  # fmt: skip
    assert found[1]["rule"].startswith("ReleaseRefused: statistics: ") and "simulation only" in found[4]["rule"]
    assert [e["round"] for e in found] == [1] * 5 and {e["trial"] for e in found} == {""}


def test_a_paused_site_does_no_work_and_says_that_it_is_paused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_store(tmp_path / "store", patients(30))
    monkeypatch.setattr("client.statistics.local_statistics", _fails_with_a_secret)
    (tmp_path / "store.paused").touch()
    for kind in KINDS:
        found = _refusal(kind, _context(write_site(tmp_path)))
        assert (found.site, found.kind) == ("Mercy", "ReleaseRefused") and "paused" in found.reason


def test_a_site_that_is_paused_while_it_trains_lets_nothing_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(tmp_path / "store", patients(30))
    real = task.train

    def paused_meanwhile(asked: Asked) -> TrainReply:
        (tmp_path / "store.paused").touch()
        return real(asked)

    monkeypatch.setattr("client.task.train", paused_meanwhile)
    assert "paused" in _refusal(TRAIN, _context(write_site(tmp_path))).reason


@pytest.mark.parametrize("damage", [b"", b'{"n":1}\n{"n":2}\n'])
def test_a_site_whose_log_is_damaged_lets_nothing_out(damage: bytes, tmp_path: Path) -> None:
    write_store(tmp_path / "store", patients(30))
    site, path = write_site(tmp_path), tmp_path / "store.audit.jsonl"
    _send(DESCRIBE, _context(site))
    path.write_bytes(damage)
    for kind in KINDS:
        found = _refusal(kind, _context(site))
        assert (found.kind, found.reason) == ("ReleaseRefused", "the site's audit log is damaged; nothing was sent")
    assert path.read_bytes() == damage


def _no_store(store: Path) -> None:
    pass


def _altered_manifest(store: Path) -> None:
    write_store(store, patients(30))
    (store / MANIFEST).write_text(json.dumps({"store_version": SECRET}), encoding="utf-8")


def _foreign_tensor(store: Path) -> None:
    write_store(store, patients(30), **{SECRET: torch.zeros(1)})


def _half_a_file(store: Path) -> None:
    write_store(store, patients(30))
    (store / TENSORS).write_bytes((store / TENSORS).read_bytes()[:5000])


@pytest.mark.parametrize("spoil", [_no_store, _altered_manifest, _foreign_tensor, _half_a_file])
@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_store_gets_a_refusal_without_the_exceptions_text(
    tmp_path: Path, spoil: Callable[[Path], None], kind: str
) -> None:
    spoil(tmp_path / SECRET)
    found = _refusal(kind, _context(write_site(tmp_path, store=SECRET)))
    assert found.site == "Mercy"
    assert "see the site's log" in found.reason
    assert SECRET not in str(found) and str(tmp_path) not in str(found) and "jane" not in str(found)


def _fails_with_a_secret(data: object, study: object) -> None:
    raise ValueError(SECRET)


def test_an_unexpected_exception_leaves_as_its_class_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(tmp_path / "store", patients(30))
    monkeypatch.setattr("client.statistics.local_statistics", _fails_with_a_secret)
    found = _refusal(STATISTICS, _context(write_site(tmp_path)))
    assert found == Refusal(site="Mercy", kind="ValueError", reason="internal error; see the site's log")
    assert SECRET in caplog.text  # the site's own log does have it


def test_a_site_that_cannot_be_resolved_refuses_without_naming_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SIMULATED_SITES, raising=False)
    for path in (None, tmp_path / f"{SECRET}.yaml"):
        found = _refusal(DESCRIBE, _context(path))
        assert (found.site, found.kind) == ("", "ConfigError")
        assert str(tmp_path) not in found.reason and SECRET not in found.reason


def test_a_contract_error_is_told_to_the_other_side(tmp_path: Path) -> None:
    write_store(tmp_path / "store", patients(30))
    for kind in (TRAIN, EVALUATE):
        found = _refusal(kind, _context(write_site(tmp_path)), config=tiny_config(fusion_width=9))
        assert found.kind == "ContractError" and "weights do not fit" in found.reason


def test_a_diverged_update_does_not_leave_the_client_app(tmp_path: Path) -> None:
    write_store(tmp_path / "store", patients(30))
    weights = dict(build_model(model_sizes(tiny_config()), seed=0).state_dict())
    weights["missing.weight"] = torch.full_like(weights["missing.weight"], math.nan)
    content = weights_content(weights, RoundOrder(round=1, learning_rate=1e-3, plan=tiny_plan()))
    reply = app(Message(content, dst_node_id=7, message_type=TRAIN), _context(write_site(tmp_path)))
    found = refusal_of(reply)
    assert found is not None and list(reply.content) == [REFUSAL]
