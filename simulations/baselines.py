"""Local-only and pooled training with the same model code, the same budget and the same held-out patients.

Local-only: what a hospital reaches alone, with a plan of its own. Pooled: what all admitted sites would reach if their
rows could lie in one place, with the federation's plan. Each is a federation of one: ``train_local`` once a round, the
learning rate and the kept round chosen as in the federation.
"""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from client.block_memory import blocks_as_made
from client.evaluation import validate
from client.statistics import local_statistics
from client.training import train_local
from shared_model.batch import PatientData, open_independently, open_store
from shared_model.config import RunConfig
from shared_model.features import seed_of
from shared_model.fitting import plan_from
from shared_model.inputs import Scaler
from shared_model.mergeable import Validation
from shared_model.model import build_model
from shared_model.plan import PreprocessingPlan
from shared_model.predict import predict
from shared_model.trial import THE_RUN

POOLED = "pooled"


@dataclass(frozen=True)
class Baseline:
    """Held-out predictions [N] of one baseline, and the validation of the round that was kept."""

    name: str
    scores_N: NDArray[np.float64]
    validation: Validation


def run_baselines(
    sites: dict[str, Path],
    heldout: Path,
    plan: PreprocessingPlan,
    config: RunConfig,
    on_done: Callable[[str], None] = lambda name: None,
) -> dict[str, Baseline]:
    """Train pooled and every local-only model, one process a core; in the order pooled, then sites by name.

    ``sites`` are the stores of the sites that were admitted. The outcome does not depend on the number of processes.
    """
    jobs: dict[str, list[Path]] = {POOLED: list(sites.values())} | {name: [path] for name, path in sites.items()}
    with worker_pool(len(jobs)) as pool:
        pending = {
            pool.submit(train_baseline, name, stores, heldout, plan if name == POOLED else None, config): name
            for name, stores in jobs.items()
        }
        done = {baseline.name: baseline for baseline in _collected(pending, on_done)}
    return {name: done[name] for name in jobs}


@contextmanager
def worker_pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes of one thread each, one a core or a job; on an error or Ctrl-C they are ended, not waited for."""
    count = min(jobs, os.cpu_count() or 1)
    resource_tracker.ensure_running()  # else it would be one of those that are ended, and complain
    before = set(psutil.Process().children(recursive=True))
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(psutil.Process().children(recursive=True)) - before:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        raise


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(1)


def train_baseline(
    name: str, stores: list[Path], heldout: Path, plan: PreprocessingPlan | None, config: RunConfig
) -> Baseline:
    """Train one model on the union of ``stores`` and score the held-out set. ``plan`` None: fit one on these stores."""
    device = torch.device("cpu")
    training, validation = open_pooled(stores, config)
    plan = plan or plan_from([local_statistics(training, config)], config)
    config = config.with_label_rate(plan.prevalence).model_copy(
        update={"strategy": "fedavg"}
    )  # no term of a strategy's
    scaler, model = Scaler(plan), build_model(config.model_for(plan), seed=config.seed)
    best, chosen, kept = Validation(), Validation(), {key: value.clone() for key, value in model.state_dict().items()}
    for number in range(1, config.rounds + 1):
        seed = seed_of(config.seed, name, number)
        rate = config.learning_rate_at(number)
        update = train_local(model, training, scaler, config, learning_rate=rate, seed=seed, device=device)
        found = validate(model, validation, scaler, config, device)
        best = best if best.at_least(found) else found
        if found.nearly(best):
            chosen, kept = found, update.weights
    model.load_state_dict(kept)
    return Baseline(name, predict(model, open_store(heldout), scaler, device), chosen)


def open_pooled(stores: list[Path], config: RunConfig) -> tuple[PatientData, PatientData]:
    """Training and validation stays of several stores as if they were one: those of the federation."""
    splits = [_split(store, config) for store in stores]
    return concatenate([training for training, _ in splits]), concatenate([validation for _, validation in splits])


def _split(store: Path, config: RunConfig) -> tuple[PatientData, PatientData]:
    if config.privacy_unit == "patient":
        return open_independently(store, config.validation_fraction, seed=config.seed)
    held = blocks_as_made(store).open(open_store(store), THE_RUN, config.validation_fraction, config.seed)
    return held.training, held.validation


def concatenate(parts: list[PatientData]) -> PatientData:
    """The stays of several stores in one; only a simulation can do this."""
    offsets = np.cumsum([0, *(len(part.embedding_ME) for part in parts)])[:-1].tolist()
    shared = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in (
            "static_NF",
            "series_NTC",
            "label_N",
            "patient_N",
            "unit_N",
            "embedding_ME",
            "chunk_count_N",
        )
    }
    starts = torch.cat([part.chunk_start_N + offset for part, offset in zip(parts, offsets, strict=True)])
    return PatientData(**shared, chunk_start_N=starts, units=parts[0].units)


def _collected(pending: dict[Future[Baseline], str], on_done: Callable[[str], None]) -> Iterator[Baseline]:
    for future in as_completed(pending):
        on_done(pending[future])
        yield future.result()
