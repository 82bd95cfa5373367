"""A curious server asks one site in a hundred runs of its own choosing, subtracts, and looks for too small groups.

The site is real: its store, its release and its logs are those of a hospital, and every answer passes the exit. The
runs differ by a hair: validation fractions, seeds, folds, a left-out site; and the store is prepared anew with one
patient more, one corrected, one gone, another label. What follows from the answers is counted by an auditor
(simulations/differencing_audit.py). The same server against the site as it was before it told of blocks, where the run
chose the patients, shows that there is something to find.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from client import task
from client.block_memory import begin_simulated, memory_of, open_blocks
from client.blocks import Blocks
from client.policy import KINDS, Kind, ReleasePolicy
from client.release import check_request, occasion_of, release
from client.site import SiteConfig
from client.small_cells import Reply
from client.task import Asked
from shared_model.batch import PatientData, open_store, split_patients
from shared_model.config import RunConfig
from shared_model.errors import ConsiliumError
from shared_model.manifest import read_manifest
from shared_model.mergeable import Validation
from shared_model.messages import (
    CONTROL,
    Content,
    EvaluateReply,
    RoundOrder,
    Statistics,
    TrainReply,
    Weights,
    read_weights,
    trial_content,
    weights_content,
)
from shared_model.model import build_model
from shared_model.trial import THE_RUN, Trial
from simulations.attack_builds import RIGHT
from simulations.attack_results import CuriousRow
from simulations.differencing_audit import Found, Told
from simulations.partition import write_part

CELL, PATIENTS = 10, 400
_TINY = {"static_hidden": 8, "series_hidden": 2, "text_hidden": 2, "fusion_width": 4, "dropout": 0.0}
Opener = Callable[[Path, Trial, RunConfig], Blocks]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A run: which patients it asks of, and of which version of the store."""

    version: int
    trial: Trial = THE_RUN
    fraction: float = 0.15
    seed: int = 1


