"""Admission: who takes part, and who does not and why. Never waits for ever.

Also the one way the server talks to admitted sites: ``SiteGrid`` shows a Flower strategy only them, and ``ask`` sends
one message to each and sorts what comes back into results and reasons.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from shared_model.config import RunConfig
from shared_model.contract import contract_digest
from shared_model.errors import ContractError, FederationError
from shared_model.messages import DESCRIBE, Refusal, SiteCard, misfit, refusal_of

log = logging.getLogger("consilium.server")
POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Admission:
    """``sites``: node id -> card of the admitted, by site name; ``refused``: site (or node) -> why."""

    sites: dict[int, SiteCard]
    refused: dict[str, str]

    def name_of(self, node: int) -> str:
        """The site's name."""
        return self.sites[node].site


class SiteGrid:
    """The part of a Grid that strategies read, holding the admitted nodes only: every Flower strategy works unchanged,
    and who has gone missing shows as a missing reply, not as a wait."""

    def __init__(self, admission: Admission) -> None:
        self._nodes = list(admission.sites)

    def get_node_ids(self) -> Iterable[int]:
        """Admitted nodes, connected or not."""
        return self._nodes


def admit(grid: Grid, config: RunConfig, *, encoder: str) -> Admission:
    """Ask every connected node to describe itself and admit those that hold the contract.

    ``encoder`` is the digest all sites must share; empty: the one most sites have. Raises FederationError when fewer
    than ``config.min_sites`` are admitted, with everybody's reason.
    """
    nodes = _wait_for_nodes(grid, config)
    cards, refused = ask(grid, nodes, DESCRIBE, RecordDict(), config.admission_timeout)
    described: dict[int, SiteCard] = {}
    for node, content in cards.items():
        try:
            described[node] = SiteCard.read(content)
        except ContractError as error:
            refused[node] = misfit(error)
    by_name = {refusal.site or f"node {node}": str(refusal) for node, refusal in refused.items()}
    admission = _judge(described, by_name, contract_digest(config), encoder)
    if len(admission.sites) < config.min_sites:
        reasons = "; ".join(f"{site}: {why}" for site, why in sorted(admission.refused.items())) or "none connected"
        admitted = len(admission.sites)
        raise FederationError(f"admission: {admitted} of at least {config.min_sites} sites (min-sites); {reasons}")
    return admission


def ask(
    grid: Grid, nodes: Iterable[int], kind: str, content: RecordDict, timeout: float
) -> tuple[dict[int, RecordDict], dict[int, Refusal]]:
    """One message to each node: contents of the replies, and for every node without one the reason."""
    nodes = list(nodes)
    messages = [Message(content=content, message_type=kind, dst_node_id=node) for node in nodes]
    return sort_replies(nodes, grid.send_and_receive(messages, timeout=timeout))


def sort_replies(nodes: Iterable[int], replies: Iterable[Message]) -> tuple[dict[int, RecordDict], dict[int, Refusal]]:
    """Contents and reasons by node; a node that did not answer at all has one too. Unknown nodes are ignored."""
    silence = Refusal(site="", kind="NoReply", reason="no reply within the time limit")
    reasons = dict.fromkeys(nodes, silence)
    contents: dict[int, RecordDict] = {}
    for reply in replies:
        node = reply.metadata.src_node_id
        if node not in reasons:
            continue
        try:
            refusal = refusal_of(reply)
        except ContractError as error:
            refusal = misfit(error)
        if refusal is None:
            contents[node] = reply.content
            del reasons[node]
        else:
            reasons[node] = refusal
    return contents, reasons


def _wait_for_nodes(grid: Grid, config: RunConfig) -> list[int]:
    """Until the expected sites are connected or the time limit passes."""
    wanted = config.expected_sites or config.min_sites
    end = time.monotonic() + config.admission_timeout
    while len(nodes := list(grid.get_node_ids())) < wanted and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    return nodes


def _judge(cards: dict[int, SiteCard], refused: dict[str, str], contract: str, encoder: str) -> Admission:
    """Admit cards with our contract, the common encoder and a name of their own; both lists are sorted by name, so that
    they do not depend on who answered first."""
    common = encoder or _most_common([card.encoder for card in cards.values()])
    sites: dict[int, SiteCard] = {}
    for node, card in sorted(cards.items(), key=lambda item: (item[1].site, item[0])):
        if why := _objection(card, contract, common, taken={held.site for held in sites.values()}):
            refused[card.site] = why
        else:
            sites[node] = card
    refused = dict(sorted(refused.items()))
    for site, why in refused.items():
        log.warning("not admitted: %s: %s", site, why)
    return Admission(sites=sites, refused=refused)


def _objection(card: SiteCard, contract: str, encoder: str, *, taken: set[str]) -> str:
    if card.contract != contract:
        held = f"contract {card.contract[:12]}, the server holds {contract[:12]}"
        return f"{held}; prepare with this version and the study of the run"
    if card.encoder != encoder:
        return f"text encoder {card.encoder[:12] or 'none'}, the federation uses {encoder[:12] or 'none'}"
    if card.site in taken:
        return "another site has the same name"
    return ""


def _most_common(digests: list[str]) -> str:
    """Ties go to the smallest digest, so that the outcome does not depend on who answered first."""
    return min(Counter(digests).items(), key=lambda item: (-item[1], item[0]))[0] if digests else ""
