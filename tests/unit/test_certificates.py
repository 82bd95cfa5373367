"""Certificates: what serves, and the one line for each thing that would not."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from server_folder import SETTINGS, site_key

from server import certificates
from server.certificates import Certificates, check, days_left
from server.launch import create_federation
from shared_model.errors import ConfigError

NAMES = ["sepsis.example.org", "127.0.0.1"]


def made(folder: Path, names: list[str] = NAMES) -> Certificates:
    files = Certificates(folder)
    files.create("sepsis", names)
    return files


def test_own_certificates_serve_the_address_and_loopback_and_their_keys_are_private(tmp_path: Path) -> None:
    files = made(tmp_path / "certificates")
    assert days_left(files.check([*NAMES, "localhost", "::1"])) in (823, 824)
    assert stat.S_IMODE(files.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (files.key, files.ca_key)} == {0o600}


def test_a_renewed_certificate_is_trusted_by_sites_that_hold_the_old_ca(tmp_path: Path) -> None:
    files = made(tmp_path)
    ca, before = files.ca.read_bytes(), files.certificate.read_bytes()
    files.renew(NAMES)
    assert files.ca.read_bytes() == ca and files.certificate.read_bytes() != before
    files.check(NAMES)


def test_a_name_that_is_not_covered_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"server\.pem: sites would refuse it for other\.example\.org \(hostname"):
        made(tmp_path).check(["other.example.org"])


def test_a_certificate_by_another_ca_is_refused(tmp_path: Path) -> None:
    files, other = made(tmp_path / "a"), made(tmp_path / "b")
    with pytest.raises(ConfigError, match=r"sites would refuse it for sepsis\.example\.org"):
        check(files.certificate, files.key, other.ca, NAMES)


def test_the_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    files, other = made(tmp_path / "a"), made(tmp_path / "b")
    with pytest.raises(ConfigError, match=r"a/server\.pem: belongs to another key than .*b/server\.key"):
        check(files.certificate, other.key, files.ca, NAMES)


@pytest.mark.parametrize(("days", "words"), [(-826, "expired on"), (2, "is not valid before")])
def test_a_certificate_out_of_its_time_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, words: str
) -> None:
    class _Then(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=days)

    monkeypatch.setattr(certificates, "datetime", _Then)
    files = made(tmp_path)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=rf"server\.pem: {words}"):
        files.check(NAMES)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    files = made(tmp_path)
    with pytest.raises(ConfigError, match="missing: no such file"):
        check(tmp_path / "missing", files.key, files.ca, NAMES)
    with pytest.raises(ConfigError, match=r"server\.key: is no certificate in PEM form"):
        check(files.certificate, files.key, files.key, NAMES)
    with pytest.raises(ConfigError, match=r"ca\.pem: is no private key in PEM form"):
        check(files.certificate, files.ca, files.ca, NAMES)
    secret = tmp_path / "secret.key"
    secret.write_bytes(
        site_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    )
    with pytest.raises(ConfigError, match=r"secret\.key: is protected by a password"):
        check(files.certificate, secret, files.ca, NAMES)


def test_the_institutions_own_are_copied_only_when_they_serve(tmp_path: Path) -> None:
    own = made(tmp_path / "own", ["sepsis.example.org"])
    settings = SETTINGS | {"address": "sepsis.example.org:9092"}
    federation = create_federation(tmp_path / "fed", own=(own.certificate, own.key, own.ca), **settings)
    federation.certificates.check(federation.config.names)
    assert stat.S_IMODE(federation.certificates.key.stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="is the institution's own; put a renewed one"):
        federation.certificates.renew(NAMES)
    with pytest.raises(ConfigError, match="sites would refuse it for elsewhere"):
        create_federation(
            tmp_path / "b", own=(own.certificate, own.key, own.ca), **(SETTINGS | {"address": "elsewhere:1"})
        )
    assert not (tmp_path / "b").exists()
