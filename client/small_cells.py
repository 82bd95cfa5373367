"""What tells of too few patients is kept back: the last thing that happens to a reply's numbers before it may leave.

Below the site's smallest cell a count of patients is withheld, a feature that fewer patients have is left out (as if
never measured), bins are put together until each has enough patients behind it, and a site whose training patients are
themselves fewer does not take part.

Counts with noise (client/noising.py) are left as they are: the noise is what protects, and leaving some out by what
they say would spoil their sum over the sites. The site must still be large enough, by the count that it tells.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import assert_never

from client.policy import ReleasePolicy
from shared_model.distribution import BINS, Bins, Outcomes
from shared_model.errors import ReleaseRefused
from shared_model.mergeable import Validation
from shared_model.messages import EvaluateReply, SiteCard, Statistics, TrainReply
from shared_model.secure.messages import Keys, Sealed, Told

Reply = SiteCard | Statistics | TrainReply | EvaluateReply | Keys | Sealed | Told


def suppressed(reply: Reply, policy: ReleasePolicy) -> Reply:
    """The reply without what is small. Raises ReleaseRefused where nothing of it may leave."""
    match reply:
        case SiteCard():
            return _card(reply, policy)
        case Statistics():
            return _statistics(reply, policy)
        case TrainReply():
            _enough(reply.examples, policy)
            finite(reply.train_loss or 0.0, reply.seconds or 0.0)
            return replace(reply, validation=_validation(reply.validation, policy))
        case EvaluateReply():
            if reply.noise is not None:
                finite(reply.noise, reply.validation.loss_sum)
                return reply
            personal = None if reply.personal is None else _validation(reply.personal, policy)
            return replace(reply, validation=_validation(reply.validation, policy), personal=personal)
        case Keys() | Sealed() | Told():
            return reply  # random numbers
    assert_never(reply)


def finite(*values: float) -> None:
    """Raises ReleaseRefused unless every number is one."""
    if not all(math.isfinite(value) for value in values):
        raise ReleaseRefused("a number is not finite; nothing was sent")


def _enough(patients: int | None, policy: ReleasePolicy) -> None:
    if patients is None or patients < policy.smallest_cell:
        raise ReleaseRefused(f"fewer than {policy.smallest_cell} training patients (release.smallest_cell)")


def _card(card: SiteCard, policy: ReleasePolicy) -> SiteCard:
    _enough(card.patients, policy)
    return replace(card, deaths=_count(card.deaths, card.patients or 0, policy))


def _count(part: int | None, whole: int, policy: ReleasePolicy) -> int | None:
    """A count is withheld when it or its complement is small: the two tell each other."""
    if part is None or part < policy.smallest_cell or whole - part < policy.smallest_cell:
        return None
    return part


def _statistics(statistics: Statistics, policy: ReleasePolicy) -> Statistics:
    _enough(statistics.patients, policy)
    cell, told = policy.smallest_cell, _count(statistics.deaths, statistics.patients, policy)
    if statistics.noise is not None:
        finite(statistics.noise)
        return replace(statistics, deaths=told)
    return replace(
        statistics,
        static=tuple(_outcomes(held, cell, statistics.static_rows) for held in statistics.static),
        series=tuple(_outcomes(held, cell, statistics.series_rows) for held in statistics.series),
        deaths=told,
    )


def _outcomes(held: Outcomes, cell: int, rows: int) -> Outcomes:
    """As if never measured where fewer patients than a cell are behind it, and without the outcome where fewer of them
    died or survived. ``rows``: the most values of one patient."""
    if held.whole.patients < cell:
        return Outcomes()
    whole = replace(held.whole, bins=coarsened([held.whole.bins], cell * rows)[0])
    if min(held.survived.patients, held.died.patients) < cell:
        return Outcomes(whole)
    survived, died = coarsened([held.survived.bins, held.died.bins], cell * rows)
    return Outcomes(whole, replace(held.survived, bins=survived), replace(held.died, bins=died))


def coarsened(histograms: Sequence[Bins], least: int) -> list[Bins]:
    """The same totals in fewer cells, none of them small: neighbours are put together, where the middle one of their
    values is, until each histogram holds ``least`` in them; what is left at the end joins the last.

    Several histograms are cut alike: were survivals and deaths cut each for itself, their values would come to lie in
    different cells, and look as if they told the two apart.
    """
    ends, totals = [0], [0] * len(histograms)
    for place, counts in enumerate(zip(*histograms, strict=True)):
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        if min(totals) >= least:
            ends.append(place + 1)
            totals = [0] * len(histograms)
    groups = list(pairwise([*ends[: max(len(ends) - 1, 1)], BINS]))
    middles = [
        _middle([sum(counts) for counts in zip(*(h[a:b] for h in histograms), strict=True)]) + a for a, b in groups
    ]
    return [_placed([sum(h[a:b]) for a, b in groups], middles) for h in histograms]


def _middle(counts: list[int]) -> int:
    """Where the middle one of the values is."""
    reached = list(accumulate(counts))
    return bisect_left(reached, (reached[-1] + 1) // 2)


def _placed(counts: list[int], places: list[int]) -> Bins:
    held = [0] * BINS
    for count, place in zip(counts, places, strict=True):
        held[place] += count
    return tuple(held)


def _validation(validation: Validation, policy: ReleasePolicy) -> Validation:
    """Withheld (zero, which merges as nothing) when it describes too few deaths or too few survivals."""
    finite(validation.loss_sum)
    smallest = min(sum(validation.negatives), sum(validation.positives))
    return validation if smallest >= policy.smallest_cell else Validation()
