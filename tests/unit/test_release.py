"""The only exit fails closed, and what a refusal says holds nothing of a patient."""

import json
import math
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import cast

import pytest
import torch
from builders import distribution, outcomes, patients, statistics, tiny_config, validation, write_site, write_store
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from leaving import KIND_OF, leaving, sent_for

from client.audit import Occasion
from client.audit_chain import entries
from client.block_memory import open_blocks
from client.policy import KEYS, REPLIES, Kind, ReleasePolicy
from client.release import passable, refuse, release
from client.site import load_site
from client.small_cells import Reply
from client.task import Asked
from shared_model.distribution import Distribution, Outcomes
from shared_model.errors import ConfigError, ReleaseRefused
from shared_model.mergeable import Validation
from shared_model.messages import (
    ARRAYS,
    DESCRIBE,
    EVALUATE,
    STATISTICS,
    TRAIN,
    EvaluateReply,
    SiteCard,
    Statistics,
    TrainReply,
)
from shared_model.norm import norm
from shared_model.records import serialised
from shared_model.refusal import REFUSAL, Refusal

POLICY = ReleasePolicy(smallest_cell=10, largest_megabytes=1.0)
CARD = SiteCard(site="Mercy", contract="c", encoder="e", device="cpu", stays=1000, patients=60, deaths=20)
HELD = validation({150: 12}, {20: 30}, loss_sum=3.0)
SECRET = "jane_doe_1961"  # noqa: S105 - a patient's, not a password
KINDS = (DESCRIBE, STATISTICS, TRAIN, EVALUATE)


def _update(**changes: object) -> TrainReply:
    weights = {"layer.weight": torch.ones(4, 3), "layer.bias": torch.zeros(4)}
    held = {"round": 1, "weights": weights, "examples": 42, "train_loss": 0.3, "seconds": 1.0, "validation": HELD}
    return TrainReply(**(held | changes))


