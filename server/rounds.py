"""The rounds: send, collect, check, aggregate, checkpoint.

Why not ``Strategy.start``: it goes on in silence when nobody replies, aggregates in order of arrival (so that two runs
differ in the last bits), and cannot tell who is missing. The strategy's own hooks do the algorithm.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import torch
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from server.admission import Admission, SiteGrid, ask, sort_replies
from server.results import RoundSummary
from shared_model.config import RunConfig
from shared_model.errors import ContractError, FederationError
from shared_model.mergeable import Validation, merge_validations
from shared_model.messages import (
    EVALUATE,
    EvaluateReply,
    RoundOrder,
    TrainReply,
    Weights,
    content_bytes,
    misfit,
    weights_content,
)
from shared_model.plan import PreprocessingPlan
from shared_model.trial import THE_RUN, Trial

log = logging.getLogger("consilium.server")


@dataclass(kw_only=True)
class Training:
    """What the rounds leave: the kept weights with their validation by site, and the record of every round. ``last`` is
    the validation of the last round's model, whether it was kept or not. ``trial`` is what every message spoke of."""

    weights: Weights
    trial: Trial = THE_RUN
    best_round: int = 0
    best: Validation = field(default_factory=Validation)
    improved_round: int = 0  # the last that was better than all before it
    sites: dict[str, Validation] = field(default_factory=dict)
    last: Validation = field(default_factory=Validation)
    rounds: list[RoundSummary] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    local_seconds: list[float] = field(default_factory=list)

    @property
    def validation(self) -> Validation:
        """Of the kept weights, merged over the sites."""
        return merge_validations(list(self.sites.values()))

    def validated(self, round_number: int, weights: Weights, sites: dict[str, Validation]) -> None:
        """Note how the model of a round did, and keep it unless one before was better by more than a standard error.

        Why not simply the best: on a few hundred validation patients the best of many rounds is best by luck, and the
        later of two is trained further (the one-standard-error rule: Breiman et al. 1984).
        """
        record, self.last = self.rounds[round_number - 1], merge_validations(list(sites.values()))
        record.validation_loss, record.validation_auroc = self.last.loss, self.last.auroc
        if not self.best.at_least(self.last):
            self.best, self.improved_round = self.last, round_number
        if self.last.nearly(self.best):
            self.weights, self.best_round, self.sites = weights, round_number, sites

    def stalled(self, patience: int) -> bool:
        """Whether so many validated rounds have passed without a better one."""
        return bool(patience) and len(self.rounds) - 1 - self.improved_round >= patience


def run_rounds(
    grid: Grid,
    admission: Admission,
    strategy: Strategy,
    initial: Weights,
    plan: PreprocessingPlan,
    config: RunConfig,
    on_round: Callable[[Training, Weights], None] = lambda training, weights: None,
    trial: Trial = THE_RUN,
) -> Training:
    """Train for ``config.rounds`` rounds of a trial, whose settings ``config`` has, or until ``config.patience`` rounds
    were no better. ``on_round`` sees the state after each.

    Round r's replies carry the validation of the model that entered it, so the kept model is known one round late and
    the last one is validated by a message of its own. Raises FederationError when a round has too few usable replies.
    """
    training, weights, number = Training(weights=initial, trial=trial), initial, 0
    while number < config.rounds and not training.stalled(config.patience):
        number += 1
        order = RoundOrder(round=number, learning_rate=config.learning_rate_at(number), plan=plan, trial=trial)
        start = time.monotonic()
        after, sites = _round(grid, admission, strategy, weights, order, config, training)
        training.seconds.append(time.monotonic() - start)
        if number > 1:
            training.validated(number - 1, weights, sites)
        weights = after
        on_round(training, weights)
    found = validate_at(grid, admission, weights, order, config)
    training.validated(number, weights, {site: reply.validation for site, reply in found.items()})
    return training


