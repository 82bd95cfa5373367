"""A site's memory of its blocks of patients (client/blocks.py): who was told of, and in which company.

Beside the store, chained, locked and on the disk before anything leaves, like the audit log (client/chained_log.py):

``STORE.blocks.jsonl``  a line whenever a store was prepared anew: the new blocks, and which of the old ones it has
``STORE.blocks.key``    the key of every digest and every choice; only its owner can read it
``STORE.blocks.cache``  block and bundle of each stay of the prepared store: derived, so that an answer need not

A patient takes 32 bytes of the lines and a stay 7 of the cache, for all kinds of answer together.

Each answer in the audit log names the memory's line behind it. A memory that lacks that line was lost, or is an old
copy: nothing leaves until a person decides, with a reason (``consilium-site blocks restart``).
"""

import logging
import os
from collections.abc import Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from client.audit import AuditLog
from client.audit_chain import BLOCKS, Entry, entries, read_head, verify
from client.block_standing import Block, Present, Standing, arrays_of
from client.blocks import Blocks
from client.chained_log import ChainedLog
from client.folders import beside
from shared_model.atomic import write_private
from shared_model.errors import AuditError, BlocksError, ReleaseRefused
from shared_model.manifest import read_manifest

log = logging.getLogger("consilium.client")
KEY = 32  # bytes
_DECIDE = 'a person decides: bring it back, or `consilium-site blocks restart SITE.yaml --reason "..."`'
Line = tuple[int, str]  # a line's number and digest
_TYPES = {"block_N": np.int16, "bundle_N": np.int32, "new_N": np.bool_, "complete": np.int16, "changed": np.int16}


class BlockMemory(ChainedLog):
    """The memory beside a store, held by one process at a time: ``with BlockMemory.held(path) as memory``."""

    book = BLOCKS
    refusal = BlocksError

    @property
    def key_file(self) -> Path:
        return self.path.with_suffix(".key")

    @property
    def cache_file(self) -> Path:
        return self.path.with_suffix(".cache")

    @property
    def newest(self) -> Line:
        """The last line, as the head has it."""
        head = read_head(self.head_file, BLOCKS)
        return head.count, head.digest

    @property
    def key(self) -> bytes:
        """Empty where there is none."""
        return self.key_file.read_bytes() if self.key_file.exists() else b""

    def begun(self) -> bool:
        """Whether there is a first line. A last one that a crash kept from the head is known to it from now on; for who
        holds the memory."""
        head = self._healed()
        if head != read_head(self.head_file, BLOCKS):
            self._write_head(head)
        return head.count > 0

    def begin(self, reason: str, key: bytes | None = None) -> None:
        """The first line; it knows the key by its digest. ``key``: a simulated site's; others draw theirs."""
        key = os.urandom(KEY) if key is None else key
        write_private(self.key_file, key)
        self.append({"entry": "begun", "key": _digest(key), "reason": reason})

    def read(self) -> list[Entry]:
        """All lines. Raises BlocksError where they, or the key, are not what they were."""
        self._healed()
        problem = verify(self.path, self.head_file, book=BLOCKS).problem
        if problem:
            raise BlocksError(f"{self.path}: {problem}; {BLOCKS.hint}")
        self.check_key()
        return list(entries(self.path, BLOCKS))

    def check_key(self) -> None:
        """Raises BlocksError where the key is not the one that the memory was begun with."""
        begun = next(entries(self.path, BLOCKS), None)
        if begun is not None and begun["key"] != _digest(self.key):
            raise BlocksError(f"{self.key_file}: is not the key that {self.path.name} was begun with; {_DECIDE}")


def memory_of(store: Path) -> BlockMemory:
    """To read from; nothing is locked."""
    return BlockMemory(beside(store, "blocks.jsonl"))


