"""The commands that show what the method is worth: a benchmark on open data, and the seed's paper, federated."""

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


def benchmark(
    *,
    data: Annotated[
        Path,
        typer.Option(help="The PhysioNet 2012 folder: set-a.csv.gz, outcomes-a.csv, ...", rich_help_panel=DATA),
    ],
    heldout: HeldoutOption = 0.2,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Run seeds 1 to this one.", rich_help_panel=TRAINING)] = 5,
    rounds: RoundsOption = None,
    settings: SettingsOption = None,
    out: OutOption = Path("runs/benchmark"),
    replace: ReplaceOption = False,
) -> None:
    """Benchmark on PhysioNet 2012: four care units as four hospitals; federated, pooled and alone, over several seeds.

    Writes benchmark.json and benchmark.md into the run folder, and keeps the models of every federation. What is
    finished is not run again: after Ctrl-C, or with more seeds, the same command goes on. Settings are for every model.

    \b
      consilium-simulate benchmark --data ~/physionet-2012
      consilium-simulate benchmark --data ~/physionet-2012 --seeds 1 --rounds 5 --out runs/quick
    """
    from simulations.benchmark import PAGE, run_benchmark
    from simulations.benchmark_summary import comparison_rows
    from simulations.screen import Screen

    with Screen() as screen:
        found = run_benchmark(
            data,
            out,
            screen,
            seeds=seeds,
            heldout_fraction=heldout,
            overrides=overrides_of(settings, rounds),
            replace=replace,
        )
    screen.compare(comparison_rows(found))
    for one in found.criteria:
        screen.console.print(f"{'met' if one.met else 'NOT MET'}: {one.criterion}: {one.found}", markup=False)
    screen.console.print(f"written: {out / PAGE}", markup=False, highlight=False)


def paper(
    *,
    mimic: MimicOption = None,
    synthetic: SyntheticOption = None,
    cohort: Annotated[Cohort, typer.Option(help="Which ICU stays.", rich_help_panel=DATA)] = "sepsis3",
    encoder: EncoderOption = "minilm",
    heldout: HeldoutOption = 0.2,
    smallest_cell: SmallestCellOption = 10,
    rounds: RoundsOption = None,
    seed: SeedOption = 1,
    settings: SettingsOption = None,
    out: OutOption = Path("runs/paper"),
    replace: ReplaceOption = False,
) -> None:
    """Repeat the tables and figures of Wu 2024 with a federation: with and without focal loss, in both profiles.

    Four federations; the same patients are held out of all. Writes paper.json and paper.html into the run folder, and
    says how much of the AUROC is invented by inputs from after the prediction.

    \b
      consilium-simulate paper
      consilium-simulate paper --mimic ~/mimic-iv-3.1 --rounds 30
    """
    from shared_model.config import RunConfig
    from simulations.experiment import Scenario, comparison_row
    from simulations.paper import PAGE, run_paper
    from simulations.paper_page import sentence
    from simulations.paper_results import IMPOSSIBLE
    from simulations.screen import Screen

    scenario = Scenario(
        source=source_of(mimic, synthetic, seed=seed),
        cohort=cohort,
        encoder=encoder,
        heldout_fraction=heldout,
        smallest_cell=smallest_cell,
        config=RunConfig(seed=seed),
    )
    with Screen() as screen:
        found = run_paper(scenario, out, screen, overrides=overrides_of(settings, rounds), replace=replace)
    screen.compare([comparison_row(run.name, run.heldout) for run in found.runs])
    for told in (sentence(found.leaks[-1]), IMPOSSIBLE, f"written: {out / PAGE}"):
        screen.console.print(told, markup=False, highlight=False)
