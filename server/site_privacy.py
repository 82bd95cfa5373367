"""Differential privacy for whole sites, at a server that is trusted: what the model tells of any one hospital's part.

Each update is clipped to a length, all sites count the same, and the mean gets Gaussian noise (McMahan et al. 2018,
arXiv 1710.06963; without sampling of sites, as a consortium has few and all train in every round). The clip is fixed,
or follows a noisy quantile of the updates' lengths (Andrew et al. 2021, arXiv 1905.03871). The sum is divided by the
sites that were admitted, which are public, and not by those whose update counted.

Why not Flower's wrappers: they weigh sites by their stays while the noise is for equal weights, draw noise from a seed
that can be guessed, and forget what is spent when a run is resumed. The guarantee is of the weights alone; what the
report says of each site is not covered.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from shared_model.config import RunConfig
from shared_model.entropy import Entropy, entropy_of, gaussian
from shared_model.errors import PrivacyError
from shared_model.messages import Weights
from shared_model.norm import norm
from shared_model.privacy import Mechanism, epsilon_of, noise_for

QUANTILE, QUANTILE_RATE = 0.5, 0.2  # of the adaptive clip: the median, and how fast it is approached
QUANTILE_NOISE = 4.0  # of the count of short updates, over the multiplier of the sum: costs 1 / 64 of the noise


@dataclass(kw_only=True)
class SitePrivacy:
    """``noise`` is the multiplier of a round's release, of which ``spent`` have been made; ``clip`` is the length of an
    update that counts in full, in the next round."""

    epsilon: float
    delta: float
    accountant: Any
    noise: float
    clip: float
    adaptive: bool
    sites: int
    spent: int = 0

    @classmethod
    def of(cls, config: RunConfig, sites: int) -> "SitePrivacy | None":
        """Calibrated once for all rounds of a run; None where the run does not protect sites. Raises PrivacyError."""
        if config.privacy_unit != "site":
            return None
        if config.privacy_delta > 1 / sites:
            raise PrivacyError(
                f"privacy.delta = {config.privacy_delta:g}: must be at most 1/{sites}, one over the sites"
            )
        accountant = config.privacy_accountant
        noise = noise_for(config.privacy_epsilon, config.privacy_delta, accountant, steps=config.rounds)
        return cls(
            epsilon=config.privacy_epsilon,
            delta=config.privacy_delta,
            accountant=accountant,
            noise=noise,
            clip=config.clip,
            adaptive=config.privacy_adaptive,
            sites=sites,
        )

    @property
    def mechanism(self) -> Mechanism:
        """What has been released."""
        return Mechanism(self.noise, steps=self.spent)

    @property
    def so_far(self) -> float:
        """Epsilon of it."""
        return epsilon_of([self.mechanism], self.delta, self.accountant)

    def mean(self, before: Weights, updates: Mapping[str, Weights], entropy: int | None = None) -> Weights:
        """The private mean of the sites' weights, by site name. ``entropy`` is for tests (shared_model/entropy.py)."""
        source = entropy_of(entropy)
        lengths = {site: norm(weights, before) for site, weights in updates.items()}
        scale = self.clip * self._sum_noise / self.sites
        after: Weights = {}
        for name, start in before.items():
            moved = torch.zeros_like(start, dtype=torch.float64)
            for site, weights in updates.items():
                moved += (weights[name].double() - start.double()) * min(1.0, self.clip / max(lengths[site], 1e-12))
            noise = torch.from_numpy(gaussian(source, start.numel())).view_as(start) * scale
            after[name] = (start.double() + moved / self.sites + noise).to(start.dtype)
        self.spent += 1
        if self.adaptive:
            self._adapt(list(lengths.values()), source)
        return after

    def remembered(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"spent": self.spent, "clip": self.clip}

    def remind(self, held: Mapping[str, Any]) -> None:
        """Stand where a checkpoint was taken. A round that a crash cut off released nothing: its mean leaves the server
        with the round after it, and the checkpoint is written before that."""
        self.spent, self.clip = int(held["spent"]), float(held["clip"])

    @property
    def _sum_noise(self) -> float:
        """The multiplier of the sum, so that it and the noisy count together are one mechanism of ``noise``."""
        share = 1 - 1 / (2 * QUANTILE_NOISE) ** 2 if self.adaptive else 1.0
        return self.noise / math.sqrt(share)

    def _adapt(self, lengths: list[float], source: Entropy) -> None:
        """Towards the median length, by how many were shorter than the clip: each site moves that count by 1/2."""
        short = sum(length <= self.clip for length in lengths) - len(lengths) / 2
        noise = float(gaussian(source, 1)[0]) * QUANTILE_NOISE * self.noise
        share = 0.5 + (short + noise) / self.sites
        self.clip *= math.exp(-QUANTILE_RATE * (min(max(share, 0.0), 1.0) - QUANTILE))
