"""What a strategy remembers between rounds (momenta, control variates), as tensors that a checkpoint can hold.

Flower's strategies keep it in attributes of three forms: a dictionary of arrays, an ArrayRecord, a list of arrays. A
strategy that kept something else would forget it on resuming; a test runs every strategy through that.
"""

from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy

from shared_model.messages import Weights


def remembered(strategy: Strategy) -> Weights:
    """Tensors by ``form/attribute/name``."""
    held: Weights = {}
    for attribute, value in vars(strategy).items():
        form, parts = _parts(value)
        held |= {f"{form}/{attribute}/{name}": torch.as_tensor(part).clone() for name, part in parts.items()}
    return held


def remind(strategy: Strategy, held: Weights) -> None:
    """Give a new strategy what ``remembered`` took from one like it."""
    found: dict[tuple[str, str], Weights] = {}
    for key, tensor in held.items():
        form, attribute, name = key.split("/", 2)
        found.setdefault((form, attribute), {})[name] = tensor
    for (form, attribute), parts in found.items():
        setattr(strategy, attribute, _whole(form, parts))


def _parts(value: Any) -> tuple[str, dict[str, Any]]:
    match value:
        case ArrayRecord():
            return "record", {name: array.numpy() for name, array in value.items()}
        case dict() if value and all(isinstance(part, torch.Tensor) for part in value.values()):
            return "tensors", value
        case dict() if value and all(isinstance(part, np.ndarray) for part in value.values()):
            return "arrays", value
        case list() if value and all(isinstance(part, np.ndarray) for part in value):
            return "list", {f"{place:06}": part for place, part in enumerate(value)}
    return "", {}


def _whole(form: str, parts: Weights) -> Any:
    if form == "record":
        return ArrayRecord({name: Array(part.numpy()) for name, part in parts.items()})
    if form == "list":
        return [parts[place].numpy() for place in sorted(parts)]
    return parts if form == "tensors" else {name: part.numpy() for name, part in parts.items()}
