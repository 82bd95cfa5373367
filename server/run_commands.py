"""Commands of ``consilium-server`` that start and stop runs of a federation."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.launch_commands import FolderArgument
from shared_model.errors import ConfigError, printable

if TYPE_CHECKING:
    from server.federation import Federation
    from server.progress import Event
    from server.runs import Run


def run(
    folder: FolderArgument,
    name: Annotated[str, typer.Option(help="Of the run; date and time unless given.")] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A run-config key; repeatable.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Run-config keys as YAML; --set wins.", metavar="YAML")] = None,
    resume: Annotated[
        str, typer.Option(help="Go on with this run from its last checkpoint, with its own settings.")
    ] = "",
) -> None:
    """Train with the registered hospitals and tell how it goes; exit status 1 when the run fails.

    Ctrl-C ends the telling, not the run.

    \b
      consilium-server run FOLDER --set rounds=30 --set min-sites=3
      consilium-server run FOLDER --name pilot --config pilot.yaml
      consilium-server run FOLDER --resume pilot
    """
    from server.control import ready
    from server.federation import open_federation
    from server.runs import new_run, resumed_run, settings_of

    federation = open_federation(folder)
    given = settings_of(settings or [], config)
    if resume and (name or given):
        raise ConfigError("--resume: keeps the run's name and settings; give nothing else")
    ready(federation)
    _submit_and_watch(resumed_run(federation, resume) if resume else new_run(federation, name, given))


def stop(
    folder: FolderArgument,
    run_name: Annotated[str, typer.Option("--run", metavar="NAME", help="Only this run; the SuperLink stays.")] = "",
) -> None:
    """End the SuperLink, or one run."""
    from server.federation import open_federation
    from shared_model import supervise

    federation = open_federation(folder)
    if run_name:
        _stop_run(federation, run_name)
    elif supervise.stop(federation.pid_file):
        typer.echo("the SuperLink has ended")
    else:
        typer.echo("the SuperLink does not run")


def _submit_and_watch(run: "Run") -> None:
    from server.runs import submit, watch
    from shared_model.supervise import signals_set

    offset = run.progress.stat().st_size if run.progress.exists() else 0
    run_id = submit(run)
    typer.echo(f"run {run.name} ({run_id}); waiting for its sites")
    stopping = threading.Event()
    with signals_set(stopping):
        outcome = watch(run, run_id, offset, stopping, _tell)
    folder = run.federation.folder
    if outcome.complete:
        typer.echo(f"report: {run.folder / 'report.html'}")
    elif stopping.is_set():
        typer.echo(f"the run goes on; see: consilium-server status {folder}")
        typer.echo(f"or end it: consilium-server stop {folder} --run {run.name}")
    else:
        typer.echo(printable(f"run {run.name} failed: {outcome.reason}"), err=True)
        raise typer.Exit(1)


def _stop_run(federation: "Federation", name: str) -> None:
    from server.runs import all_runs, stop_if_active

    found = {run.name: run for run in all_runs(federation)}
    if name not in found:
        raise ConfigError(f"--run {name}: is no run; runs are: {', '.join(found) or 'none'}")
    stopped = stop_if_active(found[name])
    typer.echo(f"run {name} has been stopped" if stopped else f"run {name} does not run")


def _tell(event: "Event") -> None:
    from server.progress import lines_of

    for line in lines_of(event):
        typer.echo(printable(line))
