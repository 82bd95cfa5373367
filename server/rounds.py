"""The rounds: send, collect, check, aggregate, checkpoint.

Why not ``Strategy.start``: it goes on in silence when nobody replies, aggregates in order of arrival (so that two runs
differ in the last bits), and cannot tell who is missing. The strategy's own hooks do the algorithm.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from server.admission import Admission, SiteGrid, ask, sort_replies
from server.checkpoint import Checkpoint
from server.noised import Noised, settled_validation
from server.results import RoundSummary
from server.secure import Opened
from server.site_privacy import SitePrivacy
from server.strategies import expect_hostile
from server.strategies.guarded import Guard
from server.strategies.memory import remembered, remind
from server.summed import ALL_SITES, summed_update, summed_validation
from server.training import Training
from shared_model.config import RunConfig
from shared_model.errors import ContractError, FederationError
from shared_model.mergeable import Validation
from shared_model.messages import (
    EVALUATE,
    EvaluateReply,
    RoundOrder,
    TrainReply,
    Weights,
    content_bytes,
    weights_content,
)
from shared_model.plan import PreprocessingPlan
from shared_model.refusal import misfit
from shared_model.trial import THE_RUN, Trial

log = logging.getLogger("consilium.server")
_Replies = dict[str, tuple[Message, TrainReply]]


@dataclass(frozen=True)
class _Gathered:
    """Replies by site, and why there is none of the others; ``summed``: the one reply stands for all in that sum."""

    read: _Replies
    failed: dict[str, str]
    summed: Opened | None = None


@dataclass(kw_only=True)
class Rounds:
    """The rounds of one trial as they stand: ``weights`` came out of the last finished one."""

    grid: Grid
    admission: Admission
    strategy: Strategy
    plan: PreprocessingPlan
    config: RunConfig
    guard: Guard
    weights: Weights
    training: Training
    privacy: SitePrivacy | None = None

    def resume(self, held: Checkpoint) -> None:
        """Stand where a checkpoint was taken."""
        self.weights, self.training = held.weights, held.training
        self.guard.seen |= set(held.seen)
        remind(self.strategy, held.strategy)
        if self.privacy is not None:
            self.privacy.remind(held.privacy)

    def checkpoint(self) -> Checkpoint:
        """Everything the next round needs."""
        return Checkpoint(
            weights=self.weights,
            training=self.training,
            strategy=remembered(self.strategy),
            seen=tuple(sorted(self.guard.seen)),
            plan=self.plan,
            sites=tuple(sorted(self.admission.names)),
            config=self.config,
            privacy={} if self.privacy is None else self.privacy.remembered(),
        )

    def order(self, number: int) -> RoundOrder:
        """What goes with the weights into a round."""
        rate = self.config.learning_rate_at(number)
        return RoundOrder(round=number, learning_rate=rate, plan=self.plan, trial=self.training.trial)

    def next(self) -> None:
        """Train one round; the validation of what came out of the one before rides along."""
        order, start = self.order(len(self.training.rounds) + 1), time.monotonic()
        after, sites = self._exchange(order)
        self.training.seconds.append(time.monotonic() - start)
        if order.round > 1:
            self.training.validated(order.round - 1, self.weights, sites, keep=self.privacy is not None)
        self.weights = after

    def finish(self) -> Training:
        """Validate what came out of the last round."""
        number = len(self.training.rounds)
        found = validate_at(self.grid, self.admission, self.weights, self.order(number), self.config)
        if self.config.privacy_unit == "patient":
            self.training.validated(number, self.weights, {}, self._noised(found))
        else:
            sites = {site: reply.validation for site, reply in found.items()}
            self.training.validated(number, self.weights, sites, keep=self.privacy is not None)
        return self.training

    def _noised(self, found: dict[str, EvaluateReply]) -> Noised:
        """What the sites that answered told; a reply without noise is none of a private run."""
        told = {site: reply for site, reply in found.items() if reply.noise is not None}
        cards = [card for card in self.admission.sites.values() if card.site in told or ALL_SITES in told]
        return settled_validation(list(told.values()), cards, self.config, self.plan.prevalence)

    def _exchange(self, order: RoundOrder) -> tuple[Weights, dict[str, Validation]]:
        """The aggregated weights, and the validation of the incoming ones by site."""
        view = cast(Grid, SiteGrid(self.admission))
        messages = list(self.strategy.configure_train(order.round, ArrayRecord(self.weights), order.config(), view))
        got = self._gather(order, messages)
        read, replies = got.read, {site: reply for site, (_, reply) in got.read.items()}
        kept, rejected = self.guard.admit(order.round, replies, self.weights)
        failed = dict(sorted((got.failed | rejected).items()))
        if len(kept) < (1 if got.summed else self.config.min_sites):
            least, reasons = self.config.min_sites, "; ".join(f"{site}: {why}" for site, why in failed.items())
            raise FederationError(
                f"round {order.round}: {len(kept)} of at least {least} usable replies (min-sites); {reasons}"
            )
        expect_hostile(self.strategy, self.config, updates=len(kept), caught=len(rejected))
        updates = {site: read[site][1] for site in kept}
        arrays, _ = self.strategy.aggregate_train(order.round, self._seen(messages, read, updates))
        if arrays is None:
            name = self.config.strategy
            raise FederationError(f"round {order.round}: {name} aggregated nothing from {len(kept)} replies")
        self.training.local_seconds.append(sum(reply.seconds or 0.0 for reply in updates.values()))
        self.training.rounds.append(_summary(order, updates, failed, messages, got))
        merged = arrays.to_torch_state_dict()  # some strategies calculate in double precision
        after = {name: tensor.to(self.weights[name].dtype) for name, tensor in merged.items()}
        return after, {site: reply.validation for site, reply in updates.items()}

    def _seen(self, messages: list[Message], read: _Replies, updates: dict[str, TrainReply]) -> list[Message]:
        """What the strategy aggregates: each update or, where sites are protected, the noised mean as the only one."""
        if self.privacy is None:
            return [read[site][0] for site in updates]
        mean = self.privacy.mean(self.weights, {site: reply.weights for site, reply in updates.items()})
        alone = TrainReply(round=0, weights=mean, examples=1, train_loss=None, seconds=None, validation=Validation())
        return [Message(alone.content(), reply_to=messages[0])]

    def _gather(self, order: RoundOrder, messages: list[Message]) -> _Gathered:
        """Each site's reply; under secure aggregation one, the mean of all."""
        if self.config.secure_aggregation:
            found = summed_update(self.grid, self.admission, self.config, messages, order, self.weights)
            read = {ALL_SITES: (found.message, found.reply)}
            return _Gathered(read=read, failed=found.opened.failed, summed=found.opened)
        received = list(self.grid.send_and_receive(messages, timeout=self.config.round_timeout))
        return _Gathered(*_read(self.admission, messages, received))


