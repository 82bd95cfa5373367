"""Commands of ``consilium-server`` that launch a federation: its folder, its SuperLink, its sites."""

import socket
from pathlib import Path
from typing import Annotated

import typer

from shared_model.errors import ConfigError, printable

FolderArgument = Annotated[Path, typer.Argument(help="The federation's folder.", metavar="FOLDER")]
SiteArgument = Annotated[str, typer.Argument(help="The hospital's name, as its own YAML says.", metavar="SITE")]
OWN = "Certificates of the institution"


def init(
    folder: FolderArgument,
    federation: Annotated[str, typer.Option(help="Its name, in invitations.")] = "sepsis",
    address: Annotated[str, typer.Option(help="What sites dial; this machine's name and port unless given.")] = "",
    host: Annotated[str, typer.Option(help="IP address to listen on.")] = "0.0.0.0",  # noqa: S104 - sites dial in
    port: Annotated[int, typer.Option(help="Port to listen on; the health service takes the next.")] = 9092,
    certificate: Annotated[
        Path | None, typer.Option(help="Server's certificate, PEM, with its chain.", rich_help_panel=OWN)
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key, PEM, no password.", rich_help_panel=OWN)] = None,
    ca: Annotated[Path | None, typer.Option(help="The CA that sites trust, PEM.", rich_help_panel=OWN)] = None,
) -> None:
    """Make a federation's folder: settings, keys, and certificates of its own unless the institution's are given."""
    from server.launch import create_federation

    own = None
    if certificate or key or ca:
        if not (certificate and key and ca):
            raise ConfigError("--certificate, --key and --ca need each other")
        own = certificate, key, ca
    made = create_federation(
        folder,
        own=own,
        federation=federation,
        address=address or f"{socket.gethostname()}:{port}",
        host=host,
        port=port,
        health_port=port + 1,
    )
    typer.echo(f"{made.folder}: federation {federation}; sites will dial {made.config.address} (server.yaml)")
    typer.echo(f"next: consilium-server start {folder}")


def start(folder: FolderArgument) -> None:
    """Run the federation's SuperLink until SIGTERM or Ctrl-C; it is started again when it fails."""
    from server.federation import open_federation
    from server.launch import check_start, greeting, superlink

    federation = open_federation(folder)
    expiry = check_start(federation)
    typer.echo(greeting(federation, expiry))
    superlink(federation, lambda line: typer.echo(line, err=True)).run()


def renew(folder: FolderArgument) -> None:
    """Make a new server's certificate by the federation's own CA; sites notice nothing."""
    from server.federation import open_federation

    federation = open_federation(folder)
    federation.certificates.renew(federation.config.names)
    until = federation.certificates.check(federation.config.names)
    typer.echo(f"{federation.certificates.certificate}: until {until:%Y-%m-%d}; stop and start the SuperLink now")


def invite(
    folder: FolderArgument,
    site: SiteArgument,
    again: Annotated[bool, typer.Option("--again", help="Also a site that is registered already.")] = False,
) -> None:
    """Write an invitation to hand to one hospital, which answers it with `consilium-site join`."""
    from server.federation import open_federation
    from server.joining import invite as write_invitation

    path, fingerprint = write_invitation(open_federation(folder), site, again=again)
    typer.echo(str(path))
    typer.echo(f"fingerprint, to read out by telephone: {fingerprint}")


def register(
    folder: FolderArgument,
    answer: Annotated[Path, typer.Argument(help="The file that the hospital sent back.", metavar="REGISTRATION.json")],
) -> None:
    """Admit the hospital that answered its invitation; the SuperLink must be running."""
    from server.federation import open_federation
    from server.joining import register as admit

    member = admit(open_federation(folder), answer)
    typer.echo(printable(f"{member.site}: registered; key {member.fingerprint}"))


def unregister(folder: FolderArgument, site: SiteArgument) -> None:
    """Shut a hospital out, as when its key is lost; invite it again for a new one."""
    from server.federation import open_federation
    from server.joining import unregister as shut_out

    member = shut_out(open_federation(folder), site)
    typer.echo(printable(f"{member.site}: its key {member.fingerprint} opens nothing any more"))


def status(folder: FolderArgument) -> None:
    """SuperLink, certificate, sites and runs; exit status 1 when the SuperLink does not serve."""
    from server.federation import open_federation
    from server.overview import overview

    serves, lines = overview(open_federation(folder))
    for line in lines:
        typer.echo(printable(line))
    raise typer.Exit(0 if serves else 1)
