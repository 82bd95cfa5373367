"""Name to strategy. Flower's own where Flower has one; a file here for each algorithm it lacks."""

from collections.abc import Callable
from typing import Any

from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
    Strategy,
)

from server.strategies.scaffold import Scaffold
from shared_model.config import RunConfig, StrategyName
from shared_model.errors import ConfigError

# Fewest sites of which f may be hostile: Blanchard et al. 2017 (arXiv 1703.02757), El Mhamdi et al. 2018 (1802.07927).
_SITES_FOR: dict[str, Callable[[int], int]] = {
    "krum": lambda f: 2 * f + 3,
    "multikrum": lambda f: 2 * f + 3,
    "bulyan": lambda f: 4 * f + 3,
}


def build_strategy(config: RunConfig, sites: int) -> Strategy:
    """The strategy a run asks for, over all admitted sites in every round.

    Raises ConfigError when it needs more sites than there are for ``config.byzantine_sites`` hostile ones.
    """
    hostile = config.byzantine_sites
    needed = _SITES_FOR[config.strategy](hostile) if config.strategy in _SITES_FOR else 1
    if sites < needed:
        raise ConfigError(
            f"strategy {config.strategy}: {hostile} hostile of {sites} sites (byzantine-sites), it needs {needed} sites"
        )
    shared: dict[str, Any] = {
        "fraction_evaluate": 0.0,  # validation rides in the train reply
        "min_train_nodes": min(config.min_sites, sites),
        "min_available_nodes": min(config.min_sites, sites),
        "train_metrics_aggr_fn": _metrics_are_merged_elsewhere,
    }
    return _BUILDERS[config.strategy](config, sites, shared)


def expect_hostile(strategy: Strategy, config: RunConfig, *, updates: int, caught: int) -> None:
    """Before a round is aggregated: the sites that the guard has caught are no longer among those that may be hostile
    and unseen (Krum, MultiKrum, Bulyan count them)."""
    hostile = max(config.byzantine_sites - caught, 0)
    if isinstance(strategy, Krum | MultiKrum | Bulyan):
        strategy.num_malicious_nodes = hostile
    if isinstance(strategy, MultiKrum) and not isinstance(strategy, Krum):
        strategy.num_nodes_to_select = updates - hostile


def _metrics_are_merged_elsewhere(replies: list[RecordDict], weighted_by: str) -> MetricRecord:
    """Mergeables need exact sums, not Flower's weighted average; server/rounds.py merges them."""
    return MetricRecord()


def _adaptive(kind: Callable[..., Strategy], rate: float) -> "_Builder":
    """FedOpt's three (Reddi et al. 2021, arXiv 2003.00295). Sites train with AdamW, so a round moves a weight by about
    ``rate``, and so should the server."""

    def build(config: RunConfig, sites: int, shared: dict[str, Any]) -> Strategy:
        beta = {} if kind is FedAdagrad else {"beta_1": config.server_momentum}
        return kind(**shared, **beta, eta=config.server_learning_rate or rate)

    return build


def _fedavgm(config: RunConfig, sites: int, shared: dict[str, Any]) -> Strategy:
    """Hsu et al. 2019 (arXiv 1909.06335); the default rate makes the steps of a steady direction those of FedAvg."""
    rate = config.server_learning_rate or 1 - config.server_momentum
    return FedAvgM(**shared, server_momentum=config.server_momentum, server_learning_rate=rate)


def _qfedavg(config: RunConfig, sites: int, shared: dict[str, Any]) -> Strategy:
    """Li et al. 2020 (arXiv 1905.10497), with the update itself as the gradient (L = 1): AdamW's steps are no multiples
    of a gradient, so the local learning rate says nothing of L."""
    rate = config.server_learning_rate or 1.0
    return QFedAvg(client_learning_rate=rate, q=config.fairness, train_loss_key="train-loss", **shared)


def _multikrum(config: RunConfig, sites: int, shared: dict[str, Any]) -> Strategy:
    hostile = config.byzantine_sites
    return MultiKrum(**shared, num_malicious_nodes=hostile, num_nodes_to_select=sites - hostile)


_Builder = Callable[[RunConfig, int, dict[str, Any]], Strategy]
_BUILDERS: dict[StrategyName, _Builder] = {
    "fedavg": lambda config, sites, shared: FedAvg(**shared),
    "fedprox": lambda config, sites, shared: FedProx(**shared, proximal_mu=config.proximal_mu),
    "fedavgm": _fedavgm,
    "fedadam": _adaptive(FedAdam, 0.01),
    "fedyogi": _adaptive(FedYogi, 0.01),
    "fedadagrad": _adaptive(FedAdagrad, 0.01),
    "qfedavg": _qfedavg,
    "fedmedian": lambda config, sites, shared: FedMedian(**shared),
    "fedtrimmedavg": lambda config, sites, shared: FedTrimmedAvg(**shared, beta=config.trimmed_fraction),
    "krum": lambda config, sites, shared: Krum(**shared, num_malicious_nodes=config.byzantine_sites),
    "multikrum": _multikrum,
    "bulyan": lambda config, sites, shared: Bulyan(**shared, num_malicious_nodes=config.byzantine_sites),
    "scaffold": lambda config, sites, shared: Scaffold(sites, **shared),
}
