"""What tells of too few patients is kept back: the last thing that happens to a reply's numbers before it may leave.

Below the site's smallest cell a count of patients is withheld, a feature that fewer patients have is left out (as if
never measured), bins are put together until each has enough patients behind it, and a site whose training patients are
themselves fewer does not take part. Statistics are judged block by block (client/blocks.py) and added up afterwards:
what other answers leave when they are subtracted is a block's at least, and has been judged, too.

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
from shared_model.distribution import BINS, Bins, Outcomes, merge_outcomes
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
            check_enough(reply.examples, policy)
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


def check_enough(patients: int | None, policy: ReleasePolicy) -> None:
    """Raises ReleaseRefused where a site has too few training patients to take part."""
    if patients is None or patients < policy.smallest_cell:
        raise ReleaseRefused(f"fewer than {policy.smallest_cell} training patients (release.smallest_cell)")


def _card(card: SiteCard, policy: ReleasePolicy) -> SiteCard:
    check_enough(card.patients, policy)
    return replace(card, deaths=_count(card.deaths, card.patients or 0, policy))


def _count(part: int | None, whole: int, policy: ReleasePolicy) -> int | None:
    """A count is withheld when it or its complement is small: the two tell each other."""
    if part is None or part < policy.smallest_cell or whole - part < policy.smallest_cell:
        return None
    return part


def _statistics(statistics: Statistics, policy: ReleasePolicy) -> Statistics:
    check_enough(statistics.patients, policy)
    told = _count(statistics.deaths, statistics.patients, policy)
    if statistics.noise is not None:
        finite(statistics.noise)
        return replace(statistics, deaths=told)
    if not statistics.parts:
        raise ReleaseRefused("statistics: were not made block by block")
    parts = [_part(whole, new, policy.smallest_cell) for whole, new in statistics.parts]
    static, series = (merge_outcomes(held) for held in zip(*parts, strict=True))
    return replace(statistics, static=tuple(static), series=tuple(series), deaths=told, parts=())


def _part(whole: Statistics, new: Statistics, cell: int) -> tuple[list[Outcomes], list[Outcomes]]:
    """What may be told of one block, whatever else is told: as much as if there were no other."""
    held = zip((*whole.static, *whole.series), (*new.static, *new.series), whole.most, strict=True)
    told = [_outcomes(all_of_it, fresh, cell, cell * most) for all_of_it, fresh, most in held]
    return told[: len(whole.static)], told[len(whole.static) :]


def _outcomes(held: Outcomes, new: Outcomes, cell: int, values: int) -> Outcomes:
    """As if never measured where fewer new patients than a cell are behind it, and without the outcome where fewer of
    them died or survived. ``values``: how many a bin must hold, so that a cell of patients is behind it."""
    if new.whole.patients < cell:
        return Outcomes()
    of_both = [held] if new is held else [held, new]
    whole = replace(held.whole, bins=coarsened([one.whole.bins for one in of_both], values)[0])
    if min(new.survived.patients, new.died.patients) < cell:
        return Outcomes(whole)
    by_outcome = [bins for one in of_both for bins in (one.survived.bins, one.died.bins)]
    survived, died, *_ = coarsened(by_outcome, values)
    return Outcomes(whole, replace(held.survived, bins=survived), replace(held.died, bins=died))


def coarsened(histograms: Sequence[Bins], least: int) -> list[Bins]:
    """The same totals in fewer cells, none of them small: neighbours are put together, where the middle one of their
    values is, until each histogram holds ``least`` in them; what is left at the end joins the last.

    Several histograms are cut alike: were survivals and deaths cut each for itself, their values would come to lie in
    different cells, and look as if they told the two apart.
    """
    reached = [[0, *accumulate(histogram)] for histogram in histograms]
    ends, before = [0], [0] * len(histograms)
    while (end := max(bisect_left(r, b + least) for r, b in zip(reached, before, strict=True))) <= BINS:
        ends.append(end)
        before = [r[end] for r in reached]
    groups = list(pairwise([*ends[: max(len(ends) - 1, 1)], BINS]))
    together = reached[0] if len(reached) == 1 else list(map(sum, zip(*reached, strict=True)))
    middles = [bisect_left(together, (together[a] + together[b] + 1) // 2, lo=a + 1) - 1 for a, b in groups]
    return [_placed([r[b] - r[a] for a, b in groups], middles) for r in reached]


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