def _round(
    grid: Grid,
    admission: Admission,
    strategy: Strategy,
    weights: Weights,
    order: RoundOrder,
    config: RunConfig,
    training: Training,
) -> tuple[Weights, dict[str, Validation]]:
    """One round: the aggregated weights, and the validation of the incoming ones by site."""
    view = cast(Grid, SiteGrid(admission))
    sent = ArrayRecord(weights)
    messages = list(strategy.configure_train(order.round, sent, order.config(), view))
    received = list(grid.send_and_receive(messages, timeout=config.round_timeout))
    replies, failed = _usable(admission, messages, received, weights)
    if len(replies) < config.min_sites:
        reasons = "; ".join(f"{site}: {why}" for site, why in failed.items())
        raise FederationError(
            f"round {order.round}: {len(replies)} of at least {config.min_sites} usable replies (min-sites); {reasons}"
        )
    arrays, _ = strategy.aggregate_train(order.round, [message for message, _ in replies.values()])
    if arrays is None:
        raise FederationError(f"round {order.round}: {config.strategy} aggregated nothing from {len(replies)} replies")
    updates = {site: reply for site, (_, reply) in replies.items()}
    training.local_seconds.append(sum(reply.seconds for reply in updates.values()))
    training.rounds.append(_summary(order, updates, failed, messages))
    merged = arrays.to_torch_state_dict()  # some strategies calculate in double precision
    after = {name: tensor.to(weights[name].dtype) for name, tensor in merged.items()}
    return after, {site: reply.validation for site, reply in updates.items()}


def _usable(
    admission: Admission, messages: list[Message], received: list[Message], weights: Weights
) -> tuple[dict[str, tuple[Message, TrainReply]], dict[str, str]]:
    """Replies that fit the model, by site name in name order, and why the others do not."""
    contents, failed = sort_replies([m.metadata.dst_node_id for m in messages], received)
    by_node: dict[int, Message] = {}
    for message in received:  # the first of a node, as sort_replies reads it
        by_node.setdefault(message.metadata.src_node_id, message)
    usable: dict[str, tuple[Message, TrainReply]] = {}
    for node in sorted(contents, key=admission.name_of):
        try:
            reply = TrainReply.read(contents[node])
            _check_update(reply, weights)
            usable[admission.name_of(node)] = (by_node[node], reply)
        except ContractError as error:
            failed[node] = misfit(error)
    return usable, {admission.name_of(node): str(failed[node]) for node in sorted(failed, key=admission.name_of)}


def _check_update(reply: TrainReply, weights: Weights) -> None:
    """Same names, shapes and dtypes as what was sent; finite; a positive count."""
    for arrays in (reply.weights, reply.control or weights):
        if arrays.keys() != weights.keys():
            raise ContractError("update: its arrays have other names than the model")
        for name, tensor in arrays.items():
            if tensor.shape != weights[name].shape or tensor.dtype != weights[name].dtype:
                raise ContractError(f"update: {name} has another shape or dtype than the model")
            if not torch.isfinite(tensor).all():
                raise ContractError(f"update: {name} is not finite")
    if reply.examples < 1:
        raise ContractError("update: no training examples behind it")


def _summary(
    order: RoundOrder,
    updates: dict[str, TrainReply],
    failed: dict[str, str],
    messages: list[Message],
) -> RoundSummary:
    examples = sum(reply.examples for reply in updates.values())
    return RoundSummary(
        round=order.round,
        learning_rate=order.learning_rate,
        train_loss=sum(reply.train_loss * reply.examples for reply in updates.values()) / examples,
        replied=list(updates),
        failed=failed,
        bytes_down=content_bytes(messages[0].content),
        bytes_up=sum(t.nbytes for reply in updates.values() for t in reply.weights.values()),
    )


def validate_at(
    grid: Grid, admission: Admission, weights: Weights, order: RoundOrder, config: RunConfig
) -> dict[str, EvaluateReply]:
    """Validation of a model at each admitted site that answers, by name."""
    contents, _ = ask(grid, admission.sites, EVALUATE, weights_content(weights, order), config.round_timeout)
    found: dict[str, EvaluateReply] = {}
    for node in sorted(contents, key=admission.name_of):
        try:
            found[admission.name_of(node)] = EvaluateReply.read(contents[node])
        except ContractError as error:
            log.warning("no validation from %s: %s", admission.name_of(node), error)
    return found


def personalise(
    grid: Grid, admission: Admission, training: Training, plan: PreprocessingPlan, config: RunConfig
) -> dict[str, Validation]:
    """Under personalisation ``finetune``, each site's validation of the kept model after it was fine-tuned there, at a
    tenth of the first learning rate; the fine-tuned weights stay at the site. Empty otherwise."""
    if config.personalisation != "finetune":
        return {}
    rate = config.learning_rate / 10
    order = RoundOrder(round=training.best_round, learning_rate=rate, plan=plan, trial=training.trial, personal=True)
    replies = validate_at(grid, admission, training.weights, order, config)
    return {site: reply.personal for site, reply in replies.items() if reply.personal is not None}
