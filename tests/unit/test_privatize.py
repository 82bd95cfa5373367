"""DP-SGD: all the noise that was paid for, whoever was drawn; a coin for each patient; nothing from the run's seed."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import model_sizes, patients, tiny_config, tiny_plan, tiny_scaler, write_site, write_store
from scipy.stats import kstest
from torch import Tensor

from client import task
from client.account import Account
from client.audit import Occasion
from client.privatize import poisson, train_private
from client.site import load_site
from client.task import Asked
from client.training import Update, parameter_groups
from shared_model.batch import PatientData
from shared_model.config import RunConfig
from shared_model.entropy import gaussian
from shared_model.errors import ConfigError, ContractError
from shared_model.losses import training_loss
from shared_model.mergeable import Validation
from shared_model.messages import RoundOrder, weights_content
from shared_model.model import build_model
from shared_model.packing import unpacked
from shared_model.privacy import Mechanism, PrivacyPlan
from shared_model.trial import Trial

CPU = torch.device("cpu")


class Descent(torch.optim.SGD):
    """So that a round's change is the learning rate times the noised gradients, to be looked at."""

    def __init__(self, groups: list[dict[str, object]], lr: float, fused: bool) -> None:
        super().__init__(groups, lr=lr)


def plan(*, noise: float = 1.0, rate: float = 0.25, steps: int = 1, clip: float = 1.0) -> PrivacyPlan:
    return PrivacyPlan(
        epsilon=1.0,
        delta=1e-3,
        accountant="rdp",
        clip=clip,
        count=None,
        statistics=Mechanism(10.0),
        validation=Mechanism(10.0),
        training=Mechanism(noise, rate, 5 * steps),
        steps_a_round=steps,
    )


def visits(count: int = 40, *, notes: int = 3, windows: int = 4) -> PatientData:
    """Every fourth patient has three stays, one of which has no notes."""
    data = patients(count, windows=windows, notes=notes)
    owner = torch.tensor([p for p in range(count) for _ in range(3 if p % 4 == 0 else 1)][:count])
    return replace(data, patient_N=owner + 7000)


