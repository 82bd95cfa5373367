"""What a private run has spent at each site, as the server reckons it.

A site's plan follows from the run-config and the counts that it told, so the server can calibrate the same one. Every
round that ran counts, also where a site's answer did not arrive: a site pays before it sends. What the sites' ledgers
hold is authoritative.
"""

import logging
from collections.abc import Sequence

from server.results import SiteSummary
from server.results_privacy import PrivacyAccount, PrivacyRelease, PrivacySummary
from server.site_privacy import SitePrivacy
from shared_model.budget import plan_of
from shared_model.config import RunConfig
from shared_model.errors import PrivacyError
from shared_model.privacy import Mechanism, PrivacyPlan, epsilon_of

log = logging.getLogger("consilium.server")


def privacy_summary(config: RunConfig, sites: Sequence[SiteSummary], rounds: int) -> PrivacySummary | None:
    """After so many rounds and the validation at the end; None in a run without differential privacy.

    Where patients are protected, a site that did not tell how many it has is left out.
    """
    if config.privacy_unit == "none":
        return None
    admitted = [site for site in sites if site.admitted]
    if held := SitePrivacy.of(config, len(admitted)):
        held.spent = rounds
        accounts: list[PrivacyAccount | None] = [account_of("each site", {"update": held.mechanism}, config)]
    else:
        accounts = [_account(config, site, rounds) for site in admitted if site.patients is not None]
    return PrivacySummary(
        unit=config.privacy_unit,
        epsilon=config.privacy_epsilon,
        delta=config.privacy_delta,
        accountant=config.privacy_accountant,
        clip=config.clip,
        accounts=[account for account in accounts if account is not None],
    )


def account_of(holder: str, released: dict[str, Mechanism], config: RunConfig) -> PrivacyAccount:
    """Each mechanism with its epsilon, and all of them together."""
    delta, accountant = config.privacy_delta, config.privacy_accountant
    return PrivacyAccount(
        holder=holder,
        releases=[
            PrivacyRelease(
                what=what,
                mechanism="Gaussian" if one.sample_rate == 1 else "Poisson-subsampled Gaussian",
                noise_multiplier=one.noise_multiplier,
                sample_rate=one.sample_rate,
                steps=one.steps,
                epsilon=epsilon_of([one], delta, accountant),
            )
            for what, one in released.items()
        ],
        epsilon=epsilon_of(released.values(), delta, accountant),
    )


def _account(config: RunConfig, site: SiteSummary, rounds: int) -> PrivacyAccount | None:
    try:
        plan = plan_of(config, site.patients or 0, public_counts=site.counts == "exact")
    except PrivacyError as error:
        log.warning("%s: its spending cannot be reckoned here: %s", site.site, error)
        return None
    return account_of(site.site, _released(plan, rounds), config)


def _released(plan: PrivacyPlan, rounds: int) -> dict[str, Mechanism]:
    training = Mechanism(plan.training.noise_multiplier, plan.training.sample_rate, rounds * plan.steps_a_round)
    counts = {} if plan.count is None else {"counts": plan.count}
    return {**counts, "statistics": plan.statistics, "training": training, "validation": plan.validation}
