"""How long a set of arrays is: of an update at the site that sends it, and at the server that judges it."""

import math

from shared_model.messages import Weights


def norm(arrays: Weights, start: Weights | None = None) -> float:
    """L2 norm over all arrays, of what they are beyond ``start``."""
    squares = 0.0
    for name, tensor in arrays.items():
        moved = tensor.double() if start is None else tensor.double() - start[name].double()
        squares += float((moved * moved).sum())
    return math.sqrt(squares)
