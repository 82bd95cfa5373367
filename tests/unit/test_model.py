"""The model, its loss and its inputs: what a stay's logit may depend on, and what it may not."""

from dataclasses import replace

import pytest
import torch
from builders import model_sizes, patients, tiny_config, tiny_scaler
from torch import Tensor, nn
from torch.nn import functional as F

from client.training import Update, train_local
from shared_model.batch import PatientData
from shared_model.errors import ContractError
from shared_model.inputs import Batch, carry_forward
from shared_model.losses import focal_loss
from shared_model.model import FusionModel, build_model, load_model
from shared_model.predict import predict

CPU, NAN = torch.device("cpu"), float("nan")
CONFIG = tiny_config()


def _model(seed: int = 0) -> FusionModel:
    return build_model(model_sizes(CONFIG), seed=seed).eval()


def _batch(data: PatientData, *index: int) -> Batch:
    return data.batch(torch.tensor(index), tiny_scaler())


@pytest.mark.parametrize(("alpha", "gamma"), [(0.5, 2.0), (0.25, 0.0), (0.9, 0.5), (0.1, 5.0)])
def test_focal_loss_is_the_closed_formula(alpha: float, gamma: float) -> None:
    logit, label = torch.linspace(-4, 4, 9, dtype=torch.float64), torch.arange(9).double() % 2
    p = torch.where(label == 1, logit.sigmoid(), 1 - logit.sigmoid())
    expected = -torch.where(label == 1, alpha, 1 - alpha) * (1 - p) ** gamma * p.log()
    torch.testing.assert_close(focal_loss(logit, label, alpha=alpha, gamma=gamma), expected)


def test_focal_loss_with_gamma_0_and_alpha_a_half_is_half_the_cross_entropy() -> None:
    logit, label = torch.linspace(-9, 9, 11), torch.arange(11).float() % 2
    expected = F.binary_cross_entropy_with_logits(logit, label, reduction="none") / 2
    torch.testing.assert_close(focal_loss(logit, label, alpha=0.5, gamma=0.0), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_and_its_gradient_are_finite_at_extreme_logits(gamma: float) -> None:
    logit = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4]).repeat(2).requires_grad_()
    label = torch.arange(10).ge(5).float()
    loss = focal_loss(logit, label, alpha=0.5, gamma=gamma)
    loss.sum().backward()
    assert loss.isfinite().all() and (loss >= 0).all()
    assert logit.grad.isfinite().all()
    assert loss[4].item() == pytest.approx(5000.0) and loss[0].item() == 0.0  # certain and wrong; certain and right


def test_carry_forward_golden_example() -> None:
    raw = torch.tensor([[[NAN, 7.0], [1.0, NAN], [NAN, NAN], [3.0, NAN]]])
    filled, mask, age = carry_forward(raw)
    expected = torch.tensor([[[NAN, 7.0], [1.0, 7.0], [1.0, 7.0], [3.0, 7.0]]])
    torch.testing.assert_close(filled, expected, equal_nan=True, rtol=0, atol=0)
    assert mask.tolist() == [[[0, 1], [1, 0], [0, 0], [1, 0]]]
    assert age.tolist() == [[[1.0, 0.0], [0.0, 0.25], [0.25, 0.5], [0.0, 0.75]]]


@pytest.mark.parametrize("change", [5.0, NAN])
def test_carry_forward_reads_only_the_past(change: float) -> None:
    raw = patients(6, windows=8, missing=0.6).series_NTC
    before = carry_forward(raw)
    for window in range(8):
        altered = raw.clone()
        altered[:, window:] = change
        for old, new in zip(before, carry_forward(altered), strict=True):
            torch.testing.assert_close(old[:, :window], new[:, :window], equal_nan=True, rtol=0, atol=0)


def test_carry_forward_leaves_its_input_alone() -> None:
    raw = patients(3).series_NTC
    kept = raw.clone()
    carry_forward(raw)
    torch.testing.assert_close(raw, kept, equal_nan=True, rtol=0, atol=0)


def test_a_batch_is_bounded_and_its_missing_values_are_zero() -> None:
    data = patients(4)
    data.static_NF[0, 0], data.static_NF[1, 0], data.static_NF[2, 0] = 1e9, -float("inf"), NAN
    batch = _batch(data, 0, 1, 2)
    assert batch.static_BF[:, 0].tolist() == [5.0, -5.0, 0.0]
    assert batch.static_mask_BF[:, 0].tolist() == [1.0, 1.0, 0.0]
    for name in ("static_BF", "series_BTC", "series_mask_BTC", "series_age_BTC", "text_BKE"):
        assert getattr(batch, name).isfinite().all(), name


def test_the_logit_of_a_stay_does_not_depend_on_the_batch_it_is_in() -> None:
    model, data = _model(), patients(40, windows=4, notes=6)
    assert set(data.chunk_count_N.tolist()) >= {0, 1, 6}
    whole = model(_batch(data, *range(40)))
    alone = torch.cat([model(_batch(data, n)) for n in range(40)])
    backwards = model(_batch(data, *reversed(range(40)))).flip(0)
    torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(backwards, whole, rtol=1e-5, atol=1e-6)
    assert whole.std() > 1e-3  # stays do differ


def test_note_chunks_beyond_a_stays_length_are_not_read() -> None:
    model, batch = _model(), _batch(patients(12, notes=6), *range(12))
    noisy = batch.text_BKE.clone()
    noisy[torch.arange(noisy.shape[1]) >= batch.text_length_B[:, None]] = 1e3
    torch.testing.assert_close(model(replace(batch, text_BKE=noisy)), model(batch), rtol=0, atol=0)


