"""The only exit: every answer of a site, also a refusal, is made by ``release`` or ``refuse``, and both fail closed.

Why one function over typed replies: what it does not know it cannot send. What leaves is what the site's YAML lists
(client/policy.py), without what tells of few patients (client/small_cells.py), and it is on the disk of the site's
audit log before it is returned (client/audit.py).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from client.audit import AuditLog, Occasion
from client.ledger import Receipt
from client.norms import check_alike, clipped
from client.policy import REPLIES, Kind, ReleasePolicy, word_of
from client.private_reply import check_private
from client.private_run import paid_answer, settle
from client.secure import check_masked, masked
from client.site import SiteConfig
from client.small_cells import Reply, finite, suppressed
from client.task import Asked
from shared_model.errors import ReleaseRefused
from shared_model.messages import (
    CONFIG,
    CONTROL,
    Content,
    EvaluateReply,
    SiteCard,
    Statistics,
    TrainReply,
    read_trial,
    read_weights,
)
from shared_model.norm import norm
from shared_model.records import deserialised, serialised
from shared_model.refusal import Refusal
from shared_model.secure.messages import Keys, Sealed, Told
from shared_model.trial import THE_RUN

log = logging.getLogger("consilium.client")
_CLASSES: dict[Kind, type[Reply]] = {
    "describe": SiteCard,
    "statistics": Statistics,
    "train": TrainReply,
    "evaluate": EvaluateReply,
    "secure_keys": Keys,
    "secure_shares": Sealed,
    "secure_unmask": Told,
}


@dataclass(frozen=True, kw_only=True)
class Passed:
    """What may leave, and how far an update and a control variate moved; ``clipped``: it had moved further."""

    content: Content
    update_norm: float | None = None
    control_norm: float | None = None
    clipped: bool = False


def occasion_of(kind: Kind, content: Content, run_config: Mapping[str, Any], run_id: int) -> Occasion:
    """What is known of a message before anything in it is believed."""
    config: Mapping[str, Any] = content.config_records.get(CONFIG, {})
    number, trial = config.get("round"), config.get("trial")
    named = isinstance(trial, str) and trial != THE_RUN.to_json()
    return Occasion(
        kind=kind,
        run=str(run_config.get("name", "")),
        run_id=str(run_id),
        round=number if type(number) is int else None,
        trial=sha256(str(trial).encode()).hexdigest()[:16] if named else "",
        asked=sha256(serialised(content)).hexdigest(),
    )


def check_request(site: SiteConfig, occasion: Occasion) -> None:
    """Whether the site answers such a message at all. Raises ReleaseRefused naming the rule."""
    policy = site.release
    if site.pause_file.exists():
        raise ReleaseRefused("the site is paused; nothing leaves it")
    if (word := word_of(occasion.kind)) not in policy.allow:
        raise ReleaseRefused(f"{word}: does not leave this site; it must be listed under release.allow there")
    if policy.runs and not {occasion.run, occasion.run_id} & set(policy.runs):
        raise ReleaseRefused("this run is not listed under release.runs of the site")
    if policy.most_rounds is not None and occasion.kind == "train":
        updates = AuditLog(site.audit_file).updates(occasion)
        if len(updates) >= policy.most_rounds and (occasion.round, occasion.trial, occasion.asked) not in updates:
            raise ReleaseRefused("as many updates have left in this run as release.most_rounds of the site allows")


def release(reply: Reply, asked: Asked) -> Content:
    """The record form of a reply that the policy lets pass, once the audit log has it. Raises ReleaseRefused naming the
    rule, never a value."""
    passed = passable(reply, asked.occasion.kind, asked.site.release, asked.content)
    check_blocks(reply, asked)
    check_private(reply, asked)
    check_masked(asked)
    receipt = None
    if asked.account is not None:
        mechanism = None if isinstance(reply, Keys | Sealed | Told) else reply.mechanism
        paid, receipt = settle(asked, mechanism, serialised(passed.content))
        passed = replace(passed, content=deserialised(paid))
    return _recorded(passed, asked, receipt)


def check_blocks(reply: Reply, asked: Asked) -> None:
    """Raises ReleaseRefused for what tells of patients exactly and was not made of whole blocks of them."""
    if not isinstance(reply, Keys | Sealed | Told) and asked.account is None and asked.blocks is None:
        raise ReleaseRefused(f"{asked.occasion.kind}: was not made of blocks of patients")


def again(asked: Asked) -> Content | None:
    """The answer that the same question got before in a private run, byte for byte but for the masks; None where there
    is none. Raises ReleaseRefused where the policy, which may have changed, does not let it pass."""
    found = paid_answer(asked)
    if found is None:
        return None
    content, receipt = deserialised(found[0]), found[1]
    _check_keys(content, asked.occasion.kind, asked.site.release)
    return _recorded(Passed(content=content), asked, receipt)


def _recorded(passed: Passed, asked: Asked, receipt: Receipt | None) -> Content:
    """Under masks where the run says so, and on the audit log's disk."""
    passed = masked(passed, asked)
    _check_size(passed.content, asked.occasion.kind, asked.site.release)
    with AuditLog.held(asked.site.audit_file) as audit:
        check_request(asked.site, asked.occasion)  # again: it may have been paused meanwhile, or have answered
        audit.append(_entry(passed, asked.site.site, asked.occasion, receipt=receipt) | _blocks_of(asked))
    return passed.content


