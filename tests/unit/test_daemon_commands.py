"""What is checked before a daemon starts, each mistake in one line, and the commands that need no daemon."""

import json
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from builders import patients, write_site, write_store
from certificates import Authority, invitation_file
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.daemon_commands import join, pause, start, status, stop, unit, unpause
from client.membership import Place
from client.site import load_site
from shared_model.errors import ConsiliumError
from shared_model.manifest import MANIFEST, TENSORS


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A site that has joined and has a store."""
    write_store(tmp_path / "store", patients(12))
    config = write_site(tmp_path)
    path = invitation_file(tmp_path / "invitation.json", Ed25519PrivateKey.generate(), ca=Authority().pem)
    join(path, config)
    return Place.of(config)


def _change_manifest(place: Place, **changed: object) -> None:
    path = place.config.parent / "store" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def _cut(place: Place) -> None:
    path = place.config.parent / "store" / TENSORS
    path.write_bytes(path.read_bytes()[:-10])


def _other_site(place: Place) -> None:
    write_site(place.config.parent, site="Another")


MISTAKES: dict[str, tuple[Callable[[Place], object], str]] = {
    "not joined": (lambda p: shutil.rmtree(p.folder), "has not joined a federation"),
    "membership unreadable": (lambda p: p.membership.write_text("{}"), "membership.json: not readable"),
    "yaml": (lambda p: p.config.write_text("site: 1\nstor: x"), "site.yaml"),
    "renamed": (_other_site, "site 'Another' joined as 'Mercy'"),
    "no store": (lambda p: shutil.rmtree(p.config.parent / "store"), "no prepared store"),
    "store cut short": (_cut, "is missing or not whole"),
    "store without tensors": (lambda p: (p.config.parent / "store" / TENSORS).unlink(), "is missing or not whole"),
    "other version": (lambda p: _change_manifest(p, contract="0" * 64), "made for another study or version"),
    "older layout": (lambda p: _change_manifest(p, store_version=1), "store_version 1"),
    "key for all": (lambda p: p.key.chmod(0o644), r"others may read it \(mode 0644\)"),
    "key gone": (lambda p: p.key.unlink(), "node.key: is missing"),
    "key broken": (lambda p: p.key.write_text("no key"), "no private key that can be read"),
    "ca gone": (lambda p: p.ca.unlink(), "ca.crt: no certificate that can be read"),
    "ca broken": (lambda p: p.ca.write_text("x"), "ca.crt: no certificate that can be read"),
    "ca expired": (lambda p: p.ca.write_text(Authority(days=-2).pem), "the federation's CA expired on"),
    "signers": (
        lambda p: write_site(p.config.parent, release={"trusted_entities": "nobody.yaml"}),
        r"release.trusted_entities: no file .*nobody.yaml",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_the_start_in_one_line(mistake: str, place: Place) -> None:
    spoil, words = MISTAKES[mistake]
    spoil(place)
    with pytest.raises(ConsiliumError, match=words) as told:
        start(place.config)
    assert "\n" not in str(told.value)
    assert not place.connection.exists()  # nothing was started


def test_a_health_port_in_use(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConsiliumError, match=rf"--health-port: 127.0.0.1:{port} cannot be used"):
            start(place.config, health_port=port)


def test_pause_and_unpause_are_a_file_beside_the_store(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    file = place.config.parent / "store.paused"
    assert load_site(place.config).pause_file == file
    pause(place.config, reason="audit\nof May")
    assert len(file.read_text().splitlines()) == 1
    with pytest.raises(typer.Exit):
        status(place.config)
    told = capsys.readouterr().out
    assert "paused      paused since" in told and "audit\\nof May" in told
    for word in ("federation 'sepsis'", "127.0.0.1:9092", "does not run", "no answer", "never", "12 stays"):
        assert word in told
    unpause(place.config)
    assert not file.exists()
    unpause(place.config)
    assert "was not paused" in capsys.readouterr().out


def test_stop_says_that_nothing_runs(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    stop(place.config)
    assert "does not run" in capsys.readouterr().out


def test_the_unit_names_this_site_and_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "50% of it"
    folder.mkdir()
    config = write_site(folder)
    unit(config, user="daemon")
    text = capsys.readouterr().out
    escaped = str(folder).replace("%", "%%")
    assert f'consilium-site" start "{escaped}/site.yaml"\n' in text
    assert f'ReadWritePaths="{escaped}"\n' in text and "User=daemon\n" in text
    assert "NoNewPrivileges=yes" in text and "@" not in text
    if shutil.which("systemd-analyze"):
        (tmp_path / "consilium-site.service").write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", tmp_path / "consilium-site.service"], capture_output=True, text=True
        )
        assert "consilium-site.service:" not in done.stderr, done.stderr
