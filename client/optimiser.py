"""PyTorch's AdamW, without loading PyTorch's compiler.

Why: every message of a deployment is a process of its own, and ``torch.optim`` imports ``torch._dynamo`` (1.3 s on the
class of machine that hospitals have spare) for nothing but to keep its own methods from being compiled. Only the model
ever is, so the plain methods do the same; a test compares them to the last bit.
"""

from inspect import unwrap

import torch


class AdamW(torch.optim.AdamW):
    """``torch.optim.AdamW`` with plain ``step``, ``zero_grad`` and ``add_param_group``."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step from the gradients there are."""
        with torch.no_grad():
            unwrap(torch.optim.Adam.step)(self)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        unwrap(torch.optim.Optimizer.zero_grad)(self, set_to_none)

    def add_param_group(self, param_group: dict[str, object]) -> None:
        """As the constructor does for each group."""
        unwrap(torch.optim.Optimizer.add_param_group)(self, param_group)
