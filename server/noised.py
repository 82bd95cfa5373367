"""A private run's validation at the server: the sites' noised score histograms, merged and then made usable."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
import torch

from shared_model.config import RunConfig
from shared_model.losses import training_loss
from shared_model.mergeable import Validation, merge_validations
from shared_model.messages import EvaluateReply, SiteCard
from shared_model.metrics import Floats
from shared_model.noised import on_simplex, score_cells, settled_scores


@dataclass(frozen=True)
class Noised:
    """A validation that patients can have, and the standard deviation of the noise that each of its counts had."""

    validation: Validation
    noise: float

    def redraw(self, seed: int) -> Callable[[Floats], Floats]:
        """Gives resampled cells (shared_model/noised.py::score_cells) the noise that they would have had, and settles
        them as the cells were: so that an interval spans both chances, of the patients and of the noise."""
        rng = np.random.default_rng(seed)
        totals = self.validation.count - self.validation.deaths, self.validation.deaths

        def redrawn(weight_RC: Floats) -> Floats:
            noisy_RC = weight_RC + rng.normal(0.0, self.noise, weight_RC.shape)
            sides = [on_simplex(noisy_RC[:, side::2], float(total)) for side, total in enumerate(totals)]
            return np.stack(sides, axis=2).reshape(weight_RC.shape)

        return redrawn


def settled_validation(
    replies: Sequence[EvaluateReply], cards: Sequence[SiteCard], config: RunConfig, prevalence: float
) -> Noised:
    """The merged validation of the sites that answered, whose cards these are.

    Signed counts are added first, and made counts of patients once. How many patients there are follows from what the
    sites told of their training patients, since chance splits both from the same; where one withholds it, from the
    histograms themselves. The loss is that of the bins' middles.
    """
    merged = merge_validations([reply.validation for reply in replies])
    survivals, deaths = _behind(cards, config.validation_fraction)
    found = settled_scores(merged, survivals=survivals, deaths=deaths)
    noise = sqrt(sum((reply.noise or 0.0) ** 2 for reply in replies))
    return Noised(replace(found, loss_sum=_loss(found, config.with_label_rate(prevalence))), noise)


def _behind(cards: Sequence[SiteCard], fraction: float) -> tuple[int | None, int | None]:
    """Survivals and deaths among the validation patients."""
    share = fraction / (1 - fraction)
    told = [(card.patients, card.deaths) for card in cards]
    if any(patients is None or deaths is None for patients, deaths in told):
        return None, None
    deaths = sum(min(d or 0, p or 0) for p, d in told)
    return round(share * (sum(p or 0 for p, _ in told) - deaths)), round(share * deaths)


def _loss(held: Validation, config: RunConfig) -> float:
    score_C, died_C, count_C = score_cells(held)
    loss_C = training_loss(torch.from_numpy(score_C).logit(), torch.from_numpy(died_C).double(), config)
    return float(loss_C.numpy() @ count_C)
