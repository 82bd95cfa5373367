"""Every strategy trains real sites; FedProx and SCAFFOLD do the arithmetic of their papers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from builders import model_sizes, patients, tiny_plan, write_store
from federation import STUDY, small_config, small_federation
from safetensors.torch import load_file

from client.site_state import KEPT_RUNS, load_state, save_state, state_folder
from client.training import train_local
from server.admission import Admission, admit
from server.rounds import personalise, run_rounds
from server.statistics import federated_plan
from server.strategies import build_strategy
from server.strategies.scaffold import moved_control
from server.training import Training
from shared_model.batch import PatientData, open_store
from shared_model.config import RunConfig, StrategyName
from shared_model.errors import ConfigError, FederationError, StoreError
from shared_model.inputs import Scaler
from shared_model.model import build_model
from shared_model.plan import PreprocessingPlan
from shared_model.study import Study

ROBUST = {"krum": 3, "multikrum": 3, "bulyan": 3}  # sites, none of them hostile


def _trained(
    folder: Path, config: RunConfig, sizes: tuple[int, ...] = (90, 120)
) -> tuple[Training, Admission, PreprocessingPlan]:
    grid = small_federation(folder, config, sizes=sizes)
    admission = admit(grid, config, encoder="")
    plan, _, _ = federated_plan(grid, admission, config)
    initial = dict(build_model(config.model_for(plan), seed=1).state_dict())
    strategy = build_strategy(config, len(admission.sites))
    return run_rounds(grid, admission, strategy, initial, plan, config), admission, plan


@pytest.mark.parametrize("name", get_args(StrategyName))
def test_every_strategy_learns(tmp_path: Path, name: StrategyName) -> None:
    sites = ROBUST.get(name, 2)
    config = small_config(strategy=name, rounds=5, byzantine_sites=0, learning_rate=5e-3, min_sites=sites)
    training, _, _ = _trained(tmp_path, config, sizes=(90, 120, 80)[:sites])
    losses = [record.validation_loss for record in training.rounds]
    assert all(loss is not None for loss in losses) and losses[-1] < 0.97 * losses[0]
    assert training.validation.auroc > 0.75
    assert all(tensor.dtype == torch.float32 for tensor in training.weights.values())


@pytest.mark.parametrize(("name", "sites"), [("krum", 4), ("multikrum", 4), ("bulyan", 6)])
def test_a_robust_strategy_says_how_many_sites_it_needs(name: StrategyName, sites: int) -> None:
    with pytest.raises(ConfigError, match=rf"strategy {name}: 1 hostile of {sites} sites .* needs {sites + 1} sites"):
        build_strategy(small_config(strategy=name), sites)
    build_strategy(small_config(strategy=name), sites + 1)


def test_the_proximal_term_pulls_the_weights_back() -> None:
    """A whole model stays closer to where it began; the numbers are compared in the test of each step's gradient."""
    data, scaler, moved = patients(16, windows=3), Scaler(tiny_plan()), {}
    for mu in (0.0, 50.0):
        config = small_config(strategy="fedprox", proximal_mu=mu, local_steps=6, learning_rate=1e-2, weight_decay=0.0)
        model = build_model(model_sizes(config), seed=1)
        start = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        train_local(model, data, scaler, config, learning_rate=1e-2, seed=3, device=torch.device("cpu"))
        moved[mu] = float((torch.cat([p.detach().flatten() for p in model.parameters()]) - start).norm())
    assert moved[50.0] < 0.7 * moved[0.0]