def _blocks_of(asked: Asked) -> dict[str, Any]:
    """Which blocks of patients train and validate in an answer, and the line of the memory that knows them. Raises
    BlocksError where the memory is another by now."""
    if asked.blocks is None:
        return {"blocks": None}
    from client.block_memory import confirmed

    trial = THE_RUN if asked.occasion.kind == "describe" else read_trial(asked.content)
    chosen = asked.blocks.choose(trial, asked.config.validation_fraction, asked.config.seed)
    return {"blocks": [list(blocks) for blocks in chosen], "told": list(confirmed(asked.site.store, asked.blocks.line))}


def refuse(refusal: Refusal, site: SiteConfig | None, occasion: Occasion | None) -> Content:
    """The record form of a refusal, once the audit log has it; a node that does not know its site has no log."""
    if site is None or occasion is None:
        return refusal.content()
    try:
        with AuditLog.held(site.audit_file) as audit:
            audit.append(_entry(Passed(content=refusal.content()), site.site, occasion, rule=str(refusal)))
    except Exception as error:  # nothing escapes: Flower would send its text
        log.error("refusal not recorded: %s", error)
        reason = str(error) if isinstance(error, ReleaseRefused) else "internal error; see the site's log"
        return Refusal(site=site.site, kind=type(error).__name__, reason=reason).content()
    return refusal.content()


def passable(reply: Reply, kind: Kind, policy: ReleasePolicy, asked: Content) -> Passed:
    """What of a reply may leave, if the message was of such a kind. Raises ReleaseRefused."""
    if type(reply) is not _CLASSES[kind]:
        raise ReleaseRefused(f"release: {type(reply).__name__} is not on the list of what may leave")
    if isinstance(reply, TrainReply):
        passed = _update(reply, policy, asked)
    else:
        passed = Passed(content=suppressed(reply, policy).content())
    _check_keys(passed.content, kind, policy)
    _check_size(passed.content, kind, policy)
    return passed


def _update(reply: TrainReply, policy: ReleasePolicy, asked: Content) -> Passed:
    incoming, control = read_weights(asked), reply.control
    check_alike(reply.weights, incoming, "update")
    if control is not None:
        check_alike(control, read_weights(asked, CONTROL) if CONTROL in asked.array_records else {}, "control")
    distance, weights = norm(reply.weights, incoming), reply.weights
    if policy.clip_norm is not None:
        weights = clipped(weights, incoming, policy.clip_norm)
    return Passed(
        content=suppressed(replace(reply, weights=weights), policy).content(),
        update_norm=norm(weights, incoming),
        control_norm=None if control is None else norm(control),
        clipped=policy.clip_norm is not None and distance > policy.clip_norm,
    )


def _check_keys(content: Content, kind: Kind, policy: ReleasePolicy) -> None:
    """The content as it stands, not as its class means it: nothing undeclared or unlisted, no number that is none."""
    for record, values in content.items():
        keys = REPLIES[kind].get(record, frozenset())
        if (keys is None) != (record in content.array_records):
            raise ReleaseRefused(f"{record!r} is no such part of this answer")
        listed = {record} if keys is None else keys
        for name in {record} if keys is None else values:
            if name not in listed or (policy.keys is not None and name not in policy.keys):
                raise ReleaseRefused(f"{name!r} may not leave this site (release.keys)")
        for value in () if keys is None else values.values():
            finite(*(one for one in (value if isinstance(value, list) else [value]) if isinstance(one, float)))


def _check_size(content: Content, kind: Kind, policy: ReleasePolicy) -> None:
    megabytes, limit = len(serialised(content)) / 1e6, policy.largest_megabytes
    if megabytes > limit:
        what = "update" if kind == "train" else kind
        raise ReleaseRefused(f"{what}: {megabytes:.1f} MB, release.largest_megabytes allows {limit:g}")


def _entry(
    passed: Passed, site: str, occasion: Occasion, *, rule: str = "", receipt: Receipt | None = None
) -> dict[str, Any]:
    """What the audit log says of an answer: everything but its numbers. ``epsilon`` is what the run has spent, by the
    line of the ledger that ``ledger`` names; both are None for an answer without differential privacy. ``blocks`` are
    those of patients that an exact answer is made of."""
    content, raw = passed.content, serialised(passed.content)
    return {
        "site": site,
        **vars(occasion),
        "outcome": "refused" if rule else "released",
        "rule": rule,
        "arrays": [
            [f"{record}/{name}", list(array.shape), array.dtype]
            for record, held in content.array_records.items()
            for name, array in held.items()
        ],
        "keys": sorted(
            f"{record}/{key}"
            for records in (content.metric_records, content.config_records)
            for record, held in records.items()
            for key in held
        ),
        "bytes": len(raw),
        "content": sha256(raw).hexdigest(),
        "norms": {"update": passed.update_norm, "control": passed.control_norm},
        "clipped": passed.clipped,
        "epsilon": None if receipt is None else receipt.epsilon,
        "ledger": None if receipt is None else [receipt.n, receipt.digest],
        "blocks": None,
    }
