"""A federation's folder at the coordinating centre: ``server.yaml``, where everything lies, and who belongs to it.

::

    server.yaml       what the SuperLink is told (ServerConfig)
    federation.key    Ed25519, signs invitations; never leaves the folder
    certificates/     the CA that sites trust, and the server's certificate
    invitations/      one file a site, to hand over
    sites.json        the roster: which site holds which key
    flower/           Flower's home: the connection that our commands use, and plain `flwr` may
    state/ logs/      the SuperLink's database, process number and log
    runs/NAME/        one folder a run
"""

import json
from dataclasses import asdict, dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from server.certificates import Certificates
from shared_model.atomic import write_text
from shared_model.bundle import split_address
from shared_model.errors import ConfigError
from shared_model.study import rule_of

CONFIG, ROSTER, KEY = "server.yaml", "sites.json", "federation.key"
CONNECTION = "federation"  # its name in Flower's configuration
ADMINISTRATION = "CONSILIUM_ADMINISTRATION"  # environment of the SuperLink: JSON list of addresses and networks
SUPERVISOR = "CONSILIUM_SUPERVISOR"  # environment of the SuperLink: process number of its supervisor
LOOPBACK = ("127.0.0.1", "::1")
EVERYWHERE = "0.0.0.0"  # noqa: S104 - sites come from other networks; TLS and registered keys guard the port
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


class ServerConfig(BaseModel):
    """``server.yaml``; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    federation: str = Field(pattern=NAME, description="its name, in invitations")
    address: str = Field(description="what sites dial, HOST:PORT")
    host: str = Field(default=EVERYWHERE, description="IP address to listen on")
    port: int = Field(default=9092, ge=1, le=65535)
    health_port: int = Field(default=9093, ge=1, le=65535, description="gRPC health service, on loopback")
    administration: list[str] = Field(
        default=list(LOOPBACK), description="client addresses or networks that may register sites and start runs"
    )

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, text: str) -> str:
        split_address(text)
        return text

    @field_validator("host")
    @classmethod
    def _an_ip_address(cls, text: str) -> str:
        try:
            ip_address(text)
        except ValueError:
            raise ValueError("write an IP address of this machine, or 0.0.0.0 for all") from None
        return text

    @field_validator("administration")
    @classmethod
    def _networks(cls, entries: list[str]) -> list[str]:
        for entry in entries:
            try:
                ip_network(entry)
            except ValueError:
                raise ValueError(f"{entry!r} is no IP address or network such as 10.1.2.0/24") from None
        return entries

    @model_validator(mode="after")
    def _two_ports(self) -> "ServerConfig":
        if self.port == self.health_port:
            raise ValueError("port and health_port must differ")
        return self

    @property
    def own_address(self) -> str:
        """The IP address at which this machine reaches the SuperLink."""
        if not ip_address(self.host).is_unspecified:
            return self.host
        return LOOPBACK[1] if ":" in self.host else LOOPBACK[0]

    @property
    def names(self) -> list[str]:
        """What the server's certificate must cover."""
        return list(dict.fromkeys([split_address(self.address)[0], self.own_address]))

    @property
    def administrators(self) -> list[str]:
        """``administration``, and this machine itself, whose processes run the ServerApp."""
        return list(dict.fromkeys([*self.administration, *LOOPBACK, self.own_address]))


@dataclass(frozen=True, kw_only=True)
class Member:
    """A registered site: Flower's number of it, its key's fingerprint, and when it was registered."""

    site: str
    node_id: int
    fingerprint: str
    registered: str


@dataclass(frozen=True)
class Federation:
    """An opened folder; its path is absolute."""

    folder: Path
    config: ServerConfig

    @property
    def certificates(self) -> Certificates:
        return Certificates(self.folder / "certificates")

    @property
    def key(self) -> Path:
        return self.folder / KEY

    @property
    def invitations(self) -> Path:
        return self.folder / "invitations"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def flower_home(self) -> Path:
        return self.folder / "flower"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def pid_file(self) -> Path:
        return self.state / "superlink.pid"

    @property
    def log(self) -> Path:
        return self.folder / "logs" / "superlink.log"

    @property
    def roster_file(self) -> Path:
        return self.folder / ROSTER

    def roster(self) -> list[Member]:
        """The registered sites. Raises ConfigError when the file is damaged."""
        try:
            document = json.loads(self.roster_file.read_text(encoding="utf-8"))
            return [Member(**entry) for entry in document["sites"]]
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(f"{self.roster_file}: cannot be read; take it from a backup") from None

    def write_roster(self, members: list[Member]) -> None:
        """Replace the roster, in order of the sites' names."""
        ordered = sorted(members, key=lambda member: member.site)
        write_text(self.roster_file, json.dumps({"sites": [asdict(member) for member in ordered]}, indent=1) + "\n")


def open_federation(folder: Path) -> Federation:
    """Raises ConfigError when the folder is none, or its ``server.yaml`` breaks a rule."""
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(f"{folder}: is no federation (no {CONFIG}); make one with: consilium-server init {folder}")
    return Federation(folder.resolve(), read_config(path))


def read_config(path: Path) -> ServerConfig:
    """Raises ConfigError naming file, key, value and rule."""
    return checked_config(yaml_settings(path), str(path))


def yaml_settings(path: Path) -> dict[Any, Any]:
    """The keys and values of a YAML file. Raises ConfigError when it holds none."""
    import yaml

    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: holds no settings; write 'key: value' lines")
    return document


def checked_config(document: dict[Any, Any], source: str) -> ServerConfig:
    """``source``: where it comes from, for the message."""
    try:
        return ServerConfig.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                f"{source}: unknown key '{key}'; keys are {', '.join(ServerConfig.model_fields)}"
            ) from None
        given = "" if first["type"] == "missing" or not key else f" = {first['input']!r}"
        raise ConfigError(f"{source}: {key}{given}: {rule_of(first)}".replace(": : ", ": ")) from None
