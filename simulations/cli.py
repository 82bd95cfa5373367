"""``consilium-simulate``: one machine plays every hospital."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from shared_model.command import command_group, run
from shared_model.errors import ConfigError
from shared_model.study import Cohort, Label, Profile, Stays

app = command_group(needs_command=False)
DEFAULT_PATIENTS = 16_000
Dialect = Literal["german", "omop"]
_DATA, _TRAINING, _RUN = "What to simulate", "How to train", "The run"


@app.callback(invoke_without_command=True)
def simulate(
    context: typer.Context,
    *,
    mimic: Annotated[
        Path | None,
        typer.Option(
            help="A MIMIC-IV folder (hosp/, icu/, optionally note/; csv.gz or Parquet).",
            rich_help_panel=_DATA,
        ),
    ] = None,
    synthetic: Annotated[
        int | None,
        typer.Option(
            help="Generate this many synthetic patients instead; 16000 unless --mimic is given.", rich_help_panel=_DATA
        ),
    ] = None,
    cohort: Annotated[Cohort, typer.Option(help="Which ICU stays.", rich_help_panel=_DATA)] = "sepsis3",
    flag: Annotated[
        str, typer.Option(help="TABLE.COLUMN that marks the stays of --cohort flag.", rich_help_panel=_DATA)
    ] = "",
    stays: Annotated[Stays, typer.Option(help="ICU stays of a patient.", rich_help_panel=_DATA)] = "first",
    label: Annotated[Label, typer.Option(help="Death where.", rich_help_panel=_DATA)] = "in_hospital",
    profile: Annotated[
        Profile,
        typer.Option(help="early: only what is known by then; paper: retrospective, leaks.", rich_help_panel=_DATA),
    ] = "early",
    units: Annotated[
        str | None,
        typer.Option(
            help="Only these care units, comma-separated (MICU,SICU); all unless given.", rich_help_panel=_DATA
        ),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(help="Note encoder: minilm, none, a folder, or a Hugging Face id.", rich_help_panel=_DATA),
    ] = "minilm",
    heldout: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of patients held out for the server.", rich_help_panel=_DATA)
    ] = 0.2,
    smallest_cell: Annotated[
        int,
        typer.Option(min=1, help="A unit with fewer training patients takes no part.", rich_help_panel=_DATA),
    ] = 10,
    rounds: Annotated[int | None, typer.Option(help="Federated rounds.", rich_help_panel=_TRAINING)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.", rich_help_panel=_TRAINING)] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other run-config key; repeatable.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    baselines: Annotated[
        bool, typer.Option(help="Also train pooled and local-only models.", rich_help_panel=_TRAINING)
    ] = True,
    out: Annotated[Path, typer.Option(help="Run folder.", rich_help_panel=_RUN)] = Path("runs/simulation"),
    replace: Annotated[bool, typer.Option(help="Run again into an existing run folder.", rich_help_panel=_RUN)] = False,
) -> None:
    """Train one sepsis-prognosis model over care units as hospitals, on this machine.

    Writes results.json, report.html and model/ into the run folder. Without --mimic it generates synthetic hospitals
    whose true risk is known, so the best possible AUROC is too.

    \b
      consilium-simulate                                  the default
      consilium-simulate --mimic ~/mimic-iv-3.1 --rounds 30 --out runs/mimic
      consilium-simulate --synthetic 20000 --units MICU,SICU --set batch-size=128
    """
    if context.invoked_subcommand is not None:
        return
    from shared_model.config import RunConfig
    from simulations import experiment
    from simulations.screen import Screen

    if mimic is not None and synthetic is not None:
        raise ConfigError("--mimic and --synthetic: give one of them")
    if (cohort == "flag") != bool(flag):
        raise ConfigError("--cohort flag and --flag TABLE.COLUMN need each other")
    overrides = {"label": label, "profile": profile} | _parse_settings(settings or []) | {"seed": seed}
    if rounds is not None:
        overrides["rounds"] = rounds
    scenario = experiment.Scenario(
        mimic=mimic,
        patients=DEFAULT_PATIENTS if synthetic is None else synthetic,
        cohort=cohort,
        flag=flag,
        stays=stays,
        units=None if units is None else [name.strip() for name in units.split(",") if name.strip()],
        encoder=encoder,
        heldout_fraction=heldout,
        smallest_cell=smallest_cell,
        baselines=baselines,
        config=RunConfig.from_flat(RunConfig().to_flat() | overrides),
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
    run(app, interrupted="interrupted: every process was stopped; the run folder is partial (results.json says so)")


def _parse_settings(settings: list[str]) -> dict[str, bool | int | float | str]:
    """``key=value`` pairs with YAML scalars. Raises ConfigError for a pair without '='."""
    import yaml

    pairs: dict[str, bool | int | float | str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: write KEY=VALUE")
        pairs[key.strip()] = yaml.safe_load(value)
    return pairs
