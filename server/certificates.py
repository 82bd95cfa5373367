"""TLS of a federation: a private CA and the server's certificate, or the institution's own.

Whether a certificate serves is asked of TLS itself: a handshake in memory, as a site would make it with the CA of its
invitation. So what passes here does not fail at a hospital.
"""

import shutil
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared_model.atomic import write_private
from shared_model.errors import ConfigError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CA_DAYS, SERVER_DAYS, WARN_DAYS = 3650, 825, 30


@dataclass(frozen=True)
class Certificates:
    """The files of one folder: what sites trust (ca.pem, ca.key where it is ours), and the server's pair."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def ca_key(self) -> Path:
        return self.folder / "ca.key"

    @property
    def certificate(self) -> Path:
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        return self.folder / "server.key"

    def create(self, federation: str, names: list[str]) -> None:
        """A CA of this federation's own, and a server's certificate for these host names and addresses."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_authority(self, federation)
        self.renew(names)

    def renew(self, names: list[str]) -> None:
        """A new server's certificate by the same CA, so that no site notices. Raises ConfigError when the CA is not
        ours."""
        if not self.ca_key.exists():
            raise ConfigError(
                f"{self.certificate}: is the institution's own; put a renewed one and its key in {self.folder}"
            )
        _write_server(self, names)

    def adopt(self, certificate: Path, key: Path, ca: Path, names: list[str]) -> None:
        """Copies of the institution's own, checked before. Raises ConfigError as ``check`` does."""
        check(certificate, key, ca, names)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self.key, key.read_bytes())
        shutil.copyfile(certificate, self.certificate)
        shutil.copyfile(ca, self.ca)

    def check(self, names: list[str]) -> datetime:
        """When the server's certificate expires. Raises ConfigError when it would not serve."""
        return check(self.certificate, self.key, self.ca, names)

    def expiry(self) -> datetime:
        """When the server's certificate expires, whatever else is wrong with it."""
        return _certificates_in(self.certificate)[0].not_valid_after_utc


def check(certificate: Path, key: Path, ca: Path, names: list[str]) -> datetime:
    """When the certificate expires. Raises ConfigError when a file cannot be read, the key is another's, it is not
    valid now, another CA signed it, or it does not cover one of the names."""
    first, now = _certificates_in(certificate)[0], datetime.now(UTC)
    _certificates_in(ca)
    if now < first.not_valid_before_utc:
        raise ConfigError(f"{certificate}: is not valid before {first.not_valid_before_utc:%Y-%m-%d}; check the clock")
    if now > first.not_valid_after_utc:
        raise ConfigError(
            f"{certificate}: expired on {first.not_valid_after_utc:%Y-%m-%d}; renew it with: consilium-server renew"
        )
    server = _server_context(certificate, key)
    for name in names:
        if problem := _handshake(server, ca, name):
            raise ConfigError(f"{certificate}: {_who_dials(name)} would refuse it for {name} ({problem})")
    return first.not_valid_after_utc


def days_left(expiry: datetime) -> int:
    """Whole days from now."""
    return (expiry - datetime.now(UTC)).days


def _who_dials(name: str) -> str:
    """Whom a certificate without this name would shut out."""
    return "this machine's own ServerApps" if name in ("127.0.0.1", "::1") else "sites"


def _certificates_in(path: Path) -> "list[x509.Certificate]":
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({(error.strerror or 'error').lower()})") from None
    except ValueError:
        raise ConfigError(f"{path}: is no certificate in PEM form") from None


def _server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    def no_password() -> str:
        raise ConfigError(f"{key}: is protected by a password; write it without one (openssl pkey)")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{certificate}: belongs to another key than {key}; give the pair") from None
        raise ConfigError(f"{key}: is no private key in PEM form") from None
    except OSError as error:
        raise ConfigError(f"{key}: cannot be read ({(error.strerror or 'error').lower()})") from None
    return context


def _handshake(server: ssl.SSLContext, ca: Path, name: str) -> str:
    """What a client that trusts ``ca`` finds wrong when it dials ``name``; empty when nothing."""
    client = ssl.create_default_context(cafile=ca)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends: list[Any] = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    try:
        for _ in range(6):
            ends = [end for end in ends if not _shaken(end)]
    except ssl.SSLCertVerificationError as error:
        return error.verify_message.rstrip(".").lower()
    return "" if not ends else "TLS did not come to terms"


def _shaken(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _write_authority(files: Certificates, federation: str) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"consilium federation {federation}"[:64])])
    builder = (
        _builder(name, name, key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certificates=True), critical=True)
    )
    write_private(files.ca_key, _pem(key))
    files.ca.write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))


def _write_server(files: Certificates, names: list[str]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    authority: Any = load_pem_private_key(files.ca_key.read_bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    covered = list(dict.fromkeys([*names, "localhost", "127.0.0.1", "::1"]))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    builder = (
        _builder(subject, _certificates_in(files.ca)[0].subject, key, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in covered]), critical=False)
        .add_extension(signer, critical=False)
    )
    write_private(files.key, _pem(key))
    files.certificate.write_bytes(builder.sign(authority, SHA256()).public_bytes(Encoding.PEM))


def _builder(
    subject: "x509.Name", issuer: "x509.Name", key: "EllipticCurvePrivateKey", days: int
) -> "x509.CertificateBuilder":
    from cryptography import x509

    begin = datetime.now(UTC) - timedelta(hours=1)  # a site's clock may be behind
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, certificates: bool) -> "x509.KeyUsage":
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> "x509.GeneralName":
    from cryptography import x509

    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: "EllipticCurvePrivateKey") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
