"""Rounds go on without whoever fails, say who and why, and keep the best model: over a Grid that lives in memory."""

from collections.abc import Callable, Iterable

import pytest
import torch
from builders import Answer, MemoryGrid, model_sizes, over_the_wire, tiny_config, tiny_plan, validation
from flwr.app import ConfigRecord, Error, Message, RecordDict

from server.admission import Admission
from server.rounds import run_rounds
from server.strategies import build_strategy
from server.training import Training
from shared_model.config import RunConfig
from shared_model.errors import FederationError
from shared_model.mergeable import Validation
from shared_model.messages import (
    EVALUATE,
    METRICS,
    EvaluateReply,
    RoundOrder,
    SiteCard,
    TrainReply,
    Weights,
    read_weights,
)
from shared_model.model import build_model
from shared_model.refusal import REFUSAL, Refusal

CONFIG = tiny_config()
REFUSED = Refusal(site="Burton", kind="ReleaseRefused", reason="fewer than 10 training patients")
GOOD, BAD = validation({150: 12}, {20: 30}), validation({20: 12}, {150: 30})  # AUROC 1 and 0
FAIR = validation({150: 6, 20: 6}, {20: 30})


def _admission(*names: str) -> Admission:
    cards = {
        node: SiteCard(site=name, contract="c", encoder="e", device="cpu", stays=1000, patients=60, deaths=20)
        for node, name in enumerate(names, start=1)
    }
    return Admission(sites=cards, refused={})


def _fails(message: Message) -> Message:
    return Message(Error(code=1, reason="node gone"), reply_to=message)


def _trains_with(content: RecordDict) -> Answer:
    """Answers ``content`` to a train message and is silent after it."""
    return lambda message: None if message.metadata.message_type == EVALUATE else content


Change = Callable[[Weights], Weights]


def _initial() -> Weights:
    return dict(build_model(model_sizes(CONFIG), seed=1).state_dict())


def _plus(number: float) -> Change:
    return lambda weights: {name: tensor + number for name, tensor in weights.items()}


def _site(change: Change, examples: int, validations: Iterable[Validation] = (GOOD,)) -> Answer:
    """Answers with changed weights; ``validations[r]`` is that of the model after r rounds, the last one for ever."""
    held = list(validations)

    def answer(message: Message) -> RecordDict:
        order = RoundOrder.read(message.content)
        last = message.metadata.message_type == EVALUATE
        found = held[min(order.round if last else order.round - 1, len(held) - 1)]
        if last:
            return EvaluateReply(validation=found).content()
        weights = change(read_weights(message.content))
        sent = TrainReply(
            round=order.round, weights=weights, examples=examples, train_loss=0.5, seconds=2.0, validation=found
        )
        return sent.content()

    return answer


def _rounds(answers: list[Answer], config: RunConfig, *names: str, order: Iterable[int] | None = None) -> Training:
    admission = _admission(*names)
    grid = MemoryGrid(dict(enumerate(answers, start=1)), order)
    strategy = build_strategy(config, len(admission.sites))
    return run_rounds(grid, admission, strategy, _initial(), tiny_plan(), config, lambda rounds: None)


def _one(name: str, tensor: torch.Tensor) -> Change:
    return lambda weights: {**weights, name: tensor}


