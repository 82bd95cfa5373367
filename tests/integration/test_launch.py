"""A federation is launched: real processes, TLS, keys, the door; and nothing is left of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from server_folder import answer, private_pem

from server.control import nodes
from server.federation import Federation, open_federation
from server.overview import overview
from server.runs import all_runs
from shared_model.flower import free_port
from shared_model.processes import carrying
from shared_model.supervise import running
from simulations.runner import MARK

BIN = Path(sys.executable).parent
PATIENCE = 60.0  # seconds until a wait gives up


def test_a_federation_is_launched_joined_guarded_and_ended(tmp_path: Path, flower) -> None:
    folder = tmp_path / "fed"
    port = free_port()
    done = command(flower, "init", folder, "--address", f"127.0.0.1:{port}", "--port", str(port))
    assert done.returncode == 0, done.stderr
    flower.start("start", "consilium-server", "start", str(folder))
    federation = open_federation(folder)
    wait_for(lambda: running(federation.pid_file) is not None, federation)
    assert command(flower, "invite", folder, "St. Vincent").returncode == 0
    [invitation] = federation.invitations.iterdir()
    sent, key = answer(invitation, tmp_path / "answer.json")
    done = command(flower, "register", folder, sent)  # waits until the SuperLink listens
    assert done.returncode == 0, done.stderr
    assert [member.site for member in federation.roster()] == ["St. Vincent"]
    assert "federation sepsis at 127.0.0.1" in (flower.folder / "start.log").read_text()

    (tmp_path / "site.key").write_bytes(private_pem(key))
    site(flower, federation, tmp_path / "site.key")
    wait_for(lambda: "online" in nodes(federation).values(), federation)
    assert any(line.startswith("St. Vincent  online") for line in overview(federation)[1])
    _the_door(federation, sent)
    _a_run_that_fails_says_why(flower, federation)
    _a_supervisor_that_was_killed_leaves_nothing(flower, federation)


def _the_door(federation: Federation, sent: Path) -> None:
    """Another address of the same machine is no administrator: sites' API and health only."""
    asked = {path: status_from("127.0.0.2", federation, path) for path in ("/v1/control/list-nodes", "/health")}
    assert asked["/v1/control/list-nodes"] == 403 and asked["/health"] == 200
    assert status_from("127.0.0.2", federation, "/v1/runtime/acquire-task") == 403
    assert status_from("127.0.0.2", federation, "/v1/fleet/pull-messages") not in (403, 404)
    assert status_from("127.0.0.1", federation, "/v1/control/list-nodes") not in (403, 404)


def _a_run_that_fails_says_why(flower, federation: Federation) -> None:
    settings = ("--set", "min-sites=2", "--set", "admission-timeout=0.5")
    done = command(flower, "run", federation.folder, "--name", "pilot", *settings)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "run pilot failed: admission: " in done.stderr and "Traceback" not in done.stderr
    [run] = all_runs(federation)
    assert run.run_id is not None and run.events()[-1]["event"] == "error"


def _a_supervisor_that_was_killed_leaves_nothing(flower, federation: Federation) -> None:
    pid = running(federation.pid_file)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: of_the_centre(flower, federation) == [], federation)
    assert running(federation.pid_file) is None
    flower.start("again", "consilium-server", "start", str(federation.folder))
    wait_for(lambda: running(federation.pid_file) is not None, federation)
    done = command(flower, "unregister", federation.folder, "St. Vincent")
    assert done.returncode == 0 and federation.roster() == [], done.stderr
    done = command(flower, "stop", federation.folder)
    assert done.returncode == 0, done.stderr
    assert of_the_centre(flower, federation) == [] and running(federation.pid_file) is None


def of_the_centre(flower, federation: Federation) -> list[psutil.Process]:
    """Processes of this test that know the federation's folder; the site's do not."""
    ours = []
    for process in carrying(MARK, flower.mark):
        try:
            if str(federation.folder) in process.environ().get("FLWR_HOME", ""):
                ours.append(process)
        except psutil.Error:
            continue
    return ours


def command(flower, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`consilium-server ...` as an administrator would type it."""
    line = [str(BIN / "consilium-server"), *map(str, arguments)]
    return subprocess.run(line, env=flower.environment, capture_output=True, text=True, timeout=PATIENCE)


def site(flower, federation: Federation, key: Path) -> None:
    """A raw SuperNode with the site's key."""
    flower.start(
        "site", "flower-supernode", "--superlink", federation.config.address, "--port", str(free_port()),
        "--root-certificates", str(federation.certificates.ca), "--auth-supernode-private-key", str(key),
        "--node-config", 'site-config="none.yaml"',
    )  # fmt: skip


def status_from(client: str, federation: Federation, path: str) -> int:
    """HTTP status that a client with this source address gets."""
    import httpx

    with httpx.Client(
        transport=httpx.HTTPTransport(verify=_trusting(federation), local_address=client), trust_env=False
    ) as asking:
        method = "GET" if path == "/health" else "POST"
        return asking.request(method, f"https://{federation.config.address}{path}").status_code


def _trusting(federation: Federation):
    import ssl

    return ssl.create_default_context(cafile=federation.certificates.ca)


def wait_for(happened: Callable[[], bool], federation: Federation) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, federation.log.read_text() if federation.log.exists() else "no log"
        time.sleep(0.3)
