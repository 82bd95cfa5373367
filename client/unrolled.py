"""A bidirectional LSTM that keeps what per-patient gradients need, over the weights of a fast ``nn.LSTM``.

``nn.LSTM`` adds up the gradients of all stays within one kernel. Here the inputs' part of all gates is one product, the
recurrence is one autograd node for both directions, and its backward pass gives the gradient of every step's gates. A
patient's gradient of all eight weights is then one product over time (client/patient_gradients.py), not one a step.

Shape legend: shared_model/inputs.py; D the two directions, H hidden, G = 4 H gates in PyTorch's order (input, forget,
cell, output), X inputs of a step. A padded stay is read within its length by either direction.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


@dataclass(frozen=True)
class Trace:
    """Of one forward pass: inputs, the gates' input part (gradients of the loss by it are those by the gates), states.
    Time runs forward in both directions, and a state after a stay's last step is zero."""

    input_BTX: Tensor
    gates_BTDG: Tensor
    states_BTDH: Tensor


class UnrolledLSTM(nn.LSTM):
    """One layer, both directions, batch first; names and shapes of its weights are ``nn.LSTM``'s."""

    trace: Trace  # of the last forward pass

    @classmethod
    def of(cls, lstm: nn.LSTM) -> "UnrolledLSTM":
        """Over the very parameters of ``lstm``: training one trains both. Raises TypeError for another kind."""
        if (lstm.num_layers, lstm.bidirectional, lstm.batch_first, lstm.bias, lstm.proj_size) != (
            1,
            True,
            True,
            True,
            0,
        ):
            raise TypeError("an LSTM under privacy has one layer, two directions, biases, batch first, no projection")
        with torch.random.fork_rng(devices=[]):  # what the constructor draws is replaced
            unrolled = cls(lstm.input_size, lstm.hidden_size, batch_first=True, bidirectional=True)
        for name, parameter in lstm.named_parameters():
            setattr(unrolled, name, parameter)
        return unrolled

    def weights(self, name: str) -> tuple[nn.Parameter, nn.Parameter]:
        """A weight of the forward and of the backward direction."""
        return getattr(self, f"{name}_l0"), getattr(self, f"{name}_l0_reverse")

    def forward(self, input: Tensor | PackedSequence, hx: None = None) -> tuple[Any, tuple[Tensor, None]]:  # type: ignore[override]
        """States [B, T, 2 H], packed if ``input`` is, and the last ones [2, B, H] as the first of a pair."""
        if not isinstance(input, PackedSequence):
            states_BTDH, last_DBH = self._run(input, None)
            return states_BTDH.flatten(2), (last_DBH, None)
        padded_BTX, length_B = pad_packed_sequence(input, batch_first=True)
        states_BTDH, last_DBH = self._run(padded_BTX, length_B)
        packed = pack_padded_sequence(states_BTDH.flatten(2), length_B, batch_first=True, enforce_sorted=False)
        return packed, (last_DBH, None)

    def _run(self, input_BTX: Tensor, length_B: Tensor | None) -> tuple[Tensor, Tensor]:
        bias = torch.cat(self.weights("bias_ih")) + torch.cat(self.weights("bias_hh"))
        gates_BTDG = linear(input_BTX, torch.cat(self.weights("weight_ih")), bias).view(*input_BTX.shape[:2], 2, -1)
        within = _Within.of(input_BTX, length_B)
        read_TDBG = within.turned(gates_BTDG).permute(1, 2, 0, 3).contiguous()
        weight_DHG = torch.stack(self.weights("weight_hh")).mT
        states_TDBH: Tensor = _Recurrence.apply(read_TDBG, weight_DHG)  # type: ignore[no-untyped-call]
        states_BTDH = within.turned(states_TDBH.permute(2, 0, 1, 3))
        self.trace = Trace(input_BTX, gates_BTDG, states_BTDH.detach())
        return states_BTDH, within.last(states_TDBH)


