"""A suite in pieces: together they are the whole, no test is in two, and none takes much longer than its share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pieces import Piece

TESTS = """
import pytest

def test_short(): pass

@pytest.mark.slow(minutes=6)
def test_long(): pass

@pytest.mark.slow
@pytest.mark.parametrize("n", range(5))
def test_many(n): pass

@pytest.mark.slow(minutes=3)
class TestGroup:
    def test_one(self): pass
    def test_other(self): pass
"""


@given(st.lists(st.floats(0.01, 100), max_size=60), st.integers(1, 20))
def test_every_test_is_in_one_piece_and_in_its_order(minutes: list[float], count: int) -> None:
    things = list(range(len(minutes)))
    pieces = [Piece(number, count).of(things, minutes) for number in range(1, count + 1)]
    assert [thing for piece in pieces for thing in piece] == things


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=60), st.integers(1, 20))
def test_a_piece_is_longer_than_its_share_by_at_most_one_test(minutes: list[float], count: int) -> None:
    """Half a test at either end."""
    for number in range(1, count + 1):
        assert sum(Piece(number, count).of(minutes, minutes)) <= sum(minutes) / count + max(minutes) + 1e-6


@pytest.mark.parametrize("text", ["", "3", "0/3", "4/3", "1/0", "a/b", "1/2/3", "-1/2", " 1/2", "1/2\n"])
def test_what_is_no_piece_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write k/n, the k-th of n pieces"):
        Piece.read(text)


def test_pytest_runs_the_pieces_of_what_is_selected(root: Path, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS, encoding="utf-8")
    whole = _collected(root, tmp_path)
    pieces = [_collected(root, tmp_path, "--piece", f"{number}/2") for number in (1, 2)]
    assert len(whole) == 8 and [test for piece in pieces for test in piece] == whole
    assert [name.partition("::")[2] for name in pieces[0]] == ["test_long", "test_many[0]", "test_many[1]"]


def test_a_piece_that_is_none_ends_pytest_with_one_line(root: Path, tmp_path: Path) -> None:
    done = _pytest(root, tmp_path, "--piece", "4/3")
    assert done.returncode == 4 and done.stderr.splitlines()[0].startswith("ERROR: --piece 4/3: write k/n")


def _collected(root: Path, folder: Path, *arguments: str) -> list[str]:
    done = _pytest(root, folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


def _pytest(root: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """With the selection of the slow suite, over a small folder: to import the real one takes half a minute."""
    options = ("-c", os.devnull, "-p", "pieces", "-p", "no:cacheprovider", "--collect-only", "-q", "-m", "slow")
    command = [sys.executable, "-W", "ignore", "-m", "pytest", *options, *arguments, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(root / "tests")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
