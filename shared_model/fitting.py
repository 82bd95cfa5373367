"""Statistics of sites become a preprocessing plan: at the server of all of them, at a site of its own."""

from collections.abc import Sequence
from math import sqrt

from shared_model.config import RunConfig
from shared_model.contract import contract_digest
from shared_model.distribution import merge_outcomes, static_grids
from shared_model.messages import Statistics
from shared_model.noised import settled
from shared_model.plan import PreprocessingPlan, fit_plan


def plan_from(sites: Sequence[Statistics], config: RunConfig) -> PreprocessingPlan:
    """The plan of the union of the sites' training patients; the order of the sites does not matter. In a private run,
    where all of them carry noise, it is that of what the merged counts tell (shared_model/noised.py)."""
    telling = [site for site in sites if site.deaths is not None]
    deaths, of = sum(site.deaths or 0 for site in telling), sum(site.patients for site in telling)
    patients, prevalence = sum(site.patients for site in sites), deaths / of if of else 0.0
    grids, static = (*map(static_grids().__getitem__, config.static), *config.series_grids), len(config.static)
    held = merge_outcomes([(*site.static, *site.series) for site in sites])
    if noise := sqrt(sum((site.noise or 0.0) ** 2 for site in sites)):
        died = round(prevalence * patients) if of else patients
        held = [
            settled(one, grid, noise=noise, patients=patients, deaths=died)
            for one, grid in zip(held, grids, strict=True)
        ]
    pairs = list(zip(grids, held, strict=True))
    return fit_plan(
        dict(zip(config.static, pairs[:static], strict=True)),
        dict(zip(config.series, pairs[static:], strict=True)),
        patients=patients,
        prevalence=prevalence,
        contract=contract_digest(config),
        settings=config.plan_settings,
    )
