"""One federation on one machine: a private SuperLink in simulation mode, `flwr run`, and nothing left behind.

Why not a plain ``flwr run``: without a SuperLink of its own it starts a shared daemon that stays, and installs the
app's dependencies anew for every run (docs/decisions/0002). Everything here lives below one folder and one process
tree.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

import psutil

from client.site import SIMULATED_SITES, simulated_sites
from server.app_folder import stage_app
from server.progress import FILE as PROGRESS
from server.progress import Event, follow
from server.results import RunResults, read_results
from shared_model.config import RunConfig
from shared_model.errors import FederationError
from shared_model.flower import flower_environment, free_port, script
from shared_model.overrides import toml_text
from shared_model.processes import carrying, end

MARK = "CONSILIUM_RUN_MARK"  # in the environment of every process we start; how we find those that daemonise
CONNECTION = "private"


@dataclass(frozen=True)
class _Workplace:
    """Folders of one federation. Ray's sockets need a short path, so its files live in the system's temporary
    folder."""

    folder: Path
    ray: Path
    environment: dict[str, str]

    @property
    def app(self) -> Path:
        return self.folder / "app"


def run_federation(
    config: RunConfig, configs: Path, folder: Path, *, on_event: Callable[[Event], None] = lambda event: None
) -> RunResults:
    """Run one federation of the sites in ``configs`` and return what its ServerApp wrote to ``config.output``.

    Raises FederationError with the ServerApp's own reason where it gave one. Whatever happens, also Ctrl-C, every
    process of the federation is ended before this returns.
    """
    sites = len(simulated_sites(configs))
    with (
        _workplace(folder, configs) as place,
        _superlink(place) as address,
        _log(folder / "flwr-run.log") as log,
    ):
        _write_connection(place, address)
        overrides = folder / "run-config.toml"
        overrides.write_text(toml_text(config.to_flat()), encoding="utf-8")
        command = [
            script("flwr"),
            *(
                "run",
                str(place.app.resolve()),
                CONNECTION,
                "--stream",
                "--run-config",
                str(overrides.resolve()),
            ),
            *("--federation-config", f"num-supernodes={sites} client-resources-num-cpus=1"),
        ]
        process = subprocess.Popen(
            command, cwd=place.ray, env=place.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        events = []
        for event in follow(Path(config.output) / PROGRESS, lambda: process.poll() is None):
            on_event(event)
            events.append(event)
    return _outcome(config, events, folder)


@contextmanager
def ended_afterwards(mark: str) -> Iterator[None]:
    """Every process that carries ``mark`` in its environment is ended when the block ends, daemons included."""
    try:
        yield
    finally:
        for _ in range(5):  # what is being ended may start something in its last moment
            if not (left := marked(mark)):
                break
            end(left, 4.0)


def marked(mark: str) -> list[psutil.Process]:
    """Processes of ours, found by the environment they inherited; this process is not among them."""
    return carrying(MARK, mark)


@contextmanager
def _workplace(folder: Path, configs: Path) -> Iterator[_Workplace]:
    folder.mkdir(parents=True, exist_ok=True)
    mark, ray = uuid4().hex, Path(tempfile.mkdtemp(prefix="csm-"))
    environment = flower_environment(
        folder / "home",
        **{
            MARK: mark,
            SIMULATED_SITES: str(configs.resolve()),
            "RAY_TMPDIR": str(ray),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "RAY_DISABLE_MEMORY_MONITOR": "1",
        },
    )
    try:
        place = _Workplace(folder, ray, environment)
        stage_app(place.app)
        with ended_afterwards(mark):
            yield place
    finally:
        shutil.rmtree(ray, ignore_errors=True)


@contextmanager
def _superlink(place: _Workplace) -> Iterator[str]:
    """A SuperLink in simulation mode on a free loopback port; yields its address."""
    port = free_port()
    command = [
        script("flower-superlink"),
        *(
            "--simulation",
            "--insecure",
            "--isolation",
            "subprocess",
            "--disable-runtime-dependency-installation",
        ),
        *(
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--database",
            str((place.folder / "superlink.db").resolve()),
        ),
    ]
    with _log(place.folder / "superlink.log") as log:
        # Started from an empty folder: Ray puts the current one before the app's own code.
        process = subprocess.Popen(
            command,
            cwd=place.ray,
            env=place.environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _wait_for_port(port, process, place.folder / "superlink.log")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            end([psutil.Process(process.pid)] if process.poll() is None else [], 4.0)
            process.wait()  # it has ended; a caller that runs many federations keeps no zombie


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    state = "stopped" if process.poll() is not None else f"not listening after {seconds:.0f} s"
    raise FederationError(f"SuperLink on 127.0.0.1:{port}: {state}; see {log}")


def _outcome(config: RunConfig, events: list[Event], folder: Path) -> RunResults:
    for event in events:
        if event["event"] == "error":
            raise FederationError(str(event["message"]))
    if not any(event["event"] == "done" for event in events):
        raise FederationError(f"the run ended early; see {folder / 'flwr-run.log'} and {folder / 'superlink.log'}")
    return read_results(Path(config.output) / "results.json")


def _write_connection(place: _Workplace, address: str) -> None:
    home = Path(place.environment["FLWR_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    text = (
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\naddress = "{address}"\ninsecure = true\n'
    )
    (home / "config.toml").write_text(text, encoding="utf-8")


@contextmanager
def _log(path: Path) -> Iterator[IO[bytes]]:
    with path.open("ab") as file:
        yield file
