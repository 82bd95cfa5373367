"""One session of secure aggregation between functions, without messages: for tests and the benchmark of its parts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shared_model.secure.keys import commitment_of, public_of
from shared_model.secure.protocol import (
    Member,
    Opening,
    Roster,
    Seat,
    Secrets,
    Shares,
    new_session,
    threshold,
    told,
)
from shared_model.secure.ring import Vector


@dataclass(frozen=True)
class Session:
    """All sites after step 2; ``held``: whose shares each has."""

    seats: dict[str, Seat]
    held: dict[str, dict[str, Shares]]
    roster: Roster
    session: str
    least: int

    def masked(self, vectors: Mapping[str, Vector]) -> dict[str, Vector]:
        """Step 3, of the sites that have a vector."""
        return {name: self.seats[name].masked(vector, self.held) for name, vector in vectors.items()}

    def told(self, survivors: Iterable[str], by: Iterable[str]) -> dict[str, dict[str, bytes]]:
        """Step 4, from the sites ``by``."""
        return {name: told(self.held[name], sorted(survivors), self.least) for name in by}

    def opening(self, survivors: Iterable[str]) -> Opening:
        """The server's part of step 4."""
        alive = sorted(survivors)
        return Opening(
            session=self.session, roster=self.roster, sharers=list(self.held), survivors=alive, least=self.least
        )


def session_of(sites: int, share: float = 2 / 3, *, sharers: int | None = None) -> Session:
    """Sites ``S00`` ... with fresh keys; the first ``sharers`` of them (all) have split their secrets among all."""
    session, least = new_session(), threshold(sites, share)
    secrets = {f"S{number:02}": Secrets.new() for number in range(sites)}
    roster = Roster(tuple(member(session, name, held) for name, held in secrets.items()))
    seats = {name: Seat(session=session, name=name, secrets=held, roster=roster) for name, held in secrets.items()}
    names = list(seats)[: sharers or sites]
    out = {name: seats[name].share_out(least) for name in names}
    held = {name: seats[name].unsealed({o: out[o][name] for o in names if o != name}) for name in names}
    own = {name: {name: Shares.from_bytes(out[name][name])} for name in names}
    return Session(seats, {name: held[name] | own[name] for name in names}, roster, session, least)


def member(session: str, name: str, held: Secrets, stays: int = 100) -> Member:
    """What a site tells of its secrets."""
    return Member(
        name=name,
        encryption=public_of(held.encryption),
        masking=public_of(held.masking),
        commitment=commitment_of(held.seed, session),
        stays=stays,
    )


def total(vectors: Iterable[Vector]) -> Vector:
    """Of at least one."""
    first, *others = vectors
    for one in others:
        first = first + one
    return first
