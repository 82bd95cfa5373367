"""Secure aggregation at the server: one session over the grid, from keys to the opened sum (docs/decisions/0016).

Who is lost on the way is left out of the sum, after whichever step, as long as ``secure-threshold`` of the sites are
left; with fewer the session ends with nothing opened, and says who is missing.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from server.admission import Admission, sort_replies
from shared_model.config import RunConfig
from shared_model.errors import ContractError, FederationError
from shared_model.refusal import misfit
from shared_model.secure.encoding import Sums, from_integers, read_layout
from shared_model.secure.messages import (
    SECURE,
    SECURE_KEYS,
    SECURE_SHARES,
    SECURE_UNMASK,
    Keys,
    MaskedReply,
    Purpose,
    Sealed,
    Told,
    roster_lists,
)
from shared_model.secure.protocol import Member, Opening, Roster, new_session, threshold
from shared_model.secure.ring import Vector
from shared_model.secure.shamir import SHARE_BYTES
from shared_model.trial import THE_RUN, Trial

log = logging.getLogger("consilium.server")
_Read = TypeVar("_Read")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The sum: ``sums`` of what is not an array, ``vector`` with the weights. ``contributors`` are in it; ``failed``
    says of each other site why it is not. ``bytes_up``: masked numbers of all contributors."""

    sums: Sums
    vector: Vector
    roster: Roster
    contributors: list[str]
    failed: dict[str, str]
    bytes_up: int

    @property
    def stays(self) -> int:
        """The most that the contributors may weigh together."""
        return sum(self.roster.of(name).stays for name in self.contributors)


def open_sum(
    grid: Grid,
    admission: Admission,
    config: RunConfig,
    messages: list[Message],
    *,
    kind: str,
    round_number: int | None = None,
    trial: Trial = THE_RUN,
    words: int = 0,
) -> Opened:
    """Hold one session: ``messages`` are what the sites are asked in the clear, one each; ``words`` the weights in an
    answer. Raises FederationError for one site, and when too few are left after a step."""
    session = _Session(grid=grid, admission=admission, config=config, messages=messages)
    session.begin(kind, round_number, trial)
    roster = session.keys()
    sealed = session.shares(roster)
    answers = session.answers(sealed, words)
    told = session.told(list(sealed), list(answers))
    masked = [answer.vector for answer in answers.values()]
    total = masked[0]
    for one in masked[1:]:
        total = total + one
    opening = Opening(
        session=session.purpose.session,
        roster=roster,
        sharers=list(sealed),
        survivors=list(answers),
        least=session.least,
    )
    vector = opening.opened(total, told)
    return Opened(
        sums=from_integers(next(iter(answers.values())).layout, vector.integers()),
        vector=vector,
        roster=roster,
        contributors=list(answers),
        failed=dict(sorted(session.failed.items())),
        bytes_up=sum(one.nbytes for one in masked),
    )