def trained(
    data: PatientData, paid: PrivacyPlan, *, lr: float = 1.0, entropy: int | None = None, **settings: object
) -> tuple[Update, dict[str, Tensor]]:
    """The update, and by how much each weight fell."""
    config = tiny_config(**({"weight_decay": 0.0, "batch_size": 10} | settings))
    model = build_model(model_sizes(config), seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    update = train_private(model, data, tiny_scaler(), config, plan=paid, learning_rate=lr, device=CPU, entropy=entropy)
    return update, {name: before[name].double() - tensor for name, tensor in update.weights.items()}


def spread(change: dict[str, Tensor], part: str = "") -> tuple[float, int]:
    """Standard deviation around zero of the changes of these parameters, and how many there are."""
    numbers = torch.cat([tensor.flatten() for name, tensor in change.items() if name.startswith(part)])
    return float(numbers.square().mean().sqrt()), len(numbers)


@pytest.fixture
def descent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.privatize.AdamW", Descent)


@pytest.mark.usefixtures("descent")
@pytest.mark.parametrize(("noise", "clip", "batch", "steps"), [(2.0, 0.5, 10, 1), (0.7, 1.0, 25, 1), (2.0, 0.5, 10, 4)])
def test_an_empty_draw_gets_all_the_noise(noise: float, clip: float, batch: int, steps: int) -> None:
    """sigma clip / expected patients, in every step; the bounds are five standard errors."""
    sizes = dict.fromkeys(("static_hidden", "series_hidden", "text_hidden"), 40)
    paid = plan(noise=noise, rate=0.0, clip=clip, steps=steps)
    update, change = trained(visits(), paid, batch_size=batch, **sizes)
    found, count = spread(change)
    assert count > 50_000 and math.isnan(update.loss)
    assert found == pytest.approx(math.sqrt(steps) * noise * clip / batch, rel=5 / math.sqrt(2 * count))
    mean = float(torch.cat([tensor.flatten() for tensor in change.values()]).mean())
    assert abs(mean) < 5 * found / math.sqrt(count)


@pytest.mark.usefixtures("descent")
def test_what_no_drawn_stay_has_is_noised_like_everything_else() -> None:
    """No notes at all: the text encoder never runs; its noise is not smaller, and not divided by who was drawn."""
    update, change = trained(visits(notes=0), plan(noise=3.0, rate=1.0), text_hidden=40)
    found, count = spread(change, "text.lstm")
    assert count > 10_000 and math.isfinite(update.loss)
    assert found == pytest.approx(3.0 * 1.0 / 10, rel=5 / math.sqrt(2 * count))


@pytest.mark.usefixtures("descent")
def test_a_step_moves_by_the_clip_of_each_patient_over_the_expected_number() -> None:
    """All 27 patients drawn where 10 were expected: 2.7 clips at most, and near it where all gradients are clipped."""
    data = visits()
    assert data.patients < len(data)
    _, change = trained(data, plan(noise=1e-12, rate=1.0, clip=1e-5), lr=1000.0)
    length = 1e-3 * float(torch.cat([tensor.flatten() for tensor in change.values()]).norm())
    assert 0.1 * data.patients * 1e-5 / 10 < length <= 1.001 * data.patients * 1e-5 / 10


def test_without_noise_and_clipping_it_is_a_full_batch_of_adamw() -> None:
    """Mean over patients of the mean over their stays; weight decay as ever."""
    data, settings = visits(), {"weight_decay": 0.1, "batch_size": visits().patients}
    config = tiny_config(**settings)
    model = build_model(model_sizes(config), seed=1).train()
    stays = torch.tensor([(data.patient_N == p).sum() for p in data.patient_N.tolist()])
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=1e-2)
    batch = data.batch(torch.arange(len(data)), tiny_scaler())
    for _ in range(3):
        optimizer.zero_grad()
        loss_B = training_loss(model(batch), batch.label_B, config)
        ((loss_B / stays).sum() / data.patients).backward()
        optimizer.step()
    update, _ = trained(data, plan(noise=1e-25, rate=1.0, clip=1e3, steps=3), lr=1e-2, **settings)
    for name, tensor in model.state_dict().items():
        apart = (update.weights[name] - tensor).abs()
        assert float(apart.median()) < 1e-5 and float(apart.max()) < 5e-3, name  # the sign of a gradient near 0


@pytest.mark.usefixtures("descent")
def test_the_proximal_term_comes_after_the_noise() -> None:
    settings = {"strategy": "fedprox", "proximal_mu": 0.5}
    _, first = trained(visits(), plan(rate=0.0), entropy=3)
    _, plain = trained(visits(), plan(rate=0.0, steps=2), entropy=3)
    _, drawn_back = trained(visits(), plan(rate=0.0, steps=2), entropy=3, **settings)
    for name, fell in plain.items():
        assert torch.allclose(drawn_back[name], fell - 0.5 * first[name], atol=1e-5)


@pytest.mark.usefixtures("descent")  # AdamW's first step is a matter of signs
def test_nothing_follows_from_the_seed_of_the_run() -> None:
    one, two = (trained(visits(), plan(), seed=5)[0].weights for _ in range(2))
    assert not any(torch.equal(one[name], two[name]) for name in one)
    three, four = (trained(visits(), plan(), entropy=9, dropout=0.3)[0].weights for _ in range(2))
    assert all(torch.equal(three[name], four[name]) for name in three)


@pytest.mark.usefixtures("descent")
def test_the_global_generator_plays_no_part_in_the_noise() -> None:
    torch.manual_seed(1)
    one, _ = trained(visits(), plan(rate=0.0))
    torch.manual_seed(1)
    two, _ = trained(visits(), plan(rate=0.0))
    assert not any(torch.equal(one.weights[name], two.weights[name]) for name in one.weights)


def test_dropout_masks_differ_between_fresh_processes_whose_generators_are_alike() -> None:
    torch.manual_seed(1)
    trained(visits(), plan())
    one = torch.rand(1)
    torch.manual_seed(1)
    trained(visits(), plan())
    assert not torch.equal(one, torch.rand(1))


def test_the_update_counts_patients_and_keeps_its_loss() -> None:
    data = visits()
    update, _ = trained(data, plan(rate=1.0, steps=2), lr=1e-3)
    assert update.examples == data.patients and 0 < update.loss < 5 and update.gradient is None


