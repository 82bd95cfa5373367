"""The only exit: everything that leaves a site goes through ``release`` and it fails closed.

Why one function over typed replies: what it does not know it cannot send. Below the site's smallest cell a count of
patients is withheld, moments of a feature that fewer patients have are left out (as if never measured), and a site
whose training patients are themselves fewer does not take part.
"""

import math
from dataclasses import replace

from client.site import ReleasePolicy
from shared_model.errors import ReleaseRefused
from shared_model.mergeable import Moments, Validation
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
            return replace(reply, validation=_validation(reply.validation, policy)).content()
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
    return replace(
        statistics,
        static=_moments(statistics.static, statistics.static_patients, policy),
        series=_moments(statistics.series, statistics.series_patients, policy),
        static_patients=_cells(statistics.static_patients, policy),
        series_patients=_cells(statistics.series_patients, policy),
        deaths=_count(statistics.deaths, statistics.patients, policy) or 0,
    )


def _moments(moments: tuple[Moments, ...], patients: tuple[int, ...], policy: ReleasePolicy) -> tuple[Moments, ...]:
    """As if never measured where fewer patients are behind them; a patient can have many measurements."""
    _finite(*(number for m in moments for number in (m.mean, m.m2)))
    return tuple(m if seen >= policy.smallest_cell else Moments() for m, seen in zip(moments, patients, strict=True))


def _cells(patients: tuple[int, ...], policy: ReleasePolicy) -> tuple[int, ...]:
    return tuple(seen if seen >= policy.smallest_cell else 0 for seen in patients)


def _update(reply: TrainReply, policy: ReleasePolicy) -> Content:
    _finite(reply.train_loss, reply.seconds)
    broken = [name for name, tensor in reply.weights.items() if not tensor.isfinite().all()]
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