@pytest.mark.parametrize(
    "thing",
    [
        object(),
        {"patients": 100},
        None,
        patients(2),
        distribution(100),
        HELD,
        Refusal(site="", kind="", reason=""),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_is_not_on_the_list_does_not_leave(thing: object) -> None:
    with pytest.raises(ReleaseRefused, match=f"{type(thing).__name__} is not on the list"):
        leaving(cast(Reply, thing), POLICY)


def test_what_is_large_enough_leaves_unchanged() -> None:
    assert SiteCard.read(leaving(CARD, POLICY)) == CARD
    assert Statistics.read(leaving(statistics(), POLICY)).patients == statistics().patients
    assert EvaluateReply.read(leaving(EvaluateReply(validation=HELD), POLICY)).validation == HELD
    assert TrainReply.read(leaving(_update(), POLICY)).weights.keys() == _update().weights.keys()


@pytest.mark.parametrize("held", [0, 1, 9, None])
def test_a_site_with_fewer_patients_than_the_smallest_cell_does_not_take_part(held: int | None) -> None:
    with pytest.raises(ReleaseRefused, match=r"release\.smallest_cell"):
        leaving(replace(CARD, patients=held, deaths=0), POLICY)


@pytest.mark.parametrize("deaths", [0, 1, 9, 51, 59, 60, None])
def test_a_card_withholds_deaths_when_they_or_the_survivors_are_few(deaths: int | None) -> None:
    found = SiteCard.read(leaving(replace(CARD, deaths=deaths), POLICY))
    assert found.deaths is None and found.patients == 60


@pytest.mark.parametrize("deaths", [10, 50])
def test_a_card_tells_deaths_when_they_and_the_survivors_are_enough(deaths: int) -> None:
    assert SiteCard.read(leaving(replace(CARD, deaths=deaths), POLICY)).deaths == deaths


def test_statistics_leave_out_features_that_few_patients_have() -> None:
    whole = statistics()
    few, enough = outcomes(survived=6, died=3), outcomes(survived=7, died=3)
    found = Statistics.read(leaving(replace(whole, static=(few, enough, *whole.static[2:])), POLICY))
    assert found.static[0] == Outcomes()
    assert found.static[1].whole.sums == enough.whole.sums and found.static[1].died == Distribution()
    assert [held.whole.sums for held in found.static[2:]] == [held.whole.sums for held in whole.static[2:]]


def test_statistics_of_few_patients_do_not_leave_and_few_deaths_are_withheld() -> None:
    with pytest.raises(ReleaseRefused, match=r"release\.smallest_cell"):
        leaving(statistics(patients=9), POLICY)
    assert Statistics.read(leaving(statistics(deaths=9), POLICY)).deaths is None
    assert Statistics.read(leaving(statistics(deaths=41), POLICY)).deaths is None  # 9 survivors
    assert Statistics.read(leaving(statistics(deaths=40), POLICY)).deaths == 40


NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("number", NOT_FINITE)
def test_an_update_that_is_not_finite_does_not_leave(number: float) -> None:
    spoiled = torch.ones(4, 3)
    spoiled[2, 1] = number
    with pytest.raises(ReleaseRefused, match=r"layer\.weight is not finite"):
        leaving(_update(weights=_update().weights | {"layer.weight": spoiled}), POLICY)


@pytest.mark.parametrize("number", NOT_FINITE)
def test_no_number_that_is_not_finite_leaves(number: float) -> None:
    broken = replace(HELD, loss_sum=number)
    replies = [
        _update(train_loss=number),
        _update(seconds=number),
        _update(validation=broken),
        EvaluateReply(validation=broken),
    ]
    for reply in replies:
        with pytest.raises(ReleaseRefused, match="not finite"):
            leaving(reply, POLICY)


def test_an_update_that_is_too_large_does_not_leave() -> None:
    leaving(_update(weights={"w": torch.zeros(240_000)}), POLICY)
    with pytest.raises(ReleaseRefused, match=r"update: 1\.1 MB, release.largest_megabytes allows 1$"):
        leaving(_update(weights={"w": torch.zeros(270_000)}), POLICY)


def test_an_update_of_few_patients_does_not_leave_and_its_small_validation_is_zero() -> None:
    with pytest.raises(ReleaseRefused, match=r"release\.smallest_cell"):
        leaving(_update(examples=9), POLICY)
    few = validation({150: 4}, {20: 5}, loss_sum=3.0)
    assert TrainReply.read(leaving(_update(validation=few), POLICY)).validation == Validation()


def test_a_refusal_holds_no_value_of_what_it_refuses() -> None:
    value = 7.654321
    spoiled = {"w": torch.tensor([value, math.nan])}
    replies = [
        replace(CARD, patients=7, deaths=3),
        replace(statistics(patients=7, deaths=3), static=(outcomes(survived=4, died=3),)),
        _update(weights=spoiled, train_loss=value),
        _update(train_loss=math.nan, seconds=value),
        _update(examples=7, train_loss=value),
    ]
    for reply in replies:
        with pytest.raises(ReleaseRefused) as refused:
            leaving(reply, POLICY)
        assert "7" not in str(refused.value) and "3" not in str(refused.value)


def _asked(site: Path, kind: Kind = "train", *, sent: RecordDict | None = None, **occasion: object) -> Asked:
    content, store = sent_for(_update()) if sent is None else sent, load_site(site).store
    held = {"kind": kind, "run": "r", "run_id": "1", "round": 1, "trial": "", "asked": "a"} | occasion
    if not store.exists():
        write_store(store, patients(60))
    return Asked(
        content=content,
        site=load_site(site),
        config=tiny_config(),
        run_id=1,
        occasion=Occasion(**held),
        blocks=open_blocks(store, 10),
    )


def _answer(site: Path, **occasion: object) -> RecordDict:
    return release(_update(), _asked(site, **occasion))


def _log(folder: Path) -> list[dict[str, object]]:
    return list(entries(folder / "store.audit.jsonl"))


def test_nothing_leaves_a_site_that_does_not_list_it(tmp_path: Path) -> None:
    for allow in ([], ["describe", "statistics", "evaluate"]):
        with pytest.raises(ReleaseRefused, match=r"^train: .* listed under release\.allow"):
            _answer(write_site(tmp_path, release={"allow": allow}))
    (tmp_path / "site.yaml").write_text('{"site": "Mercy", "store": "store"}')
    with pytest.raises(ReleaseRefused, match=r"release\.allow"):
        _answer(tmp_path / "site.yaml")
    assert _log(tmp_path) == []


@pytest.mark.parametrize("kind", ["describe", "statistics", "evaluate"])
def test_an_answer_of_another_kind_than_was_asked_for_does_not_leave(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(ReleaseRefused, match="TrainReply is not on the list"):
        _answer(write_site(tmp_path), kind=kind)


def test_a_paused_site_lets_nothing_out_until_the_file_is_gone(tmp_path: Path) -> None:
    site = write_site(tmp_path)
    load_site(site).pause_file.touch()
    assert load_site(site).pause_file == tmp_path / "store.paused"
    with pytest.raises(ReleaseRefused, match="paused"):
        _answer(site)
    load_site(site).pause_file.unlink()
    assert TrainReply.read(_answer(site)).examples == 42


def test_only_the_listed_runs_get_anything(tmp_path: Path) -> None:
    site = write_site(tmp_path, release={"runs": ["sepsis-1", "77"]})
    assert _answer(site, run="sepsis-1") and _answer(site, run="", run_id="77")
    for run, run_id in (("sepsis-2", "78"), ("", "1"), ("", "7")):
        with pytest.raises(ReleaseRefused, match=r"release\.runs"):
            _answer(site, run=run, run_id=run_id)


def test_no_more_updates_leave_than_rounds_are_allowed_and_a_lost_one_counts_once(tmp_path: Path) -> None:
    site = write_site(tmp_path, release={"most_rounds": 2})
    for number, run_id in ((1, "1"), (1, "1"), (2, "1"), (2, "9"), (1, "9")):  # lost, and a run that was resumed
        assert _answer(site, round=number, asked=f"a{number}", run_id=run_id)
    refused = [{"round": 3, "asked": "a3"}, {"round": 2, "asked": "other weights"}, {"round": 1, "trial": "t"}]
    for more in refused:
        with pytest.raises(ReleaseRefused, match=r"release\.most_rounds"):
            _answer(site, **more)
    assert _answer(site, run="another", round=3, asked="a3")
    for number in (1, 2):  # runs without a name are told apart by their id
        assert _answer(site, run="", run_id="5", round=number, asked=f"a{number}")
    with pytest.raises(ReleaseRefused, match=r"release\.most_rounds"):
        _answer(site, run="", run_id="5", round=3, asked="a3")
    assert _answer(site, run="", run_id="6", round=1)


@pytest.mark.parametrize(
    ("keys", "reply", "name"),
    [
        (("arrays", "round", "num-examples"), _update(), "train-loss"),
        (tuple(key for key in KEYS if key != "arrays"), _update(), "arrays"),
        (tuple(key for key in KEYS if key != "control"), _update(control=_update().weights), "control"),
        (tuple(key for key in KEYS if key != "deaths"), CARD, "deaths"),
        (tuple(key for key in KEYS if key != "sums"), statistics(), "sums"),
        ((), EvaluateReply(validation=HELD), "num-examples"),
    ],
)
def test_a_site_may_list_fewer_keys(keys: tuple[str, ...], reply: Reply, name: str) -> None:
    with pytest.raises(ReleaseRefused, match=rf"^'{name}' may not leave this site \(release.keys\)$"):
        leaving(reply, POLICY.model_copy(update={"keys": keys}))
    assert leaving(reply, POLICY.model_copy(update={"keys": tuple(KEYS)}))


def test_the_declared_keys_are_those_that_replies_have() -> None:
    """Noise goes with noised counts alone, and a personalised model's validation and power sums never do."""
    personal = EvaluateReply(validation=HELD, personal=HELD)
    noised = {"noise", "validation-noise"}
    for private in (replace(statistics(), noise=3.0), EvaluateReply(validation=HELD, noise=3.0)):
        content, declared = leaving(private, POLICY), REPLIES[KIND_OF[type(private)]]
        assert noised & content["metrics"].keys() and content["metrics"].keys() <= declared["metrics"]
        assert content.keys() == {"metrics"}
    for reply in (CARD, statistics(), _update(control=_update().weights), personal):
        content, declared = leaving(reply, POLICY), REPLIES[KIND_OF[type(reply)]]
        assert content.keys() == declared.keys()
        for record, keys in declared.items():
            assert keys is None or content[record].keys() == keys - noised


class _Extended(TrainReply):
    """As if the protocol had grown, and this site's list had not."""

    def content(self) -> RecordDict:
        content = super().content()
        content["more"] = MetricRecord({"rows": [1.0, 2.0]})
        return content


@pytest.mark.parametrize("record", ["more", "metrics", "arrays"])
def test_what_the_protocol_does_not_declare_does_not_leave(record: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = TrainReply.content

    def content(self: TrainReply) -> RecordDict:
        grown = real(self)
        if record == "metrics":
            grown["metrics"]["rows"] = [1.0, 2.0]
        else:
            grown[record] = MetricRecord({"rows": [1.0, 2.0]})
        return grown

    with pytest.raises(ReleaseRefused, match="_Extended is not on the list"):
        leaving(_Extended(**vars(_update())), POLICY)
    sent = sent_for(_update())
    monkeypatch.setattr(TrainReply, "content", content)
    with pytest.raises(ReleaseRefused, match=r"rows|more|arrays"):
        passable(_update(), "train", POLICY, sent)


@pytest.mark.parametrize(
    "weights",
    [
        {"layer.weight": torch.ones(4, 3)},
        {**_update().weights, "more": torch.ones(1)},
        {**_update().weights, "layer.weight": torch.ones(3, 4)},
        {**_update().weights, "layer.weight": torch.ones(4, 3, dtype=torch.float64)},
        {},
    ],
    ids=["one less", "one more", "another shape", "another dtype", "none"],
)
@pytest.mark.parametrize("part", ["weights", "control"])
def test_only_the_arrays_that_came_in_leave(part: str, weights: dict[str, torch.Tensor]) -> None:
    with_control = _update(control=_update().weights)
    sent = sent_for(with_control)
    assert passable(with_control, "train", POLICY, sent).content
    with pytest.raises(ReleaseRefused, match=r"^(update|control): "):
        passable(replace(with_control, **{part: weights}), "train", POLICY, sent)


def test_a_control_variate_that_was_not_asked_for_does_not_leave() -> None:
    with pytest.raises(ReleaseRefused, match="control"):
        passable(_update(control=_update().weights), "train", POLICY, sent_for(_update()))


@pytest.mark.parametrize("number", NOT_FINITE)
def test_a_control_variate_that_is_not_finite_does_not_leave(number: float) -> None:
    spoiled = _update(control=_update().weights | {"layer.bias": torch.full((4,), number)})
    with pytest.raises(ReleaseRefused, match=r"control: layer\.bias is not finite"):
        leaving(spoiled, POLICY)


@pytest.mark.parametrize("limit", [1e-9, 0.1, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("start", [0.0, 1.0, 1e4])
def test_an_update_is_scaled_down_to_the_norm_that_may_leave(limit: float, start: float) -> None:
    incoming = {name: torch.full_like(t, start) for name, t in _update().weights.items()}
    trained = {name: t + torch.linspace(-1, 1, t.numel()).reshape(t.shape) for name, t in incoming.items()}
    sent = RecordDict({ARRAYS: ArrayRecord(incoming)})
    before = norm(trained, incoming)
    passed = passable(_update(weights=trained), "train", POLICY.model_copy(update={"clip_norm": limit}), sent)
    left = TrainReply.read(passed.content).weights
    assert passed.clipped == (before > limit) and passed.update_norm == norm(left, incoming) <= limit
    if before <= limit:
        assert all(torch.equal(left[name], trained[name]) for name in trained)
    elif start < 1e4:  # where rounding leaves something of it, it points where it pointed
        assert norm(left, incoming) == pytest.approx(limit, rel=1e-4) or limit < 1e-6
        for name in trained:
            part = (trained[name] - incoming[name]) * limit / before
            assert torch.allclose(left[name] - incoming[name], part, atol=1e-6)


def test_the_whole_answer_counts_towards_its_size() -> None:
    large = replace(CARD, encoder="e" * 1_100_000)
    with pytest.raises(ReleaseRefused, match=r"^describe: 1\.1 MB, release\.largest_megabytes"):
        leaving(large, POLICY)


def test_an_answer_is_on_the_record_before_it_leaves(tmp_path: Path) -> None:
    site = write_site(tmp_path, release={"clip_norm": 1.0})
    content = _answer(site, round=3, trial="t", run_id="12345678901234567890")
    [entry] = _log(tmp_path)
    raw = serialised(content)
    assert (entry["n"], entry["site"], entry["run"], entry["run_id"]) == (1, "Mercy", "r", "12345678901234567890")
    assert (entry["round"], entry["trial"], entry["kind"], entry["outcome"]) == (3, "t", "train", "released")
    assert (entry["bytes"], entry["content"]) == (len(raw), sha256(raw).hexdigest())
    assert entry["arrays"] == [["arrays/layer.weight", [4, 3], "float32"], ["arrays/layer.bias", [4], "float32"]]
    assert "metrics/train-loss" in entry["keys"] and "0.3" not in json.dumps({**entry, "norms": None, "time": ""})
    assert entry["norms"]["update"] <= 1.0 and entry["norms"]["control"] is None
    assert (entry["clipped"], entry["epsilon"], entry["rule"]) == (True, None, "")


def test_what_cannot_be_recorded_does_not_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    site = write_site(tmp_path)
    asked = _asked(site)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ReleaseRefused, match="audit log cannot be written"):
        release(_update(), asked)
    told = refuse(Refusal(site="Mercy", kind="StoreError", reason="x"), load_site(site), asked.occasion)
    assert "audit log cannot be written" in str(told[REFUSAL]["reason"])


def test_what_a_policy_may_say_is_checked(tmp_path: Path) -> None:
    for held, told in (
        ({"keys": ["num-exampels"]}, r"release\.keys: name 1 is no part of an answer; is it 'num-examples'"),
        ({"allow": ["train", "everything"]}, r"release\.allow\[1\]: input should be 'describe', 'statistics'"),
        ({"clip_norm": 0}, r"release\.clip_norm"),
        ({"most_rounds": 0}, r"release\.most_rounds"),
    ):
        with pytest.raises(ConfigError, match=told):
            load_site(write_site(tmp_path, release=held))
    found = load_site(write_site(tmp_path, release={"trusted_entities": "keys.yaml"})).release
    assert (found.trusted_entities, found.apps) == (tmp_path / "keys.yaml", ("installed",))
