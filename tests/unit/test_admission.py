"""Who takes part, and who does not and why: over a Grid that lives in memory."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from builders import Answer, MemoryGrid, distribution, statistics, tiny_config, validation
from flwr.app import ConfigRecord, Error, Message, RecordDict

from server.admission import Admission, _judge, admit, sort_replies
from server.statistics import federated_plan, poorly_covered
from shared_model.contract import contract_digest
from shared_model.distribution import Distribution, Outcomes
from shared_model.errors import ConfigError, FederationError
from shared_model.fitting import plan_from
from shared_model.messages import SiteCard
from shared_model.refusal import REFUSAL, Refusal
from shared_model.study import EARLY

CONFIG = tiny_config()
CONTRACT = contract_digest(EARLY)
ENCODER, OTHER = "e" * 64, "f" * 64
REFUSED = Refusal(site="Dover", kind="ReleaseRefused", reason="fewer than 10 training patients")
MALFORMED = RecordDict({REFUSAL: ConfigRecord({"site": "Dover"})})
GOOD, BAD = validation({150: 12}, {20: 30}), validation({20: 12}, {150: 30})  # AUROC 1 and 0
FAIR = validation({150: 6, 20: 6}, {20: 30})


def _card(site: str, **changes: str) -> SiteCard:
    held = {"contract": CONTRACT, "encoder": ENCODER, "device": "cpu"}
    return SiteCard(site=site, stays=1000, patients=60, deaths=20, **(held | changes))


def _says(content: RecordDict | None) -> Answer:
    return lambda message: content


def _introduces(site: str, **changes: str) -> Answer:
    return _says(_card(site, **changes).content())


def _fails(message: Message) -> Message:
    return Message(Error(code=1, reason="node gone"), reply_to=message)


def test_judge_admits_by_name_and_says_why_not() -> None:
    cards = {
        5: _card("Mercy"),
        3: _card("Avon"),
        8: _card("Burton", contract="0" * 64),
        9: _card("Clare", encoder=OTHER),
        2: _card("Mercy"),
    }
    found = _judge(cards, {"node 4": "NoReply: no reply within the time limit"}, CONTRACT, "")
    assert [card.site for card in found.sites.values()] == ["Avon", "Mercy"]
    assert found.name_of(3) == "Avon"
    assert found.refused == {
        "node 4": "NoReply: no reply within the time limit",
        "Burton": f"contract {'0' * 12}, the server holds {CONTRACT[:12]}; prepare with this version and the study of"
        " the run",
        "Clare": f"text encoder {OTHER[:12]}, the federation uses {ENCODER[:12]}",
        "Mercy": "another site has the same name",
    }


def test_what_admission_says_does_not_depend_on_who_answered_first() -> None:
    reasons = {"Mercy": "late", "Dover": "closed"}
    cards = {1: _card("Clare", contract="0" * 64), 2: _card("Avon"), 3: _card("Burton", encoder=OTHER)}
    one = _judge(cards, dict(reasons), CONTRACT, ENCODER)
    other = _judge(dict(reversed(cards.items())), dict(reversed(reasons.items())), CONTRACT, ENCODER)
    assert list(one.refused.items()) == list(other.refused.items()) and list(one.sites) == list(other.sites)


def test_a_name_is_taken_only_by_a_site_that_is_admitted() -> None:
    found = _judge({1: _card("Mercy", contract="0" * 64), 2: _card("Mercy")}, {}, CONTRACT, "")
    assert list(found.sites) == [2]


def test_the_common_encoder_is_the_servers_else_the_most_frequent_else_the_smallest() -> None:
    cards = {1: _card("Avon"), 2: _card("Burton", encoder=OTHER), 3: _card("Clare", encoder=OTHER)}
    assert list(_judge(cards, {}, CONTRACT, "").sites) == [2, 3]
    assert list(_judge(cards, {}, CONTRACT, ENCODER).sites) == [1]
    tie = {1: _card("Avon", encoder=OTHER), 2: _card("Burton")}
    assert (
        list(_judge(tie, {}, CONTRACT, "").sites)
        == [2]
        == list(_judge(dict(reversed(tie.items())), {}, CONTRACT, "").sites)
    )


def test_admit_asks_every_node_once_and_keeps_every_reason() -> None:
    answers = [
        _introduces("Mercy"),
        _introduces("Avon"),
        _introduces("Burton", contract="0" * 64),
        _introduces("Mercy"),
        _says(REFUSED.content()),
        _fails,
        _says(None),
        _says(RecordDict()),
    ]
    grid = MemoryGrid(dict(enumerate(answers, start=1)))
    found = admit(grid, CONFIG, encoder=ENCODER)
    assert [card.site for card in found.sites.values()] == ["Avon", "Mercy"]
    assert found.refused.keys() == {"Burton", "Mercy", "Dover", "node 6", "node 7", "node 8"}
    assert found.refused["Dover"] == str(REFUSED)
    assert found.refused["node 6"] == "NoReply: node gone"
    assert found.refused["node 7"] == "NoReply: no reply within the time limit"
    assert found.refused["node 8"].startswith("ContractError: message: no ConfigRecord 'card'")
    assert [m.metadata.message_type for m in grid.sent] == ["query.describe"] * 8
    assert grid.timeouts == [CONFIG.admission_timeout]


def test_a_malformed_refusal_is_a_reason_and_does_not_end_the_run() -> None:
    grid = MemoryGrid({1: _introduces("Avon"), 2: _introduces("Burton"), 3: _says(MALFORMED)})
    found = admit(grid, CONFIG, encoder="")
    assert list(found.sites) == [1, 2] and "ContractError" in found.refused["node 3"]


def test_too_few_sites_end_the_run_with_every_reason() -> None:
    grid = MemoryGrid({1: _introduces("Avon"), 2: _introduces("Burton", contract="0" * 64), 3: _says(None)})
    with pytest.raises(FederationError) as error:
        admit(grid, CONFIG, encoder="")
    text = str(error.value)
    assert text.startswith("admission: 1 of at least 2 sites (min-sites); ")
    assert "Burton: contract 0000" in text and "node 3: NoReply" in text


@pytest.mark.parametrize("answers", [{}, {1: _introduces("Avon")}], ids=["nobody", "one of two"])
def test_admission_ends_after_its_time_limit(answers: dict[int, Answer]) -> None:
    start = time.monotonic()
    with pytest.raises(FederationError, match="of at least 2 sites"):
        admit(MemoryGrid(answers), CONFIG, encoder="")
    assert 0.2 <= time.monotonic() - start < 2


def test_admission_goes_on_without_expected_sites_that_never_come() -> None:
    grid = MemoryGrid({1: _introduces("Avon"), 2: _introduces("Burton")})
    start = time.monotonic()
    assert len(admit(grid, tiny_config(expected_sites=5), encoder="").sites) == 2
    assert 0.2 <= time.monotonic() - start < 2


def test_admission_does_not_wait_when_everybody_is_there() -> None:
    start = time.monotonic()
    admit(MemoryGrid({1: _introduces("Avon"), 2: _introduces("Burton")}), tiny_config(admission_timeout=60), encoder="")
    assert time.monotonic() - start < 1


def test_sort_replies_ignores_nodes_that_were_not_asked() -> None:
    asked, other = (Message(RecordDict(), dst_node_id=node, message_type="train") for node in (1, 9))
    replies = [Message(RecordDict(), reply_to=message) for message in (other, asked)]
    contents, reasons = sort_replies([1, 2], replies)
    assert contents.keys() == {1}
    assert {node: why.kind for node, why in reasons.items()} == {2: "NoReply"}


def _admission(*names: str) -> Admission:
    return Admission(sites={node: _card(name) for node, name in enumerate(names, start=1)}, refused={})


def _with_first(first: Distribution) -> RecordDict:
    return replace(statistics(), static=(Outcomes(first, first), *statistics().static[1:])).content()


@pytest.mark.parametrize(
    "answer",
    [
        _says(None),
        _says(REFUSED.content()),
        _says(MALFORMED),
        _says(RecordDict()),
        _says(_with_first(replace(distribution(50), sums=(50, 10**9, 0, 0, 0)))),
        _says(_with_first(replace(distribution(50), patients=51))),
        _says(_with_first(replace(distribution(50), bins=(1,) * 64))),
    ],
    ids=[
        "silent",
        "refused",
        "malformed refusal",
        "empty",
        "impossible sum",
        "more patients than values",
        "bins of another count",
    ],
)
def test_the_plan_is_fitted_without_a_site_whose_statistics_are_unusable(answer: Answer) -> None:
    good = _says(statistics().content())
    plan, sites, missing = federated_plan(
        MemoryGrid({1: good, 2: answer, 3: good}), _admission("Avon", "Dover", "Mercy"), CONFIG
    )
    assert list(sites) == ["Avon", "Mercy"] and missing.keys() == {"Dover"}
    assert plan == federated_plan(MemoryGrid({1: good, 3: good}), _admission("Avon", "", "Mercy"), CONFIG)[0]
    assert plan.patients == 100 and plan.prevalence == 0.3


def test_a_site_that_connects_late_is_asked_when_it_comes_and_required_sites_are_waited_for() -> None:
    class Growing(MemoryGrid):
        looked = 0

        def get_node_ids(self) -> list[int]:
            self.looked += 1
            return [1, 2] if self.looked < 3 else [1, 2, 3]

    grid = Growing({1: _introduces("Avon"), 2: _introduces("Burton"), 3: _introduces("Clare")})
    config = tiny_config(required_sites="Clare, Avon", admission_timeout=20)
    found = admit(grid, config, encoder="")
    assert [card.site for card in found.sites.values()] == ["Avon", "Burton", "Clare"]
    assert [message.metadata.dst_node_id for message in grid.sent] == [1, 2, 3]  # nobody is asked twice


def test_without_a_required_site_the_run_ends_and_names_it_and_its_reason() -> None:
    grid = MemoryGrid({1: _introduces("Avon"), 2: _introduces("Burton"), 3: _says(REFUSED.content())})
    with pytest.raises(FederationError) as error:
        admit(grid, tiny_config(required_sites="Dover,Elmet"), encoder="")
    assert "admission: without Dover, Elmet (required-sites)" in str(error.value)
    assert f"Dover: {REFUSED}" in str(error.value)


def _roster(folder: Path, **nodes: int) -> str:
    held = {"sites": [{"site": site, "node_id": node} for site, node in nodes.items()]}
    (folder / "sites.json").write_text(json.dumps(held), encoding="utf-8")
    return str(folder / "sites.json")


def test_a_site_that_calls_itself_otherwise_than_its_key_says_is_not_admitted(tmp_path: Path) -> None:
    grid = MemoryGrid({1: _introduces("Avon"), 2: _introduces("Burton"), 3: _introduces("Clare")})
    found = admit(grid, tiny_config(roster=_roster(tmp_path, Avon=1, Burton=2, Dover=3)), encoder="")
    assert [card.site for card in found.sites.values()] == ["Avon", "Burton"]
    assert found.refused == {"Clare": "calls itself so, but its key is registered for another site"}


@pytest.mark.parametrize(
    "content", ["", "{}", '{"sites": [{"site": "A"}]}', '{"sites": [{"site": "A", "node_id": "x"}]}']
)
def test_a_roster_that_cannot_be_read_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "sites.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"roster .*sites\.json: cannot be read"):
        admit(MemoryGrid({1: _introduces("Avon")}), tiny_config(roster=str(tmp_path / "sites.json")), encoder="")


def test_a_site_that_has_measured_too_little_of_the_plan_is_named() -> None:
    whole = statistics()
    nothing = replace(whole, static=(Outcomes(),) * len(whole.static), series=(Outcomes(),) * len(whole.series))
    few = replace(nothing, static=(*whole.static[:3], *nothing.static[3:]))
    plan = plan_from([whole, few], CONFIG)
    total = len(plan.static) + len(plan.series)
    assert poorly_covered(plan, {"Avon": whole, "Burton": few}, 0.2) == {
        "Burton": f"has measured 3 of the plan's {total} features, 20% are needed (least-coverage)"
    }
    assert poorly_covered(plan, {"Avon": whole, "Burton": few}, 0.0) == {}
