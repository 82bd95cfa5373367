"""Joining a federation: the folder is whole or absent, the key stays here, and no other invitation takes it over."""

from pathlib import Path

import pytest
from builders import write_site
from certificates import Authority, invitation_file
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.daemon_commands import join
from client.membership import Place, address_of, read_key, read_membership
from shared_model.bundle import Invitation, Registration
from shared_model.errors import ConfigError

CA = Authority().pem
CENTRE = Ed25519PrivateKey.generate()


def place_of(folder: Path) -> Place:
    return Place.of(write_site(folder))


def invited(folder: Path, key: Ed25519PrivateKey = CENTRE, **changed: str) -> Path:
    return invitation_file(folder / "invitation.json", key, **({"ca": CA} | changed))


def joined(folder: Path) -> Place:
    place = place_of(folder)
    join(invited(folder), place.config)
    return place


def test_joining_makes_a_folder_for_nobody_else_and_a_registration_signed_by_the_new_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = joined(tmp_path)
    assert place.folder == tmp_path / "site.federation"
    assert place.folder.stat().st_mode & 0o777 == 0o700
    assert place.key.stat().st_mode & 0o777 == 0o600
    key, registration = read_key(place), Registration.open(place.registration)
    assert isinstance(key.curve, SECP384R1)
    assert registration.key == key.public_key()
    assert (registration.federation, registration.site, registration.ticket) == ("sepsis", "Mercy", "t1")
    assert place.public_key.read_text().strip() == registration.public_key
    assert place.ca.read_text() == CA
    told = capsys.readouterr().out
    assert str(place.registration) in told
    assert Invitation.open(tmp_path / "invitation.json").fingerprint in told and "telephone" in told
    assert "PRIVATE" not in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["invitation.json", "site.federation", "site.yaml"]


def test_a_fingerprint_is_compared_whatever_its_spelling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, path = place_of(tmp_path), invited(tmp_path)
    right = Invitation.open(path).fingerprint
    with pytest.raises(ConfigError, match="do not join"):
        join(path, place.config, fingerprint=right[:-1])
    assert not place.folder.exists()
    join(path, place.config, fingerprint=right.upper().replace("-", " "))
    assert "telephone" not in capsys.readouterr().out


def test_joining_the_same_federation_again_keeps_the_key_and_takes_what_is_new(tmp_path: Path) -> None:
    place = joined(tmp_path)
    key, other = place.key.read_bytes(), Authority("second").pem
    join(invited(tmp_path, superlink="other.example:443", ticket="t2", ca=other), place.config)
    assert place.key.read_bytes() == key
    assert read_membership(place).superlink == "other.example:443"
    assert Registration.open(place.registration).ticket == "t2"
    assert place.ca.read_text() == other


@pytest.mark.parametrize("same_name", [True, False])
def test_another_federation_does_not_take_over_a_membership(same_name: bool, tmp_path: Path) -> None:
    """Not even one that calls itself the same."""
    place = joined(tmp_path)
    before = {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    changed = {} if same_name else {"federation": "other"}
    path = invited(tmp_path, Ed25519PrivateKey.generate(), **changed)
    with pytest.raises(ConfigError, match=r"belongs to federation 'sepsis'; `--again`"):
        join(path, place.config)
    assert {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()} == before
    join(path, place.config, again=True)
    assert place.key.read_bytes() != before[place.key]
    aside = tmp_path / "site.federation.old-1"
    assert (aside / "node.key").read_bytes() == before[place.key]


def test_mistakes_leave_nothing(tmp_path: Path) -> None:
    place, path = place_of(tmp_path), tmp_path / "invitation.json"

    def refused(words: str) -> None:
        with pytest.raises(ConfigError, match=words) as told:
            join(path, place.config)
        assert "\n" not in str(told.value)
        assert not place.folder.exists() and not list(tmp_path.glob(".*"))

    refused("no such file")
    invited(tmp_path, site="Other")
    refused("invites 'Other', and the YAML file's `site` is 'Mercy'")
    invited(tmp_path, superlink="no address")
    refused("no HOST:PORT")
    invited(tmp_path, ca="-----BEGIN CERTIFICATE-----")
    refused("CA certificate cannot be read")
    invited(tmp_path)
    path.write_text(path.read_text().replace("127.0.0.1", "127.0.0.2"))
    refused("was changed after it was signed")


def test_an_address_is_a_name_or_a_number_and_a_port() -> None:
    assert address_of("a.example:443") == ("a.example", 443)
    assert address_of("[::1]:9092") == ("::1", 9092)
    for wrong in ("a.example", "a b:1", ":1", "a:0", "a:99999", "a:x", "a\x1b[1m:1"):
        with pytest.raises(ConfigError):
            address_of(wrong)
