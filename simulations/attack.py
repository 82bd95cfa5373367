"""Does it hold? Attacks on models and on a site of this code, and an audit of the privacy itself.

``attack.json`` and ``attack.html`` are what is found. Every model is one job in a process of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np

from shared_model.atomic import write_text
from shared_model.batch import PatientData, open_store
from shared_model.config import RunConfig
from shared_model.errors import ConfigError
from shared_model.manifest import read_manifest
from shared_model.metrics import Bools
from shared_model.privacy import PrivacyPlan, check_budget
from simulations.attack_builds import BUILDS
from simulations.attack_jobs import (
    REAL_PATIENTS,
    AuditJob,
    Shadow,
    ShadowJob,
    plan_for,
    privacy_for,
    run_audit,
    stays_of,
    train_shadow,
)
from simulations.attack_page import render_attack
from simulations.attack_results import Attack, AuditRow, CuriousRow, InferenceRow
from simulations.baselines import worker_pool
from simulations.benchmark_results import write_document
from simulations.differencing import SITES, CuriousJob, run_curious
from simulations.experiment import Scenario, Watcher, claim_folder, open_patients, prepare_store
from simulations.inference import halves, likelihood_ratio, most_true_positives, score_attack

RESULTS, PAGE = "attack.json", "attack.html"
LOSS, LIRA = "loss threshold", "likelihood ratio"
Job = TypeVar("Job")
Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """How hard to try. ``epsilons``: None is a model without privacy; each number is also audited. ``shadows`` is even.
    ``curious_runs``: of the server that subtracts.
    An audit of a few hundred canaries and a hundred rounds sees both broken builds at an epsilon of 1."""

    epsilons: tuple[float | None, ...] = (None, 3.0, 1.0)
    shadows: int = 12
    canaries: int = 600
    audit_rounds: int = 120
    curious_runs: int = 100


def run_attack(
    scenario: Scenario,
    attempt: Attempt,
    out: Path,
    watcher: Watcher,
    *,
    store: Path | None = None,
    replace: bool = False,
) -> Attack:
    """Attack and audit on the patients of ``scenario``, or of a prepared ``store``, and return what is in ``out``.

    Raises ConfigError for an attempt that makes no sense, RunFolderError where ``out`` exists (unless ``replace`` and
    it is a run of this kind), PrivacyError for a budget, and what preparing raises.
    """
    _check(attempt, out, store)
    claim_folder(out, RESULTS, replace=replace)
    config = scenario.config
    document = Attack(consilium_version=version("consilium"), status="partial", shadows=attempt.shadows)
    document.config = config.to_flat()
    write_document(out / RESULTS, document)
    if store is None:
        store = out / "store"
        watcher.stage(scenario.source.task)
        patients = open_patients(scenario, out, watcher)
        watcher.stage("preparing")
        prepare_store(scenario, patients, store, watcher)
    manifest, data = read_manifest(store), open_store(store)
    document.source, document.cohort = str(manifest.get("source", store.name)), str(manifest.get("cohort", ""))
    document.patients, document.members = data.patients, data.patients // 2
    privacies = _privacies(config, attempt, document.members, watcher)
    document.audits = _audits(store, config, attempt, watcher)
    document.curious = _curious(store, config, attempt, out, watcher)
    write_document(out / RESULTS, document)
    document.inference = _inference(store, data, config, attempt, privacies, watcher)
    document.status = "complete"
    write_document(out / RESULTS, document)
    write_text(out / PAGE, render_attack(document))
    return document


def _check(attempt: Attempt, out: Path, store: Path | None) -> None:
    if store is not None and store.resolve().is_relative_to(out.resolve()):
        raise ConfigError(f"--store {store}: lies in --out {out}, which is made anew; choose another --out")
    if attempt.shadows < 4 or attempt.shadows % 2:
        raise ConfigError(f"--shadows {attempt.shadows}: must be even and at least 4; each patient is in half of them")
    if attempt.canaries < 2 * REAL_PATIENTS:
        raise ConfigError(f"--canaries {attempt.canaries}: must be at least {2 * REAL_PATIENTS}")
    if not attempt.epsilons:
        raise ConfigError("--epsilon: names none")


def _privacies(
    config: RunConfig, attempt: Attempt, members: int, watcher: Watcher
) -> dict[float | None, PrivacyPlan | None]:
    """The plan of every epsilon for the attacked models; an impossible budget is told before anything is trained."""
    epsilons = [epsilon for epsilon in attempt.epsilons if epsilon is not None]
    for epsilon in epsilons:
        check_budget(epsilon, config.privacy_delta)
    if not epsilons:
        return {None: None}
    watcher.stage("calibrating the noise")
    return {None: None} | dict(
        zip(epsilons, _all(partial(privacy_for, config, members), epsilons, watcher), strict=True)
    )


def _audits(store: Path, config: RunConfig, attempt: Attempt, watcher: Watcher) -> list[AuditRow]:
    """Every build at every epsilon."""
    jobs = [
        AuditJob(
            store=store,
            config=config,
            build=build,
            epsilon=epsilon,
            canaries=attempt.canaries,
            rounds=attempt.audit_rounds,
        )
        for epsilon in attempt.epsilons
        if epsilon is not None
        for build in BUILDS
    ]
    if not jobs:
        return []
    watcher.stage(f"auditing {len(BUILDS)} builds with {attempt.canaries:,} canaries")
    return _all(run_audit, jobs, watcher)


def _curious(store: Path, config: RunConfig, attempt: Attempt, out: Path, watcher: Watcher) -> list[CuriousRow]:
    """A curious server's runs against a site as it is, and as one that is broken on purpose."""
    runs, folder = attempt.curious_runs, out / "curious"
    jobs = [CuriousJob(store=store, config=config, build=b, folder=folder / b, runs=runs) for b in SITES]
    watcher.stage(f"asking a site in {runs} runs, and subtracting")
    return _all(run_curious, jobs, watcher)


