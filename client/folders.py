"""Folders that are whole or absent, and preparations that go on where they were interrupted.

A store is written beside its place under a hidden name and renamed when it is whole. What an interrupted preparation
had finished reading or embedding stays there and is taken over by the next one; everything else is made anew.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from shared_model.errors import StoreError
from shared_model.features import digest_of

Inputs = dict[str, dict[str, Any]]
FINISHED, STAGED, EMBEDDED, TABLES, REJECTS = "finished", "staged", "embedded", "tables", "rejects"
WAITING = (FINISHED, STAGED, EMBEDDED)  # in a store that is being built only


def beside(store: Path, ending: str) -> Path:
    """A file of the site that belongs to its store and outlives it: ``STORE.audit.jsonl`` and others."""
    return store.with_name(f"{store.name}.{ending}")


@dataclass(frozen=True)
class Finished:
    """Which tables of a folder an interrupted preparation had finished from the same input."""

    folder: Path
    inputs: Inputs

    def names(self) -> frozenset[str]:
        """Tables whose mark says that they were made from what ``inputs`` describes."""
        return frozenset(name for name in self.inputs if self._marked(name) == digest_of(self.inputs[name]))

    def mark(self, name: str) -> None:
        """Say that a table is whole."""
        path = self.folder / FINISHED / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(digest_of(self.inputs[name])), encoding="utf-8")

    def _marked(self, name: str) -> str | None:
        try:
            return str(json.loads((self.folder / FINISHED / f"{name}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None


def share_file(file: Path, target: Path) -> None:
    """The same file under another name; a copy where that is not possible (another disk)."""
    target.unlink(missing_ok=True)
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


@contextmanager
def resumable_folder(folder: Path, *, resumable: bool = True) -> Iterator[Path]:
    """A hidden sibling that takes ``folder``'s place when the block ends well, and waits for the next try when it does
    not; unless ``resumable`` it is removed then. Raises StoreError while another process prepares the same folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}.unfinished")
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(f"{folder}: another preparation of it is running; wait for it, or end it") from None
    try:
        building.mkdir(exist_ok=True)
        _keep_what_was_read(building)
        try:
            yield building
        except BaseException:
            if resumable:
                _keep_what_was_read(building)
            else:
                _drop(building.iterdir())
            if not any(building.iterdir()):
                building.rmdir()
            raise
        for name in WAITING:
            shutil.rmtree(building / name, ignore_errors=True)
        _put_in_place(building, folder)
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _keep_what_was_read(building: Path) -> None:
    """Drop everything but staged copies, finished tables and their unreadable rows, and embedded texts; drop it all
    where none is whole."""
    whole = {file.stem for file in building.glob(f"{FINISHED}/*.json")}
    for path in building.iterdir():
        if path.name == TABLES:
            _drop(f for f in path.iterdir() if f.stem not in whole)
        elif path.name == REJECTS:
            _drop(f for f in path.iterdir() if not f.name.startswith("unreadable-"))
        elif path.name not in WAITING:
            _drop([path])
    if not whole and not any(any(building.glob(made)) for made in (f"{STAGED}/*.json", f"{EMBEDDED}/*/*")):
        _drop(building.iterdir())


def _drop(paths: Iterator[Path] | list[Path]) -> None:
    for path in list(paths):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary sibling that takes ``folder``'s place when the block ends well, and is removed when it does not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
    building.mkdir()
    try:
        yield building
        _put_in_place(building, folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _put_in_place(building: Path, folder: Path) -> None:
    """Rename ``building`` to ``folder``; what stood there comes back when that fails."""
    old = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.old")
    try:
        if folder.exists():
            folder.rename(old)
        building.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
