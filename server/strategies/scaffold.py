"""SCAFFOLD: Karimireddy et al. 2020 (arXiv 1910.06378), which Flower lacks.

Each site i holds a control variate c_i, the server c, their mean. A site adds c - c_i to each gradient, which takes out
the drift towards its own patients. After a round c_i is the mean of the gradients the site has just met: under plain
SGD this is the paper's option II, c_i - c + (x - y_i) / (K eta), and it stays a gradient under AdamW, whose steps are
not multiples of one. The site sends the change of c_i beside its weights; c_i itself stays on its disk
(client/site_state.py).

Sites weigh by their training stays, as in FedAvg; with equal sites this is the paper's mean.
"""

from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from shared_model.messages import CONTROL, Weights, examples_of, read_weights


class Scaffold(FedAvg):
    """FedAvg that sends the server's control variate along and moves it by what the sites answer."""

    def __init__(self, sites: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.sites = sites
        self.control: Weights | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """FedAvg's messages with c in them; it starts at zero."""
        if self.control is None:
            self.control = {name: tensor * 0 for name, tensor in arrays.to_torch_state_dict().items()}
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            message.content[CONTROL] = ArrayRecord(self.control)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Move c, then average the weights."""
        replies = list(replies)
        changes = [(examples_of(m.content), read_weights(m.content, CONTROL)) for m in replies]
        for message in replies:
            del message.content[CONTROL]  # FedAvg looks for exactly one ArrayRecord
        if self.control is not None and changes:
            self.control = moved_control(self.control, changes, self.sites)
        return super().aggregate_train(server_round, replies)


def moved_control(control: Weights, changes: list[tuple[int, Weights]], sites: int) -> Weights:
    """c + |S| / N times the mean change over the sites S that answered of N, weighted by their stays."""
    stays, answered = sum(count for count, _ in changes), len(changes) / sites
    return {
        name: held + answered * sum(count / stays * change[name] for count, change in changes)
        for name, held in control.items()
    }
