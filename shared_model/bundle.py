"""What server and site hand each other before they are connected: an invitation and its answer, as small JSON files.

The coordinating centre signs every invitation with the federation's key; a site compares the key's fingerprint with
what the centre tells it by another way (telephone, paper). The site's answer carries its public key, signed with the
private one, which never leaves the site.
"""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared_model.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """From the centre to one site. ``superlink``: host:port; ``ca``: the certificate that the server's is signed by
    (PEM); ``ticket``: random, so that an answer belongs to one invitation; ``federation_key``: Ed25519, OpenSSH."""

    federation: str
    site: str
    superlink: str
    ca: str
    ticket: str
    federation_key: str

    @property
    def fingerprint(self) -> str:
        """Of the federation's key, in groups that can be read out."""
        return fingerprint(self.federation_key)

    def seal(self, key: "Ed25519PrivateKey") -> str:
        """The file's text, signed with the federation's private key."""
        return _sealed(asdict(self), b64encode(key.sign(_canonical(asdict(self)))).decode())

    @classmethod
    def open(cls, path: Path) -> "Invitation":
        """Raises ConfigError when the file is no invitation, or was changed after it was signed."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_ssh_public_key

        held, signature = _opened(path, {field.name for field in fields(cls)}, "invitation")
        invitation = cls(**held)
        try:
            key = load_ssh_public_key(invitation.federation_key.encode())
            if not isinstance(key, Ed25519PublicKey):
                raise ValueError
            key.verify(b64decode(signature), _canonical(held))
        except (InvalidSignature, ValueError):
            raise ConfigError(f"{path}: was changed after it was signed; ask the centre for a new invitation") from None
        return invitation


@dataclass(frozen=True, kw_only=True)
class Registration:
    """From one site to the centre: its public key (ECDSA P-384, OpenSSH), signed with the private one."""

    federation: str
    site: str
    ticket: str
    public_key: str

    def seal(self, key: "EllipticCurvePrivateKey") -> str:
        """The file's text, signed with the site's private key."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA384

        return _sealed(asdict(self), b64encode(key.sign(_canonical(asdict(self)), ECDSA(SHA384()))).decode())

    @classmethod
    def open(cls, path: Path) -> "Registration":
        """Raises ConfigError when the file is no registration, or its signature is not by the key in it."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA384

        held, signature = _opened(path, {field.name for field in fields(cls)}, "registration")
        registration = cls(**held)
        try:
            registration.key.verify(b64decode(signature), _canonical(held), ECDSA(SHA384()))
        except (InvalidSignature, ValueError):
            raise ConfigError(f"{path}: was changed after it was signed; let the site join again") from None
        return registration

    @property
    def key(self) -> "EllipticCurvePublicKey":
        """Raises ValueError when it is none."""
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import load_ssh_public_key

        key = load_ssh_public_key(self.public_key.encode())
        if not isinstance(key, EllipticCurvePublicKey):
            raise ValueError("not an elliptic curve key")
        return key


def public_text(key: "EllipticCurvePrivateKey | Ed25519PrivateKey") -> str:
    """A key pair's public half as OpenSSH writes it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")


def split_address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, an IPv6 host in brackets. Raises ValueError otherwise."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})", text)
    if not found or not 1 <= int(found[3]) <= 65535:
        raise ValueError("write HOST:PORT, such as sepsis.example.org:9092")
    return found[1] or found[2], int(found[3])


def fingerprint(public_key: str) -> str:
    """The first 128 bits of a public key's SHA-256, in groups of four hexadecimal digits."""
    digest = sha256(public_key.split()[1].encode()).hexdigest()[:32]
    return "-".join(digest[n : n + 4] for n in range(0, 32, 4))


def _canonical(held: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(held), sort_keys=True, separators=(",", ":")).encode()


def _sealed(held: dict[str, Any], signature: str) -> str:
    return json.dumps({"format": FORMAT, **held, "signature": signature}, indent=1) + "\n"


def _opened(path: Path, names: set[str], what: str) -> tuple[dict[str, str], str]:
    """The fields of a bundle and its signature, of the right names and types."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found, signature = document.pop("format"), document.pop("signature")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise ConfigError(f"{path}: is no {what} (a JSON file made by consilium)") from None
    if (
        found != FORMAT
        or set(document) != names
        or not all(isinstance(v, str) for v in (*document.values(), signature))
    ):
        raise ConfigError(f"{path}: is no {what} of this version of consilium")
    return document, signature
