"""The four steps as functions of what a party holds; nothing here sends or stores.

A site stands at a place in the roster, counted from 1: the roster is sorted by name, the same for everybody. A roster
of n sites opens a sum when ``threshold`` of them are left, more than half: the server cannot get from honest sites,
each of which tells one share of a peer, enough shares of both its secrets.
"""

import secrets as entropy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from shared_model.errors import ContractError, FederationError, ReleaseRefused
from shared_model.secure.keys import (
    KEY_BYTES,
    agreed,
    commitment_of,
    new_secret,
    own_mask,
    pair_mask,
    public_of,
    seal,
    unseal,
)
from shared_model.secure.ring import Vector
from shared_model.secure.shamir import SHARE_BYTES, combine, split

FEWEST_SITES = 2


def new_session() -> str:
    """A name that was never used."""
    return entropy.token_hex(16)


def threshold(sites: int, share: float) -> int:
    """How many of so many sites must be left for a sum to be opened: at least ``share`` of them, more than half, and
    two. Raises ContractError for one site: its sum would be itself."""
    if sites < FEWEST_SITES:
        raise ContractError(f"secure aggregation: {sites} site, at least {FEWEST_SITES} must take part")
    asked = ceil(Fraction(share).limit_denominator(10_000) * sites)
    return max(FEWEST_SITES, sites // 2 + 1, asked)


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """What a site makes for one session: two X25519 private keys, and the seed of its own mask."""

    encryption: bytes
    masking: bytes
    seed: bytes

    @classmethod
    def new(cls) -> "Secrets":
        """From the operating system's entropy."""
        return cls(encryption=new_secret(), masking=new_secret(), seed=new_secret())


@dataclass(frozen=True, kw_only=True)
class Member:
    """What everybody knows of a site in a session. ``stays``: the most that it may weigh."""

    name: str
    encryption: bytes
    masking: bytes
    commitment: bytes
    stays: int


@dataclass(frozen=True)
class Roster:
    """The sites that told their keys, sorted by name."""

    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        names = [member.name for member in self.members]
        keys = [key for member in self.members for key in (member.encryption, member.masking)]
        whole = all(len(part) == KEY_BYTES for part in (*keys, *(member.commitment for member in self.members)))
        if names != sorted(set(names)) or len(set(keys)) != len(keys) or not whole:
            raise ContractError("secure aggregation: a roster with a site or a key twice, out of order, or with no key")
        if any(member.stays < 1 for member in self.members):
            raise ContractError("secure aggregation: a roster with a site that has no stays")

    @property
    def stays(self) -> int:
        """The most that all of them may weigh together."""
        return sum(member.stays for member in self.members)

    @property
    def names(self) -> list[str]:
        """In the order of their places."""
        return [member.name for member in self.members]

    def of(self, name: str) -> Member:
        """Raises ContractError for who is not in it."""
        for member in self.members:
            if member.name == name:
                return member
        raise ContractError("secure aggregation: speaks of a site that is not in the roster")

    def place(self, name: str) -> int:
        """Counted from 1."""
        return self.names.index(self.of(name).name) + 1


@dataclass(frozen=True, kw_only=True)
class Shares:
    """One site's shares of another's secrets; of the two it ever tells one."""

    masking: bytes
    seed: bytes

    def to_bytes(self) -> bytes:
        """Both in a row."""
        return self.masking + self.seed

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Shares":
        """Raises ValueError for another length."""
        if len(raw) != 2 * SHARE_BYTES:
            raise ValueError("it holds no shares")
        return cls(masking=raw[:SHARE_BYTES], seed=raw[SHARE_BYTES:])


@dataclass(frozen=True, kw_only=True)
class Seat:
    """A site in a session."""

    session: str
    name: str
    secrets: Secrets
    roster: Roster

    def check(self) -> None:
        """Raises ContractError unless the roster has this site's own keys under its name."""
        own, said = self.roster.of(self.name), self.secrets
        keys = public_of(said.encryption), public_of(said.masking), commitment_of(said.seed, self.session)
        if (own.encryption, own.masking, own.commitment) != keys:
            raise ContractError("secure aggregation: the roster has other keys of this site than it told")

    def share_out(self, least: int) -> dict[str, bytes]:
        """Step 2: for each site in the roster its shares of this one's secrets, sealed to it; its own are in the
        clear."""
        if len(self.roster.members) < least:
            raise ReleaseRefused(f"secure aggregation: {len(self.roster.members)} of at least {least} sites told keys")
        parts = (split(secret, least, len(self.roster.members)) for secret in (self.secrets.masking, self.secrets.seed))
        pairs = [Shares(masking=masking, seed=seed).to_bytes() for masking, seed in zip(*parts, strict=True)]
        return {
            to: pair if to == self.name else seal(self._key(to), pair, self._associated(self.name, to))
            for to, pair in zip(self.roster.names, pairs, strict=True)
        }

    def unsealed(self, sealed: Mapping[str, bytes]) -> dict[str, Shares]:
        """Step 3: the shares that others sealed to this site, by sender. Raises ContractError naming the sender of one
        that was changed."""
        found = {}
        for sender, content in sealed.items():
            try:
                raw = unseal(self._key(sender), content, self._associated(sender, self.name))
                found[sender] = Shares.from_bytes(raw)
            except ValueError as error:
                raise ContractError(f"secure aggregation: the shares from {sender}: {error}") from error
        return found

    def masked(self, vector: Vector, sharers: Iterable[str]) -> Vector:
        """Step 3: this site's vector under its own mask and one for each other site that shared its secrets."""
        own, total = self.roster.place(self.name), vector
        for peer in sharers:
            if peer != self.name:
                public = self.roster.of(peer).masking
                mask = pair_mask(self.secrets.masking, public, self.session, vector.size)
                total = total + mask if own < self.roster.place(peer) else total - mask
        return total + own_mask(self.secrets.seed, self.session, vector.size)

    def _key(self, peer: str) -> bytes:
        return agreed(self.secrets.encryption, self.roster.of(peer).encryption, self.session, "shares")

    def _associated(self, sender: str, receiver: str) -> bytes:
        return "\0".join((self.session, sender, receiver)).encode()


def told(held: Mapping[str, Shares], survivors: Sequence[str], least: int) -> dict[str, bytes]:
    """Step 4, at a site: of each site that shared its secrets, a share of its seed if its answer is in the sum, of its
    masking key if not; never of both. Raises ReleaseRefused below ``least`` survivors."""
    alive = set(survivors)
    if len(alive) != len(survivors) or not alive <= held.keys():
        raise ContractError("secure aggregation: a survivor twice, or one that never shared its secrets")
    if len(alive) < least:
        raise ReleaseRefused(f"secure aggregation: {len(alive)} of at least {least} sites answered; no sum is opened")
    return {name: shares.seed if name in alive else shares.masking for name, shares in held.items()}


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Step 4, at the server: what it needs to take the masks off a sum over ``survivors`` of those that shared."""

    session: str
    roster: Roster
    sharers: Sequence[str]
    survivors: Sequence[str]
    least: int

    def opened(self, masked: Vector, answers: Mapping[str, Mapping[str, bytes]]) -> Vector:
        """The sum; ``answers`` has each answering site's shares by the site that they are of. Raises FederationError
        where a secret cannot be put together from them."""
        total = masked
        for name in self.survivors:
            total = total - own_mask(self._seed(name, answers), self.session, masked.size)
        for lost in (name for name in self.sharers if name not in set(self.survivors)):
            key, place = self._masking_key(lost, answers), self.roster.place(lost)
            for name in self.survivors:
                mask = pair_mask(key, self.roster.of(name).masking, self.session, masked.size)
                total = total - mask if self.roster.place(name) < place else total + mask
        return total

    def _seed(self, name: str, answers: Mapping[str, Mapping[str, bytes]]) -> bytes:
        seed = self._secret(name, answers)
        if commitment_of(seed, self.session) != self.roster.of(name).commitment:
            raise self._not_whole(name)
        return seed

    def _masking_key(self, name: str, answers: Mapping[str, Mapping[str, bytes]]) -> bytes:
        key = self._secret(name, answers)
        if public_of(key) != self.roster.of(name).masking:
            raise self._not_whole(name)
        return key

    def _secret(self, name: str, answers: Mapping[str, Mapping[str, bytes]]) -> bytes:
        held = {self.roster.place(site): shares[name] for site, shares in answers.items() if name in shares}
        if len(held) < self.least:
            raise FederationError(f"secure aggregation, unmask: {len(held)} of at least {self.least} shares of {name}")
        try:
            return combine(dict(sorted(held.items())[: self.least]))
        except ValueError as error:
            raise self._not_whole(name) from error

    def _not_whole(self, name: str) -> FederationError:
        return FederationError(
            f"secure aggregation, unmask: the shares of {name} do not fit what it told; one is wrong"
        )