def open_blocks(store: Path, cell: int) -> Blocks:
    """The blocks of a prepared store; new ones are made, and remembered, where there are patients enough for them.

    Raises BlocksError where the memory is lost, damaged or older than the audit log, and ReleaseRefused where none of
    the blocks that were told of is whole.
    """
    memory, digest = memory_of(store), read_manifest(store)["tensors_sha256"]
    check_known(memory, store)
    found = _cached(memory, digest, cell)
    if found is None:
        with BlockMemory.held(memory.path) as held:
            found = _settled(held, store, digest, cell)
    if found.changed and not found.numbers:
        raise ReleaseRefused(
            "in every block of patients that this site has told of, someone has changed or is gone since: what is left"
            " would tell of them by subtraction; a person at the site decides (`consilium-site blocks`)"
        )
    return found


def standing(memory: BlockMemory, held: Sequence[Entry], store: Path, cell: int) -> tuple[Present, Standing]:
    """How a store compares with the memory's lines; changes nothing."""
    from shared_model.batch import open_store

    present = Present.of(open_store(store), memory.key)
    return present, Standing.of(present, blocks_in(held), cell)


def blocks_in(held: Sequence[Entry]) -> list[Block]:
    """All blocks that were ever made, oldest first."""
    return [Block.from_json(block) for entry in held if entry["entry"] == "prepared" for block in entry["made"]]


def begin_simulated(store: Path, key: bytes) -> None:
    """Give a simulated site its key, unless it has one, so that a simulation can be repeated to the bit."""
    with BlockMemory.held(beside(store, "blocks.jsonl")) as memory:
        if not memory.begun():
            memory.begin("", key)


def blocks_as_made(store: Path) -> Blocks:
    """The blocks of a simulated site's store, by the smallest cell that they were made with."""
    return open_blocks(store, memory_of(store).read()[-1]["cell"])


def restart(store: Path, site: str, reason: str) -> Path | None:
    """Forget what was told, by a person's decision; returns the folder that the old memory was moved to, if any.

    The audit log is told last. Interrupted in between, nothing leaves, and the decision can be said again.
    """
    with (
        AuditLog.held(beside(store, "audit.jsonl")) as audit,
        BlockMemory.held(beside(store, "blocks.jsonl")) as memory,
    ):
        aside = _moved_aside(memory)
        memory.begin(reason)
        audit.append({**_DECISION, "site": site, "rule": reason, "told": list(memory.newest)})
    return aside


def confirmed(store: Path, line: Line) -> Line:
    """The memory's newest line, for the audit log. Raises BlocksError unless the memory still has ``line``, which an
    answer was made by."""
    memory = memory_of(store)
    newest = memory.newest
    if newest != line and not _has(memory, line):
        raise BlocksError(f"{memory.path}: was begun anew, or lost, while an answer was made")
    return newest


def trouble_with(store: Path) -> str:
    """Why no exact answer leaves, as far as the memory's newest line and the audit log's tell; empty where one may."""
    try:
        check_known(memory_of(store), store)
    except (BlocksError, AuditError) as error:
        return f"{error}; until then no exact answer leaves"
    return ""


def check_known(memory: BlockMemory, store: Path) -> None:
    """Raises BlocksError where the memory is not the one that the newest answer in the audit log was made by."""
    audit = AuditLog(beside(store, "audit.jsonl"))
    told = audit.newest_told()
    if told is not None and memory.newest != told and not _has(memory, told):
        what = "older than the audit log" if memory.newest[0] else "gone"
        raise BlocksError(f"{memory.path}: is {what}, whose newest answer was made by its line {told[0]}; {_DECIDE}")
    if told is None and not memory.newest[0] and audit.has_told():
        raise BlocksError(f"{memory.path}: is not there, and answers left this site without it; {_DECIDE}")


_DECISION: dict[str, Any] = {
    **{"kind": "blocks", "run": "", "run_id": "", "round": None, "trial": "", "asked": "", "outcome": "decided"},
    **{"arrays": [], "keys": [], "bytes": 0, "content": "", "norms": {"update": None, "control": None}},
    **{"clipped": False, "epsilon": None, "ledger": None, "blocks": None},
}


