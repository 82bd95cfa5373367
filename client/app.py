"""The ClientApp: query, train, evaluate. Thin: each handler resolves the site, does one thing, and releases the reply.

Heavy imports happen inside the handlers: in a deployment every message starts a fresh process.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.release import Reply, release
from client.site import SiteConfig, is_simulated, resolve_site
from shared_model.errors import ConsiliumError, ContractError, ReleaseRefused
from shared_model.messages import EvaluateReply, Refusal, RoundOrder, SiteCard, TrainReply, read_weights

if TYPE_CHECKING:
    from shared_model.batch import PatientData
    from shared_model.config import RunConfig
    from shared_model.model import FusionModel

log = logging.getLogger("consilium.client")
app = ClientApp()


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    """Who this site is, and whether it holds the contract."""
    return _answer(message, context, _describe)


@app.query("statistics")
def statistics(message: Message, context: Context) -> Message:
    """Moments of the training patients for the federation's preprocessing plan."""
    return _answer(message, context, _statistics)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Validate the incoming model, train it, release the update: one message a round."""
    return _answer(message, context, _train)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Validate the incoming model."""
    return _answer(message, context, _evaluate)


def _answer(
    message: Message, context: Context, handler: Callable[[Message, SiteConfig, "RunConfig"], Reply]
) -> Message:
    """The released reply, or a refusal that says why. Flower would send an exception's text, so none escapes."""
    from shared_model.config import RunConfig

    name = ""
    try:
        site = resolve_site(context)
        name = site.site
        config = RunConfig.from_flat(context.run_config)
        if config.retrospective and not is_simulated(context):
            raise ContractError("profile 'paper' reads what happened after the prediction time: for simulation only")
        content = release(handler(message, site, config), site.release)
    except ConsiliumError as error:
        log.warning("refused: %s", error)
        content = Refusal(site=name, kind=type(error).__name__, reason=_public(error)).content()
    except Exception as error:  # the boundary: an exception's text may hold patient values, so only its class leaves
        log.exception("failed")
        reason = "internal error; see the site's log"
        content = Refusal(site=name, kind=type(error).__name__, reason=reason).content()
    return Message(content=content, reply_to=message)


def _public(error: ConsiliumError) -> str:
    """Only these two are written for the other side; the others name local files."""
    return str(error) if isinstance(error, ContractError | ReleaseRefused) else "see the site's log"


def _describe(message: Message, site: SiteConfig, config: "RunConfig") -> Reply:
    from shared_model.manifest import read_manifest
    from shared_model.predict import best_device

    manifest = read_manifest(site.store)
    training, _ = _open(site, config)
    return SiteCard(
        site=site.site,
        contract=manifest["contract"],
        encoder=manifest["encoder"]["digest"],
        device=best_device().type,
        patients=training.patients,
        deaths=training.deaths,
    )


def _statistics(message: Message, site: SiteConfig, config: "RunConfig") -> Reply:
    from client.statistics import local_statistics

    return local_statistics(_open(site, config)[0])


def _train(message: Message, site: SiteConfig, config: "RunConfig") -> Reply:
    from client.evaluation import validate
    from client.training import train_local
    from shared_model.batch import Scaler
    from shared_model.features import digest_of
    from shared_model.predict import best_device

    order, device = _order(message, config), best_device()
    scaler, model = Scaler(order.plan), _model(message, config)
    training, validation = _open(site, config)
    before = validate(model.to(device), validation, scaler, config, device)
    seed = int(digest_of([config.seed, site.site, order.round])[:8], 16)
    update = train_local(model, training, scaler, config, learning_rate=order.learning_rate, seed=seed, device=device)
    return TrainReply(
        weights=update.weights,
        examples=update.examples,
        train_loss=update.loss,
        seconds=update.seconds,
        validation=before,
    )


def _evaluate(message: Message, site: SiteConfig, config: "RunConfig") -> Reply:
    from client.evaluation import validate
    from shared_model.batch import Scaler
    from shared_model.predict import best_device

    order, device = _order(message, config), best_device()
    model = _model(message, config).to(device)
    return EvaluateReply(validation=validate(model, _open(site, config)[1], Scaler(order.plan), config, device))


def _open(site: SiteConfig, config: "RunConfig") -> tuple["PatientData", "PatientData"]:
    """Training and validation stays of the site; the same split in every message of a run."""
    from shared_model.batch import check_text_width, open_split
    from shared_model.contract import contract_digest
    from shared_model.manifest import check_contract

    check_contract(site.store, contract_digest(config))
    training, validation = open_split(site.store, config.validation_fraction, seed=config.seed)
    check_text_width(training, config.text_dimension)
    return training, validation


def _order(message: Message, config: "RunConfig") -> RoundOrder:
    """The round's order, after checking that its plan speaks of the run's features."""
    order = RoundOrder.read(message.content)
    if (order.plan.static, order.plan.series) != (config.static, config.series):
        raise ContractError("plan: lists other features than the run's study; update this side")
    return order


def _model(message: Message, config: "RunConfig") -> "FusionModel":
    from shared_model.model import load_model

    return load_model(config.model, read_weights(message.content))
