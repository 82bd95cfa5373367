"""A hospital's daemon against a real SuperLink with TLS and node authentication, as its engineer runs it."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from builders import patients, write_site, write_store
from certificates import Authority, invitation_file
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.daemon import run_daemon
from client.membership import Place
from client.readiness import check_membership
from client.site import load_site
from shared_model.errors import FederationError
from shared_model.flower import flower_environment, free_port
from simulations.runner import MARK, ended_afterwards, marked

BIN, HOOK = Path(sys.executable).parent, Path(__file__).parents[1] / "clock_hook"
SECONDS = 90  # no test waits so long unless something is broken


class Centre:
    """A SuperLink with TLS and node authentication, and the command line of who administers it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark, self.port = folder, uuid4().hex, free_port()
        self.authority, self.key = Authority(), Ed25519PrivateKey.generate()
        self.environment = flower_environment(folder / "home", **{MARK: self.mark})
        (folder / "home").mkdir(parents=True)
        (folder / "ca.crt").write_text(self.authority.pem)
        (folder / "home" / "config.toml").write_text(
            f'[superlink.here]\naddress = "{self.address}"\nroot-certificates = "{folder / "ca.crt"}"\n'
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @contextmanager
    def superlink(self) -> Iterator[None]:
        certificate, key = self.authority.server(self.folder)
        command = [
            *(
                str(BIN / "flower-superlink"),
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
                "--enable-supernode-auth",
            ),
            *("--database", str(self.folder / "superlink.db")),
            *("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)),
            *("--ssl-ca-certfile", str(self.folder / "ca.crt"), "--disable-runtime-dependency-installation"),
        ]
        with (self.folder / "superlink.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        try:
            until(self._listens, lambda: (self.folder / "superlink.log").read_text())
            yield
        finally:
            process.terminate()
            process.wait(timeout=SECONDS)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def flwr(self, *arguments: str) -> dict[str, object]:
        command = [str(BIN / "flwr"), *arguments, "--format", "json"]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        held: dict[str, object] = json.loads(done.stdout[done.stdout.index("{") :])
        assert held["success"], held
        return held

    def register(self, hospital: "Hospital") -> None:
        self.flwr("supernode", "register", str(hospital.place / "node.pub"), "here")

    def online(self) -> list[str]:
        return [node["status"] for node in self.flwr("supernode", "list", "here")["nodes"]]  # type: ignore[index]


class Hospital:
    """A site with a small store, in a folder whose name has a space."""

    def __init__(self, folder: Path, mark: str) -> None:
        self.folder, self.mark = folder / "St Mercy", mark
        write_store(self.folder / "store", patients(40))
        self.config, self.place = write_site(self.folder), self.folder / "site.federation"
        self.health = free_port()
        self.log = self.folder / "daemon.log"

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "consilium-site"), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, env=os.environ | {MARK: self.mark}
        )

    def join(self, centre: Centre, *, superlink: str | None = None, ca: str | None = None) -> None:
        path = self.folder / "invitation.json"
        invitation_file(path, centre.key, ca=ca or centre.authority.pem, superlink=superlink or centre.address)
        done = self.command("join", str(path), str(self.config))
        assert done.returncode == 0, done.stderr

    @contextmanager
    def started(self, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        command = [str(BIN / "consilium-site"), "start", str(self.config), "--health-port", str(self.health)]
        whole = os.environ | {MARK: self.mark, "CONSILIUM_POLL": "0.3"} | environment
        with self.log.open("wb") as log:
            daemon = subprocess.Popen(command, env=whole, stdout=log, stderr=log)
        try:
            yield daemon
        finally:
            daemon.kill() if daemon.poll() is None else None
            daemon.wait()

    def told(self) -> str:
        return self.log.read_text()

    def says(self, text: str) -> None:
        until(lambda: text in self.told(), self.told)

    def hopeless(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """The daemon in this process, which spares a start of torch: why it ends."""
        monkeypatch.setenv(MARK, self.mark)
        place, told = Place.of(self.config), []
        with pytest.raises(FederationError) as error:
            run_daemon(place, check_membership(place, load_site(self.config)), self.health, told.append)
        assert "\n" not in str(error.value) and not told, told
        assert not marked(self.mark)
        assert str(error.value) in self.command("status", str(self.config)).stdout
        return str(error.value)

    def refused(self, **environment: str) -> str:
        """Its last line, when it ended by itself with status 2."""
        with self.started(**environment) as daemon:
            assert daemon.wait(timeout=SECONDS) == 2, self.told()
        assert "Traceback" not in self.told()
        assert not [p for p in marked(self.mark) if "client.supernode" in " ".join(p.cmdline())]
        return self.told().splitlines()[-1]


def until(true: Callable[[], bool], told: Callable[[], str]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, told()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def centre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    made = Centre(tmp_path_factory.mktemp("centre"))
    with ended_afterwards(made.mark), made.superlink():
        yield made
    assert not marked(made.mark)


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    made = Hospital(tmp_path, uuid4().hex)
    with ended_afterwards(made.mark):
        yield made
    assert not marked(made.mark)


@contextmanager
def tls_server(certificate: Path, key: Path) -> Iterator[str]:
    """Something that shows this certificate to whoever comes; a client that checks it goes away."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                with client:
                    try:
                        context.wrap_socket(client, server_side=True).close()
                    except OSError:
                        continue

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def test_joins_connects_is_healthy_and_takes_leave(centre: Centre, hospital: Hospital) -> None:
    hospital.join(centre)
    before = hospital.command("status", str(hospital.config))
    assert before.returncode == 1 and "does not run" in before.stdout
    centre.register(hospital)
    with hospital.started() as daemon:
        hospital.says(f"connected to {centre.address}")
        found = hospital.command("status", str(hospital.config))
        assert found.returncode == 0, found.stdout + hospital.told()
        for word in ("federation 'sepsis'", centre.address, "serving", "connected since", "paused      no", "40 stays"):
            assert word in found.stdout
        assert centre.online() == ["online"]
        again = hospital.command("start", str(hospital.config))
        assert (again.returncode, len(again.stderr.splitlines())) == (2, 1) and "runs already" in again.stderr
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=SECONDS) == 0, hospital.told()
    assert centre.online() == ["offline"]
    assert not marked(hospital.mark), "the daemon left something behind"


def test_a_key_that_is_not_registered(centre: Centre, hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    hospital.join(centre)
    told = hospital.hopeless(monkeypatch)
    assert "this site's key is not registered" in told and "registration.json" in told


def test_a_ca_of_another(centre: Centre, hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    hospital.join(centre, ca=Authority().pem)
    assert "is not signed by this federation's CA" in hospital.hopeless(monkeypatch)


@pytest.mark.parametrize(
    ("days", "address", "word"),
    [(-1, "127.0.0.1", "certificate has expired"), (30, "10.1.2.3", "is not for the name 127.0.0.1")],
    ids=["expired", "of another name"],
)
def test_a_certificate(
    days: int, address: str, word: str, centre: Centre, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls_server(*centre.authority.server(hospital.folder, days=days, address=address)) as superlink:
        hospital.join(centre, superlink=superlink)
        assert word in hospital.hopeless(monkeypatch)


def test_a_clock_that_is_wrong_says_by_how_much(centre: Centre, hospital: Hospital) -> None:
    hospital.join(centre)
    centre.register(hospital)
    path = os.pathsep.join([str(HOOK), os.environ.get("PYTHONPATH", "")])
    told = hospital.refused(PYTHONPATH=path, TEST_CLOCK_SHIFT="120")
    assert any(f"clock is {seconds} s ahead of" in told for seconds in range(119, 131)), told  # the answer takes time


def test_a_superlink_that_comes_later(tmp_path: Path, hospital: Hospital) -> None:
    late = Centre(tmp_path / "centre")
    with ended_afterwards(late.mark):
        hospital.join(late)
        with late.superlink():
            late.register(hospital)
        with hospital.started() as daemon:
            hospital.says("does not answer (connection refused)")
            waiting = hospital.command("status", str(hospital.config))
            assert waiting.returncode == 1 and "retrying since" in waiting.stdout
            with late.superlink():
                hospital.says(f"connected to {late.address}")
                assert hospital.told().count("trying again") == 1
            until(lambda: hospital.told().count("trying again") == 2, hospital.told)
            daemon.send_signal(signal.SIGTERM)  # while it tries again
            assert daemon.wait(timeout=SECONDS) == 0
    assert not marked(late.mark)
