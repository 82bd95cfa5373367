"""The commands beside the main one: a search over settings, a benchmark on open data, the seed's paper, federated."""

from pathlib import Path
from typing import Annotated, Any

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
    SiteOption,
    SmallestCellOption,
    SyntheticOption,
    overrides_of,
    source_of,
    unless_given,
)


def tune(
    context: typer.Context,
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
    site: SiteOption = None,
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
    from client.site import load_site
    from shared_model.config import RunConfig
    from shared_model.errors import ConfigError
    from shared_model.search import read_grid, search_settings
    from simulations import experiment
    from simulations.screen import Screen

    try:
        text = grid.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{grid}: cannot be read as text; it is the grid of settings to try") from error
    of_site = None if site is None else load_site(site)
    chosen: dict[str, Any] = {"cohort": cohort, "flag": "", "stays": "first", "encoder": encoder}
    chosen, study = unless_given(context, of_site, chosen, {})
    changes = study | overrides_of(settings, rounds) | {"seed": seed, "grid": text, "folds": folds, "trials": trials}
    config = RunConfig.from_flat(RunConfig().to_flat() | changes)
    search_settings(read_grid(text), config)  # a mistake is told before anything is prepared
    scenario = experiment.Scenario(
        source=source_of(mimic, synthetic, seed=seed, site=of_site),
        heldout_fraction=heldout,
        smallest_cell=smallest_cell,
        baselines=False,
        config=config,
        **chosen,
    )
    with Screen() as screen:
        results = experiment.simulate(scenario, out, screen, replace=replace, go_on=True)
    screen.summary(results, out)


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
    from server.results import ComparisonRow
    from shared_model.config import RunConfig
    from simulations.experiment import Scenario
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
    screen.compare([ComparisonRow.of(run.name, run.heldout) for run in found.runs])
    for told in (sentence(found.leaks[-1]), IMPOSSIBLE, f"written: {out / PAGE}"):
        screen.console.print(told, markup=False, highlight=False)


def privacy(
    *,
    data: Annotated[
        Path | None,
        typer.Option(help="The PhysioNet 2012 folder; synthetic hospitals unless given.", rich_help_panel=DATA),
    ] = None,
    synthetic: SyntheticOption = None,
    encoder: EncoderOption = "minilm",
    heldout: HeldoutOption = 0.2,
    epsilon: Annotated[
        list[float] | None,
        typer.Option(help="Of each patient, for the whole run; repeatable; 1, 3 and 8.", rich_help_panel=TRAINING),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Run seeds 1 to this one.", rich_help_panel=TRAINING)] = 1,
    settings: SettingsOption = None,
    out: OutOption = Path("runs/privacy"),
    replace: ReplaceOption = False,
) -> None:
    """What privacy costs: AUROC against epsilon, with differential privacy for patients, beside the same without.

    Writes privacy.json and privacy.md into the run folder. After Ctrl-C the same command goes on. Settings are of the
    private runs.

    \b
      consilium-simulate privacy
      consilium-simulate privacy --data ~/physionet-2012 --seeds 3 --out runs/privacy-physionet
    """
    from server.results import ComparisonRow
    from shared_model.config import RunConfig
    from shared_model.errors import ConfigError
    from simulations.benchmark import COMMON, physionet
    from simulations.experiment import Scenario
    from simulations.privacy_curve import EPSILONS, PAGE, run_privacy_curve
    from simulations.privacy_curve_results import name_of
    from simulations.screen import Screen

    if data is not None and synthetic is not None:
        raise ConfigError("--data and --synthetic: give one of them")

    def scenario(out: Path) -> Scenario:
        if data is not None:
            return physionet(data, out, heldout, COMMON)
        source = source_of(None, synthetic, seed=1)
        return Scenario(source=source, encoder=encoder, heldout_fraction=heldout, config=RunConfig())

    with Screen() as screen:
        curve = run_privacy_curve(
            scenario,
            out,
            screen,
            epsilons=epsilon or EPSILONS,
            seeds=seeds,
            overrides=overrides_of(settings, None),
            replace=replace,
        )
    screen.console.print(f"written: {out / PAGE}", markup=False, highlight=False)
    screen.compare([ComparisonRow(model=name_of(p.epsilon), auroc=p.auroc, auprc=p.auprc) for p in curve.points])
