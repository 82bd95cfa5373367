"""Files that are whole or absent, also after a crash."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A temporary sibling that takes ``path``'s place when the block ends well, and is removed when it does not: a
    reader sees the old file or the new one, and the disk has it before this ends."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        to_disk(temporary)
        temporary.replace(path)
        to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Put ``text`` in ``path``'s place."""
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_private(path: Path, content: bytes) -> None:
    """Put a secret in ``path``'s place; only its owner can read it, from the first moment on."""
    with replacing_file(path) as temporary:
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)
        temporary.write_bytes(content)
