"""Arrays packed for the wire come back with their names, order, types and every bit."""

import pytest
import torch
from builders import over_the_wire
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from shared_model.errors import ContractError
from shared_model.packing import PACKED, packed, unpacked


def test_arrays_come_back_as_they_were() -> None:
    tensors = {
        "z.weight": torch.randn(3, 4).T,
        "a.bias": torch.tensor([float("nan"), -0.0, 1e-42]),
        "m": torch.tensor(7),
        "half": torch.randn(2).to(torch.float16),
        "none": torch.zeros(0, 3, dtype=torch.float64),
    }
    content = RecordDict({"arrays": ArrayRecord(tensors), "config": ConfigRecord({"round": 3})})
    wire = over_the_wire(packed(content))
    assert list(wire["arrays"]) == [PACKED]
    back = unpacked(wire)
    found = back["arrays"].to_torch_state_dict()
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert (found[name].shape, found[name].dtype) == (tensor.shape, tensor.dtype)
        assert found[name].contiguous().numpy().tobytes() == tensor.contiguous().numpy().tobytes()
    assert back["config"]["round"] == 3 and list(content["arrays"]) == list(tensors)  # the original is as it was


def test_what_is_not_packed_stays_as_it_is() -> None:
    content = RecordDict({"arrays": ArrayRecord({"w": torch.ones(2)})})
    assert unpacked(content) is content


@pytest.mark.parametrize("broken", [b"", b"\x08" + b"\0" * 7 + b"{}      ", b"\xff" * 40, b"\x02" + b"\0" * 7 + b"[]"])
def test_what_cannot_be_read_is_a_contract_error(broken: bytes) -> None:
    array = Array(torch.frombuffer(bytearray(broken), dtype=torch.uint8).numpy() if broken else torch.zeros(0).numpy())
    with pytest.raises(ContractError, match="packed arrays cannot be read"):
        unpacked(RecordDict({"arrays": ArrayRecord({PACKED: array})}))
