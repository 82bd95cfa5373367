"""Federations in memory, with and without secure aggregation: the same plan, the same weights to the quantisation,
dropouts after every step, and a clean end below the threshold."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders import Answer, MemoryGrid
from federation import answers_of, small_config, small_federation
from flwr.app import Error, Message
from safetensors.torch import load_file

from client.block_memory import open_blocks
from client.policy import KINDS, ReleasePolicy
from client.small_cells import suppressed
from client.statistics import block_statistics
from server.admission import Admission, admit
from server.app import federate
from server.progress import Progress
from server.results import RunResults
from server.rounds import run_rounds
from server.statistics import ask_statistics, federated_plan
from server.strategies import build_strategy
from server.summed import ALL_SITES, summed_statistics
from server.training import Training
from shared_model.batch import open_store
from shared_model.config import RunConfig
from shared_model.errors import ConfigError, FederationError
from shared_model.fitting import plan_from
from shared_model.messages import DESCRIBE, EVALUATE, STATISTICS, TRAIN, Statistics
from shared_model.model import build_model
from shared_model.secure.messages import SECURE_KEYS, SECURE_SHARES, SECURE_UNMASK
from shared_model.trial import THE_RUN

SIZES = (60, 90, 70)
NAMES = ["Site 1", "Site 2", "Site 3"]
STEPS = (SECURE_KEYS, SECURE_SHARES, STATISTICS, SECURE_UNMASK)


def _config(**settings: object) -> RunConfig:
    held = {"min_sites": 2, "validation_fraction": 0.3, "local_steps": 3, "secure_aggregation": True}
    return small_config(**(held | settings))


def _lost(answer: Answer, kind: str, after: int = 0) -> Answer:
    """A node that does not answer a kind of message any more, once it has answered ``after``."""
    seen = 0

    def instead(message: Message) -> object:
        nonlocal seen
        if message.metadata.message_type == kind:
            seen += 1
            if seen > after:
                return Message(Error(code=1, reason="node gone"), reply_to=message)
        return answer(message)

    return instead  # type: ignore[return-value]


def _federation(
    folder: Path,
    config: RunConfig,
    *,
    lost: dict[int, str] | None = None,
    sizes: tuple[int, ...] = SIZES,
    **data: float,
) -> tuple[MemoryGrid, Admission]:
    grid = small_federation(folder, config, sizes=sizes, **data)
    admission = admit(grid, config, encoder="")
    for node, kind in (lost or {}).items():
        grid.nodes[node] = _lost(grid.nodes[node], kind)
    return grid, admission


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm"])
def test_a_whole_run_learns_the_same_as_in_the_clear(strategy: str, tmp_path: Path) -> None:
    results: dict[bool, RunResults] = {}
    for secure in (False, True):
        config = _config(
            strategy=strategy, secure_aggregation=secure, bootstrap=0, output=str(tmp_path / f"run-{secure}")
        )
        results[secure] = federate(
            small_federation(tmp_path / "sites", config, sizes=SIZES), config, Progress(Path(config.output))
        )
    plain, secure_ = results[False], results[True]
    assert secure_.status == "complete" and secure_.plan_digest == plain.plan_digest
    weights = [load_file(tmp_path / f"run-{secure}" / "model" / "model.safetensors") for secure in (False, True)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=0, atol=2e-5)
    assert [r.replied for r in secure_.rounds] == [NAMES] * 2 and not any(r.failed for r in secure_.rounds)
    for ours, theirs in zip(secure_.rounds, plain.rounds, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-4)
        assert ours.validation_loss == pytest.approx(theirs.validation_loss, abs=1e-4)
    assert [site.site for site in secure_.validation.sites] == [ALL_SITES]
    assert secure_.validation.patients == plain.validation.patients
    assert any("no site's coverage" in warning for warning in secure_.warnings)
    assert ALL_SITES in (tmp_path / "run-True" / "report.html").read_text()


def test_the_server_receives_nothing_of_one_site_in_the_clear(tmp_path: Path) -> None:
    """Of all that crosses the wire after admission, only masked numbers, keys and shares."""
    config, seen = _config(rounds=1), list[tuple[str, tuple[str, ...]]]()
    grid, admission = _federation(tmp_path, config)
    for node, answer in grid.nodes.items():

        def watched(message: Message, answer: Answer = answer) -> object:
            reply = answer(message)
            seen.append((message.metadata.message_type, tuple(sorted(reply.content))))
            return reply

        grid.nodes[node] = watched  # type: ignore[assignment]
    _train(grid, admission, config)
    kinds = {SECURE_KEYS, SECURE_SHARES, SECURE_UNMASK}
    assert set(seen) == {(kind, ("secure",)) for kind in kinds} | {
        (kind, ("masked", "secure")) for kind in (STATISTICS, TRAIN, EVALUATE)
    }


@pytest.mark.parametrize("step", STEPS)
def test_a_site_that_is_lost_after_any_step_is_left_out_of_the_sum(step: str, tmp_path: Path) -> None:
    config = _config()
    grid, admission = _federation(tmp_path, config, lost={2: step})
    summed, failed = summed_statistics(grid, admission, config)
    left = NAMES if step == SECURE_UNMASK else ["Site 1", "Site 3"]
    assert list(failed) == sorted(set(NAMES) - set(left)) and all("node gone" in why for why in failed.values())
    clear = config.model_copy(update={"secure_aggregation": False})
    plain, _ = ask_statistics(*_federation(tmp_path, clear), clear)
    assert plan_from(summed, config) == plan_from([plain[name] for name in left], config)


@pytest.mark.parametrize("step", STEPS)
def test_below_the_threshold_nothing_is_opened_and_everybody_missing_is_named(step: str, tmp_path: Path) -> None:
    config = _config()
    grid, admission = _federation(tmp_path, config, lost={1: step, 3: step})
    with pytest.raises(FederationError) as error:
        summed_statistics(grid, admission, config)
    text = str(error.value)
    name = "statistics" if step == STATISTICS else step
    assert text.startswith(f"secure aggregation, {name}: 1 of 3 sites are left, at least 2 are needed")
    assert "no sum was opened" in text and "Site 1: NoReply: node gone; Site 3: NoReply: node gone" in text


def test_after_a_failed_session_the_next_one_succeeds(tmp_path: Path) -> None:
    config = _config()
    grid, admission = _federation(tmp_path, config, lost={1: STATISTICS, 3: STATISTICS})
    with pytest.raises(FederationError):
        summed_statistics(grid, admission, config)
    _, failed = summed_statistics(*_federation(tmp_path, config), config)
    assert failed == {}


def _train(grid: MemoryGrid, admission: Admission, config: RunConfig) -> Training:
    plan, _, _ = federated_plan(grid, admission, config)
    initial = dict(build_model(config.model_for(plan), seed=1).state_dict())
    return run_rounds(grid, admission, build_strategy(config, 3), initial, plan, config)


def test_a_round_without_a_site_is_the_mean_of_the_others(tmp_path: Path) -> None:
    found = {}
    for secure in (False, True):
        config = _config(rounds=1, secure_aggregation=secure)
        found[secure] = _train(*_federation(tmp_path, config, lost={2: TRAIN}), config)
    record = found[True].rounds[0]
    assert record.replied == ["Site 1", "Site 3"] and record.failed.keys() == {"Site 2"}
    for name, tensor in found[False].weights.items():
        torch.testing.assert_close(found[True].weights[name], tensor, rtol=0, atol=1e-5)
    assert found[True].validation.count == found[False].validation.count  # all three answer the last message


def test_a_refusal_under_masks_is_a_dropout_and_says_why(tmp_path: Path) -> None:
    """Every site refuses to send a change that the sum has no room for, so no sum is opened."""
    config = _config(rounds=1, secure_range=1e-6)
    grid, admission = _federation(tmp_path, config)
    with pytest.raises(FederationError, match=r"train: 0 of 3 sites are left.*secure-range = 1e-06"):
        _train(grid, admission, config)


def test_a_range_that_leaves_too_little_precision_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    config = _config(rounds=1, secure_range=1e5)
    grid, admission = _federation(tmp_path, config)
    with pytest.raises(FederationError, match=r"secure-range = 100000: rounding could move a mean weight by"):
        _train(grid, admission, config)
    assert TRAIN not in {message.metadata.message_type for message in grid.sent}


def test_one_site_is_no_sum(tmp_path: Path) -> None:
    config = _config(min_sites=1)
    grid, admission = _federation(tmp_path, config, sizes=SIZES[:1])
    with pytest.raises(FederationError, match="1 site, at least 2 must take part"):
        summed_statistics(grid, admission, config)
    assert {message.metadata.message_type for message in grid.sent} == {DESCRIBE}


def test_two_sites_are(tmp_path: Path) -> None:
    config = _config(rounds=1)
    training = _train(*_federation(tmp_path, config, sizes=SIZES[:2]), config)
    assert training.rounds[0].replied == NAMES[:2] and training.validation.count > 0


def test_deaths_that_some_sites_withhold_give_the_plan_of_the_clear(tmp_path: Path) -> None:
    """A site below its smallest cell tells neither deaths nor outcomes; its layout is that of the others."""
    plans = {}
    for secure in (False, True):
        config = _config(secure_aggregation=secure)
        grid = small_federation(tmp_path, config, sizes=(9, 90, 70), cell=4)
        admission = admit(grid, config, encoder="")
        plans[secure], _, missing = federated_plan(grid, admission, config)
        assert missing == {} and [card.deaths is None for card in admission.sites.values()] == [True, False, False]
    assert plans[True] == plans[False]


def test_a_site_lost_in_the_last_validation_costs_nothing_but_itself(tmp_path: Path) -> None:
    config = _config(rounds=1)
    two = _train(*_federation(tmp_path / "a", config, lost={2: EVALUATE}), config)
    three = _train(*_federation(tmp_path / "b", config), config)
    none = _train(*_federation(tmp_path / "c", config, lost={1: EVALUATE, 2: EVALUATE}), config)
    assert 0 < two.validation.count < three.validation.count and none.validation.count == 0


SINGLE: list[tuple[dict[str, object], str]] = [
    ({"strategy": "krum"}, "strategy krum with secure-aggregation"),
    ({"leave_one_out": True}, "leave-one-out with secure-aggregation"),
    ({"personalisation": "finetune"}, "personalisation finetune with secure-aggregation"),
    ({"grid": "learning-rate: [0.1]", "folds": 2}, "grid with secure-aggregation"),
]


@pytest.mark.parametrize(("settings", "why"), SINGLE)
def test_what_needs_single_answers_is_refused(settings: dict[str, object], why: str) -> None:
    flat = RunConfig().to_flat() | {key.replace("_", "-"): value for key, value in settings.items()}
    RunConfig.from_flat(flat)
    with pytest.raises(ConfigError, match=why):
        RunConfig.from_flat(flat | {"secure-aggregation": True})


class Killed(BaseException):
    """What SIGKILL is to the ServerApp."""


@pytest.mark.parametrize("step", [SECURE_SHARES, TRAIN, SECURE_UNMASK])
def test_a_run_killed_in_a_session_is_resumed_to_the_same_end(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(name="one", bootstrap=0, output=str(tmp_path / "run"))
    whole = config.model_copy(update={"output": str(tmp_path / "whole")})
    federate(small_federation(tmp_path / "sites-whole", whole, sizes=SIZES[:2]), whole, Progress(Path(whole.output)))

    grid = small_federation(tmp_path / "sites", config, sizes=SIZES[:2])
    answers: Callable[[dict[int, Message]], list[Message]] = grid.answers
    rounds = 0

    def killed_in_round_2(asked: dict[int, Message]) -> list[Message]:
        nonlocal rounds
        replies = answers(asked)
        kinds = {message.metadata.message_type for message in asked.values()}
        rounds += TRAIN in kinds
        if step in kinds and (rounds == 2 or (step == SECURE_SHARES and rounds == 1)):
            raise Killed
        return replies

    monkeypatch.setattr(grid, "answers", killed_in_round_2)
    with pytest.raises(Killed):
        federate(grid, config, Progress(Path(config.output)))
    again = config.model_copy(update={"resume": True})
    found = federate(small_federation(tmp_path / "sites", again, sizes=SIZES[:2]), again, Progress(Path(config.output)))
    assert found.status == "complete"
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("run", "whole")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_sums_over_other_lists_of_sites_differ_by_an_answer_that_could_have_left_alone(tmp_path: Path) -> None:
    """Two runs, one without Site 3. What subtraction leaves is made of whole blocks of its patients."""
    config = _config()
    grid, admission = _federation(tmp_path, config)
    three, _ = summed_statistics(grid, admission, config)
    fewer = _config(name="without")
    small = MemoryGrid({n: answers_of(tmp_path / f"site{n}" / "site.yaml", n, fewer) for n in (1, 2)})
    two, _ = summed_statistics(small, admit(small, fewer, encoder=""), fewer)
    blocks = open_blocks(tmp_path / "site3" / "store", 3).open(
        open_store(tmp_path / "site3" / "store"), THE_RUN, config.validation_fraction, config.seed
    )
    alone = suppressed(block_statistics(blocks, config), ReleasePolicy(allow=KINDS, smallest_cell=3))
    assert isinstance(alone, Statistics)
    pairs = zip((*three[0].static, *three[0].series), (*two[0].static, *two[0].series), strict=True)
    for (all_of_them, without), own in zip(pairs, (*alone.static, *alone.series), strict=True):
        for one, other, held in zip(*(vars(o).values() for o in (all_of_them, without, own)), strict=True):
            left = [a - b for a, b in zip(one.sums, other.sums, strict=True)]
            assert left == list(held.sums) and one.patients - other.patients == held.patients
            assert held.patients == 0 or held.patients >= 3
