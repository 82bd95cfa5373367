"""Predictions of a model on a site's patients, and their mergeable form."""

import torch

from shared_model.batch import PatientData
from shared_model.config import RunConfig
from shared_model.inputs import Scaler
from shared_model.losses import training_loss
from shared_model.mergeable import Validation
from shared_model.model import FusionModel
from shared_model.predict import predict


def validate(
    model: FusionModel, data: PatientData, scaler: Scaler, config: RunConfig, device: torch.device
) -> Validation:
    """Score histogram and loss on validation patients; zero when there are none."""
    score_N = predict(model, data, scaler, device)
    logit_N = torch.from_numpy(score_N).logit(eps=1e-9)
    loss_N = training_loss(logit_N, data.label_N.double(), config)
    return Validation.of(score_N, data.label_N.numpy(), loss_sum=float(loss_N.sum()))
