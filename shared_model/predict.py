"""A model applied to a store: used by sites for validation, by the server for the held-out set, and by anyone with a
released model."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from shared_model.batch import PatientData
    from shared_model.inputs import Scaler
    from shared_model.model import FusionModel


def predict(
    model: "FusionModel", data: "PatientData", scaler: "Scaler", device: torch.device, *, size: int = 256
) -> NDArray[np.float64]:
    """Probability of death of every stay, shape [N], in stored order."""
    model.eval()
    with torch.inference_mode():
        logits = [model(batch.to(device)).double().sigmoid().cpu() for batch in data.batches(scaler, size)]
    return torch.cat(logits).numpy() if logits else np.zeros(0)


def best_device() -> torch.device:
    """CUDA when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
