"""The seed's paper, federated: Wu 2024's Table 1 and Figures 2, 4, 5 and 6, in a profile that leaks and one that does
not.

Four federations of the same hospitals: each profile with and without focal loss. The same patients are held out of all
four, so the difference between the profiles is the AUROC that inputs from after the prediction invent.
"""

from dataclasses import replace as changed
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from server.results import RunResults
from shared_model.atomic import write_text
from shared_model.batch import open_store
from shared_model.config import LossName, RunConfig, Scalar
from shared_model.manifest import read_manifest
from shared_model.study import Profile
from simulations.benchmark_results import write_document
from simulations.crossed import Crossed, HeldOut
from simulations.experiment import (
    Scenario,
    Watcher,
    claim_folder,
    federate,
    open_patients,
    prepare_store,
    released_scores,
    split_store,
)
from simulations.paper_page import render_paper
from simulations.paper_results import LOSSES, PROFILES, Leak, Paper, PaperRun
from simulations.sources import Patients

RESULTS, PAGE = "paper.json", "paper.html"
# What a profile trains with. The paper's cleaning, scaling, selection (its Figure 2 shows 47 features) and windows.
SETTINGS: dict[Profile, dict[str, Scalar]] = {
    "early": {},
    "paper": {
        "window-hours": 24.0,
        "window-step-hours": 24.0,
        "window-statistics": "max,min,mean,sd",
        "series-fill": "linear",
        "missing-limit": 0.2,
        "outlier-iqr": 1.5,
        "scaling": "normality",
        "select-features": 47,
    },
}


def run_paper(
    scenario: Scenario, out: Path, watcher: Watcher, *, overrides: dict[str, Scalar], replace: bool = False
) -> Paper:
    """Run the four federations and return the document that is also in ``out/paper.json``.

    ``scenario`` says whose patients; ``overrides`` are run-config keys for all four. Raises RunFolderError where
    ``out`` exists (unless ``replace`` and it is a run of this kind), and what the stages of a simulation raise.
    """
    claim_folder(out, RESULTS, replace=replace)
    paper = Paper(consilium_version=version("consilium"), status="partial")
    write_document(out / RESULTS, paper)
    watcher.stage(scenario.source.task)
    patients = open_patients(scenario, out, watcher)
    for profile in PROFILES:
        paper.runs += _run_profile(profile, scenario, patients, out / profile, watcher, overrides)
    watcher.stage("comparing the profiles on the same patients")
    manifest = read_manifest(out / "early" / "stores" / "heldout")
    paper = paper.model_copy(
        update={
            "status": "complete",
            "source": manifest["source"],
            "cohort": manifest["cohort"],
            "leaks": [_leak(out, loss, scenario.config.bootstrap) for loss in LOSSES],
        }
    )
    write_document(out / RESULTS, paper)
    write_text(out / PAGE, render_paper(paper))
    return paper


def _run_profile(
    profile: Profile, scenario: Scenario, patients: Patients, out: Path, watcher: Watcher, overrides: dict[str, Scalar]
) -> list[PaperRun]:
    configs = {loss: config_of(scenario.config, profile, loss, overrides) for loss in LOSSES}
    scenario = changed(scenario, config=configs["focal"])
    watcher.stage(f"{profile}: preparing")
    prepare_store(scenario, patients, out / "stores" / "all", watcher)
    watcher.stage(f"{profile}: partitioning by care unit")
    partition = split_store(scenario, out / "stores" / "all", out / "stores")
    runs = []
    for loss, config in configs.items():
        watcher.stage(f"{profile}: federated training {LOSSES[loss]}")
        runs.append(_run(profile, loss, federate(config, partition, out / loss, watcher)))
    return runs


def config_of(base: RunConfig, profile: Profile, loss: LossName, overrides: dict[str, Scalar]) -> RunConfig:
    """What one federation trains with. What the user sets wins over a profile's settings, but for profile and loss."""
    forced: dict[str, Scalar] = {"profile": profile, "loss": loss, "seed": base.seed}
    return RunConfig.from_flat(base.to_flat() | SETTINGS[profile] | overrides | forced)


def _run(profile: Profile, loss: LossName, results: RunResults) -> PaperRun:
    return PaperRun.model_validate(
        {
            "profile": profile,
            "loss": loss,
            "config": results.config,
            "hospitals": sum(site.admitted for site in results.sites),
            "learning_rates": [one.learning_rate for one in results.rounds],
            "heldout": results.heldout,
            "features": results.features,
        }
    )


def _leak(out: Path, loss: LossName, resamples: int) -> Leak:
    """The profiles on the stays that both held out, so that neither model has seen them; patients are resampled."""
    held = {profile: _scored_stays(out / profile, loss) for profile in PROFILES}
    both = held["early"].join(held["paper"]["score"].rename("score_paper"), how="inner")
    stays = HeldOut(
        both["patient"].to_numpy(),
        both["label"].to_numpy(),
        both["unit"].to_numpy(str),
        {"early": both["score"].to_numpy(), "paper": both["score_paper"].to_numpy()},
    )
    crossed = Crossed([stays], resamples=resamples, seed=0)
    early, paper = (crossed.averages(profile)["auroc"] for profile in PROFILES)
    return Leak(
        loss=loss,
        patients=both["patient"].nunique(),
        deaths=both.loc[both["label"], "patient"].nunique(),
        early=early.estimate(),
        paper=paper.estimate(),
        invented=(paper - early).estimate(),
    )


def _scored_stays(out: Path, loss: LossName) -> pd.DataFrame:
    """The held-out stays of a profile by stay_id: patient, label, unit, and the score of its model."""
    store = out / "stores" / "heldout"
    data, stays = open_store(store), pd.read_parquet(store / "stays.parquet", columns=["stay_id", "unit"])
    stays["patient"], stays["label"] = data.patient_N.numpy(), data.label_N.numpy()
    stays["score"] = released_scores(out / loss, data)
    return stays.set_index("stay_id")
