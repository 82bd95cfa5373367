"""The guard, and what one poisoned site of seven can do to the model: nothing where the guard sees it, and under the
robust strategies no more than the honest sites' own disagreement."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders import MemoryGrid
from federation import small_config, small_federation
from flwr.app import ArrayRecord, Message, RecordDict

from server.admission import Admission, admit
from server.rounds import run_rounds
from server.statistics import federated_plan
from server.strategies import build_strategy
from server.strategies.guarded import Guard
from server.training import Training
from shared_model.config import RunConfig
from shared_model.mergeable import Validation
from shared_model.messages import ARRAYS, TRAIN, TrainReply, Weights, read_weights
from shared_model.model import build_model
from shared_model.plan import PreprocessingPlan

SIZES, POISONED = (60, 60, 70, 70, 80, 80, 90), 4
ROBUST = ("fedmedian", "fedtrimmedavg", "multikrum", "krum", "bulyan")
Poison = Callable[[Weights, Weights], Weights]


def _nan(start: Weights, update: Weights) -> Weights:
    return {name: tensor * float("nan") for name, tensor in update.items()}


def _times(factor: float) -> Poison:
    return lambda start, update: {name: start[name] + factor * (update[name] - start[name]) for name in update}


POISONS: dict[str, Poison] = {"NaN": _nan, "x1000": _times(1000.0), "sign flip": _times(-1.0)}


def _poisoned(grid: MemoryGrid, poison: Poison, seen: dict[int, list[Weights]]) -> MemoryGrid:
    """The same sites, of which one answers a poisoned update; ``seen`` collects what each would have sent."""

    def spoil(node: int) -> Callable[[Message], Message | RecordDict | None]:
        honest = grid.nodes[node]

        def answer(message: Message) -> Message | RecordDict | None:
            reply = honest(message)
            if message.metadata.message_type == TRAIN and isinstance(reply, Message):
                update = read_weights(reply.content)
                seen.setdefault(node, []).append(update)
                if node == POISONED:
                    reply.content[ARRAYS] = ArrayRecord(poison(read_weights(message.content), update))
            return reply

        return answer

    return MemoryGrid({node: spoil(node) for node in grid.nodes})


def _federation(folder: Path, config: RunConfig) -> tuple[MemoryGrid, Admission, PreprocessingPlan, Weights]:
    grid = small_federation(folder, config, sizes=SIZES)
    admission = admit(grid, config, encoder="")
    plan = federated_plan(grid, admission, config)[0]
    return grid, admission, plan, dict(build_model(config.model_for(plan), seed=1).state_dict())


def _after_one_round(folder: Path, strategy: str, poison: Poison) -> tuple[Training, Weights, dict[int, Weights]]:
    """Training, the aggregated weights, and what each site would have sent honestly."""
    config = small_config(strategy=strategy, rounds=1, local_steps=3, learning_rate=1e-2)
    grid, admission, plan, initial = _federation(folder, config)
    seen: dict[int, list[Weights]] = {}
    after: list[Weights] = []
    built = build_strategy(config, len(admission.sites))
    training = run_rounds(
        _poisoned(grid, poison, seen),
        admission,
        built,
        initial,
        plan,
        config,
        lambda rounds: after.append(rounds.weights),
    )
    return training, after[0], {node: held[0] for node, held in seen.items()}


def _flat(weights: Weights) -> torch.Tensor:
    return torch.cat([weights[name].flatten().double() for name in sorted(weights)])


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "multikrum", "bulyan"])
@pytest.mark.parametrize("kind", ["NaN", "x1000"])
def test_what_the_guard_sees_never_reaches_the_strategy(tmp_path: Path, strategy: str, kind: str) -> None:
    training, after, _ = _after_one_round(tmp_path, strategy, POISONS[kind])
    why = training.rounds[0].failed[f"Site {POISONED}"]
    assert ("is not finite" if kind == "NaN" else "deviations over the median") in why
    assert len(training.rounds[0].replied) == len(SIZES) - 1
    assert _flat(after).isfinite().all()


@pytest.mark.parametrize("strategy", ROBUST)
@pytest.mark.parametrize("kind", ["sign flip", "label flip"])
def test_what_it_cannot_see_stays_within_the_honest_sites_disagreement(
    tmp_path: Path, strategy: str, kind: str
) -> None:
    """The stated bound: no further from the honest mean than twice the honest site that is furthest from it."""
    poison = _label_flip(tmp_path / "flip", strategy) if kind == "label flip" else POISONS[kind]
    training, after, sent = _after_one_round(tmp_path / "run", strategy, poison)
    assert not training.rounds[0].failed
    honest = torch.stack([_flat(update) for node, update in sent.items() if node != POISONED])
    furthest = (honest - honest.mean(0)).norm(dim=1).max()
    assert (_flat(after) - honest.mean(0)).norm() <= 2 * furthest


def _label_flip(folder: Path, strategy: str) -> Poison:
    """What the site would send had it trained with every label turned round."""
    config = small_config(strategy=strategy, rounds=1, local_steps=3, learning_rate=1e-2)
    _, admission, plan, initial = _federation(folder, config)
    flipped = small_federation(folder / "turned", config, sizes=SIZES, turned=True)
    seen: dict[int, list[Weights]] = {}
    built = build_strategy(config, len(admission.sites))
    run_rounds(_poisoned(flipped, _times(1.0), seen), admission, built, initial, plan, config)
    return lambda start, update: seen[POISONED][0]


def test_without_a_guard_the_same_update_takes_the_average_with_it(tmp_path: Path) -> None:
    """Proof that the poison is one: with ``norm-limit = 0`` FedAvg goes far outside the honest sites."""
    config = small_config(strategy="fedavg", rounds=1, local_steps=3, learning_rate=1e-2, norm_limit=0.0)
    grid, admission, plan, initial = _federation(tmp_path, config)
    seen: dict[int, list[Weights]] = {}
    after: list[Weights] = []
    built = build_strategy(config, len(admission.sites))
    run_rounds(
        _poisoned(grid, _times(1000.0), seen),
        admission, built, initial, plan, config, lambda rounds: after.append(rounds.weights),
    )  # fmt: skip
    honest = torch.stack([_flat(held[0]) for node, held in seen.items() if node != POISONED])
    assert (_flat(after[0]) - honest.mean(0)).norm() > 50 * (honest - honest.mean(0)).norm(dim=1).max()


def _reply(update: Weights, **changes: object) -> TrainReply:
    held = {
        "round": 2,
        "weights": update,
        "examples": 40,
        "train_loss": 0.1,
        "seconds": 1.0,
        "validation": Validation(),
    }
    return TrainReply(**(held | changes))


START: Weights = {"w": torch.zeros(4)}


def _guard() -> Guard:
    from shared_model.messages import SiteCard

    card = SiteCard(site="A", contract="c", encoder="e", device="cpu", stays=50, patients=50, deaths=10)
    return Guard(10.0, {"A": card})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"round": 1}, "of round 1, this is round 2"),
        ({"round": 3}, "of round 3, this is round 2"),
        ({"examples": 51}, "claims 51 stays, the site was admitted with 50"),
        ({"examples": 0}, "no training examples"),
        ({"weights": {"w": torch.zeros(5)}}, "another shape"),
        ({"weights": {"v": torch.zeros(4)}}, "other names"),
        ({"weights": {"w": torch.zeros(4, dtype=torch.float64)}}, "dtype"),
        ({"control": {"w": torch.full((4,), float("inf"))}}, "not finite"),
    ],
)
def test_the_guard_names_what_is_wrong(changes: dict[str, object], why: str) -> None:
    kept, rejected = _guard().admit(2, {"A": _reply({"w": torch.ones(4)}, **changes)}, START)
    assert kept == [] and why in rejected["A"]


def test_an_update_of_an_earlier_round_is_not_taken_again() -> None:
    guard, update = _guard(), {"w": torch.ones(4)}
    assert guard.admit(1, {"A": _reply(update, round=1)}, START) == (["A"], {})
    kept, rejected = guard.admit(2, {"A": _reply(update)}, START)
    assert kept == [] and "the same as one of an earlier round" in rejected["A"]


def test_large_and_small_honest_sites_are_both_kept() -> None:
    """A site of ten times the steps moves ten times as far; two sites cannot tell who is the odd one."""
    lengths = [1.0, 1.2, 0.8, 1.1, 10.0]
    replies = {f"S{n}": _reply({"w": torch.full((4,), length)}) for n, length in enumerate(lengths)}
    assert _guard().admit(2, replies, START)[1] == {}
    two = {f"S{n}": _reply({"w": torch.full((4,), length)}) for n, length in enumerate([1.0, 1e6])}
    assert _guard().admit(2, two, START)[1] == {}
