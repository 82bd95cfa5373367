"""A site's membership of a federation: the folder beside its YAML, and how it comes about.

The private key is made here and never leaves; what goes to the centre is the registration, which holds the public one.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from shared_model.atomic import write_private, write_text
from shared_model.bundle import Invitation, Registration, fingerprint, public_text, split_address
from shared_model.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

HEALTH_PORT = 9095


@dataclass(frozen=True)
class Place:
    """The folder of a membership; it may not exist yet."""

    config: Path
    folder: Path

    @classmethod
    def of(cls, config: Path) -> "Place":
        """The one that belongs to a site's YAML."""
        whole = config.resolve()
        return cls(whole, whole.with_name(f"{whole.stem}.federation"))

    @property
    def membership(self) -> Path:
        return self.folder / "membership.json"

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        return self.folder / "node.key"

    @property
    def public_key(self) -> Path:
        return self.folder / "node.pub"

    @property
    def registration(self) -> Path:
        return self.folder / "registration.json"

    @property
    def log(self) -> Path:
        return self.folder / "logs" / "supernode.log"

    @property
    def pid_file(self) -> Path:
        return self.folder / "daemon.pid"

    @property
    def connection(self) -> Path:
        return self.folder / "connection.json"

    @property
    def home(self) -> Path:
        """FLWR_HOME."""
        return self.folder / "flower"

    @property
    def empty(self) -> Path:
        """Where the SuperNode runs: nothing to import lies there."""
        return self.folder / "empty"


@dataclass(frozen=True, kw_only=True)
class Membership:
    """membership.json: which federation, as which site. ``superlink``: host:port."""

    federation: str
    site: str
    superlink: str
    ticket: str
    federation_key: str
    health_port: int = HEALTH_PORT

    @property
    def fingerprint(self) -> str:
        """Of the federation's key."""
        return fingerprint(self.federation_key)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the SuperLink."""
        return address_of(self.superlink)


def address_of(superlink: str) -> tuple[str, int]:
    """Host and port of ``host:port``. Raises ConfigError."""
    try:
        return split_address(superlink)
    except ValueError:
        raise ConfigError(f"superlink: {superlink!r} is no HOST:PORT; ask the centre for a new invitation") from None


def read_membership(place: Place) -> Membership:
    """Raises ConfigError when the site has not joined, or the file is not as `join` wrote it."""
    names = {field.name for field in fields(Membership)}
    try:
        document = json.loads(place.membership.read_text(encoding="utf-8"))
        held = Membership(**{key: value for key, value in document.items() if key in names})
        address_of(held.superlink)
    except FileNotFoundError:
        raise ConfigError(
            f"{place.config}: has not joined a federation (no {place.membership}); "
            f"run `consilium-site join INVITATION.json {place.config.name}`"
        ) from None
    except (OSError, ValueError, TypeError, AttributeError):
        raise ConfigError(f"{place.membership}: not readable; join again with the invitation") from None
    return held


def check_invitation(invitation: Invitation, path: Path, site: str, expected: str | None) -> None:
    """Raises ConfigError when it is another site's, its key is not the one that the centre told, or it is unusable."""
    if invitation.site != site:
        raise ConfigError(
            f"{path}: invites {invitation.site!r}, and the YAML file's `site` is {site!r}; they must be the same"
        )
    if expected is not None and _bare(expected) != _bare(invitation.fingerprint):
        raise ConfigError(
            f"--fingerprint: the invitation's key has {invitation.fingerprint}; do not join, and ask the centre"
        )
    address_of(invitation.superlink)
    _check_pem(invitation.ca, path)


def join(invitation: Invitation, place: Place, *, again: bool) -> Path | None:
    """Make the membership, or renew the one of the same federation, whose key stays. Returns where an earlier one of
    another federation was moved (``again``). Raises ConfigError when there is one and ``again`` is not set."""
    if place.folder.exists():
        held = read_membership(place) if place.membership.exists() else None
        if held is not None and _same(held, invitation) and not again:
            _renew(invitation, place, held.health_port)
            return None
        if not again:
            whose = f"federation {held.federation!r}" if held is not None else "no federation that can be told"
            raise ConfigError(f"{place.folder}: belongs to {whose}; `--again` moves it aside and joins anew")
    return _begin(invitation, place)


def _same(held: Membership, invitation: Invitation) -> bool:
    """The name alone would let anybody take over a membership."""
    return (held.federation, held.federation_key) == (invitation.federation, invitation.federation_key)


def _begin(invitation: Invitation, place: Place) -> Path | None:
    """Everything in a new folder, which takes its place at once."""
    with _unfinished(place.folder) as folder:
        made = Place(place.config, folder)
        for inner in (made.home, made.empty, made.log.parent):
            inner.mkdir(mode=0o700)
        key = _new_key(made)
        _write(invitation, made, key, HEALTH_PORT)
        aside = _moved_aside(place.folder)
        folder.rename(place.folder)
    return aside


def _renew(invitation: Invitation, place: Place, health_port: int) -> None:
    _write(invitation, place, read_key(place), health_port)


def _write(invitation: Invitation, place: Place, key: "EllipticCurvePrivateKey", health_port: int) -> None:
    membership = Membership(
        federation=invitation.federation,
        site=invitation.site,
        superlink=invitation.superlink,
        ticket=invitation.ticket,
        federation_key=invitation.federation_key,
        health_port=health_port,
    )
    public_key = public_text(key)
    registration = Registration(
        federation=invitation.federation, site=invitation.site, ticket=invitation.ticket, public_key=public_key
    )
    write_text(place.ca, invitation.ca)
    write_text(place.public_key, public_key + "\n")
    write_text(place.registration, registration.seal(key))
    write_text(place.membership, json.dumps(asdict(membership), indent=1) + "\n")


def read_key(place: Place) -> "EllipticCurvePrivateKey":
    """The site's private key. Raises ConfigError when it is absent, readable by others, or none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        if mode := place.key.stat().st_mode & 0o077:
            raise ConfigError(f"{place.key}: others may read it (mode {mode | 0o600:04o}); run `chmod 600` on it")
        key = load_ssh_private_key(place.key.read_bytes(), None)
        if not isinstance(key, EllipticCurvePrivateKey):
            raise ValueError
    except FileNotFoundError:
        raise ConfigError(f"{place.key}: is missing; join again with `--again`, and register the new key") from None
    except (OSError, ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{place.key}: no private key that can be read; join again with `--again`") from None
    return key


def _new_key(place: Place) -> "EllipticCurvePrivateKey":
    """ECDSA on P-384, as Flower's node authentication takes it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP384R1())
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    write_private(place.key, text)
    return key


def _check_pem(ca: str, path: Path) -> None:
    from cryptography.x509 import load_pem_x509_certificate

    try:
        load_pem_x509_certificate(ca.encode())
    except ValueError:
        raise ConfigError(f"{path}: its CA certificate cannot be read; ask the centre for a new invitation") from None


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """A new folder that nobody else may enter, removed unless it was renamed."""
    temporary = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=0o700)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _moved_aside(folder: Path) -> Path | None:
    if not folder.exists():
        return None
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    return folder.rename(aside)


def _bare(text: str) -> str:
    return "".join(sign for sign in text.lower() if sign.isalnum())
