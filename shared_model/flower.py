"""How every Flower process of ours is started: its environment, its place, its port."""

import os
import socket
import sys
from pathlib import Path

from shared_model.errors import ConfigError

APP_PACKAGES = ("server", "client", "shared_model")  # what the app holds, at the centre and at every site
POLL_INTERVAL = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"  # seconds; Flower's default of 1 is most of a short round


def flower_environment(home: Path, **extra: str) -> dict[str, str]:
    """Environment of Flower processes: its own home, no telemetry, no dependency installation, no proxy surprises."""
    path = os.environ.get("PATH", "")
    quiet = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{path}",  # Flower finds its parts there
        "FLWR_HOME": str(home.resolve()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        POLL_INTERVAL: "0.1",
        "PYTHONWARNINGS": "ignore",
    }
    return os.environ | quiet | extra


def script(name: str) -> str:
    """A console script of the environment this runs in."""
    return str(Path(sys.executable).with_name(name))


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port_free(host: str, port: int, setting: str) -> None:
    """Raises ConfigError when something listens there already; ``setting`` is what to change."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"{setting}: {host}:{port} cannot be used ({(error.strerror or 'error').lower()}); "
                "is it running already? Stop that, or name another port"
            ) from error