def test_every_modality_reaches_the_logit() -> None:
    model, data = _model(), patients(12, notes=6)
    batch = _batch(data, *range(12))
    names = ("static_BF", "static_mask_BF", "series_BTC", "series_mask_BTC", "series_age_BTC", "text_BKE")
    for name in names:
        changed = replace(batch, **{name: getattr(batch, name) * 0.5 + 0.25})
        assert (model(changed) - model(batch)).abs().max() > 1e-6, name


def _gradient_of_missing(model: FusionModel, batch: Batch) -> list[bool]:
    """Which learned vectors (static, series, text) receive gradient."""
    logit = model(batch)
    assert logit.isfinite().all()
    logit.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    return model.missing.weight.grad.abs().sum(1).gt(0).tolist()


def test_a_batch_without_any_note_gets_the_learned_vector() -> None:
    data = patients(6, notes=0, missing=0.0)
    assert data.embedding_ME.shape == (0, CONFIG.text_dimension)
    assert _gradient_of_missing(_model(), _batch(data, *range(6))) == [False, False, True]


def test_a_stay_without_a_single_measurement_gets_the_learned_vectors() -> None:
    data = patients(6, notes=2, missing=0.0)
    data.static_NF[0], data.series_NTC[0] = NAN, NAN
    data.chunk_count_N[:] = 1
    data.chunk_count_N[0] = 0
    assert _gradient_of_missing(_model(), _batch(data, 0)) == [True, True, True]
    assert _gradient_of_missing(_model(), _batch(data, 0, 1, 2)) == [True, True, True]
    assert _gradient_of_missing(_model(), _batch(data, 1, 2)) == [False, False, False]


def test_predict_gives_probabilities_in_stored_order_whatever_the_batch_size() -> None:
    model, data = _model(), patients(10)
    scores = predict(model, data, tiny_scaler(), CPU, size=3)
    expected = model(_batch(data, *range(10))).detach().sigmoid().numpy()
    assert scores == pytest.approx(expected, rel=1e-5)
    assert len(predict(model, data.subset(torch.arange(0)), tiny_scaler(), CPU)) == 0


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_build_model_follows_from_the_seed() -> None:
    assert _same(_model(3).state_dict(), _model(3).state_dict())
    assert not _same(_model(3).state_dict(), _model(4).state_dict())


def test_build_model_does_not_disturb_the_random_state() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    build_model(model_sizes(CONFIG), seed=5)
    assert torch.equal(torch.rand(3), expected)


def test_load_model_round_trip_keeps_the_logits() -> None:
    model, batch = _model(3), _batch(patients(4), 0, 1, 2)
    loaded = load_model(model_sizes(CONFIG), model.state_dict()).eval()
    assert torch.equal(loaded(batch), model(batch))


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {("x" if name == "missing.weight" else name): tensor for name, tensor in weights.items()}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda weights: build_model(model_sizes(tiny_config(fusion_width=6)), seed=0).state_dict(),
        lambda weights: {name: tensor for name, tensor in weights.items() if name != "missing.weight"},
        lambda weights: weights | {"extra": torch.zeros(1)},
        _renamed,
        lambda weights: {},
    ],
    ids=["other shapes", "one absent", "one too many", "one renamed", "none"],
)
def test_load_model_refuses_weights_of_another_model(spoil) -> None:
    with pytest.raises(ContractError, match="weights do not fit"):
        load_model(model_sizes(CONFIG), spoil(dict(_model().state_dict())))


def _train(seed: int, *, epochs: int = 8, data: PatientData | None = None) -> tuple[Update, FusionModel]:
    model = build_model(model_sizes(CONFIG), seed=0)
    held, config = data or patients(48, missing=0.1), tiny_config(local_epochs=epochs, dropout=0.3)
    return train_local(model, held, tiny_scaler(), config, learning_rate=0.01, seed=seed, device=CPU), model


def test_local_training_learns_a_separable_set() -> None:
    data = patients(48, missing=0.1)
    first, _ = _train(1, epochs=1)
    update, model = _train(1, epochs=12)
    assert update.loss < 0.7 * first.loss
    scores = predict(model, data, tiny_scaler(), CPU)
    assert scores[data.label_N.numpy()].mean() > scores[~data.label_N.numpy()].mean() + 0.3
    assert update.examples == 48 and update.seconds > 0


def test_local_training_follows_from_the_seed_alone() -> None:
    one, _ = _train(1)
    torch.rand(7)  # whatever happened before
    again, _ = _train(1)
    other, _ = _train(2)
    assert _same(one.weights, again.weights) and one.loss == again.loss
    assert not _same(one.weights, other.weights)


def test_the_update_is_a_copy_of_the_trained_weights() -> None:
    update, model = _train(1, epochs=1)
    assert _same(update.weights, model.state_dict())
    with torch.no_grad():
        model.missing.weight.add_(1)
    assert not _same(update.weights, model.state_dict())
    assert not _same(update.weights, build_model(model_sizes(CONFIG), seed=0).state_dict())


def test_there_is_no_batch_norm_and_no_buffer_to_average() -> None:
    model = _model()
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    assert norms == [] and list(model.buffers()) == []
    assert any(isinstance(module, nn.LayerNorm) for module in model.modules())