def run_rounds(
    grid: Grid,
    admission: Admission,
    strategy: Strategy,
    initial: Weights,
    plan: PreprocessingPlan,
    config: RunConfig,
    on_round: Callable[[Rounds], None] = lambda rounds: None,
    trial: Trial = THE_RUN,
    start: Checkpoint | None = None,
) -> Training:
    """Train for ``config.rounds`` rounds of a trial, whose settings ``config`` has, or until ``config.patience`` rounds
    were no better; from ``start``, if given. ``on_round`` sees the state after each.

    Round r's replies carry the validation of the model that entered it, so the kept model is known one round late and
    the last one is validated by a message of its own. In a private run they carry none, and the last one is
    kept. Raises FederationError when a round has too few usable replies.
    """
    rounds = Rounds(
        grid=grid,
        admission=admission,
        strategy=strategy,
        plan=plan,
        config=config,
        guard=Guard(config.norm_limit, {card.site: card for card in admission.sites.values()}),
        weights=initial,
        training=Training(weights=initial, trial=trial),
        privacy=SitePrivacy.of(config, len(admission.sites)),
    )
    if start is not None:
        rounds.resume(start)
    while len(rounds.training.rounds) < config.rounds and not rounds.training.stalled(config.patience):
        rounds.next()
        on_round(rounds)
    return rounds.finish()


def _read(admission: Admission, messages: list[Message], received: list[Message]) -> tuple[_Replies, dict[str, str]]:
    """Replies by site name in name order, and why there is none of the others."""
    contents, failed = sort_replies([m.metadata.dst_node_id for m in messages], received)
    by_node: dict[int, Message] = {}
    for message in received:  # the first of a node, as sort_replies reads it
        by_node.setdefault(message.metadata.src_node_id, message)
    read: _Replies = {}
    for node in sorted(contents, key=admission.name_of):
        try:
            read[admission.name_of(node)] = by_node[node], TrainReply.read(contents[node])
        except ContractError as error:
            failed[node] = misfit(error)
    return read, {admission.name_of(node): str(why) for node, why in failed.items()}


def _summary(
    order: RoundOrder,
    updates: dict[str, TrainReply],
    failed: dict[str, str],
    messages: list[Message],
    got: _Gathered,
) -> RoundSummary:
    told = {site: reply for site, reply in updates.items() if reply.train_loss is not None}
    loss = sum((reply.train_loss or 0.0) * reply.examples for reply in told.values())
    up = sum(t.nbytes for reply in updates.values() for t in reply.weights.values())
    return RoundSummary(
        round=order.round,
        learning_rate=order.learning_rate,
        train_loss=loss / sum(reply.examples for reply in told.values()) if told else None,
        replied=got.summed.contributors if got.summed else list(updates),
        failed=failed,
        bytes_down=content_bytes(messages[0].content),
        bytes_up=got.summed.bytes_up if got.summed else up,
    )


def validate_at(
    grid: Grid, admission: Admission, weights: Weights, order: RoundOrder, config: RunConfig
) -> dict[str, EvaluateReply]:
    """Validation of a model at each admitted site that answers, by name; under secure aggregation of all together."""
    if config.secure_aggregation:
        try:
            return {ALL_SITES: summed_validation(grid, admission, weights, order, config)}
        except FederationError as error:
            log.warning("no validation: %s", error)
            return {}
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