class _Line(torch.nn.Module):
    """Logit = w x, on the first static feature: its gradients can be computed by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([[0.5]]))

    def forward(self, batch: object) -> torch.Tensor:
        return (batch.static_BF[:, :1] @ self.w).squeeze(-1)  # type: ignore[attr-defined]


def _cross_entropy_gradient(w: float, x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean((1 / (1 + np.exp(-w * x)) - y) * x))


@pytest.mark.parametrize(("mu", "correction"), [(0.0, None), (3.0, None), (0.0, 0.2)])
def test_each_step_has_the_gradient_of_the_paper(
    monkeypatch: pytest.MonkeyPatch, mu: float, correction: float | None
) -> None:
    """Plain SGD in AdamW's place, three full-batch steps, against numpy: FedProx's g + mu (w - w0), SCAFFOLD's
    g + c - c_i; and SCAFFOLD's new c_i is the paper's option II, c_i - c + (w0 - w) / (K eta)."""
    monkeypatch.setattr("client.training.AdamW", lambda groups, lr, fused: torch.optim.SGD(groups, lr=lr))
    monkeypatch.setattr("client.training.LARGEST_NORM", 1e9)
    data = patients(16, windows=3, missing=0.0)
    config = small_config(strategy="fedprox", proximal_mu=mu, local_steps=3, loss="cross_entropy", weight_decay=0.0)
    c = None if correction is None else {"w": torch.tensor([[correction]])}
    update = train_local(
        _Line(),  # type: ignore[arg-type]
        data,
        Scaler(tiny_plan()),
        config,
        learning_rate=0.1,
        seed=1,
        device=torch.device("cpu"),
        correction=c,
    )
    x, y = data.static_NF[:, 0].clamp(-5, 5).double().numpy(), data.label_N.double().numpy()
    w, plain = 0.5, []
    for _ in range(3):
        plain.append(_cross_entropy_gradient(w, x, y))
        w -= 0.1 * (plain[-1] + mu * (w - 0.5) + (correction or 0.0))
    assert float(update.weights["w"]) == pytest.approx(w, abs=1e-5)
    if correction is not None:
        option_two = -correction + (0.5 - w) / (3 * 0.1)
        assert float(update.gradient["w"]) == pytest.approx(option_two, abs=1e-5) == pytest.approx(np.mean(plain))


def test_the_servers_control_variate_moves_by_the_share_that_answered() -> None:
    """c + |S| / N times the mean change, weighted by stays: (3 * 1 + 1 * 5) / 4 = 2 of two sites of four."""
    found = moved_control(
        {"w": torch.tensor([10.0])}, [(30, {"w": torch.tensor([1.0])}), (10, {"w": torch.tensor([5.0])})], sites=4
    )
    assert found["w"].tolist() == [11.0]


def test_a_site_keeps_its_control_variate_on_disk_and_they_average_to_the_servers(tmp_path: Path) -> None:
    config = small_config(strategy="scaffold", rounds=3)
    grid = small_federation(tmp_path, config)
    admission = admit(grid, config, encoder="")
    plan, _, _ = federated_plan(grid, admission, config)
    strategy = build_strategy(config, 2)
    run_rounds(grid, admission, strategy, dict(build_model(config.model_for(plan), seed=1).state_dict()), plan, config)
    kept = [load_file(next(tmp_path.glob(f"site{n}/store.state/run-1/*/control-00003.safetensors"))) for n in (1, 2)]
    stays = [admission.sites[n].patients for n in (1, 2)]
    for name, held in strategy.control.items():
        own = [c[name] * count / sum(stays) for c, count in zip(kept, stays, strict=True)]
        assert torch.allclose(held, own[0] + own[1], atol=1e-6)
    assert any(c.abs().max() > 0 for c in strategy.control.values())


def test_state_of_a_few_runs_is_kept_and_a_broken_file_is_named(tmp_path: Path) -> None:
    for run in range(KEPT_RUNS + 3):
        save_state(state_folder(tmp_path / "store", str(run)) / "trial", "control", {"w": torch.ones(2)})
    assert len(list((tmp_path / "store.state").iterdir())) == KEPT_RUNS
    folder = state_folder(tmp_path / "store", str(KEPT_RUNS + 2)) / "trial"
    assert load_state(folder, "control")["w"].tolist() == [1.0, 1.0] and load_state(folder, "other") is None
    (folder / "control.safetensors").write_bytes(b"half")
    with pytest.raises(StoreError, match=r"control\.safetensors: cannot be read"):
        load_state(folder, "control")


def test_fine_tuning_helps_each_site_and_its_weights_stay_there(tmp_path: Path) -> None:
    config = small_config(personalisation="finetune", finetune_epochs=8, rounds=1, learning_rate=1e-2)
    training, admission, plan = _trained(tmp_path, config)
    grid = small_federation(tmp_path, config)
    found = personalise(grid, admission, training, plan, config)
    assert list(found) == ["Site 1", "Site 2"]
    assert all(found[site].loss < training.sites[site].loss for site in found)
    assert len(list(tmp_path.glob("site*/store.state/run-1/*/personal.safetensors"))) == 2
    assert personalise(grid, admission, training, plan, small_config()) == {}


def test_local_normalisation_makes_up_for_a_site_that_measures_in_another_unit(tmp_path: Path) -> None:
    """One site's values are a hundredth: under the federation's scale they all look alike."""
    found = {}
    for kind in ("none", "local_normalisation"):
        config = small_config(personalisation=kind, rounds=4, learning_rate=5e-3)
        folder = tmp_path / kind
        small_federation(folder, config)
        spoil(folder / "site1", _in_hundredths)
        training, _, _ = _trained(folder, config)
        found[kind] = training.sites["Site 1"].auroc
    assert found["local_normalisation"] > found["none"] + 0.05


def spoil(site: Path, change: Callable[[PatientData], object]) -> None:
    """Change the patients of a store."""
    data = open_store(site / "store")
    change(data)
    write_store(site / "store", data, study=Study(**STUDY))


def _in_hundredths(data: PatientData) -> None:
    data.static_NF.div_(100)
    data.series_NTC.div_(100)


def test_rounds_without_a_better_validation_end_the_run(tmp_path: Path) -> None:
    config = small_config(rounds=30, patience=2, learning_rate=0.3)
    training, _, _ = _trained(tmp_path, config)
    assert len(training.rounds) == training.improved_round + 3 < 30  # a round's validation is known a round later
    assert training.best.auroc == max(record.validation_auroc for record in training.rounds)
    assert training.validation.auroc == training.rounds[training.best_round - 1].validation_auroc


def test_two_runs_agree_to_the_last_bit(tmp_path: Path) -> None:
    config = small_config(strategy="scaffold", dropout=0.2)
    one, two = (_trained(tmp_path / name, config)[0].weights for name in "ab")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_feature_that_one_site_never_measures_is_trained_on_by_the_others(tmp_path: Path) -> None:
    config = small_config(rounds=1)
    small_federation(tmp_path, config)
    spoil(tmp_path / "site1", lambda data: data.static_NF[:, :2].fill_(float("nan")))
    training, _, plan = _trained(tmp_path, config)
    assert all(feature.kept and 0.3 < feature.missing < 0.9 for feature in plan.static_features[:2])
    assert training.rounds[0].replied == ["Site 1", "Site 2"]


def test_what_no_site_measures_is_no_input_of_the_model(tmp_path: Path) -> None:
    config = small_config(rounds=1)
    small_federation(tmp_path, config)
    for site in ("site1", "site2"):
        spoil(tmp_path / site, lambda data: data.series_NTC[:, :, 0].fill_(float("nan")))
    training, _, plan = _trained(tmp_path, config)
    assert [feature.name for feature in plan.series_features if not feature.kept] == [config.series[0]]
    assert training.weights["series.lstm.weight_ih_l0"].shape[1] == 3 * (len(config.series) - 1)


def test_weights_that_belong_to_another_plan_are_refused_by_every_site(tmp_path: Path) -> None:
    config = small_config(rounds=1)
    grid = small_federation(tmp_path, config)
    admission = admit(grid, config, encoder="")
    plan, _, _ = federated_plan(grid, admission, config)
    dropped = replace(plan, static_features=(replace(plan.static_features[0], reason="x"), *plan.static_features[1:]))
    initial = dict(build_model(config.model_for(plan), seed=1).state_dict())
    with pytest.raises(FederationError, match="Site 1: ContractError: model: weights do not fit"):
        run_rounds(grid, admission, build_strategy(config, 2), initial, dropped, config)
