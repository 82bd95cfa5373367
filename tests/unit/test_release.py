"""The only exit fails closed, and what a refusal says holds nothing of a patient."""

import math
from dataclasses import replace
from typing import cast

import pytest
import torch
from builders import distribution, outcomes, patients, statistics, validation
from leaving import leaving

from client.policy import ReleasePolicy
from client.small_cells import Reply
from shared_model.distribution import Distribution, Outcomes
from shared_model.errors import ReleaseRefused
from shared_model.mergeable import Validation
from shared_model.messages import (
    DESCRIBE,
    EVALUATE,
    STATISTICS,
    TRAIN,
    EvaluateReply,
    Refusal,
    SiteCard,
    Statistics,
    TrainReply,
)

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
