"""Merged moments of the sites become the federation's preprocessing plan."""

from flwr.app import RecordDict
from flwr.serverapp import Grid

from server.admission import Admission, ask
from shared_model.config import RunConfig
from shared_model.contract import contract_digest
from shared_model.errors import ContractError, FederationError
from shared_model.features import PreprocessingPlan, fit_plan
from shared_model.mergeable import merge_moments
from shared_model.messages import STATISTICS, Statistics, misfit


def federated_plan(
    grid: Grid, admission: Admission, config: RunConfig
) -> tuple[PreprocessingPlan, dict[str, Statistics], dict[str, str]]:
    """Ask every admitted site for its moments and fit the plan on what they merge to.

    Returns the plan, each site's statistics by name, and why a site's are missing. Raises FederationError below
    ``config.min_sites`` answers.
    """
    contents, failed = ask(grid, admission.sites, STATISTICS, RecordDict(), config.round_timeout)
    sites: dict[str, Statistics] = {}
    for node, content in contents.items():
        try:
            sites[admission.name_of(node)] = Statistics.read(content, config.study)
        except ContractError as error:
            failed[node] = misfit(error)
    reasons = {admission.name_of(node): str(why) for node, why in failed.items()}
    if len(sites) < config.min_sites:
        raise FederationError(f"statistics: {len(sites)} of at least {config.min_sites} sites answered; {reasons}")
    return plan_from(dict(sorted(sites.items())), config), sites, reasons


def plan_from(sites: dict[str, Statistics], config: RunConfig) -> PreprocessingPlan:
    """The plan of the union of the sites' training patients; merged in the given order."""
    held = list(sites.values())
    return fit_plan(
        dict(zip(config.static, merge_moments([s.static for s in held]), strict=True)),
        dict(zip(config.series, merge_moments([s.series for s in held]), strict=True)),
        patients=sum(s.patients for s in held),
        deaths=sum(s.deaths for s in held),
        contract=contract_digest(config),
        series_fill=config.series_fill,
    )
