"""The seed's paper on synthetic hospitals: four real federations, one page."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from shared_model.config import RunConfig
from simulations.experiment import Scenario
from simulations.paper import run_paper
from simulations.paper_results import LOSSES, PROFILES, Paper
from simulations.sources import Synthetic

SIMULATE = str(Path(sys.executable).with_name("consilium-simulate"))


class Silent:
    """A Watcher."""

    def stage(self, name: str) -> None:
        pass

    def event(self, event: object) -> None:
        pass

    def count(self, done: int, of: int) -> None:
        pass


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paper") / "run"
    scenario = Scenario(
        source=Synthetic(600, 1), cohort="all_icu", units=["MICU", "CVICU"], encoder="none", config=RunConfig(seed=4)
    )
    run_paper(scenario, folder, Silent(), overrides={"rounds": 1, "bootstrap": 20})
    return folder


@pytest.fixture(scope="module")
def found(out: Path) -> Paper:
    return Paper.model_validate_json((out / "paper.json").read_text())


def test_four_federations_are_run_with_the_papers_settings(found: Paper) -> None:
    assert found.status == "complete" and [(r.profile, r.loss) for r in found.runs] == [
        (profile, loss) for profile in PROFILES for loss in LOSSES
    ]
    for run in found.runs:
        assert (run.config["profile"], run.config["loss"], run.config["seed"]) == (run.profile, run.loss, 4)
        assert run.config["window-hours"] == (24 if run.profile == "paper" else 1)
        assert run.hospitals == 2 and run.learning_rates == [0.001]


def test_the_same_patients_are_held_out_of_all_four(out: Path, found: Paper) -> None:
    stays = [pd.read_parquet(out / profile / "stores" / "heldout" / "stays.parquet") for profile in PROFILES]
    assert list(stays[0]["stay_id"]) == list(stays[1]["stay_id"])
    for leak in found.leaks:
        assert leak.patients == len(stays[0]) and leak.deaths == stays[0]["label"].sum()
        of_runs = {run.profile: run.heldout.metrics["auroc"].value for run in found.runs if run.loss == leak.loss}
        assert (leak.early.value, leak.paper.value) == pytest.approx((of_runs["early"], of_runs["paper"]))
        assert leak.invented.value == pytest.approx(of_runs["paper"] - of_runs["early"])


def test_the_page_is_written(out: Path) -> None:
    page = (out / "paper.html").read_text()
    assert "published, with focal loss" in page and "cannot be right" in page and page.count("<svg") >= 3


def test_mistakes_get_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for arguments, said in (
        (["--mimic", "nowhere", "--synthetic", "3"], "--mimic and --synthetic: give one of them"),
        (["--mimic", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")], "no MIMIC-IV folder"),
        (["--synthetic", "300", "--replace", "--out", str(tmp_path)], "holds no paper.json"),
    ):
        done = subprocess.run([SIMULATE, "paper", *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert json.loads((tmp_path / "run" / "paper.json").read_text())["status"] == "partial"
