"""The main job: data -> prepared store -> hospitals -> federation -> baselines -> report, read top to bottom.

``Watcher`` is how a caller follows it; the command line draws it, tests collect it.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from client.prepare import prepare
from server.evaluation import evaluate_predictions
from server.progress import FILE as PROGRESS
from server.progress import Event
from server.released import load_released
from server.report import write_report
from server.results import ComparisonRow, RunResults
from shared_model import metrics
from shared_model.batch import PatientData, open_store
from shared_model.config import RunConfig
from shared_model.contract import contract_digest
from shared_model.errors import RunFolderError
from shared_model.inputs import Scaler
from shared_model.metrics import Floats
from shared_model.predict import best_device, predict
from shared_model.study import Cohort, Stays
from simulations.baselines import POOLED, Baseline, run_baselines
from simulations.partition import Partition, partition_by_unit
from simulations.runner import run_federation
from simulations.sources import Patients, Source

RESULTS, REPORT = "results.json", "report.html"


class Watcher(Protocol):
    """Told what happens, as it happens."""

    def stage(self, name: str) -> None:
        """A stage begins."""

    def event(self, event: Event) -> None:
        """The ServerApp told something (server/progress.py)."""

    def count(self, done: int, of: int) -> None:
        """Progress within the stage."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What to simulate: whose patients, which of their stays, how they are divided, and how to train."""

    source: Source
    cohort: Cohort = "sepsis3"
    flag: str = ""
    stays: Stays = "first"
    units: list[str] | None = None
    heldout_fraction: float = 0.2
    encoder: str = "minilm"
    smallest_cell: int = 10
    baselines: bool = True
    config: RunConfig = field(default_factory=RunConfig)


def simulate(
    scenario: Scenario, out: Path, watcher: Watcher, *, replace: bool = False, go_on: bool = False
) -> RunResults:
    """Run a scenario into ``out`` and return the results that are also in ``out/results.json``. ``go_on``: a run that
    lies there already is not begun anew; its patients, its store and the finished folds of a search are used.

    Raises RunFolderError when ``out`` exists (unless ``replace`` and it is a run), and what its stages raise. A run
    that does not end leaves ``out`` with a results.json whose status is 'partial'.
    """
    clock = Clock(watcher)
    if not (go_on and not replace and (out / RESULTS).is_file()):
        claim_folder(out, RESULTS, replace=replace)
    config = placed(scenario.config, out, out / "stores" / "heldout")
    _partial(config).write(out / RESULTS)
    with clock.stage(scenario.source.task):
        patients = open_patients(scenario, out, watcher)
    with clock.stage("preparing"):
        prepare_store(scenario, patients, out / "stores" / "all", watcher)
    with clock.stage("partitioning by care unit"):
        partition = split_store(scenario, out / "stores" / "all", out / "stores")
    with clock.stage("federated training"):
        results = federate(config, partition, out, watcher)
    if results.data is not None and patients.truth is not None:
        results.data.oracle_auroc = oracle_auroc(patients.truth, partition.heldout)
    if scenario.baselines:
        with clock.stage("baselines: pooled and local-only"):
            results.comparison = compare(results, partition, config, out, watcher)
    results.timing.stages = clock.seconds
    results.timing.total = sum(clock.seconds.values())
    results.timing.federation_overhead = _overhead(results)
    results.write(out / RESULTS)
    write_report(results, out / REPORT)
    return results


def open_patients(scenario: Scenario, out: Path, watcher: Watcher) -> Patients:
    """The scenario's patients; synthetic ones are written into ``out/data``."""
    return scenario.source.open(out / "data", flag=scenario.flag, on_progress=watcher.count)


def prepare_store(scenario: Scenario, patients: Patients, store: Path, watcher: Watcher) -> None:
    """Prepare the patients for the scenario's study. A store that was prepared of the same is left as it is."""
    prepare(
        patients.extract,
        store,
        cohort=scenario.cohort,
        study=scenario.config.study,
        stays=scenario.stays,
        encoder=scenario.encoder,
        described_as=patients.described_as,
        on_stage=lambda name: watcher.stage(f"preparing: {name}"),
        resumable=False,  # a run that was interrupted is begun anew
    )


def split_store(scenario: Scenario, store: Path, out: Path) -> Partition:
    """The held-out set and a hospital a care unit, into ``out``; who is held out follows from the config's seed."""
    return partition_by_unit(
        store,
        out,
        units=scenario.units,
        heldout_fraction=scenario.heldout_fraction,
        seed=scenario.config.seed,
        smallest_cell=scenario.smallest_cell,
    )


