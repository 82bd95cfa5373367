"""FusionModel: MLP on static features, BiLSTM on series, BiLSTM on note embeddings, fused into one logit.

Method: Wu 2024 (doi 10.12677/mos.2024.136583), sections as in docs. LayerNorm, never BatchNorm: per-sample gradients
stay defined under differential privacy, and no integer buffer is averaged. A stay that lacks a modality (no notes is
normal) gets a learned vector in its place. Shape legend: shared_model/batch.py; H is the width of every modality's
vector.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from shared_model.errors import ContractError
from shared_model.inputs import Batch
from shared_model.study import EARLY

_STATIC, _SERIES, _TEXT = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the inputs, of the three encoders and of the fusion."""

    static_features: int = len(EARLY.static)
    series_channels: int = len(EARLY.series)
    static_hidden: int = 64
    series_hidden: int = 48
    text_hidden: int = 32
    text_dimension: int = 384
    fusion_width: int = 48
    dropout: float = 0.2


class StaticEncoder(nn.Module):
    """Two hidden layers: h1 = f(W1 x + b1), h2 = f(W2 h1 + b2), y = W3 h2 + b3; x holds values and masks."""

    def __init__(self, inputs: int, hidden: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
        )

    def forward(self, input_BF: Tensor) -> Tensor:
        """[B, inputs] to [B, H]."""
        vector_BH: Tensor = self.layers(input_BF)
        return vector_BH


class SequenceEncoder(nn.Module):
    """A BiLSTM: its last forward and last backward states, and the mean of all states, concatenated and projected.

    The mean is what carries a value that was high for hours and has fallen since.
    """

    def __init__(self, inputs: int, hidden: int, width: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.LayerNorm(4 * hidden), nn.Dropout(dropout), nn.Linear(4 * hidden, width))

    def forward(self, input_BTX: Tensor, length_B: Tensor | None = None) -> Tensor:
        """[B, T, inputs] to [B, H]; ``length_B`` (at least 1 each) marks padding."""
        if length_B is None:
            states_BTX, (last_2BH, _) = self.lstm(input_BTX)
            mean_BX = states_BTX.mean(dim=1)
        else:
            packed = pack_padded_sequence(input_BTX, length_B.cpu(), batch_first=True, enforce_sorted=False)
            states, (last_2BH, _) = self.lstm(packed)
            states_BTX, _ = pad_packed_sequence(states, batch_first=True)  # zeros after the last step
            mean_BX = states_BTX.sum(dim=1) / length_B[:, None]
        vector_BH: Tensor = self.head(torch.cat([last_2BH[0], last_2BH[1], mean_BX], dim=-1))
        return vector_BH


class FusionModel(nn.Module):
    """Probability of in-hospital death from a Batch, as a logit."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sizes = config
        width, dropout = config.fusion_width, config.dropout
        self.static = StaticEncoder(2 * config.static_features, config.static_hidden, width, dropout)
        self.series = SequenceEncoder(3 * config.series_channels, config.series_hidden, width, dropout)
        self.text = SequenceEncoder(config.text_dimension, config.text_hidden, width, dropout)
        self.missing = nn.Embedding(3, width)  # one learned vector a modality
        self.fusion = nn.Sequential(
            nn.LayerNorm(3 * width),
            nn.Linear(3 * width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, 1),
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logit of death, shape [B]."""
        static_BH = self._or_missing(_STATIC, batch.static_mask_BF.any(1), self._static(batch))
        series_BH = self._or_missing(_SERIES, batch.series_mask_BTC.flatten(1).any(1), self._series(batch))
        text_BH = self._or_missing(_TEXT, batch.text_length_B > 0, self._text(batch))
        logit_B1: Tensor = self.fusion(torch.cat([static_BH, series_BH, text_BH], dim=-1))
        return logit_B1.squeeze(-1)

    def _static(self, batch: Batch) -> Tensor:
        vector_BH: Tensor = self.static(torch.cat([batch.static_BF, batch.static_mask_BF], dim=-1))
        return vector_BH

    def _series(self, batch: Batch) -> Tensor:
        channels = [batch.series_BTC, batch.series_mask_BTC, batch.series_age_BTC]
        vector_BH: Tensor = self.series(torch.cat(channels, dim=-1))
        return vector_BH

    def _text(self, batch: Batch) -> Tensor | None:
        """None when no stay of the batch has a note."""
        if not batch.text_BKE.shape[1]:
            return None
        vector_BH: Tensor = self.text(batch.text_BKE, batch.text_length_B.clamp(min=1))
        return vector_BH

    def _or_missing(self, modality: int, present_B: Tensor, vector_BH: Tensor | None) -> Tensor:
        index_B = torch.full_like(present_B, modality, dtype=torch.long)
        missing_BH: Tensor = self.missing(index_B)
        return missing_BH if vector_BH is None else torch.where(present_B[:, None], vector_BH, missing_BH)


def build_model(config: ModelConfig, *, seed: int) -> FusionModel:
    """A freshly initialised model; the same seed gives the same weights on every machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FusionModel(config)


def load_model(config: ModelConfig, weights: dict[str, Tensor]) -> FusionModel:
    """A model with given weights. Raises ContractError when names or shapes do not fit ``config``."""
    model = build_model(config, seed=0)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ContractError("model: weights do not fit the configured sizes; both come from one run") from error
    return model