@dataclass(kw_only=True)
class _Session:
    """The steps, each with the sites that the one before left; all mappings are by site, in the order of names."""

    grid: Grid
    admission: Admission
    config: RunConfig
    messages: list[Message]
    failed: dict[str, str] = field(default_factory=dict)

    def begin(self, kind: str, round_number: int | None, trial: Trial) -> None:
        nodes = {message.metadata.dst_node_id: message for message in self.messages}
        self.asked = {self.admission.name_of(node): message for node, message in nodes.items()}
        self.nodes = {self.admission.name_of(node): node for node in nodes}
        try:
            self.least = threshold(len(nodes), self.config.secure_threshold)
        except ContractError as error:
            raise FederationError(str(error)) from error
        self.purpose = Purpose(session=new_session(), kind=kind, round=round_number, trial=trial, sites=len(nodes))

    def keys(self) -> Roster:
        """Step 1: who takes part, and with which keys."""
        content = self.purpose.content()
        found = self._step(SECURE_KEYS, dict.fromkeys(self.nodes, content), lambda name, reply: Keys.read(reply))
        stays = {card.site: card.stays for card in self.admission.sites.values()}
        try:
            return Roster(
                tuple(
                    Member(
                        name=name,
                        encryption=held.encryption,
                        masking=held.masking,
                        commitment=held.commitment,
                        stays=stays[name],
                    )
                    for name, held in found.items()
                )
            )
        except ContractError as error:
            raise FederationError(f"secure aggregation, keys: {error}") from error

    def shares(self, roster: Roster) -> dict[str, Sealed]:
        """Step 2: who has split its secrets among all of them."""
        content = self.purpose.content(**roster_lists(roster))

        def read(name: str, reply: RecordDict) -> Sealed:
            sealed = Sealed.read(reply)
            if set(sealed.shares) != set(roster.names) - {name}:
                raise ContractError("secure aggregation: shares for other sites than those in the roster")
            return sealed

        return self._step(SECURE_SHARES, dict.fromkeys(roster.names, content), read)

    def answers(self, sealed: Mapping[str, Sealed], words: int) -> dict[str, MaskedReply]:
        """Step 3: the masked answers, all of one layout."""
        contents = {name: self._delivery(name, sealed) for name in sealed}

        def read(name: str, reply: RecordDict) -> MaskedReply:
            answer = MaskedReply.read(reply)
            numbers = sum(entry.count for entry in read_layout(answer.layout))
            if answer.session != self.purpose.session or answer.vector.size != (words, numbers):
                raise ContractError("secure aggregation: an answer of another session or size")
            return answer

        found = self._step("", contents, read)
        common, _ = Counter(answer.layout for answer in found.values()).most_common(1)[0]
        for name in [name for name, answer in found.items() if answer.layout != common]:
            del found[name]
            self.failed[name] = "ContractError: secure aggregation: an answer of another layout than the others'"
        self._check(self.purpose.kind, len(found))
        return found

    def told(self, sharers: list[str], survivors: list[str]) -> dict[str, Mapping[str, bytes]]:
        """Step 4: shares from the sites in the sum. Who no longer answers is in the sum all the same."""
        content, failed = self.purpose.content(survivors=survivors), dict(self.failed)

        def read(name: str, reply: RecordDict) -> Mapping[str, bytes]:
            told = Told.read(reply).shares
            if set(told) != set(sharers) or any(len(share) != SHARE_BYTES for share in told.values()):
                raise ContractError("secure aggregation: other shares than were asked for")
            return told

        found = self._step(SECURE_UNMASK, dict.fromkeys(survivors, content), read)
        for name in set(survivors) - found.keys():
            log.warning("%s is in the sum and did not help to open it: %s", name, self.failed[name])
        self.failed = failed
        return found

    def _delivery(self, name: str, sealed: Mapping[str, Sealed]) -> RecordDict:
        """What the site is asked in any case, with what the others sealed to it."""
        delivered = Sealed(shares={sender: held.shares[name] for sender, held in sealed.items() if sender != name})
        record = delivered.content(session=self.purpose.session)[SECURE]
        return RecordDict({**self.asked[name].content, SECURE: record})

    def _step(
        self, kind: str, contents: Mapping[str, RecordDict], read: Callable[[str, RecordDict], _Read]
    ) -> dict[str, _Read]:
        """One message to each site; of those that answer, what ``read`` makes of it. ``kind`` empty: as asked."""
        messages = [
            Message(content, self.nodes[name], kind or self.asked[name].metadata.message_type)
            for name, content in contents.items()
        ]
        received = self.grid.send_and_receive(messages, timeout=self.config.round_timeout)
        replies, reasons = sort_replies([self.nodes[name] for name in contents], received)
        found: dict[str, _Read] = {}
        for node in sorted(replies, key=self.admission.name_of):
            name = self.admission.name_of(node)
            try:
                found[name] = read(name, replies[node])
            except ContractError as error:
                reasons[node] = misfit(error)
        self.failed |= {self.admission.name_of(node): str(why) for node, why in reasons.items()}
        self._check(kind or self.purpose.kind, len(found))
        return found

    def _check(self, step: str, left: int) -> None:
        if left < self.least:
            missing = "; ".join(f"{site}: {why}" for site, why in sorted(self.failed.items()))
            raise FederationError(
                f"secure aggregation, {step}: {left} of {len(self.nodes)} sites are left, at least {self.least} are"
                f" needed (secure-threshold); no sum was opened; {missing}"
            )