def _settled(memory: BlockMemory, store: Path, digest: str, cell: int) -> Blocks:
    """The store compared with the memory, new blocks made, and both written down."""
    if not memory.begun():
        memory.begin("")
    held = memory.read()
    present, found = standing(memory, held, store, cell)
    made = found.further(present, cell)
    cut_anew = {member for block in made for member in block.ids}
    told = [*(block for block in found.whole if cut_anew.isdisjoint(block.ids)), *made]
    if made or not _is_of(held, digest, cell):
        waiting = len(present.members) - sum(len(block.members) for block in told)
        numbers = {"told": [block.number for block in told], "changed": list(found.changed), "waiting": waiting}
        new = [block.to_json() for block in made]
        memory.append({"entry": "prepared", "store": digest, "cell": cell, "made": new, **numbers})
        if found.changed or waiting:
            counts = len(told), len(found.changed), waiting
            log.warning("%d blocks of patients are told of, %d are no longer; %d patients wait", *counts)
    arrays = arrays_of(present, told)
    arrays["complete"] = np.array([block.number for block in told if block.complete], dtype=np.int64)
    arrays["changed"] = np.array(found.changed, dtype=np.int64)
    _keep(memory, digest, cell, arrays)
    return _blocks(memory, digest, arrays)


def _is_of(held: Sequence[Entry], digest: str, cell: int) -> bool:
    return held[-1]["entry"] == "prepared" and (held[-1]["store"], held[-1]["cell"]) == (digest, cell)


def _keep(memory: BlockMemory, digest: str, cell: int, arrays: dict[str, Any]) -> None:
    number, line = memory.newest
    written, small = BytesIO(), {name: arrays[name].astype(kind) for name, kind in _TYPES.items()}
    np.savez(written, of=np.array([str(number), line, digest, str(cell), _digest(memory.key)]), **small)
    write_private(memory.cache_file, written.getvalue())


def _cached(memory: BlockMemory, digest: str, cell: int) -> Blocks | None:
    """What was derived before, of the same lines, key and store; None where it was not."""
    head = read_head(memory.head_file, BLOCKS)
    size = memory.path.stat().st_size if memory.path.exists() else 0
    wanted = [str(head.count), head.digest, digest, str(cell), _digest(memory.key)]
    try:
        with np.load(BytesIO(memory.cache_file.read_bytes()), allow_pickle=False) as held:
            if size != head.size or held["of"].tolist() != wanted:
                return None
            arrays = {name: held[name] for name in _TYPES}
    except (OSError, EOFError, KeyError, ValueError, BadZipFile):
        return None
    return _blocks(memory, digest, arrays)


def _blocks(memory: BlockMemory, digest: str, arrays: dict[str, Any]) -> Blocks:
    return Blocks(
        block_N=arrays["block_N"].astype(np.int64),
        bundle_N=arrays["bundle_N"].astype(np.int64),
        new_N=arrays["new_N"],
        complete=frozenset(arrays["complete"].tolist()),
        changed=tuple(arrays["changed"].tolist()),
        store=digest,
        line=memory.newest,
        key=memory.key,
    )


def _has(memory: BlockMemory, line: Line) -> bool:
    return any((entry["n"], entry["digest"]) == line for entry in entries(memory.path, BLOCKS))


def _moved_aside(memory: BlockMemory) -> Path | None:
    """The files of a memory, in a folder of the next free number."""
    files = [memory.path, memory.head_file, memory.key_file, memory.cache_file, memory.torn_file]
    there = [file for file in files if file.exists()]
    if not there:
        return None
    number = 1 + sum(1 for _ in memory.path.parent.glob(f"{memory.path.stem}.old-*"))
    folder = memory.path.with_name(f"{memory.path.stem}.old-{number}")
    folder.mkdir(mode=0o700)
    for file in there:
        file.rename(folder / file.name)
    return folder


def _digest(key: bytes) -> str:
    return sha256(key).hexdigest()
