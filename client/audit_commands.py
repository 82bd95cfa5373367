"""``consilium-site audit``: what a privacy officer asks of a site's log."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared_model.command import command_group

if TYPE_CHECKING:
    from rich.table import Table

app = command_group("Tell what left this site, and whether its record is whole.")
Config = Annotated[Path, typer.Argument(help="The site's YAML file.", metavar="SITE.yaml")]
BROKEN = 1


@app.command()
def verify(
    config: Config,
    expect: Annotated[str, typer.Option(help="A digest that an earlier `verify` told; it must be in the log.")] = "",
) -> None:
    """Read the whole log and find any line that was changed, taken out, put in, moved or cut off.

    Exit status 1 where there is one. Keep the digest that this tells in another place: who can write the log and its
    head can replace both, and only a digest that was noted before shows that.
    """
    from client.audit import AuditLog
    from client.audit_chain import verify as verify_log

    audit = AuditLog(_log_of(config))
    found = verify_log(audit.path, audit.head_file, expect.strip().lower())
    if found.problem:
        typer.echo(f"{audit.path}: {found.problem}", err=True)
        raise typer.Exit(BROKEN)
    where = f"; the digest that was expected is line {found.found}'s" if expect else ""
    typer.echo(f"{audit.path}: whole, {found.count} answers{where}\nlast digest: {found.digest}")
    if found.behind:
        typer.echo("the last line is one that a crash kept from its head; the next answer heals that")
    if audit.torn_file.exists():
        typer.echo(f"a crash tore lines while they were written; no answer left with them: {audit.torn_file}")


@app.command()
def show(
    config: Config,
    last: Annotated[int, typer.Option(min=1, help="So many of the newest answers.")] = 20,
    run: Annotated[str, typer.Option(help="Only of this run: its name or its Flower id.")] = "",
    json: Annotated[bool, typer.Option("--json", help="As JSON, one answer a line, with all that is known.")] = False,
) -> None:
    """Tell the newest answers: what left, for which run, and what was refused by which rule."""
    from collections import deque

    from client.audit_chain import entries

    found = deque((e for e in entries(_log_of(config)) if not run or run in (e["run"], e["run_id"])), maxlen=last)
    if json:
        import json as encoder

        for entry in found:
            typer.echo(encoder.dumps(entry, sort_keys=True))
    elif not found:
        typer.echo("nothing has left this site" + (f" in the run {run!r}" if run else ""))
    else:
        from rich.console import Console

        Console(highlight=False).print(_table(found))


def _log_of(config: Path) -> Path:
    from client.site import load_site

    return load_site(config, for_training=True).audit_file


def _table(found: Any) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table("line", "time (UTC)", "run", "message", "round", "outcome", "what", "MB", "norm")
    for entry in found:
        run, number = entry["run"] or entry["run_id"], entry["round"]
        cells = [
            str(entry["n"]),
            entry["time"][:19].replace("T", " "),
            run + (f" ({entry['trial'][:6]})" if entry["trial"] else ""),
            entry["kind"],
            "" if number is None else str(number),
            entry["outcome"],
            entry["rule"] or _what(entry),
            f"{entry['bytes'] / 1e6:.3f}",
            _norms(entry),
        ]
        table.add_row(*map(escape, cells))
    return table


def _what(entry: dict[str, Any]) -> str:
    arrays = f"{len(entry['arrays'])} arrays, " if entry["arrays"] else ""
    training, validation = entry.get("blocks") or ((), ())  # earlier versions knew none
    of = f"; blocks {_listed(training)} train, {_listed(validation)} validate" if training or validation else ""
    return arrays + ", ".join(key.partition("/")[2] for key in entry["keys"]) + of


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _norms(entry: dict[str, Any]) -> str:
    norm = entry["norms"]["update"]
    return "" if norm is None else f"{norm:.4g}{' (clipped)' if entry['clipped'] else ''}"
