"""The command that searches settings by federated cross-validation."""

from pathlib import Path
from typing import Annotated

import typer

from shared_model.study import Cohort
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
    SmallestCellOption,
    SyntheticOption,
    overrides_of,
    source_of,
)


def tune(
    grid: Annotated[
        Path, typer.Argument(help="YAML: run-config key -> list of values, or {low, high, log}.", metavar="GRID.yaml")
    ],
    *,
    folds: Annotated[int, typer.Option(min=2, help="Folds of each site's patients.", rich_help_panel=TRAINING)] = 5,
    trials: Annotated[
        int, typer.Option(min=0, help="Random draws from the grid; 0: all of it.", rich_help_panel=TRAINING)
    ] = 0,
    mimic: MimicOption = None,
    synthetic: SyntheticOption = None,
    cohort: Annotated[Cohort, typer.Option(help="Which ICU stays.", rich_help_panel=DATA)] = "sepsis3",
    encoder: EncoderOption = "minilm",
    heldout: HeldoutOption = 0.2,
    smallest_cell: SmallestCellOption = 10,
    rounds: RoundsOption = None,
    seed: SeedOption = 1,
    settings: SettingsOption = None,
    out: OutOption = Path("runs/tuning"),
    replace: ReplaceOption = False,
) -> None:
    """Search settings by k-fold cross-validation inside one federation, then train with the best and report.

    Every site folds its own patients; the held-out patients take no part. What is finished is not run again: after
    Ctrl-C the same command goes on.

    \b
      echo 'learning-rate: [0.0005, 0.001, 0.003]' > grid.yaml
      consilium-simulate tune grid.yaml --folds 3 --rounds 6
    """
    from shared_model.config import RunConfig
    from shared_model.errors import ConfigError
    from shared_model.search import read_grid, search_settings
    from simulations import experiment
    from simulations.screen import Screen

    try:
        text = grid.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{grid}: cannot be read as text; it is the grid of settings to try") from error
    changes = overrides_of(settings, rounds) | {"seed": seed, "grid": text, "folds": folds, "trials": trials}
    config = RunConfig.from_flat(RunConfig().to_flat() | changes)
    search_settings(read_grid(text), config)  # a mistake is told before anything is prepared
    scenario = experiment.Scenario(
        source=source_of(mimic, synthetic, seed=seed),
        cohort=cohort,
        encoder=encoder,
        heldout_fraction=heldout,
        smallest_cell=smallest_cell,
        baselines=False,
        config=config,
    )
    with Screen() as screen:
        results = experiment.simulate(scenario, out, screen, replace=replace, go_on=True)
    screen.summary(results, out)
