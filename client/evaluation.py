"""Predictions of a model on a site's patients, and their mergeable form."""

import torch

from shared_model.batch import PatientData, Scaler
from shared_model.config import RunConfig
from shared_model.losses import focal_loss
from shared_model.mergeable import Validation
from shared_model.model import FusionModel
from shared_model.predict import predict


def validate(
    model: FusionModel, data: PatientData, scaler: Scaler, config: RunConfig, device: torch.device
) -> Validation:
    """Score histogram and focal loss on validation patients; zero when there are none."""
    score_N = predict(model, data, scaler, device)
    logit_N = torch.from_numpy(score_N).logit(eps=1e-9)
    loss_N = focal_loss(logit_N, data.label_N.double(), alpha=config.focal_alpha, gamma=config.focal_gamma)
    return Validation.of(score_N, data.label_N.numpy(), loss_sum=float(loss_N.sum()))
