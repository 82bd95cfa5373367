"""The only exit fails closed, and what a refusal says holds nothing of a patient."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from builders import patients, statistics, tiny_config, tiny_plan, validation, write_site, write_store
from flwr.app import Context, Message, RecordDict

from client.app import app
from client.release import Reply, release
from client.site import SIMULATED_SITES, ReleasePolicy
from shared_model.config import RunConfig
from shared_model.contract import contract_digest
from shared_model.errors import ReleaseRefused
from shared_model.manifest import MANIFEST, TENSORS
from shared_model.mergeable import Moments, Validation
from shared_model.messages import (
    DESCRIBE,
    EVALUATE,
    REFUSAL,
    STATISTICS,
    TRAIN,
    EvaluateReply,
    Refusal,
    RoundOrder,
    SiteCard,
    Statistics,
    TrainReply,
    refusal_of,
    weights_content,
)
from shared_model.model import build_model
from shared_model.study import EARLY

POLICY = ReleasePolicy(smallest_cell=10, largest_megabytes=1.0)
CARD = SiteCard(site="Mercy", contract="c", encoder="e", device="cpu", patients=60, deaths=20)
HELD = validation({150: 12}, {20: 30}, loss_sum=3.0)
SECRET = "jane_doe_1961"  # noqa: S105 - a patient's, not a password
KINDS = (DESCRIBE, STATISTICS, TRAIN, EVALUATE)


def _update(**changes: object) -> TrainReply:
    weights = {"layer.weight": torch.ones(4, 3), "layer.bias": torch.zeros(4)}
    held = {"weights": weights, "examples": 42, "train_loss": 0.3, "seconds": 1.0, "validation": HELD}
    return TrainReply(**(held | changes))


@pytest.mark.parametrize(
    "thing",
    [
        object(),
        {"patients": 100},
        None,
        patients(2),
        Moments(100, 1.0, 1.0),
        HELD,
        Refusal(site="", kind="", reason=""),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_is_not_on_the_list_does_not_leave(thing: object) -> None:
    with pytest.raises(ReleaseRefused, match=f"{type(thing).__name__} is not on the list"):
        release(cast(Reply, thing), POLICY)


def test_what_is_large_enough_leaves_unchanged() -> None:
    assert SiteCard.read(release(CARD, POLICY)) == CARD
    assert Statistics.read(release(statistics(), POLICY)) == statistics()
    assert EvaluateReply.read(release(EvaluateReply(validation=HELD), POLICY)).validation == HELD
    assert TrainReply.read(release(_update(), POLICY)).weights.keys() == _update().weights.keys()


@pytest.mark.parametrize("held", [0, 1, 9, None])
def test_a_site_with_fewer_patients_than_the_smallest_cell_does_not_take_part(held: int | None) -> None:
    with pytest.raises(ReleaseRefused, match=r"release\.smallest_cell"):
        release(replace(CARD, patients=held, deaths=0), POLICY)


@pytest.mark.parametrize("deaths", [0, 1, 9, 51, 59, 60, None])
def test_a_card_withholds_deaths_when_they_or_the_survivors_are_few(deaths: int | None) -> None:
    found = SiteCard.read(release(replace(CARD, deaths=deaths), POLICY))
    assert found.deaths is None and found.patients == 60


@pytest.mark.parametrize("deaths", [10, 50])
def test_a_card_tells_deaths_when_they_and_the_survivors_are_enough(deaths: int) -> None:
    assert SiteCard.read(release(replace(CARD, deaths=deaths), POLICY)).deaths == deaths


def test_statistics_leave_out_features_that_few_patients_have() -> None:
    whole = statistics()
    mixed = replace(
        whole,
        static=(Moments(90, 1.0, 2.0), Moments(10, 1.0, 2.0), *whole.static[2:]),
        static_patients=(9, 10, *whole.static_patients[2:]),
    )
    found = Statistics.read(release(mixed, POLICY))
    assert found.static[0] == Moments()
    assert found.static_patients[:2] == (0, 10)
    assert found.static[1:] == mixed.static[1:] and found.series == mixed.series


def test_statistics_of_few_patients_do_not_leave_and_few_deaths_are_withheld() -> None:
    with pytest.raises(ReleaseRefused, match=r"release\.smallest_cell"):
        release(statistics(patients=9), POLICY)
    assert Statistics.read(release(statistics(deaths=9), POLICY)).deaths == 0
    assert Statistics.read(release(statistics(deaths=41), POLICY)).deaths == 0  # 9 survivors
    assert Statistics.read(release(statistics(deaths=40), POLICY)).deaths == 40


NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("number", NOT_FINITE)
def test_an_update_that_is_not_finite_does_not_leave(number: float) -> None:
    spoiled = torch.ones(4, 3)
    spoiled[2, 1] = number
    with pytest.raises(ReleaseRefused, match=r"layer\.weight is not finite"):
        release(_update(weights=_update().weights | {"layer.weight": spoiled}), POLICY)


@pytest.mark.parametrize("number", NOT_FINITE)
def test_no_number_that_is_not_finite_leaves(number: float) -> None:
    whole, broken = statistics(), replace(HELD, loss_sum=number)
    replies = [
        _update(train_loss=number),
        _update(seconds=number),
        _update(validation=broken),
        EvaluateReply(validation=broken),
        replace(whole, static=(Moments(50, number, 1.0), *whole.static[1:])),
        replace(whole, series=(*whole.series[1:], Moments(50, 1.0, number))),
    ]
    for reply in replies:
        with pytest.raises(ReleaseRefused, match="not finite"):
            release(reply, POLICY)


def test_an_update_that_is_too_large_does_not_leave() -> None:
    release(_update(weights={"w": torch.zeros(240_000)}), POLICY)
    with pytest.raises(ReleaseRefused, match=r"update: 1\.1 MB, release.largest_megabytes allows 1$"):
        release(_update(weights={"w": torch.zeros(270_000)}), POLICY)


def test_an_update_of_few_patients_does_not_leave_and_its_small_validation_is_zero() -> None:
    with pytest.raises(ReleaseRefused, match=r"release\.smallest_cell"):
        release(_update(examples=9), POLICY)
    few = validation({150: 4}, {20: 5}, loss_sum=3.0)
    assert TrainReply.read(release(_update(validation=few), POLICY)).validation == Validation()


def test_a_refusal_holds_no_value_of_what_it_refuses() -> None:
    value = 7.654321
    spoiled = {"w": torch.tensor([value, math.nan])}
    replies = [
        replace(CARD, patients=7, deaths=3),
        replace(statistics(patients=7, deaths=3), static=(Moments(7, value, value),)),
        _update(weights=spoiled, train_loss=value),
        _update(train_loss=math.nan, seconds=value),
        _update(examples=7, train_loss=value),
    ]
    for reply in replies:
        with pytest.raises(ReleaseRefused) as refused:
            release(reply, POLICY)
        assert "7" not in str(refused.value) and "3" not in str(refused.value)


# The ClientApp itself: real messages to its registered handlers, a real store on disk.


def _context(site: Path | None, **run_config: object) -> Context:
    flat = tiny_config(**run_config).to_flat()
    node = {} if site is None else {"site-config": str(site)}
    return Context(run_id=1, node_id=7, node_config=node, state=RecordDict(), run_config=flat)


def _send(kind: str, context: Context, *, config: RunConfig | None = None) -> Message:
    weights = dict(build_model((config or tiny_config()).model, seed=0).state_dict())
    content = weights_content(weights, RoundOrder(round=1, learning_rate=1e-3, plan=tiny_plan()))
    return app(Message(content, dst_node_id=7, message_type=kind), context)


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
    assert (card.patients, card.deaths) == (40, 13)
    assert Statistics.read(_send(STATISTICS, context).content).patients == 40
    update = TrainReply.read(_send(TRAIN, context).content)
    assert update.examples == update.validation.count == 40
    assert EvaluateReply.read(_send(EVALUATE, context).content).validation == update.validation
    assert update.weights.keys() == build_model(tiny_config().model, seed=0).state_dict().keys()


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


def _fails_with_a_secret(data: object) -> None:
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
    weights = dict(build_model(tiny_config().model, seed=0).state_dict())
    weights["missing.weight"] = torch.full_like(weights["missing.weight"], math.nan)
    content = weights_content(weights, RoundOrder(round=1, learning_rate=1e-3, plan=tiny_plan()))
    reply = app(Message(content, dst_node_id=7, message_type=TRAIN), _context(write_site(tmp_path)))
    found = refusal_of(reply)
    assert found is not None and list(reply.content) == [REFUSAL]
