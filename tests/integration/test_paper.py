"""The seed's paper on synthetic hospitals: a real federation of each profile, one page."""

import json
from pathlib import Path

import pandas as pd
import pytest

from shared_model.config import LossName, RunConfig
from shared_model.errors import ConfigError, NotAMimicFolderError, RunFolderError
from shared_model.study import Profile
from simulations.experiment import Scenario
from simulations.options import source_of
from simulations.paper import config_of, run_paper
from simulations.paper_results import LOSSES, PROFILES, PUBLISHED, Paper
from simulations.sources import Mimic, Synthetic


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
    with pytest.MonkeyPatch.context() as patch:  # for time's sake without the two federations without focal loss
        patch.delitem(LOSSES, "cross_entropy")
        patch.delitem(PUBLISHED, "cross_entropy")
        run_paper(scenario, folder, Silent(), overrides={"rounds": 1, "bootstrap": 20})
    return folder


@pytest.fixture(scope="module")
def found(out: Path) -> Paper:
    return Paper.model_validate_json((out / "paper.json").read_text())


def test_a_profile_trains_with_its_own_settings_and_what_the_user_sets(found: Paper) -> None:
    assert found.status == "complete" and [(r.profile, r.loss) for r in found.runs] == [(p, "focal") for p in PROFILES]
    for run in found.runs:
        assert (run.config["profile"], run.config["seed"], run.config["rounds"]) == (run.profile, 4, 1)
        assert run.config["window-hours"] == (24 if run.profile == "paper" else 1)
        assert run.hospitals == 2 and run.learning_rates == [0.001]
    assert any(feature.name == "los_icu" for feature in found.runs[1].features)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_four_federations_differ_in_profile_and_loss_alone(profile: Profile, loss: LossName) -> None:
    made = config_of(RunConfig(seed=4), profile, loss, {"rounds": 3, "loss": "focal", "missing-limit": 0.5})
    assert (made.profile, made.loss, made.seed, made.rounds, made.missing_limit) == (profile, loss, 4, 3, 0.5)
    other = config_of(RunConfig(seed=4), profile, "focal", {"rounds": 3, "missing-limit": 0.5})
    assert made.model_copy(update={"loss": "focal"}) == other


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
    assert (
        "published, with focal loss" in page
        and "cannot be right" in page
        and page.count("<svg") >= 3
        and "Figure 2" in page
    )


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--mimic and --synthetic: give one of them"):
        source_of(tmp_path, 3, seed=1)
    nowhere = Scenario(source=Mimic(tmp_path / "nowhere"))
    with pytest.raises(NotAMimicFolderError):
        run_paper(nowhere, tmp_path / "run", Silent(), overrides={})
    assert json.loads((tmp_path / "run" / "paper.json").read_text())["status"] == "partial"
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"holds no paper\.json"):
        run_paper(nowhere, tmp_path, Silent(), overrides={}, replace=True)
    assert (tmp_path / "notes.txt").exists()
