"""``consilium-simulate``: one machine plays every hospital."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shared_model.command import command_group, run
from shared_model.errors import ConfigError
from shared_model.study import Cohort, Label, Profile, Stays
from simulations.attack_command import attack
from simulations.commands import benchmark, paper, privacy, tune
from simulations.options import (
    DATA,
    TRAINING,
    EncoderOption,
    HeldoutOption,
    MimicOption,
    OutOption,
    ReplaceOption,
    RoundsOption,
    SeedOption,
    SettingsOption,
    SiteOption,
    SmallestCellOption,
    SyntheticOption,
    overrides_of,
    source_of,
    unless_given,
)

if TYPE_CHECKING:
    from shared_model.config import Scalar

app = command_group(needs_command=False)
app.command()(attack)
app.command()(benchmark)
app.command()(paper)
app.command()(privacy)
app.command()(tune)
Dialect = Literal["german", "omop"]


@app.callback(invoke_without_command=True)
def simulate(
    context: typer.Context,
    *,
    mimic: MimicOption = None,
    synthetic: SyntheticOption = None,
    site: SiteOption = None,
    cohort: Annotated[Cohort, typer.Option(help="Which ICU stays.", rich_help_panel=DATA)] = "sepsis3",
    flag: Annotated[
        str, typer.Option(help="TABLE.COLUMN that marks the stays of --cohort flag.", rich_help_panel=DATA)
    ] = "",
    stays: Annotated[Stays, typer.Option(help="ICU stays of a patient.", rich_help_panel=DATA)] = "first",
    label: Annotated[Label, typer.Option(help="Death where.", rich_help_panel=DATA)] = "in_hospital",
    profile: Annotated[
        Profile,
        typer.Option(help="early: only what is known by then; paper: retrospective, leaks.", rich_help_panel=DATA),
    ] = "early",
    units: Annotated[
        str | None,
        typer.Option(
            help="Only these care units, comma-separated (MICU,SICU); all unless given.", rich_help_panel=DATA
        ),
    ] = None,
    encoder: EncoderOption = "minilm",
    heldout: HeldoutOption = 0.2,
    smallest_cell: SmallestCellOption = 10,
    rounds: RoundsOption = None,
    seed: SeedOption = 1,
    settings: SettingsOption = None,
    baselines: Annotated[
        bool, typer.Option(help="Also train pooled and local-only models.", rich_help_panel=TRAINING)
    ] = True,
    out: OutOption = Path("runs/simulation"),
    replace: ReplaceOption = False,
) -> None:
    """Train one sepsis-prognosis model over care units as hospitals, on this machine.

    Writes results.json, report.html and model/ into the run folder. Without --mimic it generates synthetic hospitals
    whose true risk is known, so the best possible AUROC is too.

    \b
      consilium-simulate                                  the default
      consilium-simulate --mimic ~/mimic-iv-3.1 --rounds 30 --out runs/mimic
      consilium-simulate --synthetic 20000 --units MICU,SICU --set batch-size=128
      consilium-simulate --site my-site.yaml              another format, through its mapping
    """
    if context.invoked_subcommand is not None:
        return
    from client.site import load_site
    from shared_model.config import RunConfig
    from simulations import experiment
    from simulations.screen import Screen

    config = None if site is None else load_site(site)
    source = source_of(mimic, synthetic, seed=seed, site=config)
    chosen: dict[str, Any] = {"cohort": cohort, "flag": flag, "stays": stays, "encoder": encoder}
    study: dict[str, Scalar] = {"label": label, "profile": profile}
    chosen, study = unless_given(context, config, chosen, study)
    if (chosen["cohort"] == "flag") != bool(chosen["flag"]):
        raise ConfigError("--cohort flag and --flag TABLE.COLUMN need each other")
    changes = study | overrides_of(settings, rounds) | {"seed": seed}
    scenario = experiment.Scenario(
        source=source,
        units=None if units is None else [name.strip() for name in units.split(",") if name.strip()],
        heldout_fraction=heldout,
        smallest_cell=smallest_cell,
        baselines=baselines,
        config=RunConfig.from_flat(RunConfig().to_flat() | changes),
        **chosen,
    )
    with Screen() as screen:
        results = experiment.simulate(scenario, out, screen, replace=replace)
    screen.summary(results, out)


@app.command()
def export(
    dialect: Annotated[Dialect, typer.Argument(help="german: messy CSV files; omop: the tables of OMOP CDM 5.4.")],
    out: Annotated[Path, typer.Option(help="New folder.")],
    mimic: Annotated[Path | None, typer.Option(help="A MIMIC-IV folder to rewrite.")] = None,
    synthetic: Annotated[int, typer.Option(help="Or so many synthetic patients.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the synthetic patients.")] = 1,
) -> None:
    """Write an extract in a form that is not MIMIC-IV's, to try `consilium-site` on."""
    from simulations.dialects.german import write_german
    from simulations.dialects.omop import write_omop
    from simulations.synthetic import write_hospitals

    with TemporaryDirectory(prefix="consilium-") as place:
        if mimic is None:
            mimic = Path(place) / "mimic"
            write_hospitals(mimic, patients=synthetic, seed=seed)
        {"german": write_german, "omop": write_omop}[dialect](mimic, out)
    typer.echo(f"written: {out}")


def main() -> None:
    """Console script."""
    run(app, interrupted="interrupted: every process was stopped; the run folder is partial (its JSON says so)")
