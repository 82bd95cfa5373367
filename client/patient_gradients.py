"""The sum of clipped per-patient gradients, without holding any patient's gradient for longer than one layer takes.

One backward pass gives the gradient of the loss by every layer's output. A matrix's gradient is a sum of outer products
of output gradients and inputs, so a patient's norm follows from them layer by layer: from inner products where the
patient has few rows (Li et al. 2022, arXiv 2110.05679, the ghost norm), else from the matrix itself. The clipped sum is
one more product with weighted rows. All of it is exact.

Shape legend: shared_model/inputs.py; P patients, S rows of a stay (steps of an LSTM, else 1), X inputs and O outputs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, one_hot, pad

from client.unrolled import UnrolledLSTM, unrolled

_BLOCK = 128  # stays of one pass, unless one patient has more
_SMALL = 1e-6  # keeps a quotient finite; a clipped norm stays below the bound
# Of the squared lengths that were added up: more than rounding can hide in a sum whose parts cancel each other. Weights
# that a server chose so that they do would otherwise get a patient past the clip.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Groups:
    """Which stays of a batch are whose: ``patient_B`` in 0 ... ``patients`` - 1, ascending, every number there."""

    patient_B: Tensor
    patients: int

    @property
    def stays_P(self) -> Tensor:
        """How many stays each patient has."""
        return torch.bincount(self.patient_B, minlength=self.patients)

    def by_size(self) -> list[tuple[Tensor, Tensor]]:
        """Patients with equally many stays, and these stays [patients, m], for every m that there is."""
        size_P = self.stays_P
        first_P = size_P.cumsum(0) - size_P
        found = []
        for size in torch.unique(size_P).tolist():
            patient = (size_P == size).nonzero().flatten()
            found.append((patient, first_P[patient][:, None] + torch.arange(size, device=patient.device)))
        return found


@dataclass(frozen=True)
class Products:
    """Gradients that are sums of outer products, of parameters that lie side by side in a matrix [O, X]: the weights of
    a layer, and its biases [O] as the last columns, where ``input_BSX`` is 1."""

    parameters: tuple[nn.Parameter, ...]
    input_BSX: Tensor
    grad_BSO: Tensor

    def squared_norms(self, groups: list[tuple[Tensor, Tensor]], norm_P: Tensor) -> None:
        """Add each patient's to ``norm_P``."""
        for patient, stays in groups:
            inputs, grads = (rows[stays].flatten(1, 2) for rows in (self.input_BSX, self.grad_BSO))
            steps, wide, high = inputs.shape[1], inputs.shape[2], grads.shape[2]
            if steps * (wide + high) < wide * high:
                found = ((inputs @ inputs.mT) * (grads @ grads.mT)).flatten(1).sum(1)
            else:
                found = (grads.mT @ inputs).flatten(1).square().sum(1)
            lengths = (inputs.norm(dim=2) * grads.norm(dim=2)).sum(1)
            norm_P[patient] += found + _ROUNDING * lengths.square()

    def weighted(self, factor_B: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each parameter's gradient, summed over the stays with these weights."""
        grads = (self.grad_BSO * factor_B[:, None, None]).flatten(0, 1)
        whole_OX = grads.T @ self.input_BSX.flatten(0, 1)
        sizes = [p.shape[1] if p.ndim == 2 else 1 for p in self.parameters]
        for parameter, part in zip(self.parameters, torch.split(whole_OX, sizes, dim=1), strict=True):
            yield parameter, part.reshape(parameter.shape)


@dataclass(frozen=True)
class Rows:
    """Gradients of one parameter by stay, flat: [B, its numbers]. Of small parameters only."""

    parameter: nn.Parameter
    grad_BX: Tensor

    def squared_norms(self, groups: list[tuple[Tensor, Tensor]], norm_P: Tensor) -> None:
        """Add each patient's to ``norm_P``."""
        for patient, stays in groups:
            grads = self.grad_BX[stays]
            norm_P[patient] += grads.sum(1).square().sum(1) + _ROUNDING * grads.norm(dim=2).sum(1).square()

    def weighted(self, factor_B: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """The parameter's gradient, summed over the stays with these weights."""
        yield self.parameter, (factor_B @ self.grad_BX).reshape(self.parameter.shape)


Record = Products | Rows


class PatientGradients:
    """Made by ``patient_gradients``; hooks on the model note what a backward pass needs."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._calls: list[tuple[nn.Module, Tensor, Tensor]] = []  # layer, its input, what gradients are taken by

    def note(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """A forward hook."""
        if isinstance(module, UnrolledLSTM):
            self._calls.append((module, module.trace.input_BTX, module.trace.gates_BTDG))
        else:
            self._calls.append((module, inputs[0].detach(), output))

    def records(self, loss_B: Tensor) -> list[Record]:
        """What follows from the forward pass that gave ``loss_B`` for each parameter that took part: the gradients of
        the stays' losses."""
        calls, self._calls = self._calls, []
        grads = torch.autograd.grad(loss_B.sum(), [by for _, _, by in calls])
        records: list[Record] = []
        shared: dict[nn.Parameter, Rows] = {}  # one embedding is read once a modality
        for (module, given, _), grad in zip(calls, grads, strict=True):
            for record in _RECORDS[type(module)](module, given, grad):
                if isinstance(record, Rows):
                    held = shared.get(record.parameter)
                    total = record.grad_BX if held is None else held.grad_BX + record.grad_BX
                    shared[record.parameter] = Rows(record.parameter, total)
                else:
                    records.append(record)
        return [*records, *shared.values()]

    def clipped(self, loss_B: Tensor, groups: Groups, clip: float) -> dict[nn.Parameter, Tensor]:
        """The sum over patients of the gradient of a patient's mean loss over its stays, each scaled down once, over
        all parameters together, to a norm of at most ``clip``. A parameter that took no part is not there.

        A patient whose gradient is not finite adds nothing: a sum that is not finite would tell of it.
        """
        records, by_size = self.records(loss_B / groups.stays_P[groups.patient_B]), groups.by_size()
        norm_P = loss_B.new_zeros(groups.patients)
        for record in records:
            record.squared_norms(by_size, norm_P)
        norm_P = norm_P.sqrt_()
        usable_P = norm_P.isfinite()
        factor_P = torch.where(usable_P, (clip / (norm_P + _SMALL)).clamp(max=1.0), 0.0)
        if not bool(usable_P.all()):
            records = [_without(record, usable_P[groups.patient_B]) for record in records]
        return dict(part for record in records for part in record.weighted(factor_P[groups.patient_B]))


@contextmanager
def patient_gradients(model: nn.Module) -> Iterator[PatientGradients]:
    """Within the block, forward passes of ``model`` are noted. Raises TypeError for a layer whose per-patient gradient
    is not known here."""
    with unrolled(model):
        found = PatientGradients(model)
        layers = [module for module in model.modules() if any(True for _ in module.parameters(recurse=False))]
        strange = {type(layer).__name__ for layer in layers if type(layer) not in _RECORDS}
        if strange:
            raise TypeError(f"no per-patient gradients of {', '.join(sorted(strange))}; add them in this module")
        handles = [layer.register_forward_hook(found.note) for layer in layers]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()


def blocks(stays_P: list[int]) -> Iterator[slice]:
    """Slices of patients with at most so many stays that a pass stays small; a patient is never cut."""
    start, held = 0, 0
    for patient, stays in enumerate(stays_P):
        if held and held + stays > _BLOCK:
            yield slice(start, patient)
            start, held = patient, 0
        held += stays
    if held:
        yield slice(start, len(stays_P))


def _without(record: Record, keep_B: Tensor) -> Record:
    """The record with zeros where a patient's gradient is not finite: 0 times infinity is no number."""
    if isinstance(record, Rows):
        return Rows(record.parameter, torch.where(keep_B[:, None], record.grad_BX, 0.0))
    rows = (torch.where(keep_B[:, None, None], rows, 0.0) for rows in (record.input_BSX, record.grad_BSO))
    return Products(record.parameters, *rows)


def _linear(layer: nn.Linear, given_BX: Tensor, grad_BO: Tensor) -> Iterator[Record]:
    yield Products(tuple(layer.parameters()), pad(given_BX, (0, 1), value=1.0)[:, None], grad_BO[:, None])


def _layer_norm(layer: nn.LayerNorm, given_BX: Tensor, grad_BX: Tensor) -> Iterator[Record]:
    scaled_BX = layer_norm(given_BX, layer.normalized_shape, eps=layer.eps)
    for parameter, grads in zip(layer.parameters(), (grad_BX * scaled_BX, grad_BX), strict=True):
        yield Rows(parameter, grads)


def _embedding(layer: nn.Embedding, index_B: Tensor, grad_BX: Tensor) -> Iterator[Record]:
    place_BV = one_hot(index_B, layer.num_embeddings).to(grad_BX.dtype)
    yield Rows(next(layer.parameters()), (place_BV[:, :, None] * grad_BX[:, None]).flatten(1))


def _lstm(layer: UnrolledLSTM, _: object, grad_BTDG: Tensor) -> Iterator[Record]:
    """For each direction its four parameters at once: by input, by the state before, and twice by 1."""
    trace = layer.trace
    before = (
        pad(trace.states_BTDH[:, :-1, 0], (0, 0, 1, 0)),
        pad(trace.states_BTDH[:, 1:, 1], (0, 0, 0, 1)),
    )
    named = [layer.weights(name) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    for direction, parameters in enumerate(zip(*named, strict=True)):
        inputs = pad(torch.cat([trace.input_BTX, before[direction]], dim=-1), (0, 2), value=1.0)
        yield Products(parameters, inputs, grad_BTDG[:, :, direction])


_RECORDS: dict[type, Callable[..., Iterator[Record]]] = {
    nn.Linear: _linear,
    nn.LayerNorm: _layer_norm,
    nn.Embedding: _embedding,
    UnrolledLSTM: _lstm,
}