def _inference(
    store: Path,
    data: PatientData,
    config: RunConfig,
    attempt: Attempt,
    privacies: Mapping[float | None, PrivacyPlan | None],
    watcher: Watcher,
) -> list[InferenceRow]:
    """Both attacks on a model of every epsilon; who is a member is the same for all."""
    member_P, inside_KP = halves(data.patients, attempt.shadows, np.random.default_rng(config.seed))
    plan = plan_for(data.subset(stays_of(data, member_P)), config)  # it travels with the model, so an attacker has it
    rows: list[InferenceRow] = []
    for epsilon in attempt.epsilons:
        watcher.stage(f"training {attempt.shadows + 1} models {_told(epsilon)}")
        jobs = [
            ShadowJob(
                store=store, config=config, plan=plan, inside_P=inside_P, privacy=privacies[epsilon], number=number
            )
            for number, inside_P in enumerate((member_P, *inside_KP))
        ]
        target, *shadows = _all(train_shadow, jobs, watcher)
        rows += _attacked(epsilon, target, shadows, member_P, inside_KP, config)
    return rows


def _attacked(
    epsilon: float | None,
    target: Shadow,
    shadows: Sequence[Shadow],
    member_P: Bools,
    inside_KP: Bools,
    config: RunConfig,
) -> list[InferenceRow]:
    shadow_KP = np.stack([shadow.confidence_P for shadow in shadows])
    scores = {
        LOSS: target.confidence_P,
        LIRA: likelihood_ratio(target.confidence_P, shadow_KP, inside_KP),
    }
    found = {
        name: score_attack(score_P, member_P, resamples=config.bootstrap, seed=config.seed)
        for name, score_P in scores.items()
    }
    return [
        InferenceRow(
            epsilon=epsilon,
            attack=name,
            auroc=one.auroc,
            tpr=one.tpr,
            most_tpr=most_true_positives(epsilon, config.privacy_delta),
            model_auroc=target.auroc,
        )
        for name, one in found.items()
    ]


def _told(epsilon: float | None) -> str:
    return "without privacy" if epsilon is None else f"with epsilon {epsilon:g}"


def _all(work: Callable[[Job], Found], jobs: Sequence[Job], watcher: Watcher) -> list[Found]:
    """What the jobs find, in their order."""
    with worker_pool(len(jobs)) as pool:
        pending = {pool.submit(work, job): number for number, job in enumerate(jobs)}
        found: dict[int, Found] = {}
        for future in as_completed(pending):
            found[pending[future]] = future.result()
            watcher.count(len(found), len(jobs))
    return [found[number] for number in range(len(jobs))]
