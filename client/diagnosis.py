"""Why a SuperNode ended, and whether starting it again could help: read from its exit status and its last lines.

What only a person can put right ends the daemon with one line. A network that is down, a SuperLink that restarts, or
one that still believes in a SuperNode that was killed are none of that.
"""

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from time import monotonic

from client.connection import NOT_ACTIVATED
from client.membership import Membership, Place
from shared_model.errors import ConfigError, ConsiliumError, FederationError

AHEAD, BEHIND = 4.0, 304.0  # seconds: the SuperLink refuses what is signed 5 s in its future or 305 s in its past
PATIENCE = 90.0  # seconds in which a SuperLink that was left without farewell must have noticed
Rule = tuple[str, str]

# In the order in which they are looked for: what the SuperNode wrote, what to say.
_TLS: tuple[Rule, ...] = (
    (
        "certificate has expired",
        "its certificate has expired; the centre must renew it (and check that the date of this machine is right)",
    ),
    ("certificate is not yet valid", "its certificate is not valid yet; set this machine's clock (date and time zone)"),
    (
        "is not valid for",
        "its certificate is not for the name {host}; the centre must add that name, or invite with another address",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate is not signed by this federation's CA ({ca}): another server answers there, or a proxy that "
        "opens TLS does; ask your network's administrator, then the centre for a new invitation",
    ),
    ("WRONG_VERSION_NUMBER", "what answers there does not speak TLS; check the address with the centre"),
)
_OWN: tuple[Rule, ...] = (
    ("Exit Code: 302", "{key}: Flower cannot read this key; join again with --again"),
    (
        "Exit Code: 304",
        "release.trusted_entities: Flower cannot read this file; it maps key ids to Ed25519 public keys",
    ),
    ("Exit Code: 606", "SuperLink {superlink} runs another version of Flower; update this side or ask the centre"),
)


@dataclass(kw_only=True)
class Diagnosis:
    """``known``: whether the SuperLink ever accepted this site's key."""

    place: Place
    membership: Membership
    known: Callable[[], bool]
    clock: Callable[[], float] = monotonic
    _refused_since: float | None = field(default=None, init=False)

    def hopeless(self, status: int, lines: Sequence[str]) -> ConsiliumError | None:
        """What starting again would only repeat; None when it may help."""
        text = "\n".join(lines)
        if NOT_ACTIVATED in text:
            return self._not_activated()
        self._refused_since = None
        for sign, told in _TLS:
            if sign in text:
                return FederationError(f"SuperLink {self.membership.superlink}: {self._filled(told)}")
        for sign, told in _OWN:
            if sign in text:
                return ConfigError(self._filled(told))
        return self._clock_is_wrong() if status == 0 else None

    def _not_activated(self) -> ConsiliumError | None:
        """Flower says the same of a key that it does not know and of a site that it takes to be connected still."""
        now = self.clock()
        self._refused_since = now if self._refused_since is None else self._refused_since
        if self.known() and now - self._refused_since < PATIENCE:
            return None
        again = "no longer" if self.known() else "not"
        return FederationError(
            f"SuperLink {self.membership.superlink}: this site's key is {again} registered there; send "
            f"{self.place.registration} to the centre, and start when it has registered it"
        )

    def _clock_is_wrong(self) -> ConsiliumError | None:
        """A SuperNode that ends by itself without an error was refused (HTTP 401): its signature bears the time."""
        ahead = seconds_ahead(*self.membership.address, self.place.ca)
        if ahead is None or -BEHIND < ahead < AHEAD:
            return None
        way = "ahead of" if ahead > 0 else "behind"
        return FederationError(
            f"this machine's clock is {abs(ahead):.0f} s {way} that of SuperLink {self.membership.superlink}, which "
            "refuses what is signed at another time; set it (NTP), then start again"
        )

    def _filled(self, told: str) -> str:
        host, _ = self.membership.address
        return told.format(host=host, ca=self.place.ca, key=self.place.key, superlink=self.membership.superlink)


def seconds_ahead(host: str, port: int, ca: Path, *, seconds: float = 5.0) -> float | None:
    """How far this machine's clock is ahead of a server's, to a second; None when the server does not say."""
    try:
        connection = HTTPSConnection(host, port, timeout=seconds, context=ssl.create_default_context(cafile=str(ca)))
        try:
            connection.request("GET", "/health")
            told = connection.getresponse().getheader("Date")
        finally:
            connection.close()
        return None if told is None else (datetime.now(UTC) - parsedate_to_datetime(told)).total_seconds()
    except (OSError, HTTPException, ValueError, TypeError):
        return None
