"""The guard in front of every strategy: which updates of a round are aggregated, and why the others are not.

An average has no defence of its own (one NaN or one update a thousand times too long takes the model with it), and
Flower's strategies check nothing. What passes here can still be wrong within the honest sites' range, as after a sign
or label flip: against that the robust strategies bound what one site can do (docs/decisions/0014).
"""

import logging
from collections.abc import Mapping
from hashlib import sha256
from statistics import median

import torch

from shared_model.errors import ContractError, UpdateRejected
from shared_model.messages import SiteCard, TrainReply, Weights
from shared_model.norm import norm

log = logging.getLogger("consilium.server")
TO_SD = 1.4826  # median absolute deviation of a normal distribution -> its standard deviation
FEWEST = 3  # updates of which one can be told to be unlike the others


class Guard:
    """``limit``: how many robust standard deviations above the median an update's length may be; 0: any. ``cards``:
    the admitted sites by name. ``seen``: digests of the updates of earlier rounds."""

    def __init__(self, limit: float, cards: Mapping[str, SiteCard], seen: tuple[str, ...] = ()) -> None:
        self.limit, self.cards, self.seen = limit, cards, set(seen)

    def admit(
        self, round_number: int, replies: Mapping[str, TrainReply], weights: Weights
    ) -> tuple[list[str], dict[str, str]]:
        """The sites whose updates count in this round, and why the others' do not. ``weights`` is what they started
        from. Replies of one round are judged together, and remembered for the next."""
        rejected: dict[str, str] = {}
        lengths: dict[str, float] = {}
        digests = {site: _digest(reply.weights) for site, reply in replies.items()}
        for site, reply in replies.items():
            try:
                check_update(reply, weights)
                self._check_claims(site, round_number, reply, digests[site])
                lengths[site] = max(norm(reply.weights, weights), norm(reply.control or {}))
            except (ContractError, UpdateRejected) as error:
                rejected[site] = f"{type(error).__name__}: {error}"
        rejected |= self._too_long(lengths)
        self.seen |= set(digests.values())
        for site, why in rejected.items():
            log.warning("round %d: the update of %s is left out: %s", round_number, site, why)
        return [site for site in replies if site not in rejected], rejected

    def _check_claims(self, site: str, round_number: int, reply: TrainReply, digest: str) -> None:
        if reply.round != round_number:
            raise UpdateRejected(f"update: of round {reply.round}, this is round {round_number}")
        if digest in self.seen:
            raise UpdateRejected("update: the same as one of an earlier round")
        card = self.cards.get(site)
        if card is not None and reply.examples > card.stays:
            raise UpdateRejected(f"update: claims {reply.examples} stays, the site was admitted with {card.stays}")

    def _too_long(self, lengths: Mapping[str, float]) -> dict[str, str]:
        """Updates unlike the others in length. The spread counts as no less than the median, since sites of very
        different size differ in their steps a round: only what is far beyond all of them is left out."""
        if not self.limit or len(lengths) < FEWEST:
            return {}
        middle = median(lengths.values())
        spread = max(TO_SD * median(abs(length - middle) for length in lengths.values()), middle)
        most = middle + self.limit * spread
        return {
            site: f"UpdateRejected: update: its length {length:.3g} is above {most:.3g}, {self.limit:g} deviations over"
            f" the median {middle:.3g} (norm-limit)"
            for site, length in lengths.items()
            if length > most
        }


def check_update(reply: TrainReply, weights: Weights) -> None:
    """Same names, shapes and dtypes as what was sent; finite; a positive count. Raises ContractError."""
    for arrays in (reply.weights, reply.control or weights):
        if arrays.keys() != weights.keys():
            raise ContractError("update: its arrays have other names than the model")
        for name, tensor in arrays.items():
            if tensor.shape != weights[name].shape or tensor.dtype != weights[name].dtype:
                raise ContractError(f"update: {name} has another shape or dtype than the model")
            if not torch.isfinite(tensor).all():
                raise ContractError(f"update: {name} is not finite")
    if reply.examples < 1:
        raise ContractError("update: no training examples behind it")


def _digest(weights: Weights) -> str:
    digest = sha256()
    for _, tensor in sorted(weights.items()):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
