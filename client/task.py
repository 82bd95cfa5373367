"""What a site does with an order: its patients of the trial, the plan's inputs, training, validation.

``client/app.py`` reads the message and releases the reply; everything between is here. Heavy imports happen inside the
functions: in a deployment every message starts a fresh process.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from client.account import Account
from client.audit import Occasion
from client.blocks import Blocks, Patients
from client.site import SiteConfig
from client.site_state import load_before, save_round, save_state, state_folder
from client.small_cells import check_enough
from shared_model.errors import ContractError, StoreError
from shared_model.messages import (
    CONTROL,
    PERSONAL,
    Content,
    EvaluateReply,
    RoundOrder,
    Statistics,
    TrainReply,
    Weights,
    read_trial,
    read_weights,
)
from shared_model.trial import THE_RUN, Trial

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from client.training import Update
    from shared_model.batch import PatientData
    from shared_model.config import RunConfig
    from shared_model.inputs import Scaler
    from shared_model.mergeable import Validation
    from shared_model.model import FusionModel
    from shared_model.plan import PreprocessingPlan


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A message's content, with the site and the run it is for; ``occasion`` is what the audit log says of it.
    ``account`` is there in a run with differential privacy for patients, and in no other; ``blocks`` is there where
    something is told of patients exactly."""

    content: Content
    site: SiteConfig
    config: "RunConfig"
    run_id: int
    occasion: Occasion
    account: Account | None = None
    blocks: Blocks | None = None

    @property
    def run(self) -> str:
        """The run's name, which it keeps when it is resumed; Flower's number where it has none."""
        return self.config.name or str(self.run_id)


def statistics(asked: Asked) -> Statistics:
    """Distributions of the training patients for the federation's preprocessing plan."""
    from client.statistics import block_statistics

    patients = open_trial(asked, read_trial(asked.content))
    if asked.account is not None:
        from client.noising import private_statistics

        return private_statistics(patients.training, asked.config, asked.account)
    return block_statistics(patients, asked.config)


def train(asked: Asked) -> TrainReply:
    """Validate the incoming model, then train it. Under a privacy account, train it and tell nothing else."""
    if asked.account is not None:
        return _train_private(asked, asked.account)
    task = _Task.of(asked)
    check_enough(task.training.patients, asked.site.release)
    before, control = task.validate(), _Control.of(asked, task)
    update = task.train(task.order.round, correction=control.correction if control else None)
    return TrainReply(
        round=task.order.round,
        weights=update.weights,
        examples=update.examples,
        train_loss=update.loss,
        seconds=update.seconds,
        validation=before,
        control=control.change(update.gradient) if control and update.gradient else None,
    )


def _train_private(asked: Asked, account: Account) -> TrainReply:
    """A round's private steps; of everything else that is known afterwards, nothing is paid for."""
    from client.privatize import train_private
    from shared_model.mergeable import Validation

    task = _Task.of(asked)
    update = train_private(
        task.model,
        task.training,
        task.scaler,
        task.config,
        plan=account.plan,
        learning_rate=task.order.learning_rate,
        device=task.device,
    )
    return TrainReply(
        round=task.order.round,
        weights=update.weights,
        examples=account.patients,
        train_loss=None,
        seconds=None,
        validation=Validation(),
        mechanism=account.plan.round,
    )


def evaluate(asked: Asked) -> EvaluateReply:
    """Validate the incoming model and, if the order says so, one that is fine-tuned to the site and stays there."""
    task = _Task.of(asked)
    if asked.account is not None:
        return _evaluate_privately(task, asked.account)
    found = task.validate()
    if not task.order.personal:
        return EvaluateReply(validation=found)
    update = task.train(PERSONAL, local_epochs=task.config.finetune_epochs, local_steps=0)
    save_state(task.state, PERSONAL, update.weights)
    return EvaluateReply(validation=found, personal=task.validate())


def _evaluate_privately(task: "_Task", account: Account) -> EvaluateReply:
    """The noised validation of one stay a patient. Raises ContractError where more than that is asked for."""
    from client.noising import one_stay_a_patient, private_validation

    if task.order.personal:
        raise ContractError("personal: a private run has no part of its budget for a personalised model")
    return private_validation(replace(task, held=one_stay_a_patient(task.held)).validate(), account)


