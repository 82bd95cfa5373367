"""Statistics of sites become a preprocessing plan: at the server of all of them, at a site of its own."""

from collections.abc import Sequence

from shared_model.config import RunConfig
from shared_model.contract import contract_digest
from shared_model.distribution import merge_outcomes, static_grids
from shared_model.messages import Statistics
from shared_model.plan import PreprocessingPlan, fit_plan


def plan_from(sites: Sequence[Statistics], config: RunConfig) -> PreprocessingPlan:
    """The plan of the union of the sites' training patients; the order of the sites does not matter."""
    telling = [site for site in sites if site.deaths is not None]
    deaths, of = sum(site.deaths or 0 for site in telling), sum(site.patients for site in telling)
    grids = static_grids()
    static = zip((grids[name] for name in config.static), merge_outcomes([s.static for s in sites]), strict=True)
    series = zip(config.series_grids, merge_outcomes([s.series for s in sites]), strict=True)
    return fit_plan(
        dict(zip(config.static, static, strict=True)),
        dict(zip(config.series, series, strict=True)),
        patients=sum(site.patients for site in sites),
        prevalence=deaths / of if of else 0.0,
        contract=contract_digest(config),
        settings=config.plan_settings,
    )
