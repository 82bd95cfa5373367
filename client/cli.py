"""``consilium-site``: what a hospital's data engineer runs."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from client import daemon_commands
from client.audit_commands import app as audit
from client.blocks_commands import app as blocks
from client.ledger_commands import app as ledger
from shared_model.command import command_group, run
from shared_model.errors import ConfigError, ConsiliumError, DataError

if TYPE_CHECKING:
    import duckdb

    from client.site import SiteConfig

app = command_group(
    "Prepare a hospital's extract for a federation, and take part in one. Patient rows never leave this machine."
)
daemon_commands.register(app)
app.add_typer(audit, name="audit")
app.add_typer(ledger, name="ledger")
app.add_typer(blocks, name="blocks")
Config = Annotated[Path, typer.Argument(help="The site's YAML file (site_configs/ has examples).", metavar="SITE.yaml")]
MemoryLimit = Annotated[str, typer.Option(help="DuckDB spills to disk beyond this.")]
NOT_READY = 1


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The folder of the extract.", metavar="EXTRACT")],
    like: Annotated[
        str, typer.Option(help="csv for an unknown format, or mimic-iv, eicu-crd, physionet-2012, ...")
    ] = "csv",
    out: Annotated[Path, typer.Option(help="The YAML file to write; it may not exist yet.")] = Path("my-site.yaml"),
) -> None:
    """Write a commented starting YAML from the files of an extract."""
    from client.mapping.init import write_start

    write_start(folder, like, out)
    typer.echo(f"written: {out}\nnext: fill in what it asks for, then `consilium-site check {out}`")


@app.command()
def check(
    config: Config,
    json: Annotated[Path | None, typer.Option(help="Also write the report as JSON into this new file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write the report as a page into this new file.")] = None,
    memory_limit: MemoryLimit = "4GB",
) -> None:
    """Read the whole extract, map it, and tell what is mapped, what is not and what looks wrong. Changes nothing.

    Exit status 1 where the site is not ready.
    """
    from rich.console import Console

    from client.check import check_site
    from client.mapping.report_html import render_html
    from client.mapping.report_screen import render

    for name, file in (("--json", json), ("--html", html)):
        if file is not None and (file.exists() or (name == "--html" and file == json)):
            raise ConfigError(f"{name} {file}: exists; name a new file")
        if file is not None and not file.parent.is_dir():
            raise ConfigError(f"{name} {file}: its folder does not exist")
    with _site(config) as site:
        report = check_site(site, memory_limit=memory_limit, on_stage=_tell_stage)
    Console(highlight=False).print(render(report))
    for file, text in ((json, report.model_dump_json(indent=1)), (html, render_html(report))):
        if file is not None:
            file.write_text(text, encoding="utf-8")
    if report.verdict == "not ready":
        raise typer.Exit(NOT_READY)


@app.command()
def prepare(config: Config, memory_limit: MemoryLimit = "4GB") -> None:
    """Prepare the store: extract, cohort, features, note embeddings. Whole or absent.

    What an earlier store holds is taken over where nothing that it depends on has changed; a preparation that was
    interrupted goes on with what it had finished reading.
    """
    from client.mapping.extract import extract_of
    from client.prepare import prepare as prepare_extract

    with _site(config) as site:
        manifest = prepare_extract(
            extract_of(site, memory_limit=memory_limit, on_stage=_tell_stage),
            site.store,
            cohort=site.cohort,
            study=site.study,
            stays=site.stays,
            encoder=site.encoder,
            memory_limit=memory_limit,
            on_stage=_tell_stage,
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
def schema(
    json: Annotated[bool, typer.Option("--json", help="As JSON Schema, for editors.")] = False,
) -> None:
    """Tell every key of a site's YAML, or its JSON Schema."""
    from client.mapping.schema import document, json_schema

    if json:
        import json as encoder

        typer.echo(encoder.dumps(json_schema(), indent=1))
    else:
        from rich.console import Console

        Console(highlight=False).print(document())


@app.command()
def concepts() -> None:
    """List what a local code can be mapped to, with units and LOINC codes."""
    from rich.console import Console

    from client.mapping.schema import concept_table

    Console(highlight=False).print(concept_table())


@app.command()
def cohort(
    config: Config,
    explain: Annotated[
        str,
        typer.Option(metavar="STAY", help="Derive one stay's Sepsis-3 in the open (named as in the extract)."),
    ] = "",
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
    from client.check import checked_tables
    from client.cohort import derive_sepsis3, select_cohort

    if all_hours and not explain:
        raise ConfigError("--all-hours: needs --explain STAY")
    if tables is not None and tables.exists():
        raise ConfigError(f"--tables {tables}: exists; name a new folder")
    with _site(config) as site, checked_tables(site, memory_limit=memory_limit) as (connection, _):
        derive_sepsis3(connection, labs_of_admission=labs_of_admission)
        if explain:
            _explain(connection, explain, all_hours=all_hours)
        else:
            flow = select_cohort(connection, site.cohort, site.study, stays=site.stays)
            _tell_flow([vars(step) for step in flow])
        if tables is not None:
            _write_tables(connection, tables)


@contextmanager
def _site(config: Path) -> Iterator["SiteConfig"]:
    """The site of a YAML file; a mistake that shows only in the extract names the file too."""
    from client.site import load_site

    site = load_site(config)
    try:
        yield site
    except ConsiliumError as error:
        if re.match(r"(sources?|relations|tables|events)\b", str(error)):
            raise type(error)(f"{config}: {error}") from None
        raise
    except Exception as error:
        if "duckdb" not in type(error).__module__:
            raise
        kind = type(error).__name__
        hints = {"OutOfMemoryException": "; raise --memory-limit", "IOException": "; is the disk full?"}
        raise DataError(f"{config}: the working database failed ({kind}){hints.get(kind, '')}") from None


def _tell_stage(stage: str) -> None:
    typer.echo(f"  {stage}", err=True)


def _tell_flow(flow: list[dict[str, Any]]) -> None:
    for step in flow:
        typer.echo(f"{step['patients']:>9,} patients {step['stays']:>9,} stays  {step['step']}")


def _explain(connection: "duckdb.DuckDBPyConnection", stay: str, *, all_hours: bool) -> None:
    from rich.console import Console

    from client.explain import explain, render
    from client.mapping.columns import local_id

    Console(highlight=False).print(render(explain(connection, local_id(connection, stay)), all_hours=all_hours))


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