BROKEN = {
    "NaN": (_site(_one("missing.weight", torch.full((3, 5), float("nan"))), 9), "not finite"),
    "other shape": (_site(_one("missing.weight", torch.zeros(3, 6)), 9), "another shape"),
    "other dtype": (_site(_one("missing.weight", torch.zeros(3, 5).double()), 9), "another shape or dtype"),
    "other names": (_site(_one("extra", torch.zeros(1)), 9), "other names"),
    "no examples": (_site(_plus(1), 0), "no training examples"),
    "refused": (_trains_with(REFUSED.content()), "ReleaseRefused: fewer than 10"),
    "malformed refusal": (_trains_with(RecordDict({REFUSAL: ConfigRecord({"site": "Burton"})})), "ContractError"),
    "silent": (lambda message: None, "NoReply: no reply within the time limit"),
    "node gone": (_fails, "NoReply: node gone"),
    "empty": (_trains_with(RecordDict()), "ContractError: message: no MetricRecord"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_unusable_reply_is_left_out_and_reported_by_its_sites_name(kind: str) -> None:
    answer, why = BROKEN[kind]
    answers = [_site(_plus(1.0), 30), answer, _site(_plus(-2.0), 10)]
    found = _rounds(answers, tiny_config(rounds=1), "Avon", "Burton", "Clare")
    [record] = found.rounds
    assert record.replied == ["Avon", "Clare"]
    assert record.failed.keys() == {"Burton"} and why in record.failed["Burton"]
    for name, tensor in _initial().items():  # (30 * (w + 1) + 10 * (w - 2)) / 40
        torch.testing.assert_close(found.weights[name], tensor + 0.25, rtol=1e-6, atol=1e-6)


def test_the_result_does_not_depend_on_the_order_of_arrival() -> None:
    answers = [_site(_plus(0.1 * n), 7 * n) for n in range(1, 6)]
    names = ("Dover", "Avon", "Clare", "Burton", "Mercy")
    first = _rounds(answers, CONFIG, *names)
    for order in ([5, 4, 3, 2, 1], [3, 1, 5, 2, 4]):
        again = _rounds(answers, CONFIG, *names, order=order)
        assert all(torch.equal(first.weights[name], again.weights[name]) for name in first.weights)
        assert again.rounds == first.rounds
    assert first.rounds[0].replied == sorted(names)


def test_the_reply_that_was_checked_is_the_one_that_counts() -> None:
    """A second reply of a node must not slip in behind the first."""
    answers = [_site(_plus(1.0), 30), _site(_plus(-2.0), 10)]

    class Twice(MemoryGrid):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
            held = list(messages)
            broken = BROKEN["NaN"][0](held[0])
            return [*super().send_and_receive(held, timeout=timeout), Message(over_the_wire(broken), reply_to=held[0])]

    config, grid = tiny_config(rounds=1), Twice(dict(enumerate(answers, start=1)))
    strategy = build_strategy(config, 2)
    found = run_rounds(grid, _admission("A", "B"), strategy, _initial(), tiny_plan(), config, lambda rounds: None)
    assert all(tensor.isfinite().all() for tensor in found.weights.values())


def test_no_usable_reply_ends_the_run_with_every_reason() -> None:
    with pytest.raises(FederationError) as error:
        _rounds([BROKEN["NaN"][0], BROKEN["silent"][0]], CONFIG, "Avon", "Burton")
    text = str(error.value)
    assert text.startswith("round 1: 0 of at least 2 usable replies (min-sites); ")
    assert "Avon: ContractError: update: missing.weight is not finite" in text and "Burton: NoReply" in text


@pytest.mark.parametrize(
    ("history", "best"),
    [([GOOD, BAD, GOOD, FAIR], 2), ([GOOD, GOOD, BAD, FAIR], 1), ([BAD, FAIR, BAD, GOOD], 3), ([BAD, FAIR, FAIR], 3)],
    ids=["second", "first", "last", "later of equals"],
)
def test_the_best_round_is_kept(history: list[Validation], best: int) -> None:
    """``history[r]`` is the validation after r rounds; that of the untrained model does not count."""
    found = _rounds([_site(_plus(1.0), 10, history)] * 2, tiny_config(rounds=3), "Avon", "Burton")
    assert found.best_round == best
    torch.testing.assert_close(found.weights["missing.weight"], _initial()["missing.weight"] + best)
    expected = [history[min(r, len(history) - 1)].auroc for r in (1, 2, 3)]
    assert [record.validation_auroc for record in found.rounds] == expected
    assert found.validation.auroc == max(expected)


NEAR = validation({150: 40, 20: 10}, {20: 140, 150: 10})  # AUROC 0.867, standard error 0.03
NEARLY = validation({150: 39, 20: 11}, {20: 139, 150: 11})  # 0.853
WORSE = validation({150: 34, 20: 16}, {20: 139, 150: 11})  # 0.803


@pytest.mark.parametrize(
    ("history", "kept"),
    [([GOOD, NEAR, NEARLY, NEARLY], 3), ([GOOD, NEAR, WORSE, WORSE], 1), ([GOOD, NEAR, WORSE, NEARLY], 3)],
)
def test_a_later_round_is_kept_when_it_is_worse_by_less_than_a_standard_error(
    history: list[Validation], kept: int
) -> None:
    found = _rounds([_site(_plus(1.0), 10, history)], tiny_config(rounds=3, min_sites=1), "Avon")
    assert (found.best_round, found.improved_round) == (kept, 1)


def test_a_last_round_that_nobody_could_validate_does_not_replace_a_validated_one() -> None:
    found = _rounds([_site(_plus(1.0), 10, [GOOD, GOOD, Validation()])] * 2, CONFIG, "Avon", "Burton")
    assert (found.best_round, found.validation.auroc) == (1, 1.0)


def test_a_malformed_last_validation_is_left_out() -> None:
    def garbled(message: Message) -> RecordDict | Message | None:
        content = _site(_plus(1.0), 10)(message)
        if message.metadata.message_type == EVALUATE:
            del content[METRICS]["validation-negatives"]
        return content

    found = _rounds([_site(_plus(1.0), 10), garbled], CONFIG, "Avon", "Burton")
    assert found.best_round == 2 and found.validation.count == GOOD.count
