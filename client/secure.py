"""A site's part in secure aggregation: its keys, its shares, the mask over an answer, and what it tells at the end.

A message may come again, since the server cannot know whether it was the question or the answer that was lost: the same
message gets the same answer, to the bit. Any other message in its place is refused: two answers under one mask differ
by what they hide, and shares for two lists of survivors open what one alone does not.

For one purpose (kind, round, trial) of a run a sum is opened for one list of sites only, in however many sessions: the
sum with a site and the sum without it would tell what the site sent.
"""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from client.secure_state import SessionFiles
from shared_model.errors import ContractError, ReleaseRefused
from shared_model.messages import ARRAYS, Content, examples_of, read_weights
from shared_model.records import deserialised, serialised
from shared_model.secure.encoding import moved, scale_for, to_integers, to_words
from shared_model.secure.keys import commitment_of, public_of
from shared_model.secure.messages import (
    SECURE,
    Keys,
    MaskedReply,
    Sealed,
    Told,
    kind_and_sites,
    read_roster,
    session_of,
    survivors_of,
)
from shared_model.secure.protocol import Member, Roster, Seat, Secrets, Shares, threshold, told
from shared_model.secure.ring import Vector

if TYPE_CHECKING:
    from client.release import Passed
    from client.task import Asked

MASKABLE = ("statistics", "train", "evaluate")
KINDS = ("secure_keys", "secure_shares", "secure_unmask")  # their answers hold nothing of patients


def keys(asked: "Asked") -> Keys:
    """Step 1: fresh secrets; their public halves are told."""
    _check_run(asked)
    session, (kind, sites) = session_of(asked.content), kind_and_sites(asked.content)
    threshold(sites, asked.config.secure_threshold)  # refuses to be alone
    if kind not in MASKABLE:
        raise ContractError("secure aggregation: answers of that kind are not added up")
    purpose = _purpose(asked, kind)
    with SessionFiles.held(asked.site.store, asked.run) as files:
        held = files.load(session)
        if held is None:
            held = {"purpose": purpose, "sites": sites, "secrets": _hexed(vars(Secrets.new()))}
            files.begin(session, held)
        if "secrets" not in held or (held["purpose"], held["sites"]) != (purpose, sites):
            raise ReleaseRefused("secure aggregation: this session is for something else, or has ended")
        secrets = _secrets(held)
    return Keys(
        encryption=public_of(secrets.encryption),
        masking=public_of(secrets.masking),
        commitment=commitment_of(secrets.seed, session),
    )


def shares(asked: "Asked") -> Sealed:
    """Step 2: the site's secrets, split among all in the roster and sealed to each; its own shares stay."""
    session, roster = session_of(asked.content), read_roster(asked.content)
    with SessionFiles.held(asked.site.store, asked.run) as files:
        held = _running(files, session, asked)
        if "roster" not in held:
            least = _least(held, asked)
            if len(roster.members) > held["sites"]:
                raise ContractError("secure aggregation: a roster of more sites than were asked")
            seat = Seat(session=session, name=asked.site.site, secrets=_secrets(held), roster=roster)
            seat.check()
            held = {**held, "roster": _kept(roster), "shares": _hexed(seat.share_out(least))}
            files.keep(session, held)
        if held["roster"] != _kept(roster):
            raise ReleaseRefused("secure aggregation: the shares of this session were made for another roster")
    sealed = {name: bytes.fromhex(share) for name, share in held["shares"].items() if name != asked.site.site}
    return Sealed(shares=sealed)


def check_masked(asked: "Asked") -> None:
    """Raises ReleaseRefused where the site's policy lets an answer leave only under masks, and the run has none."""
    bare = asked.occasion.kind in MASKABLE and not asked.config.secure_aggregation
    if bare and asked.site.release.only_masked:
        raise ReleaseRefused(f"{asked.occasion.kind}: leaves this site only masked (release.only_masked)")


def masked(passed: "Passed", asked: "Asked") -> "Passed":
    """Step 3: what may leave, under masks where the run says so; anything else as it is. Raises ReleaseRefused where
    the site's policy lets it leave only under masks, and where it cannot be put under them."""
    check_masked(asked)
    if asked.occasion.kind not in MASKABLE or not asked.config.secure_aggregation:
        return passed
    session, delivered = session_of(asked.content, SECURE), Sealed.read(asked.content)
    with SessionFiles.held(asked.site.store, asked.run) as files:
        held = _running(files, session, asked)
        if "roster" not in held:
            raise ReleaseRefused("secure aggregation: no shares were made in this session")
        if held.setdefault("asked", asked.occasion.asked) != asked.occasion.asked:
            raise ReleaseRefused("secure aggregation: another question was answered in this session")
        answer = files.masked(session)
        if answer is None:
            seat = _seat(held, session, asked)
            received = _received(seat, held, delivered, _least(held, asked))
            content = _masked_reply(passed, asked, seat, sorted(received)).content()
            answer = serialised(content)
            files.keep(session, {**held, "received": {name: _hexed(vars(pair)) for name, pair in received.items()}})
            files.keep_masked(session, answer)
    return replace(passed, content=deserialised(answer))


