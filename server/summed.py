"""What sums over sites stand for: statistics, an update and a validation as if one site had all patients."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from server.admission import Admission
from server.secure import Opened, open_sum
from shared_model.config import RunConfig
from shared_model.distribution import Outcomes
from shared_model.errors import ContractError, FederationError
from shared_model.messages import (
    ARRAYS,
    EVALUATE,
    STATISTICS,
    EvaluateReply,
    RoundOrder,
    Statistics,
    TrainReply,
    Weights,
    trial_content,
    weights_content,
)
from shared_model.secure.encoding import LEAST_PRECISION, error_of, moved_back, scale_for, to_mean
from shared_model.secure.messages import summed_content
from shared_model.trial import THE_RUN, Trial

_Read = TypeVar("_Read")
ALL_SITES = "all sites"  # stands for a site's name


@dataclass(frozen=True, kw_only=True)
class SummedUpdate:
    """The mean update in the form of one site's, and the message that a strategy reads it from."""

    reply: TrainReply
    message: Message
    opened: Opened


def summed_statistics(
    grid: Grid, admission: Admission, config: RunConfig, trial: Trial = THE_RUN
) -> tuple[list[Statistics], dict[str, str]]:
    """Statistics whose merge is that of all sites: of those that tell their deaths, and of the others. And why a site's
    are not in it. Raises FederationError below ``config.min_sites``."""
    messages = _to_all(admission, STATISTICS, trial_content(trial))
    opened = open_sum(grid, admission, config, messages, kind=STATISTICS.partition(".")[2], trial=trial)
    _check_quorum(opened, config, "statistics")
    whole = _read(lambda: Statistics.read(summed_content(opened.sums), config.study), "statistics")
    whole = replace(whole, noise=_together(whole.noise, opened))
    telling = opened.sums.weights.get("deaths", 0)
    if whole.deaths is None or telling == whole.patients:
        return [whole], opened.failed
    static, series = ((Outcomes(),) * len(held) for held in (whole.static, whole.series))
    others = Statistics(static=static, series=series, patients=whole.patients - telling, deaths=None)
    return [replace(whole, patients=telling), others], opened.failed


def summed_update(
    grid: Grid, admission: Admission, config: RunConfig, messages: list[Message], order: RoundOrder, start: Weights
) -> SummedUpdate:
    """The mean update of a round whose ``messages`` a strategy made, from weights ``start``. Raises FederationError
    when too few sites are left, or rounding would move the mean by more than ``LEAST_PRECISION``."""
    what, stays = f"round {order.round}", sum(card.stays for card in admission.sites.values())
    _check_precision(scale_for(stays, config.secure_range, len(messages)), stays, len(messages), config)
    opened = open_sum(
        grid,
        admission,
        config,
        messages,
        kind="train",
        round_number=order.round,
        trial=order.trial,
        words=sum(tensor.numel() for tensor in start.values()),
    )
    _check_quorum(opened, config, what)
    content = summed_content(opened.sums, order.round)
    sites = len(opened.roster.members)
    scale = scale_for(opened.roster.stays, config.secure_range, sites)
    examples = _examples(opened, what)
    _check_precision(scale, examples, len(opened.contributors), config)
    weights = moved_back(start, to_mean(opened.vector.words(), examples, scale))
    content[ARRAYS] = ArrayRecord(weights)
    reply = _read(lambda: TrainReply.read(content), what)
    return SummedUpdate(reply=reply, message=Message(reply.content(), reply_to=messages[0]), opened=opened)


def summed_validation(
    grid: Grid, admission: Admission, weights: Weights, order: RoundOrder, config: RunConfig
) -> EvaluateReply:
    """Validation of a model over all sites. Raises FederationError when too few are left."""
    messages = _to_all(admission, EVALUATE, weights_content(weights, order))
    opened = open_sum(grid, admission, config, messages, kind="evaluate", round_number=order.round, trial=order.trial)
    reply = _read(lambda: EvaluateReply.read(summed_content(opened.sums)), "evaluate")
    return replace(reply, noise=_together(reply.noise, opened))


def _to_all(admission: Admission, kind: str, content: RecordDict) -> list[Message]:
    return [Message(content, node, kind) for node in admission.sites]


def _together(summed: float | None, opened: Opened) -> float | None:
    """Standard deviation of the sum of the sites' noises, from the sum of their standard deviations: these are equal,
    as the noise of counts does not depend on a site's size."""
    return None if summed is None else summed / math.sqrt(len(opened.contributors))


def _examples(opened: Opened, what: str) -> int:
    """All that the guard can check of a sum: that it does not weigh more than its sites may."""
    examples = opened.sums.records.get("metrics", {}).get("num-examples")
    if type(examples) is not int or not 1 <= examples <= opened.stays:
        raise FederationError(f"{what}: the sum claims {examples} stays, its sites were admitted with {opened.stays}")
    return examples


def _check_quorum(opened: Opened, config: RunConfig, what: str) -> None:
    if len(opened.contributors) < config.min_sites:
        reasons = "; ".join(f"{site}: {why}" for site, why in opened.failed.items())
        raise FederationError(
            f"{what}: {len(opened.contributors)} of at least {config.min_sites} sites in the sum (min-sites); {reasons}"
        )


def _check_precision(scale: float, examples: int, sites: int, config: RunConfig) -> None:
    error = error_of(scale, examples, sites)
    if error > LEAST_PRECISION:
        raise FederationError(
            f"secure-range = {config.secure_range:g}: rounding could move a mean weight by {error:.1e}, at most"
            f" {LEAST_PRECISION:.0e} is accepted; lower it"
        )


def _read(read: Callable[[], _Read], what: str) -> _Read:
    try:
        return read()
    except ContractError as error:
        raise FederationError(f"{what}: the sum over sites: {error}") from error
