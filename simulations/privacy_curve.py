"""What privacy costs: the same federation at several epsilons, on the same held-out patients, over several seeds.

Every federation is the real thing, accounting and noise included. What is finished is not run again.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace as changed
from importlib.metadata import version
from pathlib import Path

import numpy as np

from server.results import read_results
from shared_model.atomic import write_text
from shared_model.config import RunConfig, Scalar
from shared_model.manifest import read_manifest
from simulations.benchmark_results import Finished, write_document
from simulations.crossed import Crossed, HeldOut
from simulations.experiment import Scenario, Watcher, claim_folder, open_patients, prepare_store
from simulations.privacy_curve_results import Point, PrivacyCurve, as_markdown, name_of
from simulations.steps import Steps

RESULTS, PAGE = "privacy.json", "privacy.md"
EPSILONS = (1.0, 3.0, 8.0)
# What private training does otherwise, found on validation patients of seed 1: fewer and larger steps, since a step's
# noise does not shrink with how few patients are in it, and nothing else that holds the model back.
PRIVATE: dict[str, Scalar] = {
    "privacy.unit": "patient",
    "batch-size": 128,
    "rounds": 12,
    "learning-rate": 0.005,
    "weight-decay": 0.01,
    "dropout": 0.0,
}


def run_privacy_curve(
    scenario_of: Callable[[Path], Scenario],
    out: Path,
    watcher: Watcher,
    *,
    epsilons: Sequence[float],
    seeds: int,
    overrides: dict[str, Scalar],
    replace: bool = False,
) -> PrivacyCurve:
    """Run what is not finished yet, and return the document that is also in ``out/privacy.json``.

    ``scenario_of`` makes the scenario, which may write into ``out``; ``overrides`` are run-config keys of the private
    runs. Raises RunFolderError where ``out`` is something else, and what the stages of a simulation raise.
    """
    if replace or not (out / RESULTS).is_file():
        claim_folder(out, RESULTS, replace=replace)
    scenario = scenario_of(out)
    configs = configs_of(scenario.config, epsilons, overrides)
    curve = PrivacyCurve(
        consilium_version=version("consilium"),
        status="partial",
        seeds=list(range(1, seeds + 1)),
        heldout_fraction=scenario.heldout_fraction,
    )
    write_document(out / RESULTS, curve)
    watcher.stage(scenario.source.task)
    patients = open_patients(scenario, out, watcher)
    watcher.stage("preparing")
    prepare_store(scenario, patients, out / "store", watcher)
    manifest = read_manifest(out / "store")
    found = [_seed(scenario, number, configs, out, watcher) for number in curve.seeds]
    watcher.stage("averaging over the seeds")
    curve = curve.model_copy(
        update={
            "status": "complete",
            "source": manifest["source"],
            "patients": manifest["patients"],
            "deaths": manifest["deaths"],
            "points": _points(out, configs, curve.seeds, found, scenario.config.bootstrap),
        }
    )
    write_document(out / RESULTS, curve)
    write_text(out / PAGE, as_markdown(curve))
    return curve


def configs_of(
    base: RunConfig, epsilons: Sequence[float], overrides: dict[str, Scalar]
) -> dict[float | None, RunConfig]:
    """None: without privacy, as the scenario says; then the private ones, the least private first."""
    found: dict[float | None, RunConfig] = {None: base}
    for epsilon in sorted(set(epsilons), reverse=True):
        private = base.to_flat() | PRIVATE | overrides | {"privacy.epsilon": epsilon}
        found[epsilon] = RunConfig.from_flat(private)
    return found


def _seed(
    scenario: Scenario, seed: int, configs: dict[float | None, RunConfig], out: Path, watcher: Watcher
) -> HeldOut:
    seeded = {epsilon: config.model_copy(update={"seed": seed}) for epsilon, config in configs.items()}
    steps = Steps(changed(scenario, config=seeded[None]), out, watcher)
    partition = steps.split()
    done: list[Finished] = [
        steps.federated(_folder(epsilon), name_of(epsilon), config, partition) for epsilon, config in seeded.items()
    ]
    return steps.heldout(partition, done)


def _points(
    out: Path, configs: dict[float | None, RunConfig], seeds: Sequence[int], found: Sequence[HeldOut], resamples: int
) -> list[Point]:
    crossed = Crossed(found, resamples=resamples, seed=0)
    plain, points = crossed.averages(name_of(None)), []
    for epsilon, config in configs.items():
        averages = crossed.averages(name_of(epsilon))
        runs = [read_results(out / f"seed-{seed}" / _folder(epsilon) / "results.json") for seed in seeds]
        points.append(
            Point(
                epsilon=epsilon,
                auroc=averages["auroc"].estimate(),
                auprc=averages["auprc"].estimate(),
                lost=None if epsilon is None else (plain["auroc"] - averages["auroc"]).estimate(),
                hospitals=float(np.mean([sum(site.admitted for site in run.sites) for run in runs])),
                config=config.to_flat(),
            )
        )
    return points


def _folder(epsilon: float | None) -> str:
    return name_of(epsilon).replace(" ", "-")
