"""Admission: who takes part, and who does not and why. Never waits for ever.

Also the one way the server talks to admitted sites: ``SiteGrid`` shows a Flower strategy only them, and ``ask`` sends
one message to each and sorts what comes back into results and reasons.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from shared_model.config import RunConfig
from shared_model.contract import contract_digest
from shared_model.errors import ConfigError, ContractError, FederationError
from shared_model.messages import DESCRIBE, SiteCard
from shared_model.refusal import Refusal, misfit, refusal_of

log = logging.getLogger("consilium.server")
POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Admission:
    """``sites``: node id -> card of the admitted, by site name; ``refused``: site (or node) -> why."""

    sites: dict[int, SiteCard]
    refused: dict[str, str]

    @property
    def names(self) -> set[str]:
        """Of the admitted sites."""
        return {card.site for card in self.sites.values()}

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
    """Ask every node that connects to describe itself, and admit those that hold the contract; until the quorum is
    there (``config.expected_sites`` or ``min_sites``, and every one of ``required_sites``) or the time is over.

    ``encoder`` is the digest all sites must share; empty: the one most sites have. Raises FederationError without a
    quorum, with everybody's reason.
    """
    roster, required = read_roster(config), names_of(config.required_sites)
    described: dict[int, SiteCard] = {}
    refused: dict[str, str] = {}
    end, asked, admission = time.monotonic() + config.admission_timeout, set[int](), Admission(sites={}, refused={})
    while True:
        new = [node for node in grid.get_node_ids() if node not in asked]
        enough = len(asked | set(new)) >= (config.expected_sites or config.min_sites)
        late = time.monotonic() >= end
        if new and (enough or late):
            asked |= set(new)
            _describe(grid, new, config.admission_timeout, described, refused)
            admission = _judge(described, refused, contract_digest(config), encoder, roster)
        if late or (enough and not _missing(admission, config, required)):
            break
        time.sleep(POLL_SECONDS)
    _check_quorum(admission, config, required)
    return admission


def _describe(
    grid: Grid, nodes: list[int], timeout: float, described: dict[int, SiteCard], refused: dict[str, str]
) -> None:
    """Add the nodes' cards, or their reasons by site, or by node where it does not say which site it is."""
    contents, reasons = ask(grid, nodes, DESCRIBE, RecordDict(), timeout)
    for node, content in contents.items():
        try:
            described[node] = SiteCard.read(content)
        except ContractError as error:
            reasons[node] = misfit(error)
    refused |= {refusal.site or f"node {node}": str(refusal) for node, refusal in reasons.items()}


def _missing(admission: Admission, config: RunConfig, required: list[str]) -> bool:
    """Whether somebody who is waited for is not in yet."""
    return len(admission.names) < config.min_sites or not set(required) <= admission.names


def _check_quorum(admission: Admission, config: RunConfig, required: list[str]) -> None:
    admitted = admission.names
    reasons = "; ".join(f"{site}: {why}" for site, why in sorted(admission.refused.items())) or "no other connected"
    if len(admitted) < config.min_sites:
        few = f"admission: {len(admitted)} of at least {config.min_sites} sites (min-sites)"
        raise FederationError(f"{few}; {reasons if admission.refused else 'none connected'}")
    if absent := sorted(set(required) - admitted):
        raise FederationError(f"admission: without {', '.join(absent)} (required-sites); {reasons}")


def without(admission: Admission, reasons: dict[str, str]) -> Admission:
    """The admission without some of its sites, by name, and why."""
    sites = {node: card for node, card in admission.sites.items() if card.site not in reasons}
    return Admission(sites=sites, refused=dict(sorted((admission.refused | reasons).items())))


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


def names_of(text: str) -> list[str]:
    """Of a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def read_roster(config: RunConfig) -> dict[int, str] | None:
    """Which site's key each node holds, as `consilium-server register` wrote it down; None without a roster. Raises
    ConfigError when it cannot be read."""
    if not config.roster:
        return None
    try:
        held = json.loads(Path(config.roster).read_text(encoding="utf-8"))
        return {int(entry["node_id"]): str(entry["site"]) for entry in held["sites"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"roster {config.roster}: cannot be read as the sites.json of consilium-server") from error


def _judge(
    cards: dict[int, SiteCard],
    refused: dict[str, str],
    contract: str,
    encoder: str,
    roster: dict[int, str] | None = None,
) -> Admission:
    """Admit cards with our contract, the common encoder and a name of their own; both lists are sorted by name, so that
    they do not depend on who answered first."""
    common = encoder or _most_common([card.encoder for card in cards.values()])
    sites: dict[int, SiteCard] = {}
    reasons = dict(refused)
    for node, card in sorted(cards.items(), key=lambda item: (item[1].site, item[0])):
        if roster is not None and roster.get(node) != card.site:
            reasons[card.site] = "calls itself so, but its key is registered for another site"
        elif why := _objection(card, contract, common, taken={held.site for held in sites.values()}):
            reasons[card.site] = why
        else:
            sites[node] = card
    for site, why in sorted(reasons.items()):
        log.warning("not admitted: %s: %s", site, why)
    return Admission(sites=sites, refused=dict(sorted(reasons.items())))


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
