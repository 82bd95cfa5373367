"""The benchmark on PhysioNet 2012: four care units as four hospitals, federated, pooled and alone, over several seeds.

Every federation is the real thing (simulations/runner.py). What a seed has finished stays on disk and is not run again,
so a benchmark that was interrupted goes on where it was.
"""

from dataclasses import replace as changed
from functools import partial
from importlib.metadata import version
from pathlib import Path

import yaml

from client.mapping.init import shipped_configs
from client.site import load_site
from server.released import load_released
from shared_model.atomic import write_text
from shared_model.config import RunConfig, Scalar
from shared_model.errors import MissingTableError
from shared_model.manifest import read_manifest
from simulations.baselines import POOLED, run_baselines
from simulations.benchmark_results import Benchmark, ModelRun, write_document
from simulations.benchmark_summary import LOCAL, as_markdown, summarize
from simulations.boosting import BOOSTED, require_lightgbm, train_boosted
from simulations.crossed import HeldOut
from simulations.experiment import (
    Scenario,
    Watcher,
    claim_folder,
    open_patients,
    prepare_store,
)
from simulations.partition import Partition
from simulations.sources import Site
from simulations.steps import Scores, Steps

RESULTS, PAGE = "benchmark.json", "benchmark.md"
CONFIG = "physionet-2012"
FILES = ("set-a.csv.gz", "outcomes-a.csv", "set-b.csv.gz", "outcomes-b.csv")
BEST = "best"
# What every network trains with: one model, and strong L2, for on 5,000 stays the default overfits. The settings were
# chosen by 4-fold cross-validation among the training patients of seed 1.
COMMON: dict[str, Scalar] = {
    "rounds": 20,
    "learning-rate": 0.002,
    "weight-decay": 1.0,
    "dropout": 0.4,
    "validation-fraction": 0.1,
}
# What the federations differ in; `best` is the one that has to meet the criteria.
STRATEGIES: dict[str, dict[str, Scalar]] = {
    "fedavg": {"strategy": "fedavg"},
    "fedprox": {"strategy": "fedprox", "proximal-mu": 0.01},
    BEST: {"strategy": "scaffold"},
}
# Averaging over sites damps their steps. Pooled and alone, nothing does: a smaller rate and fewer passes are better.
ALONE: dict[str, Scalar] = {"strategy": "fedavg", "learning-rate": 0.0005, "rounds": 12}


def run_benchmark(
    data: Path,
    out: Path,
    watcher: Watcher,
    *,
    seeds: int,
    heldout_fraction: float,
    overrides: dict[str, Scalar],
    replace: bool = False,
) -> Benchmark:
    """Run what is not finished yet, and return the document that is also in ``out/benchmark.json``.

    ``data`` holds set-a.csv.gz and its sisters. ``overrides`` are run-config keys for every model. Raises
    RunFolderError where ``out`` is no benchmark, DataError's kinds for the data, ConfigError for a setting or without
    LightGBM.
    """
    require_lightgbm()
    if replace or not (out / RESULTS).is_file():
        claim_folder(out, RESULTS, replace=replace)
    scenario = physionet(data, out, heldout_fraction, COMMON | overrides)
    source = scenario.source.config.site if isinstance(scenario.source, Site) else ""
    numbers = list(range(1, seeds + 1))
    document = Benchmark(
        consilium_version=version("consilium"),
        status="partial",
        source=source,
        heldout_fraction=heldout_fraction,
        seeds=numbers,
    )
    write_document(out / RESULTS, document)
    watcher.stage("preparing")
    prepare_store(scenario, open_patients(scenario, out, watcher), out / "store", watcher)
    manifest = read_manifest(out / "store")
    document = document.model_copy(update={"patients": manifest["patients"], "deaths": manifest["deaths"]})
    found = [_Seed(scenario, number, out, overrides, watcher).run() for number in numbers]
    document.runs = [run for _, runs in found for run in runs]
    best = _name(BEST, _config(scenario, STRATEGIES[BEST], 1, overrides))
    watcher.stage("averaging over the seeds")
    document = summarize(document, [held for held, _ in found], best, resamples=scenario.config.bootstrap)
    write_document(out / RESULTS, document)
    write_text(out / PAGE, as_markdown(document))
    return document


def physionet(data: Path, out: Path, heldout_fraction: float, settings: dict[str, Scalar]) -> Scenario:
    """The shipped config with ``data`` as its extract, as a YAML in the run folder: `consilium-site` can use it too."""
    if missing := [name for name in FILES if not (data / name).is_file()]:
        raise MissingTableError(f"--data: no {missing[0]} in {data}; the benchmark is of sets a and b")
    shipped = shipped_configs() / f"{CONFIG}.yaml"
    sources = {"challenge": {"path": str(data.resolve())}}
    document = {"extends": str(shipped), "store": "site-store", "encoder": "none", "sources": sources}
    write_text(out / "site.yaml", yaml.safe_dump(document, sort_keys=False))
    site = load_site(out / "site.yaml")
    study = {name.replace("_", "-"): value for name, value in site.study.model_dump().items()}
    return Scenario(
        source=Site(site),
        cohort=site.cohort,
        stays=site.stays,
        encoder=site.encoder,
        heldout_fraction=heldout_fraction,
        config=RunConfig.from_flat(RunConfig().to_flat() | study | settings),
    )


def _config(scenario: Scenario, preset: dict[str, Scalar], seed: int, overrides: dict[str, Scalar]) -> RunConfig:
    """What the user sets wins over the preset, but for the name of the strategy and the seed."""
    forced: dict[str, Scalar] = {"strategy": preset["strategy"], "seed": seed}
    return RunConfig.from_flat(scenario.config.to_flat() | preset | overrides | forced)


def _name(strategy: str, config: RunConfig) -> str:
    return f"federated: {config.strategy}" + (", best settings" if strategy == BEST else "")


class _Seed(Steps):
    """The federations and the models that they are measured against."""

    def __init__(
        self, scenario: Scenario, seed: int, out: Path, overrides: dict[str, Scalar], watcher: Watcher
    ) -> None:
        self.configs = {name: _config(scenario, p, seed, overrides) for name, p in STRATEGIES.items()}
        self.alone = _config(scenario, ALONE, seed, overrides)
        super().__init__(changed(scenario, config=self.configs["fedavg"]), out, watcher)

    def run(self) -> tuple[HeldOut, list[ModelRun]]:
        """The held-out stays with every model's scores, and the runs."""
        partition = self.split()
        steps = [
            *(self.federated(n, _name(n, c), c, partition) for n, c in self.configs.items()),
            self.once("baselines", self.alone, partition, partial(self._baselines, partition)),
            self.once("lightgbm", self.alone, partition, partial(self._boosted, partition)),
        ]
        return self.heldout(partition, steps), [run for step in steps for run in step.runs]

    def _baselines(self, partition: Partition) -> Scores:
        plan = load_released(self.out / "fedavg" / "model").plan
        models = len(partition.sites) + 1
        done = iter(range(1, models + 1))
        trained = run_baselines(
            partition.sites, partition.heldout, plan, self.alone, lambda name: self.watcher.count(next(done), models)
        )
        return {name if name == POOLED else f"{LOCAL}{name}": found.scores_N for name, found in trained.items()}

    def _boosted(self, partition: Partition) -> Scores:
        return {BOOSTED: train_boosted(list(partition.sites.values()), partition.heldout, self.alone)}
