"""Per-patient gradients: exactly autograd's of one patient at a time, clipped once, whatever its stays lack."""

import copy
from dataclasses import replace

import pytest
import torch
from builders import model_sizes, patients, tiny_config, tiny_scaler
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from client.patient_gradients import Groups, blocks, patient_gradients
from client.unrolled import UnrolledLSTM, unrolled
from shared_model.batch import PatientData
from shared_model.losses import training_loss
from shared_model.model import FusionModel, build_model

CONFIG = tiny_config()
GROUPS = Groups(torch.tensor([0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 5, 6, 7, 8, 8, 9]), 10)


def visits(**changes: object) -> PatientData:
    """16 stays of 10 patients, some without notes, one each without static features, without series, without both."""
    data = patients(16, windows=5, seed=3, **changes)
    data.static_NF[[1, 12]], data.series_NTC[[2, 12]] = float("nan"), float("nan")
    return replace(data, patient_N=GROUPS.patient_B + 500)


def model_of(seed: int = 1) -> FusionModel:
    """With weights large enough that clipping has something to do."""
    model = build_model(model_sizes(CONFIG), seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model.train()


def one_at_a_time(model: FusionModel, data: PatientData) -> list[dict[str, Tensor]]:
    """By plain autograd, in batches of one stay: no padding, and no other patient."""
    found = []
    for patient in data.patient_N.unique():
        stays = (data.patient_N == patient).nonzero().flatten()
        batches = [data.batch(stay[None], tiny_scaler()) for stay in stays]
        loss = torch.stack([training_loss(model(b), b.label_B, CONFIG)[0] for b in batches]).mean()
        grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        named = zip(model.named_parameters(), grads, strict=True)
        found.append({n: torch.zeros_like(p) if g is None else g for (n, p), g in named})
    return found


def at_once(model: FusionModel, data: PatientData) -> list[dict[str, Tensor]]:
    """From one pass over all stays."""
    batch = data.batch(torch.arange(len(data)), tiny_scaler())
    with patient_gradients(model) as gradients:
        loss_B = training_loss(model(batch), batch.label_B, CONFIG)
        records = gradients.records(loss_B / GROUPS.stays_P[GROUPS.patient_B])
    found = []
    for patient in range(GROUPS.patients):
        factor_B = (GROUPS.patient_B == patient).float()
        held = {id(p): total for record in records for p, total in record.weighted(factor_B)}
        found.append({n: held.get(id(p), torch.zeros_like(p)) for n, p in model.named_parameters()})
    return found


def clipped(model: FusionModel, data: PatientData, clip: float) -> dict[str, Tensor]:
    batch = data.batch(torch.arange(len(data)), tiny_scaler())
    with patient_gradients(model) as gradients:
        total = gradients.clipped(training_loss(model(batch), batch.label_B, CONFIG), GROUPS, clip)
    return {n: total.get(p, torch.zeros_like(p)) for n, p in model.named_parameters()}


def norm(gradient: dict[str, Tensor]) -> float:
    return float(torch.cat([part.flatten() for part in gradient.values()]).norm())


def near(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.allclose(one[name], two[name], rtol=1e-4, atol=1e-6) for name in one)


@pytest.mark.parametrize("notes", [0, 1, 4])
def test_a_patients_gradient_is_autograds_of_its_own_stays_alone(notes: int) -> None:
    data, model = visits(notes=notes), model_of()
    assert (int(data.chunk_count_N.min()), int(data.chunk_count_N.max())) == (0, notes)
    expected, found = one_at_a_time(model, data), at_once(model, data)
    assert all(near(one, two) for one, two in zip(expected, found, strict=True))
    assert min(map(norm, expected)) > 1e-3


@pytest.mark.parametrize(("notes", "share"), [(0, 1.0), (4, 1.0), (4, 0.3)])
def test_each_patient_is_clipped_once_over_all_parameters_and_stays(notes: int, share: float) -> None:
    """Also where norms come from inner products (few rows) and from the matrices themselves (many)."""
    data, model = visits(notes=notes), model_of()
    alone = one_at_a_time(model, data)
    clip = share * sorted(map(norm, alone))[GROUPS.patients // 2]
    scaled = [{n: g * min(1.0, clip / norm(one)) for n, g in one.items()} for one in alone]
    assert near({n: sum(one[n] for one in scaled) for n in scaled[0]}, clipped(model, data, clip))


def test_adding_a_patient_with_many_stays_moves_the_sum_by_the_clip_at_most() -> None:
    data, model, clip = visits(notes=2), model_of(), 1e-3
    batch = data.batch(torch.arange(len(data)), tiny_scaler())
    without = data.batch(torch.arange(3, len(data)), tiny_scaler())  # the first patient has three stays
    others = Groups(GROUPS.patient_B[3:] - 1, GROUPS.patients - 1)
    with patient_gradients(model) as gradients:
        whole = gradients.clipped(training_loss(model(batch), batch.label_B, CONFIG), GROUPS, clip)
        less = gradients.clipped(training_loss(model(without), without.label_B, CONFIG), others, clip)
    moved = norm({n: whole[p] - less[p] for n, p in model.named_parameters()})
    assert 0.99 * clip < moved <= clip * (1 + 1e-3)  # rounding of the sums


def test_a_gradient_that_is_not_finite_adds_nothing() -> None:
    """A server could send weights that overflow for one patient alone: its absence must look the same."""
    data, model = visits(notes=2), model_of()
    batch = data.batch(torch.arange(len(data)), tiny_scaler())
    with patient_gradients(model) as gradients:
        loss_B = training_loss(model(batch), batch.label_B, CONFIG)
        blown_B = loss_B * torch.where(GROUPS.patient_B == 4, float("inf"), 1.0)
        found = gradients.clipped(blown_B, GROUPS, 0.5)
    alone = one_at_a_time(model, data)
    alone.pop(4)
    scaled = [{n: g * min(1.0, 0.5 / norm(one)) for n, g in one.items()} for one in alone]
    expected = {n: sum(one[n] for one in scaled) for n in scaled[0]}
    assert near(expected, {n: found[p] for n, p in model.named_parameters()})


def test_rows_that_cancel_each_other_do_not_get_a_patient_past_the_clip() -> None:
    """Two huge rows with a tiny sum: what rounding leaves of them must be clipped, too."""
    layer, clip = nn.Linear(30, 20), 1.0
    row = torch.randn(1, 30, generator=torch.Generator().manual_seed(1))
    given_BX = torch.cat([row, row * (1 + 1e-6)])
    with patient_gradients(layer) as gradients:
        out_BX = layer(given_BX)
        loss_B = out_BX.sum(1) * torch.tensor([1e9, -1e9])
        total = gradients.clipped(loss_B, Groups(torch.tensor([0, 0]), 1), clip)
    assert norm({str(n): g for n, g in enumerate(total.values())}) <= clip


@pytest.mark.parametrize("padded", [False, True])
def test_the_unrolled_lstm_is_pytorchs_both_ways(padded: bool) -> None:
    fast, length_B = nn.LSTM(7, 5, batch_first=True, bidirectional=True), torch.tensor([4, 1, 6, 6, 2])
    slow = UnrolledLSTM.of(nn.LSTM(7, 5, batch_first=True, bidirectional=True))
    given: object = torch.randn(5, 6, 7)
    if padded:
        given = pack_padded_sequence(given, length_B, batch_first=True, enforce_sorted=False)
    for first, second in ((fast, slow), (slow, fast)):
        nn.init.normal_(first.weight_hh_l0_reverse)
        second.load_state_dict(first.state_dict())
        (one, (last_one, _)), (two, (last_two, _)) = first(given), second(given)
        if padded:
            one, two = pad_packed_sequence(one, batch_first=True)[0], pad_packed_sequence(two, batch_first=True)[0]
        assert torch.allclose(one, two, atol=1e-5) and torch.allclose(last_one, last_two, atol=1e-5)


def test_a_model_is_unrolled_over_its_own_weights_and_gets_its_fast_lstms_back() -> None:
    data, model = visits(notes=3), model_of()
    batch, before = data.batch(torch.arange(len(data)), tiny_scaler()), copy.deepcopy(model.state_dict())
    lstms, logit_B = [model.series.lstm, model.text.lstm], model(batch)
    with unrolled(model):
        assert isinstance(model.text.lstm, UnrolledLSTM) and list(model.state_dict()) == list(before)
        assert torch.allclose(model(batch), logit_B, atol=1e-5)
    assert model.series.lstm is lstms[0] and model.text.lstm is lstms[1]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_layer_whose_gradients_are_not_known_is_refused() -> None:
    with (
        pytest.raises(TypeError, match="Conv1d"),
        patient_gradients(nn.Sequential(nn.Linear(2, 2), nn.Conv1d(1, 1, 1))),
    ):
        pass
    with pytest.raises(TypeError, match="one layer"):
        UnrolledLSTM.of(nn.LSTM(2, 2, num_layers=2, batch_first=True, bidirectional=True))


def test_a_pass_is_bounded_and_never_cuts_a_patient() -> None:
    assert [(b.start, b.stop) for b in blocks([100, 28, 1, 500, 3, 4])] == [(0, 2), (2, 3), (3, 4), (4, 6)]
    assert list(blocks([])) == []
