"""Every message survives the wire, and anything of another shape is refused with a ContractError."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import feature_plan, model_sizes, over_the_wire, patients, statistics, tiny_config, tiny_plan, validation
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from client.statistics import local_statistics
from client.task import read_order
from shared_model.distribution import Distribution, Outcomes
from shared_model.errors import ContractError
from shared_model.mergeable import Validation
from shared_model.messages import (
    ARRAYS,
    CARD,
    CONFIG,
    METRICS,
    SUMS,
    EvaluateReply,
    RoundOrder,
    SiteCard,
    Statistics,
    TrainReply,
    content_bytes,
    read_weights,
    weights_content,
)
from shared_model.model import build_model
from shared_model.noised import placed
from shared_model.plan import PreprocessingPlan
from shared_model.refusal import REFUSAL, Refusal, misfit, refusal_of
from shared_model.study import EARLY

CARD_SAMPLE = SiteCard(site="Mercy", contract="c" * 64, encoder="", device="cpu", stays=1000, patients=120, deaths=31)
HELD = validation({0: 3, 199: 7}, {4: 11}, loss_sum=2.5)
ORDER = RoundOrder(round=3, learning_rate=5e-4, plan=tiny_plan())


def _weights() -> dict[str, torch.Tensor]:
    return dict(build_model(model_sizes(tiny_config()), seed=1).state_dict())


def _train_reply() -> TrainReply:
    return TrainReply(round=1, weights=_weights(), examples=40, train_loss=0.25, seconds=1.5, validation=HELD)


NOISED = Outcomes(Distribution(bins=placed((-7, 0, 3, *range(13)))))
NOISED_STATISTICS = Statistics(
    static=(NOISED,) * len(EARLY.static), series=(NOISED,) * len(EARLY.series), patients=50, deaths=15, noise=40.5
)
NOISED_REPLY = EvaluateReply(validation=validation({0: -3, 199: 7}, {4: -11}, loss_sum=0.0), noise=5.25)

SENT = {
    "card": CARD_SAMPLE,
    "card with withheld counts": replace(CARD_SAMPLE, patients=None, deaths=None),
    "statistics": local_statistics(patients(30), EARLY),
    "statistics of nothing": local_statistics(patients(30, missing=1.0), EARLY),
    "card with noised counts": replace(CARD_SAMPLE, counts="noised"),
    "noised statistics": NOISED_STATISTICS,
    "noised evaluate reply": NOISED_REPLY,
    "evaluate reply": EvaluateReply(validation=HELD),
    "evaluate reply of nobody": EvaluateReply(validation=Validation()),
}


@pytest.mark.parametrize("name", SENT)
def test_a_reply_is_the_same_after_the_wire(name: str) -> None:
    sent = SENT[name]
    assert type(sent).read(sent.content()) == sent
    assert type(sent).read(over_the_wire(sent.content())) == sent


def test_a_train_reply_is_the_same_to_the_last_bit_after_the_wire() -> None:
    sent = _train_reply()
    found = TrainReply.read(over_the_wire(sent.content()))
    assert replace(found, weights={}) == replace(sent, weights={})
    assert list(found.weights) == list(sent.weights)
    for name, tensor in sent.weights.items():
        assert found.weights[name].dtype == tensor.dtype and torch.equal(found.weights[name], tensor)


def test_a_round_order_and_its_weights_are_the_same_after_the_wire() -> None:
    content = over_the_wire(weights_content(_weights(), ORDER))
    assert RoundOrder.read(content) == ORDER
    assert all(torch.equal(tensor, _weights()[name]) for name, tensor in read_weights(content).items())


def test_a_withheld_count_is_not_in_the_record_at_all() -> None:
    assert "deaths" not in replace(CARD_SAMPLE, deaths=None).content()[CARD]


def test_content_bytes_are_those_of_the_arrays() -> None:
    numbers = sum(tensor.numel() for tensor in _weights().values()) * 4
    assert numbers < content_bytes(_train_reply().content()) < numbers + 200 * len(_weights())
    assert content_bytes(EvaluateReply(validation=HELD).content()) == 0


def _without(content: RecordDict, record: str, key: str) -> RecordDict:
    del content[record][key]
    return content


def _with(content: RecordDict, record: str, key: str, value: object) -> RecordDict:
    content[record][key] = value
    return content


READERS = {
    "card": (SiteCard, CARD, CARD_SAMPLE.content),
    "statistics": (Statistics, METRICS, statistics().content),
    "noised statistics": (Statistics, METRICS, NOISED_STATISTICS.content),
    "noised evaluate reply": (EvaluateReply, METRICS, NOISED_REPLY.content),
    "round order": (RoundOrder, CONFIG, lambda: weights_content({}, ORDER)),
    "train reply": (TrainReply, METRICS, lambda: _train_reply().content()),
    "evaluate reply": (EvaluateReply, METRICS, EvaluateReply(validation=HELD).content),
}
OPTIONAL = {
    ("noised statistics", "deaths"),
    ("noised evaluate reply", "num-examples"),
    ("card", "patients"),
    ("card", "deaths"),
    ("statistics", "deaths"),
    ("evaluate reply", "num-examples"),
} | {("train reply", key) for key in ("train-loss", "seconds")}
KEYS = [(name, key) for name, (_, record, make) in READERS.items() for key in make()[record]]


@pytest.mark.parametrize("name", READERS)
def test_an_empty_message_is_refused(name: str) -> None:
    with pytest.raises(ContractError, match="message: no"):
        READERS[name][0].read(RecordDict())


NOISE = [("noised statistics", "noise"), ("noised evaluate reply", "validation-noise")]


@pytest.mark.parametrize(("name", "key"), [pair for pair in KEYS if pair not in OPTIONAL and pair not in NOISE])
def test_a_message_without_one_of_its_keys_is_refused(name: str, key: str) -> None:
    reader, record, make = READERS[name]
    with pytest.raises(ContractError, match=key):
        reader.read(_without(make(), record, key))


@pytest.mark.parametrize(
    ("name", "key"), [pair for pair in KEYS if pair[1] != "num-examples" or pair[0] == "train reply"]
)
def test_a_value_of_another_type_is_refused(name: str, key: str) -> None:
    """Text becomes a number, a whole number a fraction, everything else a whole number."""
    reader, record, make = READERS[name]
    value = make()[record][key]
    other = 0.5 if isinstance(value, int) else 7
    with pytest.raises(ContractError, match=key):
        reader.read(_with(make(), record, key, other))


LISTS = [(name, key) for name, key in KEYS if isinstance(READERS[name][2]()[READERS[name][1]][key], list)]


@pytest.mark.parametrize(("name", "key"), LISTS)
@pytest.mark.parametrize("change", ["short", "long", "empty"])
def test_a_list_of_another_length_is_refused(name: str, key: str, change: str) -> None:
    reader, record, make = READERS[name]
    value = make()[record][key]
    changed = {"short": value[:-1], "long": [*value, value[0]], "empty": []}[change]
    with pytest.raises(ContractError, match=f"'{key}' is not a list of {len(value)} numbers"):
        reader.read(_with(make(), record, key, changed))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0, 0.5])
@pytest.mark.parametrize(
    ("name", "key"), [("statistics", "bins"), ("statistics", "measured"), ("evaluate reply", "validation-positives")]
)
def test_a_count_that_is_no_count_is_refused(name: str, key: str, number: float) -> None:
    """One site's nonsense must be a ContractError, which the server answers by leaving that site out."""
    reader, record, make = READERS[name]
    spoiled = [number, *(float(v) for v in make()[record][key][1:])]
    with pytest.raises(ContractError, match=key):
        reader.read(_with(make(), record, key, spoiled))


