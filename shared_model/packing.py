"""All arrays of a record as one, for the wire.

Why: Flower sends every array of a record as objects of their own, each with requests of its own, signed and checked:
a model of forty arrays costs a round more time in requests than in training. Packing is the outermost step on both
sides; everything within, the strategies and a site's release, sees the arrays by name.
"""

import json

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from shared_model.errors import ContractError

PACKED = "safetensors"


def packed(content: RecordDict) -> RecordDict:
    """The same content with one array in each ArrayRecord."""
    from safetensors.torch import save

    out = RecordDict(dict(content))
    for name, record in content.array_records.items():
        tensors = {key: tensor.contiguous() for key, tensor in record.to_torch_state_dict().items()}
        data = save(tensors, metadata={"order": json.dumps(list(tensors))})
        out[name] = ArrayRecord({PACKED: Array(np.frombuffer(data, dtype=np.uint8))})
    return out


def unpacked(content: RecordDict) -> RecordDict:
    """What ``packed`` was given; content that is not packed is returned as it is. Raises ContractError when what is
    packed cannot be read."""
    if not any(list(record) == [PACKED] for record in content.array_records.values()):
        return content
    out = RecordDict(dict(content))
    for name, record in content.array_records.items():
        if list(record) == [PACKED]:
            out[name] = _record(record[PACKED])
    return out


def _record(array: Array) -> ArrayRecord:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = array.numpy().tobytes()
        length = int.from_bytes(data[:8], "little")
        order = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["order"])
        tensors = load(data)
        return ArrayRecord({name: tensors[name] for name in order})
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ContractError("message: its packed arrays cannot be read") from error
