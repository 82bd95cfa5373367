"""A private CA and certificates by it, and an invitation signed by a federation's key, as a centre makes them."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from shared_model.bundle import Invitation


class Authority:
    """Its own certificate is ``pem``."""

    def __init__(self, name: str = "test CA", *, days: int = 30) -> None:
        self._key, self._name = ec.generate_private_key(ec.SECP256R1()), _name(name)
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        made = _begun(self._name, self._name, self._key.public_key(), days)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        made = made.add_extension(usage, critical=True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        self._certificate = made.sign(self._key, SHA256())
        self.pem = self._certificate.public_bytes(Encoding.PEM).decode()

    def server(self, folder: Path, *, days: int = 30, address: str = "127.0.0.1") -> tuple[Path, Path]:
        """Files of a certificate and its key; negative ``days``: expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _begun(_name("superlink"), self._name, key.public_key(), days)
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        made = made.add_extension(names, critical=False).add_extension(issuer, critical=False)
        certificate, private = folder / f"server{days}{address}.crt", folder / f"server{days}{address}.key"
        certificate.write_bytes(made.sign(self._key, SHA256()).public_bytes(Encoding.PEM))
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, private


def invitation_file(
    path: Path,
    key: Ed25519PrivateKey,
    *,
    ca: str,
    superlink: str = "127.0.0.1:9092",
    site: str = "Mercy",
    **changed: str,
) -> Path:
    """An invitation of federation 'sepsis'."""
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    held = {"federation": "sepsis", "ticket": "t1"} | changed
    invitation = Invitation(site=site, superlink=superlink, ca=ca, federation_key=public, **held)
    path.write_text(invitation.seal(key), encoding="utf-8")
    return path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _begun(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    built = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    built = built.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=60))
    return built.not_valid_after(now + timedelta(days=days))
