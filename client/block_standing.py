"""Where a prepared store stands with what the site told before: which blocks it still has whole, who is new, and which
new blocks can be made. What is remembered of a patient are two keyed digests (client/block_memory.py keeps them)."""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from client.blocks import WAITING, Bools, Integers, bundled, cut

if TYPE_CHECKING:
    from shared_model.batch import PatientData

ID, CONTENT = 16, 8  # bytes: of who a patient is, and of all that is known of the patient


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block that was made: ``members`` [P] are digests of patient and content, ``new_P`` who was told of for the
    first time in it, ``cell`` the smallest cell then, ``complete``: outcomes may be told."""

    number: int
    cell: int
    complete: bool
    members: tuple[bytes, ...]
    new_P: Bools

    @property
    def ids(self) -> frozenset[bytes]:
        """Who is in it, whatever is known of them."""
        return frozenset(member[:ID] for member in self.members)

    def to_json(self) -> dict[str, Any]:
        """``from_json`` reads it; 32 characters a patient, and one bit."""
        held = {"number": self.number, "cell": self.cell, "complete": self.complete}
        new = "" if self.new_P.all() else b64encode(np.packbits(self.new_P).tobytes()).decode()
        return {**held, "members": b64encode(b"".join(self.members)).decode(), "new": new}

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> "Block":
        """Of ``to_json``."""
        raw, size = b64decode(held["members"]), ID + CONTENT
        members = tuple(raw[n : n + size] for n in range(0, len(raw), size))
        new_P = np.ones(len(members), dtype=np.bool_)
        if held["new"]:
            bits = np.unpackbits(np.frombuffer(b64decode(held["new"]), dtype=np.uint8), count=len(members))
            new_P = bits.astype(np.bool_)
        named = {name: held[name] for name in ("number", "cell", "complete")}
        return cls(**named, members=members, new_P=new_P)


@dataclass(frozen=True, kw_only=True)
class Present:
    """The patients [P] of a prepared store by their digests, who of them died, and each stay's place among them."""

    members: tuple[bytes, ...]
    died_P: Bools
    patient_N: Integers

    @classmethod
    def of(cls, data: "PatientData", key: bytes) -> "Present":
        """Whatever an answer may be made of is part of a patient's content; of note embeddings it is the signs, since
        the last digits of the same text's depend on what else was embedded with it."""
        patients, patient_N = np.unique(data.patient_N.numpy(), return_inverse=True)
        content = [blake2b(key=key, digest_size=CONTENT) for _ in patients]
        static_NF, series_NTC = data.static_NF.numpy(), data.series_NTC.numpy()
        label_N, sign_MS = data.label_N.numpy(), np.packbits(data.embedding_ME.numpy() > 0, axis=1)
        start_N, count_N = data.chunk_start_N.tolist(), data.chunk_count_N.tolist()
        for n, p in enumerate(patient_N.tolist()):
            notes = sign_MS[start_N[n] : start_N[n] + count_N[n]]
            for part in (static_NF[n], series_NTC[n], label_N[n], notes):
                content[p].update(part.tobytes())
        who = [blake2b(str(p).encode(), key=key, digest_size=ID).digest() for p in patients.tolist()]
        died_P = np.zeros(len(patients), dtype=np.bool_)
        died_P[patient_N[label_N]] = True
        members = tuple(a + b.digest() for a, b in zip(who, content, strict=True))
        return cls(members=members, died_P=died_P, patient_N=patient_N)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The block of each patient [P] that is present, or ``WAITING``, and which blocks those are. ``changed``: a patient
    of these changed or is gone, or their cell is smaller than the site's now is."""

    block_P: Integers
    known: frozenset[bytes]
    whole: tuple[Block, ...]
    changed: tuple[int, ...]

    @classmethod
    def of(cls, present: Present, made: Sequence[Block], cell: int) -> "Standing":
        """The youngest blocks first: a patient is in one block at most, and one that was cut anew has left the old."""
        place = {member: p for p, member in enumerate(present.members)}
        block_P = np.full(len(place), WAITING, dtype=np.int64)
        whole: list[Block] = []
        changed: list[int] = []
        taken: set[bytes] = set()
        for block in reversed(made):
            found = [place.get(member, WAITING) for member in block.members]
            if not taken.isdisjoint(block.ids):
                continue
            taken |= block.ids
            if block.cell < cell or WAITING in found:
                changed.append(block.number)
            else:
                block_P[found] = block.number
                whole.append(block)
        known = frozenset(one for block in made for one in block.ids)
        return cls(block_P=block_P, known=known, whole=tuple(reversed(whole)), changed=tuple(reversed(changed)))

    def further(self, present: Present, cell: int) -> tuple[Block, ...]:
        """The blocks that can be made now, of those who wait and of blocks whose outcomes could not be told."""
        partial = [block.number for block in self.whole if not block.complete]
        waiting = np.flatnonzero((self.block_P == WAITING) | np.isin(self.block_P, partial))
        members = [present.members[p] for p in waiting.tolist()]
        new_P = np.array([member[:ID] not in self.known for member in members], dtype=np.bool_)
        died_P, last = present.died_P[waiting], max((*(block.number for block in self.whole), *self.changed), default=0)
        groups = cut(died_P, new_P, members, cell, first=not self.known)
        return tuple(
            Block(
                number=last + 1 + n,
                cell=cell,
                complete=min(int((died_P & new_P)[group].sum()), int((~died_P & new_P)[group].sum())) >= cell,
                members=tuple(members[p] for p in group.tolist()),
                new_P=new_P[group],
            )
            for n, group in enumerate(groups)
        )


def arrays_of(present: Present, whole: Sequence[Block]) -> dict[str, Any]:
    """``block_N``, ``bundle_N`` and ``new_N`` of the stays of a store, by its whole blocks."""
    place = {member: p for p, member in enumerate(present.members)}
    block_P = np.full(len(place), WAITING, dtype=np.int64)
    bundle_P, new_P = block_P.copy(), np.zeros(len(place), dtype=np.bool_)
    bundles = 0
    for block in whole:
        found = [place[member] for member in block.members]
        of_block = bundled(block.new_P, block.members, block.cell)
        block_P[found], new_P[found] = block.number, block.new_P
        bundle_P[found] = of_block + bundles
        bundles += int(of_block.max()) + 1
    names = ("block_N", "bundle_N", "new_N")
    return {name: of_P[present.patient_N] for name, of_P in zip(names, (block_P, bundle_P, new_P), strict=True)}