def unmask(asked: "Asked") -> Told:
    """Step 4: one share of each site, once, and the end of the session."""
    session, survivors = session_of(asked.content), sorted(survivors_of(asked.content))
    with SessionFiles.held(asked.site.store, asked.run) as files:
        held = files.load(session)
        if held is None or "told" not in held:
            held = _running(files, session, asked)
            if "received" not in held:
                raise ReleaseRefused("secure aggregation: this site has not answered in this session")
            before = files.opened(held["purpose"])
            if before is not None and before != survivors:
                raise ReleaseRefused("secure aggregation: the sum was opened before, for other sites; two would differ")
            if asked.site.site not in survivors:
                raise ReleaseRefused("secure aggregation: this site's answer is not among those added up")
            pairs = {name: Shares(**_bytes(pair)) for name, pair in held["received"].items()}
            answer = _hexed(told(pairs, survivors, _least(held, asked)))
            held = {"purpose": held["purpose"], "survivors": survivors, "told": answer}
            files.close(session, held["purpose"], survivors, held)
        if held["survivors"] != survivors:
            raise ReleaseRefused("secure aggregation: another sum of this session was opened; there is no second")
    return Told(shares=_bytes(held["told"]))


def _check_run(asked: "Asked") -> None:
    if not asked.config.secure_aggregation:
        raise ContractError("secure aggregation: the run does without (secure-aggregation in its run-config)")


def _purpose(asked: "Asked", kind: str) -> str:
    """Of a session, and of the answer that it is for: of the two messages the log says the same."""
    return json.dumps([kind, asked.occasion.round, asked.occasion.trial])


def _running(files: SessionFiles, session: str, asked: "Asked") -> dict[str, Any]:
    """What is kept of a session, if this message may belong to it."""
    _check_run(asked)
    held = files.load(session)
    if held is None or "secrets" not in held:
        raise ReleaseRefused("secure aggregation: no such session is going on at this site")
    kind = asked.occasion.kind
    if held["purpose"] != _purpose(asked, kind if kind in MASKABLE else kind_and_sites(asked.content)[0]):
        raise ReleaseRefused("secure aggregation: the session is for another round, trial or kind of answer")
    return held


def _least(held: dict[str, Any], asked: "Asked") -> int:
    """By this site's own reckoning, of all that were asked at the beginning."""
    return threshold(held["sites"], asked.config.secure_threshold)


def _seat(held: dict[str, Any], session: str, asked: "Asked") -> Seat:
    roster = Roster(tuple(Member(**_bytes(keys), name=name, stays=stays) for name, stays, keys in held["roster"]))
    return Seat(session=session, name=asked.site.site, secrets=_secrets(held), roster=roster)


def _kept(roster: Roster) -> list[list[Any]]:
    keys = ("encryption", "masking", "commitment")
    return [[m.name, m.stays, _hexed({key: getattr(m, key) for key in keys})] for m in roster.members]


def _received(seat: Seat, held: dict[str, Any], delivered: Sealed, least: int) -> dict[str, Shares]:
    """Everybody's shares that have come, and the site's own."""
    if seat.name in delivered.shares or len(delivered.shares) + 1 < least:
        raise ReleaseRefused(f"secure aggregation: {len(delivered.shares)} other sites share, {least - 1} are needed")
    own = Shares.from_bytes(bytes.fromhex(held["shares"][seat.name]))
    return {**seat.unsealed(delivered.shares), seat.name: own}


def _masked_reply(passed: "Passed", asked: "Asked", seat: Seat, sharers: list[str]) -> MaskedReply:
    """Raises ReleaseRefused for what cannot be added up without wrapping, or weighs more than was admitted."""
    content = passed.content
    groups = (content.metric_records, content.config_records)
    records = {name: dict(held) for group in groups for name, held in group.items()}
    layout, integers = to_integers(records)
    words = _words(content, asked, seat) if content.array_records else np.zeros(0, dtype=np.int64)
    return MaskedReply(session=seat.session, layout=layout, vector=seat.masked(Vector.of(words, integers), sharers))


def _words(content: Content, asked: "Asked", seat: Seat) -> NDArray[np.int64]:
    """How far each weight has moved, times the examples behind it, in fixed point; arrays by name."""
    if list(content.array_records) != [ARRAYS]:
        raise ReleaseRefused("secure aggregation: only weights can be masked")
    before, after = read_weights(asked.content), read_weights(content)
    if not all(tensor.is_floating_point() for tensor in before.values()):
        raise ReleaseRefused("secure aggregation: an array of the model that holds no real numbers")
    examples, own = examples_of(content), seat.roster.of(seat.name).stays
    if examples > own:
        raise ReleaseRefused(f"update: {examples} examples, this site was admitted with {own}")
    largest = asked.config.secure_range
    scale = scale_for(seat.roster.stays, largest, len(seat.roster.members))
    return to_words(moved(after, before), examples, scale, largest)


def _secrets(held: dict[str, Any]) -> Secrets:
    return Secrets(**_bytes(held["secrets"]))


def _hexed(parts: Any) -> dict[str, str]:
    return {name: part.hex() for name, part in parts.items()}


def _bytes(parts: dict[str, str]) -> dict[str, bytes]:
    return {name: bytes.fromhex(part) for name, part in parts.items()}