def source() -> Callable[[int], bytes]:
    return np.random.default_rng(11).bytes


def test_each_patient_is_drawn_by_a_coin_of_its_own() -> None:
    """Binomial sizes: mean n q, variance n q (1 - q); two patients come together as often as chance has it."""
    draws, coins = 5000, source()
    held = np.zeros((draws, 60), dtype=bool)
    for row in held:
        row[poisson(coins, 60, 0.3)] = True
    sizes = held.sum(1)
    assert sizes.mean() == pytest.approx(18, abs=5 * math.sqrt(12.6 / draws))
    assert sizes.var() == pytest.approx(12.6, rel=5 * math.sqrt(2 / draws))
    assert np.abs(held.mean(0) - 0.3).max() < 5 * math.sqrt(0.21 / draws)
    assert abs(np.corrcoef(held[:, 0], held[:, 1])[0, 1]) < 5 / math.sqrt(draws)
    assert len(poisson(coins, 60, 1.0)) == 60 and len(poisson(coins, 60, 0.0)) == 0


def test_the_noise_is_gaussian_in_double_precision() -> None:
    numbers = torch.from_numpy(gaussian(source(), 100_001))
    assert numbers.dtype == torch.float64 and len(numbers) == 100_001
    assert kstest(numbers.numpy(), "norm").pvalue > 1e-4
    halves = numbers[:50_000], numbers[50_001:]  # a cosine and its sine
    assert abs(np.corrcoef(*halves)[0, 1]) < 5 / math.sqrt(50_000)
    assert abs(np.corrcoef(halves[0] ** 2, halves[1] ** 2)[0, 1]) < 5 / math.sqrt(50_000)


def asked_of(folder: Path, order: RoundOrder) -> Asked:
    config = tiny_config(privacy_unit="patient", validation_fraction=0.2)
    write_store(folder / "store", visits(80, windows=24), study=config.study)
    content = unpacked(weights_content(dict(build_model(model_sizes(config), seed=0).state_dict()), order))
    occasion = Occasion(kind="train", run="r", run_id="1", round=1, trial="", asked="a")
    account = Account(plan=plan(steps=2), patients=53, deaths=20)
    site = load_site(write_site(folder))
    return Asked(content=content, site=site, config=config, run_id=1, occasion=occasion, account=account)


def test_a_private_reply_tells_what_is_paid_for_and_nothing_else(tmp_path: Path) -> None:
    reply = task.train(asked_of(tmp_path, RoundOrder(round=1, learning_rate=1e-3, plan=tiny_plan())))
    assert (reply.examples, reply.train_loss, reply.seconds, reply.control) == (53, None, None, None)
    assert reply.validation == Validation() and reply.mechanism == Mechanism(1.0, 0.25, 2)
    before = build_model(model_sizes(tiny_config()), seed=0).state_dict()
    assert not any(torch.equal(before[name], tensor) for name, tensor in reply.weights.items())


def test_a_private_run_has_no_trials(tmp_path: Path) -> None:
    order = RoundOrder(round=1, learning_rate=1e-3, plan=tiny_plan(), trial=Trial(name="without Mercy"))
    with pytest.raises(ContractError, match="trial: a private run is one trial"):
        task.train(asked_of(tmp_path, order))


def test_a_compiled_model_cannot_be_private() -> None:
    with pytest.raises(ConfigError, match=r"compile with privacy\.unit patient"):
        RunConfig.from_flat({"privacy.unit": "patient", "compile": True})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_code_is_private_on_a_gpu() -> None:
    data, config = visits(), tiny_config(batch_size=visits().patients, weight_decay=0.0)
    held = []
    for device in (CPU, torch.device("cuda")):
        model = build_model(model_sizes(config), seed=1)
        settings = {"plan": plan(noise=1e-3, rate=1.0, steps=2), "learning_rate": 1e-2, "device": device, "entropy": 4}
        held.append(train_private(model, data, tiny_scaler(), config, **settings).weights)
    for name, tensor in held[0].items():
        assert held[1][name].device == CPU and torch.allclose(held[1][name], tensor, atol=5e-3), name
