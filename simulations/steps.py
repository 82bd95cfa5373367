"""What is trained under one seed, step by step. What a step has finished stays on disk and is not run again."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from server.evaluation import evaluate_predictions
from shared_model.batch import PatientData, open_store
from shared_model.config import RunConfig
from shared_model.features import digest_of
from shared_model.manifest import read_manifest
from shared_model.metrics import Floats
from simulations.benchmark_results import Finished, ModelRun, write_document
from simulations.crossed import HeldOut
from simulations.experiment import Scenario, Watcher, federate, released_scores, split_store
from simulations.partition import Partition

Scores = dict[str, Floats]  # of the held-out stays, by model
_RELOCATED = {"output", "heldout", "expected_sites"}  # where a run lies, and nothing that it finds


class Steps:
    """Everything under one seed, the scenario's: its own held-out patients, weights and order."""

    def __init__(self, scenario: Scenario, out: Path, watcher: Watcher) -> None:
        self.scenario, self.watcher, self.seed = scenario, watcher, scenario.config.seed
        self.store, self.out = out / "store", out / f"seed-{self.seed}"

    def split(self) -> Partition:
        """The seed's hospitals and held-out set."""
        self.watcher.stage(f"seed {self.seed}: partitioning by care unit")
        return split_store(self.scenario, self.store, self.out / "stores")

    def once(self, step: str, config: RunConfig, partition: Partition, train: Callable[[], Scores]) -> Finished:
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

    def federated(self, step: str, model: str, config: RunConfig, partition: Partition) -> Finished:
        """A real federation; its run stays in the folder of the step."""

        def train() -> Scores:
            out = self.out / step
            shutil.rmtree(out, ignore_errors=True)  # what an interruption left
            federate(config, partition, out, self.watcher)
            return {model: released_scores(out, open_store(partition.heldout))}

        return self.once(step, config, partition, train)

    def heldout(self, partition: Partition, steps: Sequence[Finished]) -> HeldOut:
        """The held-out stays with every model's scores."""
        data = open_store(partition.heldout)
        return HeldOut(
            data.patient_N.numpy(),
            data.label_N.numpy(),
            np.array(data.units)[data.unit_N.numpy()],
            {model: np.array(scores) for step in steps for model, scores in step.scores.items()},
        )


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
