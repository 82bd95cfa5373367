"""Focal loss.

Lin et al. 2017 (arXiv 1708.02002), equation 5: FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def focal_loss(logit_B: Tensor, label_B: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Focal loss of each stay, shape [B].

    ``alpha`` weighs deaths and ``1 - alpha`` survivals; ``gamma`` 0 with ``alpha`` 0.5 is half the cross-entropy.
    Computed from logits, so that it stays finite at probabilities of 0 and 1.
    """
    log_p_t_B = -F.binary_cross_entropy_with_logits(logit_B, label_B, reduction="none")
    alpha_t_B = torch.where(label_B > 0.5, alpha, 1.0 - alpha)
    miss_B = (1.0 - log_p_t_B.exp()).clamp(min=1e-7)  # the power's gradient is infinite at 0 for gamma < 1
    return -alpha_t_B * miss_B**gamma * log_p_t_B
