"""The privacy plan of a site as both sides reckon it: from the run-config and the count that the site tells."""

from math import ceil

from shared_model.config import RunConfig
from shared_model.privacy import PrivacyPlan, calibrate


def plan_of(config: RunConfig, patients: int, *, public_counts: bool) -> PrivacyPlan:
    """For ``patients`` training patients, as told: exact ones (``public_counts``) cost nothing. Raises PrivacyError."""
    return calibrate(
        epsilon=config.privacy_epsilon,
        delta=config.privacy_delta,
        accountant=config.privacy_accountant,
        clip=config.clip,
        patients=patients,
        batch_size=config.batch_size,
        rounds=config.rounds,
        steps_a_round=steps_a_round(config, patients),
        public_counts=public_counts,
    )


def steps_a_round(config: RunConfig, patients: int) -> int:
    """Optimiser steps of a round at a site of so many training patients."""
    return config.local_steps or config.local_epochs * ceil(patients / config.batch_size)
