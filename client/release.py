"""The only exit: everything that leaves a site goes through ``release`` and it fails closed.

Why one function over typed replies: what it does not know it cannot send. Below the site's smallest cell a count of
patients is withheld, a feature that fewer patients have is left out (as if never measured), bins are put together until
each has enough patients behind it, and a site whose training patients are themselves fewer does not take part.
"""

import math
from bisect import bisect_left
from dataclasses import replace
from itertools import accumulate

from client.site import ReleasePolicy
from shared_model.distribution import Outcomes
from shared_model.errors import ReleaseRefused
from shared_model.mergeable import Validation
from shared_model.messages import Content, EvaluateReply, SiteCard, Statistics, TrainReply, content_bytes

Reply = SiteCard | Statistics | TrainReply | EvaluateReply


def release(reply: Reply, policy: ReleasePolicy) -> Content:
    """The record form of a reply that the policy lets pass. Raises ReleaseRefused naming the rule, never a value."""
    match reply:
        case SiteCard():
            return _card(reply, policy).content()
        case Statistics():
            return _statistics(reply, policy).content()
        case TrainReply():
            return _update(reply, policy)
        case EvaluateReply():
            personal = None if reply.personal is None else _validation(reply.personal, policy)
            return replace(reply, validation=_validation(reply.validation, policy), personal=personal).content()
    raise ReleaseRefused(f"release: {type(reply).__name__} is not on the list of what may leave")


def _card(card: SiteCard, policy: ReleasePolicy) -> SiteCard:
    if card.patients is None or card.patients < policy.smallest_cell:
        raise ReleaseRefused(f"fewer than {policy.smallest_cell} training patients (release.smallest_cell)")
    return replace(card, deaths=_count(card.deaths, card.patients, policy))


def _count(part: int | None, whole: int, policy: ReleasePolicy) -> int | None:
    """A count is withheld when it or its complement is small: the two tell each other."""
    if part is None or part < policy.smallest_cell or whole - part < policy.smallest_cell:
        return None
    return part


def _statistics(statistics: Statistics, policy: ReleasePolicy) -> Statistics:
    if statistics.patients < policy.smallest_cell:
        raise ReleaseRefused(f"fewer than {policy.smallest_cell} training patients (release.smallest_cell)")
    cell, told = policy.smallest_cell, _count(statistics.deaths, statistics.patients, policy)
    return replace(
        statistics,
        static=tuple(_outcomes(held, cell, statistics.static_rows) for held in statistics.static),
        series=tuple(_outcomes(held, cell, statistics.series_rows) for held in statistics.series),
        deaths=told,
    )


def _outcomes(held: Outcomes, cell: int, rows: int) -> Outcomes:
    """As if never measured where fewer patients than a cell are behind it, and without the outcome where fewer of them
    died or survived. ``rows``: the most values of one patient."""
    if held.all.patients < cell:
        return Outcomes()
    if min(held.survived.patients, held.died.patients) < cell:
        held = Outcomes(untold=held.all)
    groups = (held.survived, held.died, held.untold)
    return Outcomes(*(replace(group, bins=coarsened(group.bins, cell * rows)) for group in groups))


def coarsened(bins: tuple[int, ...], least: int) -> tuple[int, ...]:
    """The same total in fewer cells, none of them small: neighbours are put together, where the middle one of their
    values is, until they hold ``least``; what is left at the end joins the last."""
    held, ends, total = list(bins), [], 0
    for place, count in enumerate(bins):
        total += count
        if total >= least:
            ends.append(place + 1)
            total = 0
    starts, ends = [0, *ends[:-1]], [*ends[:-1], len(bins)]
    for start, end in zip(starts, ends, strict=True):
        reached = list(accumulate(bins[start:end]))
        middle = start + bisect_left(reached, (reached[-1] + 1) // 2)
        held[start:end] = [0] * (end - start)
        held[middle] += reached[-1]
    return tuple(held)


def _update(reply: TrainReply, policy: ReleasePolicy) -> Content:
    _finite(reply.train_loss, reply.seconds)
    arrays = [*reply.weights.items(), *(reply.control or {}).items()]
    broken = [name for name, tensor in arrays if not tensor.isfinite().all()]
    if broken:
        raise ReleaseRefused(f"update: {broken[0]} is not finite (training diverged); lower the learning rate")
    if reply.examples < policy.smallest_cell:
        raise ReleaseRefused(f"fewer than {policy.smallest_cell} training patients (release.smallest_cell)")
    content = replace(reply, validation=_validation(reply.validation, policy)).content()
    megabytes = content_bytes(content) / 1e6
    if megabytes > policy.largest_megabytes:
        limit = policy.largest_megabytes
        raise ReleaseRefused(f"update: {megabytes:.1f} MB, release.largest_megabytes allows {limit:g}")
    return content


def _validation(validation: Validation, policy: ReleasePolicy) -> Validation:
    """Withheld (zero, which merges as nothing) when it describes too few deaths or too few survivals."""
    _finite(validation.loss_sum)
    smallest = min(sum(validation.negatives), sum(validation.positives))
    return validation if smallest >= policy.smallest_cell else Validation()


def _finite(*values: float) -> None:
    if not all(math.isfinite(value) for value in values):
        raise ReleaseRefused("a number is not finite; nothing was sent")