@dataclass(frozen=True)
class _Within:
    """Where each stay ends; None where all fill the batch."""

    last_B: Tensor | None  # index of the last step
    from_BT: Tensor | None  # index of the step that the backward direction reads

    @classmethod
    def of(cls, input_BTX: Tensor, length_B: Tensor | None) -> "_Within":
        if length_B is None:
            return cls(None, None)
        last_B = length_B.to(input_BTX.device) - 1
        from_BT = last_B[:, None] - torch.arange(input_BTX.shape[1], device=input_BTX.device)
        return cls(last_B, from_BT)

    def turned(self, values_BTDX: Tensor) -> Tensor:
        """The backward direction's time reversed within each stay; zeros after its end in both."""
        if self.from_BT is None:
            return torch.stack([values_BTDX[:, :, 0], values_BTDX[:, :, 1].flip(1)], dim=2)
        index_BTX = self.from_BT.clamp(min=0)[:, :, None].expand(-1, -1, values_BTDX.shape[-1])
        turned_BTDX = torch.stack([values_BTDX[:, :, 0], values_BTDX[:, :, 1].gather(1, index_BTX)], dim=2)
        return torch.where((self.from_BT >= 0)[:, :, None, None], turned_BTDX, 0.0)

    def last(self, states_TDBH: Tensor) -> Tensor:
        """The state in which each direction ends."""
        if self.last_B is None:
            return states_TDBH[-1]
        return states_TDBH[self.last_B, :, torch.arange(len(self.last_B), device=self.last_B.device)].transpose(0, 1)


class _Recurrence(torch.autograd.Function):
    """States [T, D, B, H] from the gates' input part [T, D, B, G] and the recurrent weight [D, H, G].

    The weight gets no gradient: its per-patient one comes from the trace.
    """

    @staticmethod
    def forward(ctx: Any, read_TDBG: Tensor, weight_DHG: Tensor) -> Tensor:
        """Starts from zeros."""
        steps, directions, stays, gates = read_TDBG.shape
        gate_TDBKH = read_TDBG.new_empty(steps, directions, stays, 4, gates // 4)
        cell_TDBH = read_TDBG.new_empty(steps, directions, stays, gates // 4)
        squashed_TDBH, state_TDBH = torch.empty_like(cell_TDBH), torch.empty_like(cell_TDBH)
        for t in range(steps):
            gate = torch.baddbmm(read_TDBG[t], state_TDBH[t - 1], weight_DHG) if t else read_TDBG[t]
            gate_DBKH = gate.view(directions, stays, 4, -1)
            now = torch.sigmoid(gate_DBKH, out=gate_TDBKH[t])
            torch.tanh(gate_DBKH[:, :, 2], out=now[:, :, 2])
            into, forget, new, out = now.unbind(2)
            torch.mul(into, new, out=cell_TDBH[t])
            if t:
                cell_TDBH[t].addcmul_(forget, cell_TDBH[t - 1])
            torch.mul(out, torch.tanh(cell_TDBH[t], out=squashed_TDBH[t]), out=state_TDBH[t])
        ctx.save_for_backward(gate_TDBKH, cell_TDBH, squashed_TDBH, weight_DHG)
        return state_TDBH

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Everything that does not depend on later steps is computed for all steps at once."""
        gate_TDBKH, cell_TDBH, squashed_TDBH, weight_DHG = ctx.saved_tensors
        into, forget, new, out = gate_TDBKH.unbind(3)
        before_TDBH = pad(cell_TDBH[:-1], (0, 0, 0, 0, 0, 0, 1, 0))
        slope_TDBKH = gate_TDBKH * (1 - gate_TDBKH)
        slope_TDBKH[:, :, :, 2] = 1 - new * new
        slope_TDBKH *= torch.stack([new, before_TDBH, into, squashed_TDBH], dim=3)  # d cell, or d state, by each gate
        through_TDBH = out * (1 - squashed_TDBH * squashed_TDBH)  # d state by d cell
        found_TDBKH, grad_TDBH, weight_DGH = torch.empty_like(slope_TDBKH), grads[0], weight_DHG.mT.contiguous()
        state, cell = grad_TDBH[-1], torch.zeros_like(cell_TDBH[0])
        for t in reversed(range(len(cell_TDBH))):
            cell = torch.addcmul(cell, state, through_TDBH[t])
            torch.mul(cell[:, :, None], slope_TDBKH[t, :, :, :3], out=found_TDBKH[t, :, :, :3])
            torch.mul(state, slope_TDBKH[t, :, :, 3], out=found_TDBKH[t, :, :, 3])
            if t:
                cell = cell * forget[t]
                state = torch.baddbmm(grad_TDBH[t - 1], found_TDBKH[t].flatten(2), weight_DGH)
        return found_TDBKH.flatten(3), None


@contextmanager
def unrolled(model: nn.Module) -> Iterator[None]:
    """Within the block, every ``nn.LSTM`` of ``model`` is an UnrolledLSTM over its weights."""
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.LSTM)
    ]
    for parent, name, child in places:
        setattr(parent, name, UnrolledLSTM.of(child).train(child.training))
    try:
        yield
    finally:
        for parent, name, child in places:
            setattr(parent, name, child)
