"""``consilium-site blocks``: what a site remembers of whom it told of, and a person's decision to begin it anew."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.blocks import WAITING
from shared_model.command import command_group
from shared_model.errors import BlocksError, ConfigError

if TYPE_CHECKING:
    from client.block_standing import Block, Present, Standing
    from client.site import SiteConfig

app = command_group("Tell in which blocks of patients this site answers, and decide when its memory of them is lost.")
Config = Annotated[Path, typer.Argument(help="The site's YAML file.", metavar="SITE.yaml")]
BROKEN, SHORTEST = 1, 10


@app.command()
def show(config: Config) -> None:
    """Compare the prepared store with the blocks that were told of: which are whole, and how many patients wait."""
    from client.block_memory import blocks_in, check_known, memory_of, standing

    site = _site(config)
    memory = memory_of(site.store)
    check_known(memory, site.store)
    if not memory.newest[0]:
        typer.echo("this site has told of no patients yet; the first question makes its blocks")
        return
    held, cell = memory.read(), site.release.smallest_cell
    _tell(blocks_in(held), *standing(memory, held, site.store, cell), cell)


@app.command()
def verify(
    config: Config,
    expect: Annotated[str, typer.Option(help="A digest that an earlier `verify` told; it must be in the memory.")] = "",
) -> None:
    """Read the whole memory, and find out whether it is what was written and no older than the audit log.

    Exit status 1 where it is not. Keep the digest in another place: who can restore memory and audit log together can
    only be found out by it.
    """
    from client.audit_chain import BLOCKS
    from client.audit_chain import verify as verify_log
    from client.block_memory import check_known, memory_of

    site = _site(config)
    memory = memory_of(site.store)
    found = verify_log(memory.path, memory.head_file, expect.strip().lower(), BLOCKS)
    try:
        if not found.problem:
            check_known(memory, site.store)
            memory.check_key()
    except BlocksError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(BROKEN) from None
    if found.problem:
        typer.echo(f"{memory.path}: {found.problem}", err=True)
        raise typer.Exit(BROKEN)
    where = f"; the digest that was expected is line {found.found}'s" if expect else ""
    typer.echo(f"{memory.path}: whole, {found.count} lines{where}\nlast digest: {found.digest}")


@app.command()
def restart(
    config: Config,
    reason: Annotated[str, typer.Option(help="Why this is right; it stands in the memory and in the audit log.")],
) -> None:
    """Forget which patients were told of, and in which blocks. The old memory is moved aside.

    Answers from now on can be subtracted from earlier ones: if patients came, left or changed in between, the
    difference may tell of single ones. Do this where the earlier answers cannot be had any more, or the study's
    approval covers it; else answer under differential privacy.
    """
    from client.block_memory import restart as begin_anew

    site, told = _site(config), reason.strip()
    if len(told) < SHORTEST or not told.isprintable():
        raise ConfigError(f"--reason: must say in one line, of {SHORTEST} signs or more, why the memory is begun anew")
    aside = begin_anew(site.store, site.site, told)
    typer.echo(f"begun anew; the old memory is in {aside}" if aside else "begun anew; there was no old memory")
    typer.echo("the audit log has the decision and its reason")


def _site(config: Path) -> "SiteConfig":
    from client.site import load_site

    return load_site(config, for_training=True)


def _tell(made: "list[Block]", present: "Present", found: "Standing", cell: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table, whole = Table("block", "patients", "new in it", "outcomes", "state"), {b.number for b in found.whole}
    for block in made:
        state = "told of" if block.number in whole else "cut anew"
        if block.number in found.changed:
            state = "no longer told of: a patient changed or is gone, or it is smaller than release.smallest_cell"
        outcomes = "told" if block.complete else "withheld"
        table.add_row(str(block.number), str(len(block.members)), str(int(block.new_P.sum())), outcomes, state)
    Console(highlight=False).print(table)
    waiting = int((found.block_P == WAITING).sum())
    further = len(found.further(present, cell))
    typer.echo(f"{waiting:,} patients of the store are in no block that is told of")
    if further:
        typer.echo(f"the next answer makes {further} new blocks of them")
    elif waiting:
        typer.echo(f"they wait until {cell} who died and {cell} who survived have never been told of")
