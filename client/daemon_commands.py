"""The commands of ``consilium-site`` with which a site takes part in a federation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared_model.errors import ConfigError, ConsiliumError, printable

if TYPE_CHECKING:
    from client.membership import Place
    from client.site import SiteConfig

Config = Annotated[Path, typer.Argument(help="The site's YAML file.", metavar="SITE.yaml")]
UNHEALTHY, LOG_LINES = 1, 8


def register(app: typer.Typer) -> None:
    """Put the commands on ``consilium-site``."""
    for command in (join, start, status, stop, pause, unpause, unit):
        app.command()(command)


def join(
    invitation: Annotated[Path, typer.Argument(help="From the coordinating centre.", metavar="INVITATION.json")],
    config: Config,
    fingerprint: Annotated[
        str | None,
        typer.Option(help="Of the federation's key, as the centre told it by another way.", metavar="XXXX-..."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Move an earlier membership aside and join anew.")] = False,
) -> None:
    """Accept an invitation: make this site's key, and the registration to send to the centre."""
    from client.membership import check_invitation
    from client.membership import join as make
    from client.site import load_site
    from shared_model.bundle import Invitation
    from shared_model.supervise import running

    site, place = load_site(config, for_training=True), _place(config)
    opened = Invitation.open(invitation)
    check_invitation(opened, invitation, site.site, fingerprint)
    if again and running(place.pid_file) is not None:
        raise ConfigError(f"{config}: its daemon runs; `consilium-site stop {config}` first")
    if (aside := make(opened, place, again=again)) is not None:
        typer.echo(f"the earlier membership is now {aside}")
    typer.echo(f"{site.site}: a member of federation {opened.federation!r}, SuperLink {opened.superlink}")
    if fingerprint is None:
        typer.echo(f"fingerprint: {opened.fingerprint}\n  compare it with the centre's by telephone before you start")
    typer.echo(f"next: send this file to the centre: {place.registration}")


def start(
    config: Config,
    health_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Loopback port of the health service.", show_default="9095")
    ] = None,
) -> None:
    """Take part: keep a SuperNode running and connected until SIGTERM or Ctrl-C. Checks everything first."""
    from client.block_memory import trouble_with
    from client.daemon import check_can_start, run_daemon
    from client.readiness import check_membership, check_store
    from client.site import load_site

    site, place = load_site(config, for_training=True), _place(config)
    membership = check_membership(place, site)
    store, port = check_store(site.store), health_port or membership.health_port
    check_can_start(place, port)
    device = _device(site.store)
    typer.echo(f"{site.site}: {store.stays:,} stays in {store.path}, trains on the {device}")
    typer.echo(f"federation {membership.federation!r}, SuperLink {membership.superlink}, health 127.0.0.1:{port}")
    if paused := _paused(site):
        typer.echo(f"{paused}; nothing leaves until `consilium-site unpause {config}`")
    if trouble := trouble_with(site.store):
        typer.echo(trouble)
    run_daemon(place, membership, port, lambda line: typer.echo(f"{_now()} {line}"))
    typer.echo("stopped")


def status(config: Config) -> None:
    """Tell whether the daemon runs, is healthy and connected, and what it serves. Exit status 1 when it is not."""
    from client.block_memory import trouble_with
    from client.membership import read_membership
    from client.site import load_site

    site, place = load_site(config, for_training=True), _place(config)
    membership = read_membership(place)
    typer.echo(f"site        {site.site}, federation {membership.federation!r} ({membership.fingerprint})")
    typer.echo(f"superlink   {membership.superlink}")
    well = _tell_daemon(place, membership.health_port)
    typer.echo(f"paused      {_paused(site) or 'no'}")
    well = _tell_store(site.store) and well
    if trouble := trouble_with(site.store):
        typer.echo(f"blocks      {trouble}")
        well = False
    if not well:
        raise typer.Exit(UNHEALTHY)


def stop(config: Config) -> None:
    """End the daemon: the SuperNode takes leave of the SuperLink."""
    from shared_model.supervise import stop as end

    typer.echo("stopped" if end(_place(config).pid_file) else f"{config}: its daemon does not run")


def pause(
    config: Config,
    reason: Annotated[str, typer.Option(help="For those who find it paused; it stays here.", metavar="TEXT")] = "",
) -> None:
    """Let nothing leave any more, at once: the kill switch. The daemon may go on running."""
    from client.site import load_site
    from shared_model.atomic import write_text

    site = load_site(config, for_training=True)
    try:
        write_text(site.pause_file, f"since {_now()}{f': {printable(reason)}' if reason else ''}\n")
    except OSError as error:
        raise ConfigError(
            f"{site.pause_file}: cannot be written ({(error.strerror or 'error').lower()}); "
            f"`consilium-site stop {config}` ends the daemon"
        ) from None
    typer.echo(f"paused: nothing leaves while {site.pause_file} exists")


def unpause(config: Config) -> None:
    """Take part again."""
    from client.site import load_site

    site = load_site(config, for_training=True)
    was = site.pause_file.exists()
    site.pause_file.unlink(missing_ok=True)
    typer.echo("unpaused" if was else f"{site.site}: was not paused")


def unit(
    config: Config,
    user: Annotated[str, typer.Option(help="Whom it runs as; default: you.", metavar="NAME")] = "",
) -> None:
    """Print a hardened systemd unit that runs the daemon."""
    from client.site import load_site
    from client.systemd import unit as text_of

    site = load_site(config, for_training=True)
    typer.echo(text_of(_place(config), site.site, site.store, user), nl=False)


def _place(config: Path) -> "Place":
    from client.membership import Place

    return Place.of(config)


def _paused(site: "SiteConfig") -> str:
    """Empty when it is not."""
    try:
        return f"paused {site.pause_file.read_text(encoding='utf-8').strip()}".strip()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError):
        return "paused"


def _tell_daemon(place: "Place", health_port: int) -> bool:
    from client.connection import CONNECTED, read_state
    from shared_model.health import serving
    from shared_model.supervise import running

    process, state = running(place.pid_file), read_state(place.connection)
    port = (state.health_port if state else 0) or health_port
    healthy = process is not None and serving(port)
    typer.echo(f"daemon      {'does not run' if process is None else f'runs (process {process})'}")
    typer.echo(f"health      {'serving' if healthy else 'no answer'} (127.0.0.1:{port})")
    if state is None:
        typer.echo("connection  never")
    else:
        typer.echo(f"connection  {state.state} since {state.since}{f': {state.detail}' if state.detail else ''}")
    connected = healthy and state is not None and state.state == CONNECTED
    if not connected:
        _tell_log(place.log)
    return connected


def _tell_log(log: Path) -> None:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    typer.echo(f"log         {log}")
    for line in lines[-LOG_LINES:]:
        typer.echo(f"  {printable(line)}")


def _tell_store(path: Path) -> bool:
    from client.readiness import check_store

    try:
        store = check_store(path)
    except ConsiliumError as error:
        typer.echo(f"store       {error}")
        return False
    typer.echo(f"store       {store.path}: {store.stays:,} stays, contract {store.contract[:12]}")
    return True


def _device(store: Path) -> str:
    """GPU or CPU. As asking loads torch, the store is opened too. Raises StoreError when a ClientApp could not."""
    from shared_model.batch import open_store
    from shared_model.predict import best_device

    open_store(store)
    return "GPU" if best_device().type == "cuda" else "CPU"


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="seconds")
