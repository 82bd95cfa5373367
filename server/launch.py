"""Make a federation's folder, check that its SuperLink can start, and keep it running."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from server.certificates import WARN_DAYS, Certificates, check, days_left
from server.control import environment, write_connection
from server.federation import (
    ADMINISTRATION,
    CONFIG,
    SUPERVISOR,
    Federation,
    ServerConfig,
    checked_config,
    open_federation,
)
from shared_model.atomic import write_private, write_text
from shared_model.errors import ConfigError, ConsiliumError
from shared_model.flower import check_port_free
from shared_model.supervise import Supervised, running

HOPELESS = ("SUPERLINK_INVALID_ARGS", "Exit Code: 104"), ("SUPERLINK_DATABASE_SCHEMA_MISMATCH", "Exit Code: 105")
TEMPLATE = """\
# The SuperLink of this federation. Stop and start it after a change: consilium-server stop, consilium-server start.
federation: {federation}

# What sites dial; invitations say it, and the server's certificate must cover it.
address: {address}

# Where the SuperLink listens. The health service (gRPC) answers on loopback only.
host: {host}
port: {port}
health_port: {health_port}

# Client addresses or networks (10.1.2.0/24) that may register sites and start runs; sites need no entry here. This
# machine may always. Behind a proxy on this machine, everybody would seem to be this machine: let TLS end here.
administration: {administration}
"""


def create_federation(folder: Path, *, own: tuple[Path, Path, Path] | None = None, **settings: Any) -> Federation:
    """A new folder with keys and certificates; ``own``: the institution's certificate, key and CA. Raises ConfigError
    for a folder that holds something, a setting that breaks a rule, or certificates that would not serve."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: exists and is not empty; name a new folder")
    config = checked_config(settings, "init")
    files = Certificates(folder.resolve() / "certificates")
    if own:  # before anything is written
        check(*own, config.names)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    federation = Federation(folder.resolve(), config)
    if own:
        files.adopt(*own, config.names)
    else:
        files.create(config.federation, config.names)
    for place in (federation.invitations, federation.state, federation.runs, federation.log.parent):
        place.mkdir(mode=0o700)
    _write_signing_key(federation.key)
    federation.write_roster([])
    write_connection(federation)
    write_text(federation.folder / CONFIG, _written(config))  # last: with it the folder is a federation
    return open_federation(folder)


def check_start(federation: Federation) -> datetime:
    """When the certificate expires. Raises ConfigError for what would keep the SuperLink from starting."""
    source = federation.folder / CONFIG
    if pid := running(federation.pid_file):
        raise ConfigError(f"{federation.folder}: its SuperLink runs already (process {pid}); stop it first")
    _check_writable(federation)
    expiry = federation.certificates.check(federation.config.names)
    check_port_free(federation.config.host, federation.config.port, f"{source}: port")
    check_port_free("127.0.0.1", federation.config.health_port, f"{source}: health_port")
    return expiry


def superlink(federation: Federation, tell: Callable[[str], None]) -> Supervised:
    """The supervised SuperLink; ``run`` it after ``check_start``."""
    write_connection(federation)
    allowed = json.dumps(federation.config.administrators)
    return Supervised(
        name="SuperLink",
        command=_command(federation),
        environment=environment(federation, **{ADMINISTRATION: allowed, SUPERVISOR: str(os.getpid())}),
        folder=federation.folder,
        log=federation.log,
        pid_file=federation.pid_file,
        hopeless=lambda status, lines: _hopeless(federation, lines),
        tell=tell,
        afterwards=_end_server_apps,
    )


def greeting(federation: Federation, expiry: datetime) -> str:
    """The line of ``start``."""
    left = days_left(expiry)
    warning = f" - in {left} days: consilium-server renew {federation.folder}" if left < WARN_DAYS else ""
    return (
        f"federation {federation.config.federation} at {federation.config.address}, "
        f"certificate until {expiry:%Y-%m-%d}{warning}"
    )


def _command(federation: Federation) -> list[str]:
    config, files = federation.config, federation.certificates
    return [
        *(sys.executable, "-P", "-m", "server.superlink"),
        *("--host", config.host, "--port", str(config.port)),
        *("--health-server-address", f"127.0.0.1:{config.health_port}"),
        *("--ssl-ca-certfile", str(files.ca)),
        *("--ssl-certfile", str(files.certificate), "--ssl-keyfile", str(files.key)),
        *("--database", str(federation.state / "superlink.db")),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
    ]


def _hopeless(federation: Federation, lines: Sequence[str]) -> ConsiliumError | None:
    for name, sign in HOPELESS:
        if any(sign in line for line in lines):
            database = f"; {federation.state / 'superlink.db'} is of another Flower" if "DATABASE" in name else ""
            return ConfigError(f"SuperLink: {name}{database}; see {federation.log}")
    return None


def _end_server_apps() -> None:
    """They have sessions of their own, and would notice only after a while that their SuperLink is gone."""
    from shared_model.processes import carrying, end

    end(carrying(SUPERVISOR, str(os.getpid())), 5.0)


def _check_writable(federation: Federation) -> None:
    try:
        for place in (federation.state, federation.log.parent, federation.runs, federation.flower_home):
            place.mkdir(mode=0o700, exist_ok=True)
            write_text(place / ".writable", "")
            (place / ".writable").unlink()
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: cannot be written ({(error.strerror or 'error').lower()}); "
            "start as the user that the folder belongs to"
        ) from None


def _write_signing_key(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))


def _written(config: ServerConfig) -> str:
    values = config.model_dump()
    return TEMPLATE.format(**{key: json.dumps(value) for key, value in values.items()})
