"""What our commands ask of a running SuperLink: Flower's own `flwr`, with the federation's folder as its home.

What is asked for may hold already: a run ends while it is being stopped, a command died before it wrote down what it
had done. Flower refuses then, by a number of its own; here that is success.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.federation import CONNECTION, Federation
from shared_model.atomic import write_text
from shared_model.bundle import fingerprint
from shared_model.errors import ConfigError, FederationError
from shared_model.flower import flower_environment, script
from shared_model.supervise import running

SECONDS = 120.0  # of one `flwr` command
FINISHED = "finished"  # how the status of a run that has ended begins
UNREGISTERED = "unregistered"  # status of a node whose key opens nothing any more

# Flower's numbers of a refusal (flwr/supercore/error/base.py) that say: it is so already.
RUN_UNKNOWN, RUN_ENDED, KEY_IN_USE, NODE_UNKNOWN = 16, 18, 23, 24
CODE = re.compile(r"^\[code: (\d+)\]", re.MULTILINE)


def environment(federation: Federation, **extra: str) -> dict[str, str]:
    """Of every Flower process of the centre. No proxy stands between this machine and itself."""
    direct = ",".join(filter(None, (os.environ.get("NO_PROXY", os.environ.get("no_proxy", "")), "127.0.0.1,::1")))
    direct = f"{direct},{federation.config.own_address}"
    proxies = {"NO_PROXY": direct, "no_proxy": direct, "FORWARDED_ALLOW_IPS": "127.0.0.1"}
    return flower_environment(federation.flower_home, **proxies, **extra)


def write_connection(federation: Federation) -> None:
    """Flower's configuration of this federation, so that plain `flwr` works too."""
    host = federation.config.own_address
    address = f"[{host}]:{federation.config.port}" if ":" in host else f"{host}:{federation.config.port}"
    text = (
        f'[superlink]\ndefault = "{CONNECTION}"\n\n'
        f"[superlink.{CONNECTION}]\naddress = {json.dumps(address)}\n"
        f"root-certificates = {json.dumps(str(federation.certificates.ca))}\n"
    )
    federation.flower_home.mkdir(mode=0o700, exist_ok=True)
    write_text(federation.flower_home / "config.toml", text)


def ready(federation: Federation, seconds: float = 30.0) -> None:
    """Wait until the SuperLink listens. Raises ConfigError when it was not started, or does not listen in time."""
    end = time.monotonic() + seconds
    while True:
        if running(federation.pid_file) is None:
            raise ConfigError(
                f"{federation.folder}: its SuperLink does not run; start it with: "
                f"consilium-server start {federation.folder}"
            )
        if listening(federation):
            return
        if time.monotonic() > end:
            raise ConfigError(f"{federation.folder}: its SuperLink runs but does not listen; see {federation.log}")
        time.sleep(0.2)


def listening(federation: Federation) -> bool:
    """Whether something accepts connections on the SuperLink's port."""
    host = federation.config.own_address
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, federation.config.port)) == 0


def register_key(federation: Federation, public_key: Path) -> int:
    """Flower's number for the site that holds the key, which may be registered already. Raises ConfigError for a key
    that was unregistered: Flower never takes it again."""
    answer = _flwr(federation, "supernode", "register", str(public_key), CONNECTION, already=(KEY_IN_USE,))
    if answer:
        return int(answer["node-id"])
    command = [sys.executable, "-P", "-m", "server.node_of_key", str(public_key), CONNECTION]
    holder = _answered(federation, command, "node of the key")
    if holder["status"] == UNREGISTERED:
        raise ConfigError(
            f"key {fingerprint(public_key.read_text(encoding='ascii').strip())}: was unregistered, and Flower takes it "
            "no more; invite the site again, and let it join with a new key: consilium-site join ... --again"
        )
    return int(holder["node-id"])


def unregister_node(federation: Federation, node_id: int) -> None:
    """The site's key opens nothing any more. There are no accounts here: a node that Flower does not find among ours is
    nobody else's either."""
    _flwr(federation, "supernode", "unregister", str(node_id), CONNECTION, already=(NODE_UNKNOWN,))


def nodes(federation: Federation) -> dict[int, str]:
    """Status of every node: registered, online, offline or unregistered."""
    answer = _flwr(federation, "supernode", "list", CONNECTION)
    return {int(node["node-id"]): str(node["status"]) for node in answer["nodes"]}


def start_run(federation: Federation, app: Path, settings: Path) -> int:
    """Submit an app; the number of its run, which is always a new one."""
    return int(_flwr(federation, "run", str(app), CONNECTION, "--run-config", str(settings))["run-id"])


def run_states(federation: Federation) -> dict[int, tuple[str, str]]:
    """Status (``finished:failed``) and Flower's details of every run."""
    answer = _flwr(federation, "ls", CONNECTION)
    return {int(run["run-id"]): (str(run["status"]), str(run["status-details"])) for run in answer["runs"]}


def stop_run(federation: Federation, run_id: int) -> bool:
    """End a run; its sites are told with their next question. False when it did not run any more."""
    try:
        return bool(_flwr(federation, "stop", str(run_id), CONNECTION, already=(RUN_UNKNOWN, RUN_ENDED)))
    except FederationError:
        if has_ended(federation, run_id):  # while Flower stopped it: a refusal without a number
            return False
        raise


def has_ended(federation: Federation, run_id: int) -> bool:
    """Whether the SuperLink says so of a run that it knows."""
    status, _ = run_states(federation).get(run_id, ("unknown", ""))
    return status.startswith(FINISHED)


def stream_log(federation: Federation, run_id: int, log: Path) -> subprocess.Popen[bytes]:
    """A process that copies the ServerApp's log and ends when the run does."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [script("flwr"), "log", str(run_id), CONNECTION, "--stream"],
            cwd=federation.flower_home,
            env=environment(federation),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # Ctrl-C is for whoever watches
        )


def _flwr(federation: Federation, *arguments: str, already: Sequence[int] = ()) -> dict[str, Any]:
    """Answer of `flwr ... --format json`; empty when it refuses with a number of ``already``: it is so. Raises
    FederationError with Flower's own reason."""
    command = [script("flwr"), *arguments, "--format", "json"]
    return _answered(federation, command, f"flwr {' '.join(arguments[:2])}", already)


def _answered(federation: Federation, command: list[str], name: str, already: Sequence[int] = ()) -> dict[str, Any]:
    try:
        done = subprocess.run(
            command,
            cwd=federation.flower_home,
            env=environment(federation),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise FederationError(f"{name}: no answer from the SuperLink in {SECONDS:.0f} s") from None
    answer = _answer(done.stdout)
    if done.returncode == 0 and answer.get("success"):
        return answer
    if _code(answer) in already:
        return {}
    reason = str(answer.get("error-message") or done.stderr or done.stdout or f"status {done.returncode}")
    raise FederationError(f"{name}: {' '.join(reason.split())}")


def _answer(printed: str) -> dict[str, Any]:
    try:
        answer = json.loads(printed[printed.index("{") :])
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _code(answer: dict[str, Any]) -> int | None:
    """Flower's number of a refusal, on a line of its message after what the command said until then; None without."""
    found = CODE.findall(str(answer.get("error-message", "")))
    return int(found[-1]) if found else None
