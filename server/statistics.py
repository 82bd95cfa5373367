"""Merged distributions of the sites become the federation's preprocessing plan."""

from dataclasses import asdict
from typing import Literal

from flwr.app import RecordDict
from flwr.serverapp import Grid

from server.admission import Admission, ask
from server.results import FeatureSummary
from server.summed import summed_statistics
from shared_model.config import RunConfig
from shared_model.errors import ContractError, FederationError
from shared_model.fitting import plan_from
from shared_model.messages import STATISTICS, Statistics, trial_content
from shared_model.plan import FeaturePlan, PreprocessingPlan
from shared_model.refusal import misfit
from shared_model.trial import THE_RUN, Trial


def federated_plan(
    grid: Grid, admission: Admission, config: RunConfig
) -> tuple[PreprocessingPlan, dict[str, Statistics], dict[str, str]]:
    """Ask every admitted site for its distributions and fit the plan on what they merge to.

    Returns the plan, each site's statistics by name (none under secure aggregation: only their sum is known), and why a
    site's are missing. Raises FederationError below ``config.min_sites`` answers.
    """
    if config.secure_aggregation:
        summed, reasons = summed_statistics(grid, admission, config)
        return plan_from(summed, config), {}, reasons
    sites, reasons = ask_statistics(grid, admission, config)
    return plan_from(list(sites.values()), config), sites, reasons


def ask_statistics(
    grid: Grid, admission: Admission, config: RunConfig, trial: Trial = THE_RUN
) -> tuple[dict[str, Statistics], dict[str, str]]:
    """Each site's statistics of a trial by name, in name order, and why a site's are missing. Raises FederationError
    below ``config.min_sites`` answers."""
    contents, failed = ask(grid, admission.sites, STATISTICS, trial_content(trial), config.round_timeout)
    sites: dict[str, Statistics] = {}
    for node in sorted(contents, key=admission.name_of):
        try:
            sites[admission.name_of(node)] = _read(contents[node], config)
        except ContractError as error:
            failed[node] = misfit(error)
    reasons = {admission.name_of(node): str(why) for node, why in failed.items()}
    if len(sites) < config.min_sites:
        told = "; ".join(f"{site}: {why}" for site, why in sorted(reasons.items()))
        raise FederationError(f"statistics: {len(sites)} of at least {config.min_sites} sites answered; {told}")
    return sites, reasons


def _read(content: RecordDict, config: RunConfig) -> Statistics:
    """Raises ContractError also for what carries no noise in a private run, or carries it in another."""
    found = Statistics.read(content, config.study)
    if (found.noise is not None) != (config.privacy_unit == "patient"):
        raise ContractError("statistics: noised in a run that is not private for patients, or the other way round")
    return found


def poorly_covered(plan: PreprocessingPlan, sites: dict[str, Statistics], least: float) -> dict[str, str]:
    """Sites that have measured less than a share ``least`` of the plan's features in any of their training patients,
    and how much they have: such a site would train on filled-in values. What a site withholds counts as not measured.
    With noise nothing is said of a single site: its counts are too unsure.
    """
    kept = [feature.kept for feature in (*plan.static_features, *plan.series_features)]
    reasons = {}
    for site, held in sites.items():
        if held.noise is not None:
            continue
        measured = [bool(outcomes.whole.patients) for outcomes in (*held.static, *held.series)]
        covered = sum(have for have, wanted in zip(measured, kept, strict=True) if wanted)
        if covered < least * sum(kept):
            reasons[site] = f"has measured {covered} of the plan's {sum(kept)} features, {least:.0%} are needed"
            reasons[site] += " (least-coverage)"
    return reasons


def feature_summaries(plan: PreprocessingPlan, config: RunConfig) -> list[FeatureSummary]:
    """What the report says of each feature. A private run that does not select by outcome has not asked for it."""
    kinds: dict[Literal["static", "series"], tuple[FeaturePlan, ...]] = {
        "static": plan.static_features,
        "series": plan.series_features,
    }
    wanted = set(FeatureSummary.model_fields)
    if config.privacy_unit == "patient" and not config.select_features:
        wanted -= {"mutual_information", "correlation"}
    return [
        FeatureSummary(kind=kind, kept=feature.kept, **{k: v for k, v in asdict(feature).items() if k in wanted})
        for kind, features in kinds.items()
        for feature in features
    ]
