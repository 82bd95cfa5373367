"""Name to strategy. Flower's own where Flower has one; a file here for each algorithm it lacks."""

from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy

from shared_model.config import RunConfig


def build_strategy(config: RunConfig, sites: int) -> Strategy:
    """The strategy a run asks for, over all admitted sites in every round."""
    return FedAvg(
        fraction_evaluate=0.0,  # validation rides in the train reply
        min_train_nodes=min(config.min_sites, sites),
        min_available_nodes=min(config.min_sites, sites),
        train_metrics_aggr_fn=_metrics_are_merged_elsewhere,
    )


def _metrics_are_merged_elsewhere(replies: list[RecordDict], weighted_by: str) -> MetricRecord:
    """Mergeables need exact sums, not Flower's weighted average; server/rounds.py merges them."""
    return MetricRecord()
