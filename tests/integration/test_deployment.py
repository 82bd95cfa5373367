"""Plain Flower: `flwr run .` against a SuperLink and two SuperNodes on loopback, each with a site config of its own."""

import json
from pathlib import Path

import pytest

from client.policy import KINDS
from client.prepare import prepare_mimic
from server.released import load_released
from server.results import read_results
from shared_model.batch import open_store
from shared_model.inputs import Scaler
from shared_model.predict import best_device, predict
from simulations.partition import partition_by_unit
from simulations.synthetic import write_hospitals

ROOT = Path(__file__).parents[2]


@pytest.mark.slow(minutes=1.5)  # test_wire runs plain Flower in every test run; this one adds the server's held-out set
def test_flwr_run_trains_two_hospitals_and_evaluates_on_the_held_out_set(tmp_path: Path, flower) -> None:
    write_hospitals(tmp_path / "data", patients=500, seed=5)
    prepare_mimic(tmp_path / "data", tmp_path / "all", cohort="all_icu", encoder="none")
    parts = partition_by_unit(
        tmp_path / "all", tmp_path / "stores", units=["MICU", "SICU"], heldout_fraction=0.2, seed=1
    )
    configs = [_site_config(tmp_path, name, store) for name, store in parts.sites.items()]
    flower.superlink()
    for config in configs:
        flower.supernode(config)
    output = tmp_path / "run"
    printed = flower.run(ROOT, f'rounds=2 bootstrap=50 output="{output}" heldout="{parts.heldout}"')

    assert (output / "results.json").is_file(), printed
    results = read_results(output / "results.json")
    assert results.status == "complete"
    assert [(site.site, site.admitted) for site in results.sites] == [("MICU", True), ("SICU", True)]
    assert [r.replied for r in results.rounds] == [["MICU", "SICU"]] * 2
    assert results.heldout is not None and results.heldout.metrics["auroc"].value is not None
    assert (output / "report.html").is_file()
    assert [json.loads(line)["event"] for line in (output / "progress.jsonl").read_text().splitlines()] == [
        "admitted", "round", "round", "evaluated", "done",
    ]  # fmt: skip
    _released_model_predicts(output / "model", parts.heldout, results.heldout.patients)


def _released_model_predicts(model: Path, store: Path, patients: int) -> None:
    released = load_released(model)
    scores = predict(released.model, open_store(store), Scaler(released.plan), best_device())
    assert len(scores) == patients and 0 < scores.min() <= scores.max() < 1 and 0 <= released.threshold <= 1


def _site_config(folder: Path, name: str, store: Path) -> Path:
    path = folder / f"{name.lower()}.yaml"
    document = {"site": name, "store": str(store), "encoder": "none", "cohort": "all_icu", "release": {"allow": KINDS}}
    path.write_text(json.dumps(document))
    return path