def placed(config: RunConfig, out: Path, heldout: Path) -> RunConfig:
    """The config of a run that writes to ``out`` and is evaluated on ``heldout``."""
    return config.model_copy(update={"output": str(out.resolve()), "heldout": str(heldout.resolve())})


def federate(config: RunConfig, partition: Partition, out: Path, watcher: Watcher) -> RunResults:
    """One federation of the hospitals of a partition; its model, results and report lie in ``out``."""
    config = placed(config, out, partition.heldout).model_copy(update={"expected_sites": len(partition.sites)})
    shutil.rmtree(out / "flower", ignore_errors=True)  # of a run that was interrupted
    (out / PROGRESS).unlink(missing_ok=True)
    return run_federation(config, partition.configs, out / "flower", on_event=watcher.event)


def released_scores(run: Path, data: PatientData) -> Floats:
    """What the model that a run released says of ``data``, shape [N]."""
    released, device = load_released(run / "model"), best_device()
    return predict(released.model.to(device), data, Scaler(released.plan), device)


def claim_folder(out: Path, mark: str, *, replace: bool) -> None:
    """Make an empty run folder. Raises RunFolderError rather than touch anything that is not a run: ``mark`` is the
    file that every run of its kind holds."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not replace:
            raise RunFolderError(f"{out}: exists; choose another --out, or --replace to run again into it")
        if not (out / mark).is_file():
            raise RunFolderError(f"{out}: holds no {mark}, so it is not a run and --replace leaves it alone")
        shutil.rmtree(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{out}: cannot be made ({error.strerror}); choose another --out") from error


def oracle_auroc(truth: Path, heldout: Path) -> float | None:
    """AUROC of the true risk on the held-out stays: what the best possible model would reach. None without a truth."""
    if not truth.is_file():
        return None
    stays = pd.read_parquet(heldout / "stays.parquet", columns=["stay_id", "label"])
    risk = pd.read_parquet(truth, columns=["stay_id", "true_risk"])
    joined = stays.merge(risk, on="stay_id", how="left", validate="one_to_one")
    return metrics.auroc(joined["true_risk"].to_numpy(np.float64), joined["label"].to_numpy(np.bool_))


def compare(
    results: RunResults, partition: Partition, config: RunConfig, out: Path, watcher: Watcher
) -> list[ComparisonRow]:
    """The table federated / pooled / local-only, over the admitted sites, on the same held-out patients."""
    admitted = [summary.site for summary in results.sites if summary.admitted]
    sites = {name: partition.sites[name] for name in admitted}
    plan = load_released(out / "model").plan
    finished: list[str] = []

    def on_done(name: str) -> None:
        finished.append(name)
        watcher.count(len(finished), len(sites) + 1)

    found = run_baselines(sites, partition.heldout, plan, config, on_done)
    rows = [ComparisonRow.of("federated", results.heldout)] if results.heldout else []
    return rows + [_baseline_row(baseline, partition.heldout, config) for baseline in found.values()]


def _baseline_row(baseline: Baseline, heldout: Path, config: RunConfig) -> ComparisonRow:
    evaluation = evaluate_predictions(
        baseline.scores_N,
        open_store(heldout),
        threshold=baseline.validation.best_threshold,
        resamples=config.bootstrap,
        seed=config.seed,
    )
    if baseline.name == POOLED:
        return ComparisonRow.of(POOLED, evaluation)
    own = next((unit.auroc for unit in evaluation.by_unit if unit.unit == baseline.name), None)
    return ComparisonRow.of(f"local-only: {baseline.name}", evaluation).model_copy(update={"own_unit_auroc": own})


def _partial(config: RunConfig) -> RunResults:
    """What a run folder says before the ServerApp has said anything."""
    return RunResults(
        consilium_version="", status="partial", config=config.to_flat(), contract_digest=contract_digest(config)
    )


def _overhead(results: RunResults) -> float | None:
    """Wall time of the rounds over local training spread evenly on the workers; 1 would be a federation that is
    free."""
    workers = min(os.cpu_count() or 1, sum(site.admitted for site in results.sites))
    ideal = results.timing.local_training / max(workers, 1)
    return sum(results.timing.rounds) / ideal if ideal else None


class Clock:
    """Seconds of each stage, in order."""

    def __init__(self, watcher: Watcher) -> None:
        self.seconds: dict[str, float] = {}
        self._watcher = watcher

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._watcher.stage(name)
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 2)
