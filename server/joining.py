"""How a site becomes a member: an invitation goes out, its answer comes back, and its key is registered."""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from server.control import ready, register_key, unregister_node
from server.federation import Federation, Member
from shared_model.atomic import write_text
from shared_model.bundle import Invitation, Registration, fingerprint, public_text
from shared_model.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

LONGEST = 80  # signs of a site's name, as in a site's own YAML


def invite(federation: Federation, site: str, *, again: bool = False) -> tuple[Path, str]:
    """Write an invitation; its path, and the fingerprint to read out. Raises ConfigError for a site that is registered
    already, unless ``again``. An earlier invitation of the site is no longer worth anything."""
    site = site.strip()
    if not 1 <= len(site) <= LONGEST or not site.isprintable():
        raise ConfigError(f"SITE {site[:LONGEST]!r}: write the hospital's name, at most {LONGEST} signs")
    if not again and any(member.site == site for member in federation.roster()):
        raise ConfigError(f"{site}: is registered already; invite it anew with --again")
    key = signing_key(federation)
    invitation = Invitation(
        federation=federation.config.federation,
        site=site,
        superlink=federation.config.address,
        ca=federation.certificates.ca.read_text(encoding="ascii"),
        ticket=secrets.token_urlsafe(24),
        federation_key=public_text(key),
    )
    path = federation.invitations / f"{file_name(site)}.json"
    write_text(path, invitation.seal(key))
    return path, invitation.fingerprint


def register(federation: Federation, answer: Path) -> Member:
    """Check a site's answer, register its key with the running SuperLink, and add it to the roster; what of that holds
    already stays as it is. Raises ConfigError for whatever is wrong with the answer."""
    registration = Registration.open(answer)
    with _only_one(federation):
        _check(federation, registration, answer)
        ready(federation)
        with TemporaryDirectory(prefix="consilium-") as place:
            key = Path(place) / "site.pub"
            key.write_text(registration.public_key + "\n", encoding="ascii")
            node = register_key(federation, key)
        return _listed(federation, registration, node)


def _listed(federation: Federation, registration: Registration, node: int) -> Member:
    """The site's line of the roster. One with its key, but another node, is of a SuperLink whose database was lost."""
    roster = federation.roster()
    for member in roster:
        if (member.site, member.node_id) == (registration.site, node):
            return member
    member = Member(
        site=registration.site,
        node_id=node,
        fingerprint=fingerprint(registration.public_key),
        registered=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    federation.write_roster([*(other for other in roster if other.site != member.site), member])
    return member


def unregister(federation: Federation, site: str) -> Member:
    """Take a site's key out of the SuperLink and the roster; its invitation is worth nothing any more. Raises
    ConfigError for a site that is no member."""
    with _only_one(federation):
        roster = federation.roster()
        found = [member for member in roster if member.site == site]
        if not found:
            names = ", ".join(member.site for member in roster) or "none"
            raise ConfigError(f"{site}: is not registered; sites are: {names}")
        ready(federation)
        unregister_node(federation, found[0].node_id)
        federation.write_roster([member for member in roster if member.site != site])
        (federation.invitations / f"{file_name(site)}.json").unlink(missing_ok=True)
    return found[0]


def signing_key(federation: Federation) -> "Ed25519PrivateKey":
    """The federation's private key. Raises ConfigError when the file is none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        key = load_ssh_private_key(federation.key.read_bytes(), None)
    except (OSError, ValueError):
        raise ConfigError(f"{federation.key}: cannot be read; take it from a backup") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{federation.key}: is another kind of key; take the federation's from a backup")
    return key


def file_name(site: str) -> str:
    """A name for the site's files: readable, and no two sites' the same."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", site).strip("-")
    return plain if plain == site else f"{plain or 'site'}-{sha256(site.encode()).hexdigest()[:6]}"


def _check(federation: Federation, registration: Registration, answer: Path) -> None:
    config, site = federation.config, registration.site
    if registration.federation != config.federation:
        raise ConfigError(f"{answer}: answers federation '{registration.federation}', not '{config.federation}'")
    invitation = _invitation(federation, registration, answer)
    if not secrets.compare_digest(invitation.ticket.encode(), registration.ticket.encode()):
        raise ConfigError(f"{answer}: answers another invitation of {site} than the last; let it join with that one")
    if registration.key.curve.name != "secp384r1":
        raise ConfigError(f"{answer}: its key is {registration.key.curve.name}, not P-384; let {site} join again")
    for member in federation.roster():
        same_site, same_key = member.site == site, member.fingerprint == fingerprint(registration.public_key)
        if same_site and not same_key:
            raise ConfigError(f"{answer}: {site} is registered already; unregister it first, then invite it")
        if same_key and not same_site:
            raise ConfigError(f"{answer}: its key is {member.site}'s already; let {site} join with a key of its own")


def _invitation(federation: Federation, registration: Registration, answer: Path) -> Invitation:
    """The last invitation of the site, as it was signed here."""
    path = federation.invitations / f"{file_name(registration.site)}.json"
    if not path.exists():
        raise ConfigError(f"{answer}: no invitation of {registration.site} is open; write one: consilium-server invite")
    invitation = Invitation.open(path)
    ours = public_text(signing_key(federation))
    if invitation.site != registration.site or invitation.federation_key != ours:
        raise ConfigError(f"{path}: is not this federation's invitation of {registration.site}; invite it again")
    return invitation


@contextmanager
def _only_one(federation: Federation) -> Iterator[None]:
    """Two administrators do not write the roster at once."""
    from filelock import FileLock

    with FileLock(federation.state / "roster.lock"):
        yield
