"""Invitations and their answers: every mistake is refused with one line before anything is registered."""

import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from server_folder import answer, new_federation, site_key

from server import joining
from server.federation import Federation, Member
from server.joining import invite, register, unregister
from shared_model.bundle import Invitation, Registration, fingerprint
from shared_model.errors import ConfigError


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return new_federation(tmp_path_factory.mktemp("centre") / "fed")


@pytest.fixture(autouse=True)
def _nobody_registered(federation: Federation) -> None:
    federation.write_roster([])


def member(site: str, registration: Path | None = None) -> Member:
    key = Registration.open(registration).public_key if registration else "ssh-x AAAA"
    return Member(site=site, node_id=7, fingerprint=fingerprint(key), registered="2026-01-01T00:00:00+00:00")


def test_an_invitation_says_what_a_site_needs_and_whose_it_is(federation: Federation) -> None:
    path, read_out = invite(federation, " St. Vincent ")
    invitation = Invitation.open(path)
    assert (invitation.site, invitation.federation, invitation.superlink) == ("St. Vincent", "sepsis", "127.0.0.1:9092")
    assert invitation.ca == federation.certificates.ca.read_text() and invitation.fingerprint == read_out
    assert stat.S_IMODE(federation.key.stat().st_mode) == 0o600


def test_sites_of_similar_names_have_files_of_their_own(federation: Federation) -> None:
    paths = {invite(federation, site)[0] for site in ("St Vincent", "St. Vincent", "St/Vincent", "..", "Mercy")}
    assert len(paths) == 5 and all(path.parent == federation.invitations for path in paths)


@pytest.mark.parametrize("site", ["", "  ", "x" * 81, "a\nb"])
def test_a_name_that_is_none_is_refused(federation: Federation, site: str) -> None:
    with pytest.raises(ConfigError, match="SITE"):
        invite(federation, site)


def test_a_registered_site_is_invited_only_again(federation: Federation) -> None:
    federation.write_roster([member("Mercy")])
    with pytest.raises(ConfigError, match="Mercy: is registered already; invite it anew with --again"):
        invite(federation, "Mercy")
    invite(federation, "Mercy", again=True)


def test_what_is_right_needs_the_superlink(federation: Federation, tmp_path: Path) -> None:
    sent, _ = answer(invite(federation, "Mercy")[0], tmp_path / "answer.json")
    with pytest.raises(ConfigError, match="its SuperLink does not run; start it with: consilium-server start"):
        register(federation, sent)
    assert federation.roster() == []


def test_an_answer_of_another_federation_is_refused(federation: Federation, tmp_path: Path) -> None:
    other = new_federation(tmp_path / "other", federation="stroke")
    sent, _ = answer(invite(other, "Mercy")[0], tmp_path / "answer.json")
    with pytest.raises(ConfigError, match="answers federation 'stroke', not 'sepsis'"):
        register(federation, sent)


def test_an_invitation_with_another_federations_key_is_no_invitation(federation: Federation, tmp_path: Path) -> None:
    path, _ = invite(new_federation(tmp_path / "other"), "Forged")
    (federation.invitations / path.name).write_bytes(path.read_bytes())
    sent, _ = answer(path, tmp_path / "answer.json")
    with pytest.raises(ConfigError, match="is not this federation's invitation of Forged"):
        register(federation, sent)


def test_an_answer_that_was_changed_is_refused(federation: Federation, tmp_path: Path) -> None:
    sent, _ = answer(invite(federation, "Mercy")[0], tmp_path / "answer.json")
    document = json.loads(sent.read_text()) | {"site": "Grace"}
    sent.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="was changed after it was signed"):
        register(federation, sent)


def test_only_the_last_ticket_of_a_site_is_worth_something(federation: Federation, tmp_path: Path) -> None:
    early, _ = answer(invite(federation, "Mercy")[0], tmp_path / "early.json")
    invite(federation, "Mercy")
    with pytest.raises(ConfigError, match="answers another invitation of Mercy than the last"):
        register(federation, early)


def test_a_site_that_nobody_invited_is_refused(federation: Federation, tmp_path: Path) -> None:
    sent, _ = answer(invite(federation, "Mercy")[0], tmp_path / "answer.json", site="Nobody")
    with pytest.raises(ConfigError, match="no invitation of Nobody is open"):
        register(federation, sent)


def test_neither_a_site_nor_a_key_is_two_on_the_roster(federation: Federation, tmp_path: Path) -> None:
    key, invitation = site_key(), invite(federation, "Mercy")[0]
    mercy, _ = answer(invitation, tmp_path / "mercy.json", key)
    other, _ = answer(invitation, tmp_path / "other.json")
    grace, _ = answer(invite(federation, "Grace")[0], tmp_path / "grace.json", key)
    federation.write_roster([member("Mercy", mercy)])
    with pytest.raises(ConfigError, match="Mercy is registered already; unregister it first"):
        register(federation, other)
    with pytest.raises(ConfigError, match="its key is Mercy's already; let Grace join with a key of its own"):
        register(federation, grace)


def test_the_same_answer_may_come_again(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The roster stays as it is, unless the SuperLink has lost its database: the key has another node then."""
    sent, _ = answer(invite(federation, "Mercy")[0], tmp_path / "answer.json")
    held, grace = member("Mercy", sent), member("Grace")
    federation.write_roster([held, grace])
    monkeypatch.setattr(joining, "ready", lambda federation: None)
    monkeypatch.setattr(joining, "register_key", lambda federation, key: held.node_id)
    assert register(federation, sent) == held and federation.roster() == [grace, held]
    monkeypatch.setattr(joining, "register_key", lambda federation, key: 8)
    assert register(federation, sent).node_id == 8
    assert [(one.site, one.node_id) for one in federation.roster()] == [("Grace", 7), ("Mercy", 8)]


def test_a_key_of_another_curve_is_refused(federation: Federation, tmp_path: Path) -> None:
    sent, _ = answer(invite(federation, "Mercy")[0], tmp_path / "answer.json", site_key(ec.SECP256R1()))
    with pytest.raises(ConfigError, match="its key is secp256r1, not P-384"):
        register(federation, sent)


def test_what_is_no_answer_is_refused(federation: Federation, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        register(federation, tmp_path / "missing.json")
    with pytest.raises(ConfigError, match="is no registration"):
        register(federation, invite(federation, "Mercy")[0])


def test_only_a_member_can_be_shut_out(federation: Federation) -> None:
    federation.write_roster([member("Mercy")])
    with pytest.raises(ConfigError, match="Grace: is not registered; sites are: Mercy"):
        unregister(federation, "Grace")
