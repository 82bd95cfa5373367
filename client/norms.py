"""An update against the model that came in: the same arrays, and how far they moved."""

from typing import TYPE_CHECKING

from shared_model.errors import ReleaseRefused
from shared_model.messages import Weights
from shared_model.norm import norm

if TYPE_CHECKING:
    from torch import Tensor

_NONE_LEFT = 1e-12  # of the update


def check_alike(arrays: Weights, incoming: Weights, what: str) -> None:
    """Raises ReleaseRefused unless names, shapes and dtypes are those of the arrays that came in, all finite: an array
    that the server does not know could hold anything."""
    if arrays.keys() != incoming.keys():
        raise ReleaseRefused(f"{what}: its arrays have other names than those that came in")
    for name, tensor in arrays.items():
        if tensor.shape != incoming[name].shape or tensor.dtype != incoming[name].dtype:
            raise ReleaseRefused(f"{what}: {name} has another shape or dtype than the array that came in")
        if not tensor.isfinite().all():
            raise ReleaseRefused(f"{what}: {name} is not finite (training diverged); lower the learning rate")


def clipped(weights: Weights, incoming: Weights, limit: float) -> Weights:
    """Weights whose distance from the incoming ones is at most ``limit``, in the same direction.

    Rounding to the weights' own precision can bring the distance over the limit again; then it is scaled further.
    """
    factor, found = 1.0, weights
    while (distance := norm(found, incoming)) > limit:
        factor *= min(limit / distance, 0.99) if factor < 1.0 else limit / distance * (1 - 1e-6)
        if factor < _NONE_LEFT:
            raise ReleaseRefused("update: cannot be brought to release.clip_norm")
        found = {name: _part_of_the_way(incoming[name], tensor, factor) for name, tensor in weights.items()}
    return found


def _part_of_the_way(start: "Tensor", end: "Tensor", factor: float) -> "Tensor":
    """Whole numbers cannot be scaled, and stay."""
    if not end.is_floating_point():
        return end
    return (start.double() + factor * (end.double() - start.double())).to(end.dtype)