def questions(runs: int, seed: int) -> list[Question]:
    """So many runs, in the order in which the store changes. Half of them ask of the store as it was first."""
    rng, first = np.random.default_rng(seed), []
    first += [Question(version=0, fraction=0.15 + n / 400) for n in range(runs // 5)]
    first += [Question(version=0, seed=2 + n) for n in range(runs // 10)]
    folds = [Trial(fold=fold, folds=folds) for folds in (2, 3, 5, 7, 11) for fold in range(folds)]
    first += [Question(version=0, trial=folds[n]) for n in rng.permutation(len(folds))[: runs // 5]]
    first.append(Question(version=0, trial=Trial(folds=1)))
    later = [Question(version=1 + n % (len(VERSIONS) - 1), fraction=0.15) for n in range(runs - len(first))]
    return first + sorted(later, key=lambda question: question.version)


def _more(data: PatientData, many: int) -> PatientData:
    """The first patients; another one each time."""
    return data.subset(torch.arange(len(data) - 8 + many))


def _corrected(data: PatientData) -> PatientData:
    """A late result of one patient."""
    static_NF = data.static_NF.clone()
    static_NF[3] = static_NF[3] * 1.01
    return _more(replace(data, static_NF=static_NF), 0)


def _relabelled(data: PatientData) -> PatientData:
    """As another study's label would: two deaths are none."""
    label_N = data.label_N.clone()
    label_N[label_N.nonzero()[:2, 0]] = False
    return _more(replace(data, label_N=label_N), 0)


VERSIONS: list[Callable[[PatientData], PatientData]] = [
    *(lambda data, n=n: _more(data, n) for n in range(7)),
    _corrected,
    lambda data: _more(data, 0).subset(torch.arange(1, len(data) - 8)),  # one has withdrawn
    _relabelled,
]


def of_the_site(store: Path, trial: Trial, config: RunConfig) -> Blocks:
    """As it is."""
    return open_blocks(store, CELL)


class _OfTheRun(Blocks):
    """The run's own choice, as if it were two blocks."""

    def choose(self, trial: Trial, fraction: float, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (1,), (2,)


def of_the_run(store: Path, trial: Trial, config: RunConfig) -> Blocks:
    """Broken on purpose, as releases before blocks were: the run's seed and fraction say who trains, and a batch is
    as small as it likes. Small cells are still counted within each answer."""
    begin_simulated(store, b"")
    data, share = open_store(store), 1 / trial.folds if trial.folds else config.validation_fraction
    key = f"fold:{trial.fold}:{config.seed}" if trial.folds else f"validation:{config.seed}"
    _, inside = split_patients(data, share, key=key)
    block_N = np.ones(len(data), dtype=np.int64)
    block_N[inside.numpy()] = 2
    return _OfTheRun(
        block_N=block_N,
        bundle_N=np.arange(len(data)),
        new_N=np.ones(len(data), dtype=np.bool_),
        complete=frozenset((1, 2)),
        changed=(),
        store=read_manifest(store)["tensors_sha256"],
        line=memory_of(store).newest,
        key=b"",
    )


SITES: dict[str, tuple[str, Opener]] = {
    RIGHT: ("as it is", of_the_site),
    "run-chooses": ("broken: the run chooses the patients", of_the_run),
}


def curious(
    data: PatientData,
    write: Callable[[Path, PatientData], None],
    folder: Path,
    config: RunConfig,
    opener: Opener,
    *,
    runs: int = 100,
) -> Found:
    """Ask a site of ``data`` in ``runs`` runs, and count what follows. ``write`` prepares a store of some patients.

    Batches of one stay, one step a round, and SCAFFOLD, whose control variate tells the gradient itself.
    """
    config = config.model_copy(update=_TINY | {"strategy": "scaffold", "local_steps": 1, "batch_size": 1})
    policy = ReleasePolicy(allow=KINDS, smallest_cell=CELL)
    site = SiteConfig(site="curious", store=folder / "store", release=policy, encoder="none")
    told, version = Told(config=config, cell=CELL), -1
    for number, question in enumerate(questions(runs, config.seed)):
        if question.version != version:
            version = question.version
            write(site.store, VERSIONS[version](data))
        run = _of(config, question, number)
        _Asking(site=site, config=run, trial=question.trial, opener=opener).everything(told)
    return told.found(runs)


@dataclass(frozen=True, kw_only=True)
class CuriousJob:
    """Ask one build of a site of the first ``PATIENTS`` patients of a store; its own store and logs lie in
    ``folder``."""

    store: Path
    config: RunConfig
    build: str
    folder: Path
    runs: int


def run_curious(job: CuriousJob) -> CuriousRow:
    """A job of ``consilium-simulate attack``, in a process of its own."""
    manifest, data = read_manifest(job.store), open_store(job.store)
    chosen = np.unique(data.patient_N.numpy())[:PATIENTS]
    part = data.subset(torch.from_numpy(np.flatnonzero(np.isin(data.patient_N.numpy(), chosen))))

    def write(folder: Path, of_site: PatientData) -> None:
        write_part(folder, of_site, pd.DataFrame({"subject_id": of_site.patient_N.numpy()}), manifest)

    job.folder.mkdir(parents=True)
    title, opener = SITES[job.build]
    found = curious(part, write, job.folder, job.config, opener, runs=job.runs)
    return CuriousRow(build=job.build, title=title, patients=part.patients, cell=CELL, **asdict(found))


def _of(config: RunConfig, question: Question, number: int) -> RunConfig:
    changes = {"validation_fraction": question.fraction, "seed": question.seed, "name": f"curious-{number}"}
    return config.model_copy(update=changes)


@dataclass(frozen=True, kw_only=True)
class _Asking:
    """One run's questions to the site, each through its exit."""

    site: SiteConfig
    config: RunConfig
    trial: Trial
    opener: Opener

    def everything(self, told: Told) -> None:
        """Statistics, a validation and one step of the same model in every run; what is refused is counted."""
        data = open_store(self.site.store)
        for ask in (self._statistics, self._validation, self._step):
            try:
                ask(data, told)
            except ConsiliumError:
                told.refused += 1

    def _statistics(self, data: PatientData, told: Told) -> None:
        content, blocks = self._answer("statistics", trial_content(self.trial), task.statistics)
        told.statistics.append((told.places(self._inside(data, blocks, 0)), Statistics.read(content)))

    def _validation(self, data: PatientData, told: Told) -> None:
        content, blocks = self._answer("evaluate", self._order(told), task.evaluate)
        told.validations.append((told.places(self._inside(data, blocks, 1)), EvaluateReply.read(content).validation))

    def _step(self, data: PatientData, told: Told) -> None:
        order = self._order(told)
        order[CONTROL] = _as_control(read_weights(order))
        content, _ = self._answer("train", order, task.train)
        told.look_at_gradient(TrainReply.read(content).control or {}, data)

    def _answer(self, kind: Kind, sent: Content, work: Callable[[Asked], Reply]) -> tuple[Content, Blocks]:
        occasion = occasion_of(kind, sent, self.config.to_flat(), 1)
        check_request(self.site, occasion)
        blocks = self.opener(self.site.store, self.trial, self.config)
        asked = Asked(
            content=sent, site=self.site, config=self.config, run_id=1, occasion=occasion, blocks=blocks
        )  # fmt: skip
        return release(work(asked), asked), blocks

    def _inside(self, data: PatientData, blocks: Blocks, part: int) -> PatientData:
        patients = blocks.open(data, self.trial, self.config.validation_fraction, self.config.seed)
        return (patients.training, patients.validation)[part]

    def _order(self, told: Told) -> Content:
        """A model and a plan that are the same in every run."""
        plan = told.plan_of(self.config)
        weights = dict(build_model(self.config.model_for(plan), seed=1).state_dict())
        return weights_content(weights, RoundOrder(round=1, learning_rate=1e-3, plan=plan, trial=self.trial))


def _as_control(weights: Weights) -> Any:
    """SCAFFOLD's control variate of the server at the start, all zero, as a record."""
    zero = {name: tensor * 0 for name, tensor in weights.items()}
    reply = TrainReply(
        round=1, weights={}, examples=0, train_loss=None, seconds=None, validation=Validation(), control=zero
    )  # fmt: skip
    return reply.content()[CONTROL]
