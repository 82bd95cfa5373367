"""Focal loss, and cross-entropy to compare it with."""

import torch
from torch import Tensor
from torch.nn import functional as F

from shared_model.config import RunConfig


def training_loss(logit_B: Tensor, label_B: Tensor, config: RunConfig) -> Tensor:
    """The run's loss of each stay, shape [B], in single precision or better."""
    logit_B = logit_B.float() if logit_B.dtype == torch.bfloat16 else logit_B
    if config.loss == "cross_entropy":
        return F.binary_cross_entropy_with_logits(logit_B, label_B, reduction="none")
    return focal_loss(logit_B, label_B, alpha=config.focal_alpha, gamma=config.focal_gamma)


def focal_loss(logit_B: Tensor, label_B: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Focal loss of each stay, shape [B]: Lin et al. 2017 (arXiv 1708.02002), equation 5,
    FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t).

    ``alpha`` weighs deaths and ``1 - alpha`` survivals; ``gamma`` 0 with ``alpha`` 0.5 is half the cross-entropy.
    Computed from logits, so that it stays finite at probabilities of 0 and 1.
    """
    log_p_t_B = -F.binary_cross_entropy_with_logits(logit_B, label_B, reduction="none")
    alpha_t_B = torch.where(label_B > 0.5, alpha, 1.0 - alpha)
    miss_B = (1.0 - log_p_t_B.exp()).clamp(min=1e-7)  # the power's gradient is infinite at 0 for gamma < 1
    return -alpha_t_B * miss_B**gamma * log_p_t_B
