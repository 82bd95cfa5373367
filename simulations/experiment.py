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

from client.prepare import prepare_mimic
from server.checkpoint import load_released
from server.evaluation import evaluate_predictions
from server.report import write_report
from server.results import ComparisonRow, Evaluation, RunResults
from shared_model import metrics
from shared_model.batch import open_store
from shared_model.config import RunConfig
from shared_model.contract import contract_digest
from shared_model.errors import RunFolderError
from shared_model.study import Cohort, Stays
from simulations.baselines import POOLED, Baseline, run_baselines
from simulations.partition import Partition, partition_by_unit
from simulations.runner import Event, run_federation
from simulations.synthetic import write_hospitals

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
    """What to simulate. ``mimic`` None: ``patients`` synthetic ones, written into the run folder."""

    mimic: Path | None = None
    patients: int = 16_000
    cohort: Cohort = "sepsis3"
    flag: str = ""
    stays: Stays = "first"
    units: list[str] | None = None
    heldout_fraction: float = 0.2
    encoder: str = "minilm"
    smallest_cell: int = 10
    baselines: bool = True
    config: RunConfig = field(default_factory=RunConfig)


def simulate(scenario: Scenario, out: Path, watcher: Watcher, *, replace: bool = False) -> RunResults:
    """Run a scenario into ``out`` and return the results that are also in ``out/results.json``.

    Raises RunFolderError when ``out`` exists (unless ``replace`` and it is a run), and what its stages raise. A run
    that does not end leaves ``out`` with a results.json whose status is 'partial'.
    """
    clock = _Clock(watcher)
    claim_folder(out, replace=replace)
    config = scenario.config.model_copy(
        update={"output": str(out.resolve()), "heldout": str((out / "stores" / "heldout").resolve())}
    )
    _partial(config).write(out / RESULTS)
    with clock.stage("writing synthetic hospitals" if scenario.mimic is None else "checking the MIMIC-IV folder"):
        source, described_as = _source(scenario, out, watcher)
    with clock.stage("preparing"):
        prepare_mimic(
            source,
            out / "stores" / "all",
            cohort=scenario.cohort,
            study=config.study,
            stays=scenario.stays,
            flag=scenario.flag,
            encoder=scenario.encoder,
            described_as=described_as,
            on_stage=lambda name: watcher.stage(f"preparing: {name}"),
            resumable=False,  # a run that was interrupted is begun anew
        )
    with clock.stage("partitioning by care unit"):
        partition = partition_by_unit(
            out / "stores" / "all",
            out / "stores",
            units=scenario.units,
            heldout_fraction=scenario.heldout_fraction,
            seed=config.seed,
            smallest_cell=scenario.smallest_cell,
        )
    config = config.model_copy(update={"expected_sites": len(partition.sites)})
    with clock.stage("federated training"):
        results = run_federation(config, partition.configs, out / "flower", on_event=watcher.event)
    if results.data is not None:
        results.data.oracle_auroc = oracle_auroc(source / "truth.parquet", partition.heldout)
    if scenario.baselines:
        with clock.stage("baselines: pooled and local-only"):
            results.comparison = compare(results, partition, config, out, watcher)
    results.timing.stages = clock.seconds
    results.timing.total = sum(clock.seconds.values())
    results.timing.federation_overhead = _overhead(results)
    results.write(out / RESULTS)
    write_report(results, out / REPORT)
    return results


def claim_folder(out: Path, *, replace: bool) -> None:
    """Make an empty run folder. Raises RunFolderError rather than touch anything that is not a run."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not replace:
            raise RunFolderError(f"{out}: exists; choose another --out, or --replace to run again into it")
        if not (out / RESULTS).is_file():
            raise RunFolderError(f"{out}: holds no {RESULTS}, so it is not a run and --replace leaves it alone")
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
    _, plan, _ = load_released(out / "model")
    finished: list[str] = []

    def on_done(name: str) -> None:
        finished.append(name)
        watcher.count(len(finished), len(sites) + 1)

    found = run_baselines(sites, partition.heldout, plan, config, on_done)
    rows = [_row("federated", results.heldout)] if results.heldout else []
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
        return _row(POOLED, evaluation)
    own = next((unit.auroc for unit in evaluation.by_unit if unit.unit == baseline.name), None)
    return _row(f"local-only: {baseline.name}", evaluation).model_copy(update={"own_unit_auroc": own})


def _row(model: str, evaluation: Evaluation) -> ComparisonRow:
    return ComparisonRow(model=model, auroc=evaluation.metrics["auroc"], auprc=evaluation.metrics["auprc"])


def _source(scenario: Scenario, out: Path, watcher: Watcher) -> tuple[Path, str]:
    """The MIMIC-IV folder to read, and how reports call it."""
    if scenario.mimic is not None:
        return scenario.mimic, scenario.mimic.resolve().name
    folder, seed = out / "data", scenario.config.seed
    write_hospitals(folder, patients=scenario.patients, seed=seed, on_progress=watcher.count)
    return folder, f"synthetic, {scenario.patients:,} patients, seed {seed}"


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


class _Clock:
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
