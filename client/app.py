"""The ClientApp: query, train, evaluate. Thin: each handler resolves the site, does one thing, and releases the reply.

Heavy imports happen inside the handlers: in a deployment every message starts a fresh process.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client import secure, task
from client.audit import Occasion
from client.caps import check_unit
from client.policy import Kind
from client.private_run import Counts, account_of, open_account
from client.release import again, check_request, occasion_of, refuse, release
from client.site import SiteConfig, is_simulated, resolve_site
from client.small_cells import Reply
from client.task import Asked
from shared_model.errors import (
    BlocksError,
    BudgetExceeded,
    ConsiliumError,
    ContractError,
    LedgerError,
    PrivacyError,
    ReleaseRefused,
)
from shared_model.messages import Content, SiteCard
from shared_model.packing import packed, unpacked
from shared_model.refusal import Refusal
from shared_model.trial import THE_RUN

log = logging.getLogger("consilium.client")
app = ClientApp()


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    """Who this site is, and whether it holds the contract."""
    return _answer(message, context, "describe", _describe)


@app.query("statistics")
def statistics(message: Message, context: Context) -> Message:
    """Distributions of the training patients' features, for the federation's preprocessing plan."""
    return _answer(message, context, "statistics", task.statistics)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Validate the incoming model, train it, release the update: one message a round."""
    return _answer(message, context, "train", task.train)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Validate the incoming model and, where the order says so, a personalised one."""
    return _answer(message, context, "evaluate", task.evaluate)


@app.query("secure_keys")
def secure_keys(message: Message, context: Context) -> Message:
    """Public keys for one masked sum."""
    return _answer(message, context, "secure_keys", secure.keys)


@app.query("secure_shares")
def secure_shares(message: Message, context: Context) -> Message:
    """Shares of this site's secrets, sealed to each other site."""
    return _answer(message, context, "secure_shares", secure.shares)


@app.query("secure_unmask")
def secure_unmask(message: Message, context: Context) -> Message:
    """One share of each site's secrets, to take the masks off the sum."""
    return _answer(message, context, "secure_unmask", secure.unmask)


def _answer(message: Message, context: Context, kind: Kind, handler: Callable[[Asked], Reply]) -> Message:
    """The released reply, or a refusal that says why. Flower would send an exception's text, so none escapes."""
    site = occasion = None
    try:
        site, sent = resolve_site(context), unpacked(message.content)
        occasion = occasion_of(kind, sent, context.run_config, context.run_id)
        check_request(site, occasion)
        asked = _asked(sent, context, site, occasion)
        content = again(asked) or release(handler(asked), asked)
    except ConsiliumError as error:
        log.warning("refused: %s", error)
        content = _refused(error, _public(error), site, occasion)
    except Exception as error:  # the boundary: an exception's text may hold patient values, so only its class leaves
        log.exception("failed")
        content = _refused(error, "internal error; see the site's log", site, occasion)
    return Message(content=packed(content), reply_to=message)


def _asked(sent: Content, context: Context, site: SiteConfig, occasion: Occasion) -> Asked:
    from shared_model.config import RunConfig

    config = RunConfig.from_flat(context.run_config)
    if config.retrospective and not is_simulated(context):
        raise ContractError("profile 'paper' reads what happened after the prediction time: for simulation only")
    check_unit(site.privacy, config, occasion.kind)
    asked = Asked(content=sent, site=site, config=config, run_id=context.run_id, occasion=occasion)
    if occasion.kind in secure.KINDS:
        return asked
    if config.privacy_unit != "patient":
        return _told_exactly(asked)
    if occasion.kind != "describe":
        return replace(asked, account=account_of(site, config, asked.run))
    if site.privacy.public_counts:
        asked = _told_exactly(asked)
    return replace(asked, account=open_account(site, config, asked.run, asked.run_id, lambda: _counts(asked)))


def _told_exactly(asked: Asked) -> Asked:
    """Where no noise protects, the site tells of blocks of patients."""
    from client.block_memory import open_blocks

    return replace(asked, blocks=open_blocks(asked.site.store, asked.site.release.smallest_cell))


def _counts(asked: Asked) -> Counts:
    training = task.open_trial(asked, THE_RUN).training
    return training.patients, training.deaths


def _refused(error: Exception, reason: str, site: SiteConfig | None, occasion: Occasion | None) -> Content:
    name = "" if site is None else site.site
    return refuse(Refusal(site=name, kind=type(error).__name__, reason=reason), site, occasion)


def _public(error: ConsiliumError) -> str:
    """What is written for the other side; the other errors name local files, or what other runs spent."""
    match error:
        case BudgetExceeded():
            return "the site's budget does not allow this run"
        case BlocksError():
            return "the site's memory of whom it has told of cannot be used; nothing was sent"
        case LedgerError():
            return "the site's privacy ledger cannot be used; nothing was sent"
        case ContractError() | ReleaseRefused() | PrivacyError():
            return str(error)
    return "see the site's log"


def _describe(asked: Asked) -> SiteCard:
    from shared_model.manifest import read_manifest
    from shared_model.predict import best_device

    manifest, account = read_manifest(asked.site.store), asked.account
    card = SiteCard(
        site=asked.site.site,
        contract=manifest["contract"],
        encoder=manifest["encoder"]["digest"],
        device=best_device().type,
        stays=0,
        patients=None,
        deaths=None,
    )
    if account is None:
        held = task.open_trial(asked, THE_RUN)
        stays = len(held.training) + len(held.validation)
        return replace(card, stays=stays, patients=held.training.patients, deaths=held.deaths)
    told = replace(card, stays=account.patients, patients=account.patients, deaths=account.deaths)
    return replace(told, counts="noised", mechanism=account.plan.count) if account.plan.count else told
