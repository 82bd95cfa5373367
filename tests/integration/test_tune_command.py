"""A search over settings, as a user runs it: the console script, interrupted, run again, and mistakes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server.results import read_results

TUNE = [str(Path(sys.executable).with_name("consilium-simulate")), "tune"]
SMALL = ("--synthetic", "600", "--encoder", "none", "--cohort", "all_icu", "--smallest-cell", "3", "--rounds", "1")
GRID = "learning-rate: [0.001, 0.01]\n"


def test_ctrl_c_loses_no_finished_fold(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(GRID)
    out, journal = tmp_path / "run", tmp_path / "run" / "tuning.jsonl"
    command = [*TUNE, str(tmp_path / "grid.yaml"), "--folds", "2", *SMALL, "--out", str(out)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    end = time.monotonic() + 200
    while not _lines(journal) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in printed, printed
    assert read_results(out / "results.json").status == "partial"
    before = _lines(journal)
    assert 0 < len(before) < 4

    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    after = _lines(journal)
    assert after[: len(before)] == before, "a finished fold was trained again"
    assert len({json.loads(line)["fold"] for line in after}) == len(after) == 4
    results = read_results(out / "results.json")
    assert results.tuning is not None and results.status == "complete"
    best = results.tuning.trials[results.tuning.best]
    assert [trial.settings for trial in results.tuning.trials] == [{"learning-rate": 0.001}, {"learning-rate": 0.01}]
    assert best.mean == max(trial.mean or 0.0 for trial in results.tuning.trials)
    assert results.config["learning-rate"] == best.settings["learning-rate"], "trained with the best"
    assert re.search(r"(?m)^federated +\d\.\d{3} ", done.stderr) and "AUROC, mean of folds" in done.stderr


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("lerning-rate: [0.001]\n", "did you mean 'learning-rate'"),
        ("learning-rate: [-1]\n", "learning-rate = -1"),
        ("- 3\n", "grid"),
        (None, "cannot be read as text"),
    ],
)
def test_a_mistake_in_the_grid_is_told_before_anything_is_prepared(tmp_path: Path, grid: str | None, said: str) -> None:
    if grid is not None:
        (tmp_path / "grid.yaml").write_text(grid)
    command = [*TUNE, str(tmp_path / "grid.yaml"), *SMALL, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
