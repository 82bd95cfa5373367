"""``consilium-simulate attack``: are patients found again in a trained model, and is epsilon what the ledger says?"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared_model.errors import ConfigError
from shared_model.study import Cohort
from simulations.options import (
    DATA,
    EncoderOption,
    MimicOption,
    OutOption,
    ReplaceOption,
    RoundsOption,
    SeedOption,
    SettingsOption,
    SyntheticOption,
    overrides_of,
    source_of,
)

if TYPE_CHECKING:
    from rich.console import Console

    from shared_model.config import RunConfig, Scalar
    from simulations.attack_results import Attack

PATIENTS = 3000
HOW = "How hard to try"


def attack(
    *,
    epsilon: Annotated[
        str, typer.Option(help="Epsilons, comma-separated; inf: without privacy.", rich_help_panel=HOW)
    ] = "inf,3,1",
    shadows: Annotated[int, typer.Option(help="Shadow models of each epsilon; even.", rich_help_panel=HOW)] = 12,
    canaries: Annotated[int, typer.Option(help="Canaries of an audit.", rich_help_panel=HOW)] = 600,
    audit_rounds: Annotated[int, typer.Option(min=1, help="Rounds of an audit.", rich_help_panel=HOW)] = 120,
    store: Annotated[
        Path | None,
        typer.Option(help="A prepared store, of a site or of a run (RUN/stores/all).", rich_help_panel=DATA),
    ] = None,
    mimic: MimicOption = None,
    synthetic: SyntheticOption = None,
    cohort: Annotated[Cohort, typer.Option(help="Which ICU stays.", rich_help_panel=DATA)] = "sepsis3",
    encoder: EncoderOption = "none",
    rounds: RoundsOption = None,
    seed: SeedOption = 1,
    settings: SettingsOption = None,
    out: OutOption = Path("runs/attack"),
    replace: ReplaceOption = False,
) -> None:
    """Attack models of this code, with and without privacy, and audit the privacy with canaries.

    Membership inference by loss and by shadow models on centrally trained models; then a lower bound of epsilon for the
    training as it is, and for two builds that are broken on purpose. 3,000 synthetic patients unless told otherwise.
    Writes attack.json and attack.html. Exit status 1 if this version tells more than its ledger says.

    \b
      consilium-simulate attack
      consilium-simulate attack --store runs/default/stores/all --epsilon inf,8 --shadows 32
    """
    from simulations.attack import PAGE, Attempt, run_attack
    from simulations.experiment import Scenario
    from simulations.screen import Screen

    if store is not None and (mimic is not None or synthetic is not None):
        raise ConfigError("--store and --mimic or --synthetic: give one of them")
    patients = PATIENTS if mimic is None and synthetic is None else synthetic
    scenario = Scenario(
        source=source_of(mimic, patients, seed=seed),
        cohort=cohort,
        encoder=encoder,
        config=_config(store, overrides_of(settings, rounds) | {"seed": seed}),
    )
    attempt = Attempt(epsilons=epsilons_of(epsilon), shadows=shadows, canaries=canaries, audit_rounds=audit_rounds)
    with Screen() as screen:
        found = run_attack(scenario, attempt, out, screen, store=store, replace=replace)
    _show(found, screen.console)
    screen.console.print(f"written: {out / PAGE}", markup=False, highlight=False)
    if found.violated:
        screen.console.print("privacy violated: the training tells more than its ledger says", style="red")
        raise typer.Exit(1)


def epsilons_of(text: str) -> tuple[float | None, ...]:
    """``inf,3,1``, without repetition; None is without privacy. Raises ConfigError for anything but numbers above 0."""
    found: list[float | None] = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not value > 0:
            raise ConfigError(f"--epsilon {text}: {part.strip()!r} is no number above 0, nor inf")
        found.append(None if math.isinf(value) else value)
    return tuple(dict.fromkeys(found))


def _config(store: Path | None, changes: "dict[str, Scalar]") -> "RunConfig":
    """The study is the store's, where there is one. Raises StoreError and ConfigError."""
    from shared_model.config import RunConfig
    from shared_model.manifest import read_manifest, study_of

    study = {} if store is None else study_of(read_manifest(store)).model_dump()
    of_store: dict[str, Scalar] = {name.replace("_", "-"): value for name, value in study.items()}
    return RunConfig.from_flat(RunConfig().to_flat() | of_store | changes)


def _show(found: "Attack", console: "Console") -> None:
    from rich.table import Table

    from simulations.attack_page import headline, tables

    for one in tables(found):
        table = Table(*one.heads, title=one.title, title_justify="left", box=None, pad_edge=False)
        for row in one.rows:
            table.add_row(*row)
        console.print(table)
        console.print()
    console.print(headline(found), markup=False)