@pytest.mark.parametrize("noise", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("name", "key"), [("noised statistics", "noise"), ("noised evaluate reply", "validation-noise")]
)
def test_noise_that_hides_nothing_is_refused(name: str, key: str, noise: float) -> None:
    reader, record, make = READERS[name]
    with pytest.raises(ContractError, match=key):
        reader.read(_with(make(), record, key, noise))


@pytest.mark.parametrize(("name", "key"), NOISE)
def test_noised_counts_without_their_noise_are_refused(name: str, key: str) -> None:
    reader, record, make = READERS[name]
    with pytest.raises(ContractError, match=r"no ConfigRecord 'sums'|no count"):
        reader.read(_without(make(), record, key))


def test_counts_of_another_word_than_the_protocols_are_refused() -> None:
    with pytest.raises(ContractError, match="counts"):
        SiteCard.read(_with(CARD_SAMPLE.content(), CARD, "counts", "guessed"))


@pytest.mark.parametrize("total", ["-1", "1.5", "nan", "", "1" * 41, "\u0663"])
def test_a_sum_that_is_no_sum_is_refused(total: str) -> None:
    """Merged, it would spoil the inputs of every site."""
    content = statistics().content()
    with pytest.raises(ContractError, match="sums"):
        Statistics.read(_with(content, SUMS, "sums", [total, *content[SUMS]["sums"][1:]]))


def test_a_sum_that_no_values_have_is_refused() -> None:
    content = statistics().content()
    sums = content[SUMS]["sums"]
    with pytest.raises(ContractError, match="no values can have"):
        Statistics.read(_with(content, SUMS, "sums", [sums[0], "9" * 30, *sums[2:]]))


def test_arrays_whose_bytes_are_no_array_are_refused() -> None:
    good = Array(np.zeros(3, dtype=np.float32))
    broken = Array(dtype=good.dtype, shape=good.shape, stype=good.stype, data=b"not an array")
    content = _train_reply().content()
    content[ARRAYS] = ArrayRecord({"w": broken})
    with pytest.raises(ContractError):
        TrainReply.read(content)


