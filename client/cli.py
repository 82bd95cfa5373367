"""``consilium-site``: what a hospital's data engineer runs."""

from pathlib import Path
from typing import Annotated

import typer

from shared_model.command import command_group, run
from shared_model.errors import ConfigError

app = command_group("Prepare a hospital's extract for a federation. Nothing leaves this machine.")
Config = Annotated[Path, typer.Argument(help="The site's YAML file (site_configs/ has examples).", metavar="SITE.yaml")]


@app.command()
def check(config: Config) -> None:
    """Read the site config, the columns of its extract, and every compressed file to its end; writes nothing."""
    from client.extract import find_tables, verify_checksum
    from client.site import load_site

    site = load_site(config)
    if site.source is None:
        raise ConfigError(f"{config}: source: absent; `check` and `prepare` need it")
    files = find_tables(site.source.path)
    for name, file in sorted(files.items()):
        verify_checksum(file)
        typer.echo(f"{name:20} {file}")
    typer.echo(f"{site.site}: {len(files)} tables found, every required one and its columns among them")


@app.command()
def prepare(
    config: Config,
    memory_limit: Annotated[str, typer.Option(help="DuckDB spills to disk beyond this.")] = "4GB",
) -> None:
    """Prepare the store: extract, cohort, features, note embeddings. Whole or absent."""
    from client.prepare import prepare_mimic
    from client.site import load_site

    site = load_site(config)
    if site.source is None:
        raise ConfigError(f"{config}: source: absent; `prepare` needs it")
    manifest = prepare_mimic(
        site.source.path,
        site.store,
        cohort=site.cohort,
        prediction_hours=site.prediction_hours,
        encoder=site.encoder,
        memory_limit=memory_limit,
        on_stage=lambda stage: typer.echo(f"  {stage}", err=True),
    )
    for step in manifest["flow"]:
        typer.echo(f"{step['patients']:>9,} patients {step['stays']:>9,} stays  {step['step']}")
    for reason, rows in manifest["rejects"].items():
        typer.echo(f"{rows:>9,} rows rejected  {reason}")
    typer.echo(f"prepared: {site.store}")


def main() -> None:
    """Console script."""
    run(app)
