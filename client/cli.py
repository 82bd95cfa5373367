"""``consilium-site``: what a hospital's data engineer runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared_model.command import command_group, run
from shared_model.errors import ConfigError

if TYPE_CHECKING:
    import duckdb

    from client.site import SiteConfig

app = command_group("Prepare a hospital's extract for a federation. Nothing leaves this machine.")
Config = Annotated[Path, typer.Argument(help="The site's YAML file (site_configs/ has examples).", metavar="SITE.yaml")]
MemoryLimit = Annotated[str, typer.Option(help="DuckDB spills to disk beyond this.")]


@app.command()
def check(config: Config) -> None:
    """Read the site config, the columns of its extract, and every compressed file to its end; writes nothing."""
    from client.extract import tables_read
    from client.source import find_tables, verify_checksum

    site, source = _site(config, "check")
    files = find_tables(source, tables_read(site.flag))
    for name, file in sorted(files.items()):
        verify_checksum(file)
        typer.echo(f"{name:20} {file}")
    typer.echo(f"{site.site}: {len(files)} tables found, every required one and its columns among them")


@app.command()
def prepare(config: Config, memory_limit: MemoryLimit = "4GB") -> None:
    """Prepare the store: extract, cohort, features, note embeddings. Whole or absent.

    What an earlier store holds is taken over where nothing that it depends on has changed.
    """
    from client.prepare import prepare_mimic

    site, source = _site(config, "prepare")
    manifest = prepare_mimic(
        source,
        site.store,
        cohort=site.cohort,
        study=site.study,
        stays=site.stays,
        flag=site.flag,
        encoder=site.encoder,
        memory_limit=memory_limit,
        on_stage=lambda stage: typer.echo(f"  {stage}", err=True),
    )
    _tell_flow(manifest["flow"])
    for found in manifest["row_checks"] + manifest["event_checks"]:
        typer.echo(f"{found['rows']:>9,} rows {found['action']:9} {found['table']}: {found['rule']}")
    if site.retrospective:
        typer.echo(
            "profile 'paper' reads what happened after the prediction time: no deployed site serves it", err=True
        )
    typer.echo(f"prepared: {site.store}")


@app.command()
def cohort(
    config: Config,
    explain: Annotated[int | None, typer.Option(metavar="STAY", help="Derive one stay's Sepsis-3 in the open.")] = None,
    all_hours: Annotated[bool, typer.Option(help="With --explain: do not fold hours without change.")] = False,
    tables: Annotated[
        Path | None, typer.Option(help="Write every derived table as Parquet into this new folder.")
    ] = None,
    labs_of_admission: Annotated[
        bool, typer.Option(help="SOFA's blood values by admission id, as the reference joins them.")
    ] = False,
    memory_limit: MemoryLimit = "4GB",
) -> None:
    """Count the cohort step by step, or show how one stay's Sepsis-3 came about. Changes no store.

    --explain prints hours since ICU admission and scores: no ids, dates, drugs or measured values.
    """
    from client.cohort import derive_sepsis3, select_cohort
    from client.explain import explain as explain_stay
    from client.explain import render

    site, source = _site(config, "cohort")
    if all_hours and explain is None:
        raise ConfigError("--all-hours: needs --explain STAY")
    if tables is not None and tables.exists():
        raise ConfigError(f"--tables {tables}: exists; name a new folder")
    with _extracted(site, source, memory_limit) as connection:
        derive_sepsis3(connection, labs_of_admission=labs_of_admission)
        if explain is not None:
            from rich.console import Console

            Console(highlight=False).print(render(explain_stay(connection, explain), all_hours=all_hours))
        else:
            flow = select_cohort(connection, site.cohort, site.study, stays=site.stays)
            _tell_flow([vars(step) for step in flow])
        if tables is not None:
            _write_tables(connection, tables)


def _site(config: Path, command: str) -> tuple["SiteConfig", Path]:
    """The site and its extract. Raises ConfigError where it names none."""
    from client.site import load_site

    site = load_site(config)
    if site.source is None:
        raise ConfigError(f"{config}: source: absent; `{command}` needs it")
    return site, site.source.path


@contextmanager
def _extracted(site: "SiteConfig", source: Path, memory_limit: str) -> Iterator["duckdb.DuckDBPyConnection"]:
    """The extract's checked tables in a database that is gone afterwards; a prepared store's are used where they
    still hold."""
    from tempfile import TemporaryDirectory

    from client.prepare import extract_checked

    site.store.parent.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix=".cohort.", dir=site.store.parent) as folder,  # the disk chosen for patients' rows
        extract_checked(site.store, Path(folder), source, flag=site.flag, memory_limit=memory_limit) as connection,
    ):
        yield connection


def _tell_flow(flow: list[dict[str, Any]]) -> None:
    for step in flow:
        typer.echo(f"{step['patients']:>9,} patients {step['stays']:>9,} stays  {step['step']}")


def _write_tables(connection: "duckdb.DuckDBPyConnection", folder: Path) -> None:
    from client.cohort import DERIVED_TABLES
    from client.source import quoted

    folder.mkdir(parents=True)
    for name in DERIVED_TABLES:
        connection.execute(f"COPY {name} TO {quoted(folder / f'{name}.parquet')} (FORMAT parquet)")
    typer.echo(f"{len(DERIVED_TABLES)} tables written: {folder}")


def main() -> None:
    """Console script."""
    run(app)