def test_a_message_without_weights_is_refused() -> None:
    with pytest.raises(ContractError, match="no ArrayRecord 'arrays'"):
        read_weights(RecordDict({CONFIG: ORDER.config()}))


@pytest.mark.parametrize(
    "change", [{"bound": 6.0}, {"patients": 99}, {"prevalence": 0.3}, {"series_fill": "linear"}, {"contract": "0" * 64}]
)
def test_a_tampered_plan_is_refused(change: dict[str, object]) -> None:
    content = RecordDict({CONFIG: ORDER.config()})
    content[CONFIG]["plan"] = json.dumps(json.loads(str(content[CONFIG]["plan"])) | change)
    with pytest.raises(ContractError, match="do not belong together"):
        RoundOrder.read(content)


def test_a_plan_of_other_features_is_refused_although_its_digest_fits() -> None:
    other = replace(ORDER.plan, series_features=tuple(reversed(ORDER.plan.series_features)))
    order = Message(RecordDict({CONFIG: replace(ORDER, plan=other).config()}), dst_node_id=1, message_type="train")
    with pytest.raises(ContractError, match="other features"):
        read_order(order.content, tiny_config())


@pytest.mark.parametrize("change", [{"scale": 0.0}, {"scale": -1.0}, {"fill": float("inf")}, {"lower": 2e9}])
def test_a_plan_that_cannot_be_applied_is_refused_although_its_digest_fits(change: dict[str, float]) -> None:
    first, *others = ORDER.plan.static_features
    plan = replace(ORDER.plan, static_features=(replace(first, **change), *others))
    with pytest.raises(ContractError, match="scale is not positive"):
        RoundOrder.read(RecordDict({CONFIG: replace(ORDER, plan=plan).config()}))


def test_a_plan_with_a_feature_too_few_is_refused_although_its_digest_fits() -> None:
    plan = replace(ORDER.plan, static_features=ORDER.plan.static_features[1:])
    order = Message(RecordDict({CONFIG: replace(ORDER, plan=plan).config()}), dst_node_id=1, message_type="train")
    with pytest.raises(ContractError, match="other features"):
        read_order(order.content, tiny_config())


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", "7", '{"static": 1}'])
def test_a_text_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match="plan"):
        PreprocessingPlan.from_json(text, digest=ORDER.plan.digest)


def test_the_plan_survives_json_to_the_last_bit_and_every_field_is_in_its_digest() -> None:
    features = tuple(feature_plan(name, mean=1 / (n + 3)) for n, name in enumerate(EARLY.static))
    odd = replace(ORDER.plan, static_features=features)
    assert PreprocessingPlan.from_json(odd.to_json(), digest=odd.digest) == odd
    changes = {"bound": 4.0, "patients": 99, "prevalence": 0.0, "contract": "x", "series_features": ()}
    digests = {replace(odd, **{key: value}).digest for key, value in changes.items()}
    assert len(digests | {odd.digest}) == 1 + len(changes)


def _reply(content: RecordDict | Error) -> Message:
    return Message(content, reply_to=Message(RecordDict(), dst_node_id=7, message_type="train"))


def test_a_refusal_is_read_from_a_reply() -> None:
    sent = Refusal(site="Mercy", kind="ReleaseRefused", reason="fewer than 10 training patients")
    assert refusal_of(_reply(over_the_wire(sent.content()))) == sent
    assert str(sent) == "ReleaseRefused: fewer than 10 training patients"


@pytest.mark.parametrize("reason", ["node gone", "", None])
def test_flowers_own_error_is_a_refusal_with_a_reason(reason: str | None) -> None:
    found = refusal_of(_reply(Error(code=3, reason=reason)))
    assert found == Refusal(site="", kind="NoReply", reason=reason or "no reply within the time limit")


def test_a_reply_with_a_result_is_no_refusal() -> None:
    assert refusal_of(_reply(_train_reply().content())) is None


def test_the_servers_objection_names_the_error() -> None:
    assert str(misfit(ContractError("update: w is not finite"))) == "ContractError: update: w is not finite"


def test_a_refusal_of_another_shape_is_a_contract_error() -> None:
    for record in ({"site": "Mercy"}, {"site": "Mercy", "kind": "X", "reason": 4}):
        with pytest.raises(ContractError, match=r"reason|kind"):
            refusal_of(_reply(RecordDict({REFUSAL: ConfigRecord(record)})))


def test_records_are_flowers_own_kinds() -> None:
    """Strategies look for exactly one ArrayRecord and one MetricRecord."""
    content = _train_reply().content()
    assert isinstance(content[ARRAYS], ArrayRecord) and isinstance(content[METRICS], MetricRecord)
    assert content[METRICS]["num-examples"] == 40
    nothing = local_statistics(patients(12, missing=1.0), EARLY)
    assert Outcomes() == Statistics.read(nothing.content()).series[0]
