"""A long suite in pieces of about the same time, for machines that end what takes too long: ``pytest --piece 2/5``.

Neighbours stay together, as tests of one file share a federation that takes a minute to set up. How long a test takes
stands beside it, ``pytest.mark.slow(minutes=3)``, so that the pieces are the same on every machine.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import pytest

MINUTES = 0.1  # of a test that does not say how long it takes
T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """The ``number``-th of ``count``, from 1."""

    number: int
    count: int

    @classmethod
    def read(cls, text: str) -> "Piece":
        """From ``k/n``. Raises ValueError for anything else."""
        found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text, re.ASCII)
        if not found or int(found[1]) > int(found[2]):
            raise ValueError(f"--piece {text}: write k/n, the k-th of n pieces")
        return cls(int(found[1]), int(found[2]))

    def of(self, things: Sequence[T], minutes: Sequence[float]) -> list[T]:
        """The things whose middle falls into this piece of the whole time; each falls into one."""
        whole, before, taken = sum(minutes), 0.0, []
        for thing, lasts in zip(things, minutes, strict=True):
            if int((before + lasts / 2) / whole * self.count) + 1 == self.number:
                taken.append(thing)
            before += lasts
        return taken


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--piece", metavar="k/n", default="", help="run the k-th of n pieces of what is selected")


@pytest.hookimpl(trylast=True)  # after pytest's own -m and -k
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not (text := config.getoption("--piece")):
        return
    try:
        piece = Piece.read(text)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    taken = piece.of(items, [_minutes(item) for item in items])
    config.hook.pytest_deselected(items=[item for item in items if item not in taken])
    items[:] = taken


def _minutes(item: pytest.Item) -> float:
    mark = item.get_closest_marker("slow")
    return float(mark.kwargs.get("minutes", MINUTES)) if mark else MINUTES
