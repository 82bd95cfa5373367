"""A federation's folder for tests, and a site that answers its invitations."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from server.federation import Federation
from server.launch import create_federation
from shared_model.bundle import Invitation, Registration

SETTINGS = {"federation": "sepsis", "address": "127.0.0.1:9092", "host": "127.0.0.1"}


def new_federation(folder: Path, **settings: object) -> Federation:
    """With a private CA."""
    return create_federation(folder, **(SETTINGS | settings))


def site_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    """As `consilium-site join` makes it."""
    return ec.generate_private_key(curve or ec.SECP384R1())


def answer(
    invitation: Path, out: Path, key: ec.EllipticCurvePrivateKey | None = None, **changed: str
) -> tuple[Path, ec.EllipticCurvePrivateKey]:
    """A site's answer to an invitation, its fields ``changed`` before they are signed."""
    key, invited = key or site_key(), Invitation.open(invitation)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    fields = {"federation": invited.federation, "site": invited.site, "ticket": invited.ticket, "public_key": public}
    out.write_text(Registration(**(fields | changed)).seal(key), encoding="utf-8")
    return out, key


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """As a SuperNode reads it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
