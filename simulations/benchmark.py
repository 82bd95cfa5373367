"""The benchmark on PhysioNet 2012: four care units as four hospitals, federated, pooled and alone, over several seeds.

Every federation is the real thing (simulations/runner.py). What a seed has finished stays on disk and is not run again,
so a benchmark that was interrupted goes on where it was.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace as changed
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import yaml
from pydantic import ValidationError

from client.mapping.init import shipped_configs
from client.site import load_site
from server.evaluation import evaluate_predictions
from server.released import load_released
from shared_model.atomic import write_text
from shared_model.batch import PatientData, open_store
from shared_model.config import RunConfig, Scalar
from shared_model.errors import MissingTableError
from shared_model.features import digest_of
from shared_model.manifest import read_manifest
from shared_model.metrics import Floats
from simulations.baselines import POOLED, run_baselines
from simulations.benchmark_results import Benchmark, Finished, ModelRun, write_document
from simulations.benchmark_summary import LOCAL, as_markdown, summarize
from simulations.boosting import BOOSTED, require_lightgbm, train_boosted
from simulations.crossed import HeldOut
from simulations.experiment import (
    Scenario,
    Watcher,
    claim_folder,
    federate,
    open_patients,
    prepare_store,
    released_scores,
    split_store,
)
from simulations.partition import Partition
from simulations.sources import Site

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
Scores = dict[str, Floats]  # of the held-out stays, by model
_RELOCATED = {"output", "heldout", "expected_sites"}  # where a run lies, and nothing that it finds


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
    scenario = _scenario(data, out, heldout_fraction, overrides)
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


def _scenario(data: Path, out: Path, heldout_fraction: float, overrides: dict[str, Scalar]) -> Scenario:
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
        config=RunConfig.from_flat(RunConfig().to_flat() | study | COMMON | overrides),
    )


def _config(scenario: Scenario, preset: dict[str, Scalar], seed: int, overrides: dict[str, Scalar]) -> RunConfig:
    """What the user sets wins over the preset, but for the name of the strategy and the seed."""
    forced: dict[str, Scalar] = {"strategy": preset["strategy"], "seed": seed}
    return RunConfig.from_flat(scenario.config.to_flat() | preset | overrides | forced)


def _name(strategy: str, config: RunConfig) -> str:
    return f"federated: {config.strategy}" + (", best settings" if strategy == BEST else "")


class _Seed:
    """Everything under one seed: its own held-out patients, weights and order."""

    def __init__(
        self, scenario: Scenario, seed: int, out: Path, overrides: dict[str, Scalar], watcher: Watcher
    ) -> None:
        self.configs = {name: _config(scenario, p, seed, overrides) for name, p in STRATEGIES.items()}
        self.alone = _config(scenario, ALONE, seed, overrides)
        self.scenario = changed(scenario, config=self.configs["fedavg"])
        self.store, self.out, self.seed, self.watcher = out / "store", out / f"seed-{seed}", seed, watcher

    def run(self) -> tuple[HeldOut, list[ModelRun]]:
        """The held-out stays with every model's scores, and the runs."""
        self.watcher.stage(f"seed {self.seed}: partitioning by care unit")
        partition = split_store(self.scenario, self.store, self.out / "stores")
        steps = [
            *(self._once(n, c, partition, partial(self._federated, n, c, partition)) for n, c in self.configs.items()),
            self._once("baselines", self.alone, partition, partial(self._baselines, partition)),
            self._once("lightgbm", self.alone, partition, partial(self._boosted, partition)),
        ]
        data = open_store(partition.heldout)
        held = HeldOut(
            data.patient_N.numpy(),
            data.label_N.numpy(),
            np.array(data.units)[data.unit_N.numpy()],
            {model: np.array(scores) for step in steps for model, scores in step.scores.items()},
        )
        return held, [run for step in steps for run in step.runs]

    def _once(self, step: str, config: RunConfig, partition: Partition, train: Callable[[], Scores]) -> Finished:
        """What the step left under the same recipe, or what it finds now."""
        path = self.out / f"{step}.json"
        told = {key: value for key, value in config.model_dump().items() if key not in _RELOCATED}
        tensors = read_manifest(self.store)["tensors_sha256"]
        recipe = digest_of([step, told, tensors, self.scenario.heldout_fraction])
        if (held := _read(path)) is not None and held.recipe == recipe:
            return held
        self.watcher.stage(f"seed {self.seed}: {step}")
        start = time.monotonic()
        scores, data = train(), open_store(partition.heldout)
        seconds = round(time.monotonic() - start, 1)
        finished = Finished(
            recipe=recipe,
            runs=[_run(model, scores_N, data, config, seconds) for model, scores_N in scores.items()],
            scores={model: scores_N.tolist() for model, scores_N in scores.items()},
        )
        write_document(path, finished)
        return finished

    def _federated(self, name: str, config: RunConfig, partition: Partition) -> Scores:
        out = self.out / name
        shutil.rmtree(out, ignore_errors=True)  # what an interruption left
        federate(config, partition, out, self.watcher)
        return {_name(name, config): released_scores(out, open_store(partition.heldout))}

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


def _run(model: str, scores_N: Floats, data: PatientData, config: RunConfig, seconds: float) -> ModelRun:
    found = evaluate_predictions(scores_N, data, threshold=0.5, resamples=config.bootstrap, seed=config.seed)
    return ModelRun(
        seed=config.seed,
        model=model,
        config=config.to_flat(),
        auroc=found.metrics["auroc"],
        auprc=found.metrics["auprc"],
        by_unit=found.by_unit,
        seconds=seconds,
    )


def _read(path: Path) -> Finished | None:
    """A finished step; None where there is none, or one of another version."""
    try:
        return Finished.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        return None
