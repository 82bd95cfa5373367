"""Blocks of patients: a site tells of whole blocks only, so no two of its answers differ by a few patients.

The site cuts its patients into blocks once, by a key of its own, and remembers them (client/block_memory.py). A run may
choose a validation fraction, a seed, folds or left-out sites; all it chooses that way is which *blocks* train and which
validate. What an answer says of a block is what could be said of that block alone (client/small_cells.py), so answers
that are added and subtracted, however many, give sums over blocks and nothing finer.

A block holds at least ``smallest_cell`` patients who are told of for the first time, its *new* patients, and where the
site has enough, as many deaths and survivals among them: then it is *complete*, and its outcomes may be told. Patients
who are in no block wait until there are enough of them. A block of which a patient changed or is gone is told of no
longer. Every sum over blocks therefore tells of at least a cell: of those in it, the youngest block brings new patients
that no other has (docs/decisions/0018 has the proof, and what remains).

A step of training reads whole *bundles*: a block's patients in groups of a cell or a little more. So the batches that a
run asks for, one step of one stay for example, do not single out a patient either.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shared_model.trial import Trial

if TYPE_CHECKING:
    from torch import Tensor

    from shared_model.batch import PatientData

MOST = 7  # blocks that are made at once: a validation fraction of 0.15 is one of them, and each is large enough to tell
WAITING = -1
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Of the stays [N] of one prepared store: block (or ``WAITING``) and bundle of each, and whether its patient is new
    in that block. ``changed``: blocks that are told of no longer. ``store`` is the SHA-256 of the store's tensors,
    ``line`` that of the site's memory by which this was made: its number and digest."""

    block_N: Integers
    bundle_N: Integers
    new_N: Bools
    complete: frozenset[int]
    changed: tuple[int, ...]
    store: str
    line: tuple[int, str]
    key: bytes = field(repr=False)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The blocks that are told of, in rising order."""
        return tuple(int(number) for number in np.unique(self.block_N) if number != WAITING)

    def choose(self, trial: Trial, fraction: float, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Training and validation blocks of a trial: by the site's key, so the same in every message of it.

        Of n blocks, ``fraction`` of n validate, rounded, and never all. In one fold of one, that of a left-out site,
        all do. A site with one block trains with it in every other fold, and validates in none.
        """
        ranked = self._ranked(f"{trial.folds or 'validation'}:{seed}")
        if trial.folds == 1:
            held = ranked
        elif trial.folds and len(ranked) > 1:
            shift = self._keyed(f"shift:{trial.folds}:{seed}") % trial.folds
            held = [n for place, n in enumerate(ranked) if (place + shift) % trial.folds == trial.fold]
        elif trial.folds:
            held = []
        else:
            held = ranked[: min(round(fraction * len(ranked)), max(len(ranked) - 1, 0))]
        validation = tuple(sorted(n for n in held if n in self.complete))
        return tuple(sorted(set(ranked) - set(held))), validation

    def open(self, data: "PatientData", trial: Trial, fraction: float, seed: int) -> "Patients":
        """The stays of a trial."""
        import torch

        training, validation = self.choose(trial, fraction, seed)
        inside, outside = (np.flatnonzero(np.isin(self.block_N, chosen)) for chosen in (training, validation))
        return Patients(
            training=data.subset(torch.from_numpy(inside)),
            validation=data.subset(torch.from_numpy(outside)),
            blocks=(training, validation),
            block_N=self.block_N[inside],
            new_N=self.new_N[inside],
            bundle_N=torch.from_numpy(self.bundle_N[inside]),
            complete=set(training) <= self.complete,
        )

    def _ranked(self, purpose: str) -> list[int]:
        return sorted(self.numbers, key=lambda number: self._keyed(f"{purpose}:{number}"))

    def _keyed(self, text: str) -> int:
        return int.from_bytes(blake2b(text.encode(), key=self.key, digest_size=8).digest())


@dataclass(frozen=True, kw_only=True)
class Patients:
    """The stays that a message speaks of. ``blocks``: training and validation ones. ``block_N``, ``new_N`` and
    ``bundle_N`` are of the training stays. None of these in a private run: there every patient's place is the patient's
    own, and noise protects."""

    training: "PatientData"
    validation: "PatientData"
    blocks: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    block_N: Integers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    new_N: Bools = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    bundle_N: "Tensor | None" = None
    complete: bool = True

    @property
    def deaths(self) -> int | None:
        """Training patients who died; None where a block has too few of them, or too few survivals."""
        return self.training.deaths if self.complete else None


def cut(died_P: Bools, new_P: Bools, rank_P: Sequence[bytes], cell: int, *, first: bool) -> list[Integers]:
    """Patients [P] in as many blocks as there may be: each with a cell of new deaths and of new survivals, or, where a
    site tells for the ``first`` time and has not enough of both, one block of all. No block where they must wait.

    Deaths and survivals, new and known, are dealt to the blocks in turn, in the order of ``rank_P``: blocks are alike.
    """
    deaths, survivals = int((died_P & new_P).sum()), int((~died_P & new_P).sum())
    many = min(MOST, deaths // cell, survivals // cell)
    if not many and first and deaths + survivals >= cell:
        many = 1
    if not many:
        return []
    order = np.array(sorted(range(len(rank_P)), key=rank_P.__getitem__), dtype=np.int64)
    groups = [order[(died_P == died)[order] & (new_P == new)[order]] for new in (True, False) for died in (True, False)]
    dealt = np.concatenate(groups)
    return [np.sort(dealt[number::many]) for number in range(many)]


def bundled(new_P: Bools, rank_P: Sequence[bytes], cell: int) -> Integers:
    """The bundle of each patient of one block, from 0: each has a cell of new patients or more."""
    order = np.array(sorted(range(len(rank_P)), key=rank_P.__getitem__), dtype=np.int64)
    many, bundle_P = max(int(new_P.sum()) // cell, 1), np.zeros(len(rank_P), dtype=np.int64)
    for of in (order[new_P[order]], order[~new_P[order]]):
        bundle_P[of] = np.arange(len(of)) % many
    return bundle_P