def open_trial(asked: Asked, trial: Trial) -> Patients:
    """Training and validation stays of the site; the same in every message of a trial. Raises ContractError for any
    trial but the run itself in a private run: its budget is for one model. Raises StoreError where the store was
    prepared anew after the message came."""
    if asked.account is not None and trial != THE_RUN:
        raise ContractError("trial: a private run is one trial, the run itself")
    from shared_model.batch import check_text_width, open_independently, open_store
    from shared_model.contract import contract_digest
    from shared_model.manifest import check_contract, read_manifest

    store, config = asked.site.store, asked.config
    check_contract(store, contract_digest(config))
    if asked.blocks is None:
        training, validation = open_independently(store, config.validation_fraction, seed=config.seed)
        patients = Patients(training=training, validation=validation)
    else:
        data = open_store(store)
        if read_manifest(store)["tensors_sha256"] != asked.blocks.store:
            raise StoreError(f"{store}: was prepared anew while a message was answered; ask again")
        patients = asked.blocks.open(data, trial, config.validation_fraction, config.seed)
    check_text_width(patients.training, config.text_dimension)
    return patients


def read_order(content: Content, config: "RunConfig") -> RoundOrder:
    """The round's order. Raises ContractError unless its plan speaks of the run's features."""
    order = RoundOrder.read(content)
    features = (feature.name for feature in (*order.plan.static_features, *order.plan.series_features))
    if tuple(features) != (*config.static, *config.series):
        raise ContractError("plan: lists other features than the run's study; update this side")
    return order


@dataclass(frozen=True, kw_only=True)
class _Task:
    """An order with what it needs of the site; ``config`` has the trial's settings, ``model`` the incoming weights."""

    order: RoundOrder
    config: "RunConfig"
    training: "PatientData"
    held: "PatientData"
    bundle_N: "Tensor | None"
    scaler: "Scaler"
    model: "FusionModel"
    device: "torch.device"
    site: str
    state: Path

    @classmethod
    def of(cls, asked: Asked) -> "_Task":
        from shared_model.features import digest_of
        from shared_model.inputs import Scaler
        from shared_model.model import load_model
        from shared_model.predict import best_device

        order, device = read_order(asked.content, asked.config), best_device()
        patients = open_trial(asked, order.trial)
        config = order.trial.config(asked.config).with_label_rate(order.plan.prevalence)
        return cls(
            order=order,
            config=config,
            training=patients.training,
            held=patients.validation,
            bundle_N=patients.bundle_N,
            scaler=Scaler(_own_plan(order.plan, patients.training, config)),
            model=load_model(config.model_for(order.plan), read_weights(asked.content)).to(device),
            device=device,
            site=asked.site.site,
            state=state_folder(asked.site.store, asked.run) / digest_of(order.trial.to_json())[:16],
        )

    def validate(self) -> "Validation":
        """The model as it is now, on the validation patients."""
        from client.evaluation import validate

        return validate(self.model, self.held, self.scaler, self.config, self.device)

    def train(self, what: int | str, *, correction: Weights | None = None, **budget: int) -> "Update":
        """Train the model in place; ``what`` tells the random numbers of a round, or of another purpose, apart."""
        from client.training import train_local
        from shared_model.features import seed_of

        return train_local(
            self.model,
            self.training,
            self.scaler,
            self.config.model_copy(update=budget),
            learning_rate=self.order.learning_rate,
            seed=seed_of(self.config.seed, self.site, what),
            device=self.device,
            correction=correction,
            bundle_N=self.bundle_N,
        )


@dataclass(frozen=True, kw_only=True)
class _Control:
    """SCAFFOLD's two control variates at a site: the server's and its own (server/strategies/scaffold.py)."""

    server: Weights
    own: Weights
    state: Path
    round: int

    @classmethod
    def of(cls, asked: Asked, task: _Task) -> "_Control | None":
        """None under any other strategy. In the first round, and where this site has none yet, its own is zero."""
        if task.config.strategy != "scaffold":
            return None
        server = read_weights(asked.content, CONTROL)
        held = load_before(task.state, CONTROL, task.order.round)
        own = held or {name: control * 0 for name, control in server.items()}
        return cls(server=server, own=own, state=task.state, round=task.order.round)

    @property
    def correction(self) -> Weights:
        """c - c_i, added to every gradient."""
        return {name: held - self.own[name] for name, held in self.server.items()}

    def change(self, gradient: Weights) -> Weights:
        """Keep the new c_i, the round's mean gradient, and return what it changed by."""
        save_round(self.state, CONTROL, self.round, gradient)
        return {name: new - self.own[name] for name, new in gradient.items()}


def _own_plan(plan: "PreprocessingPlan", training: "PatientData", config: "RunConfig") -> "PreprocessingPlan":
    """The federation's plan, or under local normalisation one with this site's own scales, which never leave it."""
    if config.personalisation != "local_normalisation":
        return plan
    from client.statistics import local_statistics
    from shared_model.fitting import plan_from
    from shared_model.plan import localised

    return localised(plan, plan_from([local_statistics(training, config)], config))
