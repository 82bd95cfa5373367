"""The work of an attack, a job a process: train one model on some of the patients, or audit one build.

The models are trained centrally on the patients of one prepared store, by the very functions that train at a site
(``train_local``, ``train_private``), round after round. That is a federation of one, and the most that an attacker can
hope for: averaging with other sites only hides a site's patients.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from client.privatize import train_private
from client.statistics import local_statistics
from client.training import train_local
from shared_model.batch import PatientData, open_store
from shared_model.budget import plan_of
from shared_model.config import RunConfig
from shared_model.features import seed_of
from shared_model.fitting import plan_from
from shared_model.inputs import Scaler
from shared_model.metrics import Bools, Floats, auroc
from shared_model.model import build_model
from shared_model.plan import PreprocessingPlan
from shared_model.predict import predict
from shared_model.privacy import PrivacyPlan
from simulations.attack_builds import BUILDS
from simulations.attack_results import AuditRow
from simulations.audit_bound import audit
from simulations.canaries import CLIP, CPU, Canaries
from simulations.inference import confidence

REAL_PATIENTS = 100  # among whom the canaries hide
RATE = 0.5  # of sampling, in the audit: where the noise is large, the rate hardly changes what can be found
# The audit's model: small, as its size changes what a round costs and not what a canary's own weights tell.
WINDOWS = 4  # of the real patients' series, the last ones, for time's sake
SMALL = {"static_hidden": 16, "series_hidden": 4, "text_hidden": 4, "fusion_width": 8}


@dataclass(frozen=True, kw_only=True)
class ShadowJob:
    """Train a model on the patients inside, with ``plan``'s inputs; ``privacy`` None: without. ``number`` tells the
    models of one attack apart, and theirs are their first weights and order."""

    store: Path
    config: RunConfig
    plan: PreprocessingPlan
    inside_P: Bools
    privacy: PrivacyPlan | None
    number: int


@dataclass(frozen=True)
class Shadow:
    """phi of every patient of the store, inside and outside, and the model's own AUROC on the stays outside."""

    confidence_P: Floats
    auroc: float | None


@dataclass(frozen=True, kw_only=True)
class AuditJob:
    """Audit one build with so many canaries, for so many rounds of one step each."""

    store: Path
    config: RunConfig
    build: str
    epsilon: float
    canaries: int
    rounds: int


def train_shadow(job: ShadowJob) -> Shadow:
    """One model, from its first weights to its last round."""
    data, scaler, config = open_store(job.store), Scaler(job.plan), job.config.with_label_rate(job.plan.prevalence)
    inside_N = stays_of(data, job.inside_P)
    members, model = (
        data.subset(inside_N),
        build_model(config.model_for(job.plan), seed=seed_of(config.seed, job.number)),
    )
    for number in range(1, config.rounds + 1):
        rate = config.learning_rate_at(number)
        if job.privacy is not None:
            train_private(model, members, scaler, config, plan=job.privacy, learning_rate=rate, device=CPU)
        else:
            seed = seed_of(config.seed, "shadow", job.number, number)
            train_local(model, members, scaler, config, learning_rate=rate, seed=seed, device=CPU)
    risk_N, outside_N = predict(model, data, scaler, CPU), stays_of(data, ~job.inside_P).numpy()
    return Shadow(confidence(risk_N, data), auroc(risk_N[outside_N], data.label_N.numpy()[outside_N]))


def stays_of(data: PatientData, chosen_P: Bools) -> torch.Tensor:
    """The stays of the chosen patients, who are numbered by rising patient number."""
    _, patient_N = np.unique(data.patient_N.numpy(), return_inverse=True)
    return torch.from_numpy(np.flatnonzero(chosen_P[patient_N]))


def plan_for(data: PatientData, config: RunConfig) -> PreprocessingPlan:
    """The preprocessing plan of these patients alone."""
    return plan_from([local_statistics(data, config)], config)


def privacy_for(config: RunConfig, patients: int, epsilon: float, **changes: object) -> PrivacyPlan:
    """What a site with so many training patients, a public number, spends in a run of ``config`` with ``changes``.
    Raises PrivacyError."""
    private = config.model_copy(update={"privacy_unit": "patient", "privacy_epsilon": epsilon, **changes})
    return plan_of(private, patients, public_counts=True)


def run_audit(job: AuditJob) -> AuditRow:
    """One run of a build, and the epsilon that it shows. The coins are the operating system's, as the noise is.

    The accountant is RDP whatever the run's: a little more noise than PRV's, found in a quarter of the time.
    """
    data = open_store(job.store)
    base = data.subset(stays_of(data, np.arange(data.patients) < REAL_PATIENTS))
    base = replace(base, series_NTC=base.series_NTC[:, -WINDOWS:])
    patients = base.patients + job.canaries // 2
    settings = SMALL | {"batch_size": max(round(RATE * patients), 1), "privacy_clip": CLIP, "privacy_accountant": "rdp"}
    config = job.config.model_copy(update=settings)
    build = BUILDS[job.build](
        lambda rounds: privacy_for(config, patients, job.epsilon, rounds=rounds, local_steps=1), job.rounds
    )
    seed = seed_of(config.seed, "canaries")
    canaries = Canaries.among(base, plan_for(base, config), config, count=job.canaries, seed=seed)
    observed = canaries.observe(build.plan, job.rounds, np.random.default_rng())
    bound = audit(observed.score_M, observed.included_M, delta=build.plan.delta)
    return AuditRow(
        build=job.build,
        title=build.title,
        claimed=build.claimed,
        found=bound.epsilon,
        most=bound.most,
        delta=build.plan.delta,
        rounds=job.rounds,
        noise_multiplier=build.plan.training.noise_multiplier,
        sample_rate=build.plan.training.sample_rate,
        canaries=job.canaries,
        guesses=bound.guesses,
        correct=bound.right,
        share=observed.share,
    )
