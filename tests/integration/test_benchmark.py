"""The benchmark on a thin PhysioNet 2012: real federations, resumed, compared, and a released model on a third set."""

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from open_data import PHYSIONET_2012, open_data

from client.mapping.extract import extract_of
from client.prepare import prepare
from client.site import load_site
from shared_model.batch import open_store
from shared_model.errors import MissingTableError, RunFolderError
from shared_model.manifest import read_manifest
from simulations import benchmark
from simulations.benchmark_results import Benchmark
from simulations.benchmark_summary import LOCAL
from simulations.boosting import BOOSTED

BIN, EVERY = Path(sys.executable).parent, 8  # every so many stays
QUICK = {"rounds": 1, "bootstrap": 20, "local-steps": 5}


class Silent:
    """A Watcher that keeps the names of the stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def event(self, event: object) -> None:
        pass

    def count(self, done: int, of: int) -> None:
        pass


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every eighth stay of both sets."""
    folder, whole = tmp_path_factory.mktemp("thin"), open_data(PHYSIONET_2012)
    for name in ("a", "b"):
        with gzip.open(whole / f"set-{name}.csv.gz", "rt") as source:
            head, *rows = source.readlines()
        chosen = set(sorted({row.split(",", 1)[0] for row in rows})[::EVERY])
        with gzip.open(folder / f"set-{name}.csv.gz", "wt", compresslevel=1) as target:
            target.writelines([head, *(row for row in rows if row.split(",", 1)[0] in chosen)])
        head, *rows = (whole / f"outcomes-{name}.csv").read_text().splitlines(keepends=True)
        kept = [head, *(row for row in rows if row.split(",", 1)[0] in chosen)]
        (folder / f"outcomes-{name}.csv").write_text("".join(kept))
    return folder


@pytest.fixture(scope="module")
def run(thin: Path) -> Callable[..., tuple[Benchmark, Silent]]:
    def started(out: Path, seeds: int = 1, **changes: object) -> tuple[Benchmark, Silent]:
        watcher = Silent()
        found = benchmark.run_benchmark(
            thin, out, watcher, seeds=seeds, heldout_fraction=0.2, overrides=QUICK | changes
        )
        return found, watcher

    return started


@pytest.fixture(scope="module")
def out(run: Callable[..., tuple[Benchmark, Silent]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished benchmark of one seed; two federations instead of three."""
    folder = tmp_path_factory.mktemp("benchmark") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(benchmark.STRATEGIES, "fedprox")
        run(folder)
    return folder


def test_four_care_units_are_compared_federated_pooled_and_alone(out: Path) -> None:
    found = Benchmark.model_validate_json((out / "benchmark.json").read_text())
    units = ["Cardiac Surgery Recovery Unit", "Coronary Care Unit", "Medical ICU", "Surgical ICU"]
    models = [run.model for run in found.runs]
    assert found.status == "complete" and [unit.unit for unit in found.units] == units
    assert models[0] == "federated: fedavg" and models[1].endswith("best settings")
    assert models[2:] == ["pooled", *(f"{LOCAL}{unit}" for unit in units), BOOSTED]
    assert all([one.unit for one in run.by_unit] == units and run.config["seed"] == 1 for run in found.runs)
    assert all(model.auroc.low is not None for model in found.models) and len(found.criteria) == 4
    heldout = open_store(out / "seed-1" / "stores" / "heldout")
    assert len(heldout) == pytest.approx(0.2 * found.patients, abs=1)
    assert heldout.deaths == pytest.approx(0.2 * found.deaths, abs=1)
    assert (out / "benchmark.md").read_text().startswith("# PhysioNet 2012")


def test_the_parts_of_a_mapped_store_tell_how_it_was_mapped(out: Path) -> None:
    whole = read_manifest(out / "store")["mapping"]
    parts = [
        out / "seed-1" / "stores" / "heldout",
        *(f.parent for f in (out / "seed-1" / "stores" / "sites").glob("*/manifest.json")),
    ]
    assert whole["lines"] and len(parts) == 5
    assert all(read_manifest(part)["mapping"] == whole for part in parts)


def test_what_is_finished_is_not_run_again(
    run: Callable[..., tuple[Benchmark, Silent]], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(benchmark.STRATEGIES, "fedprox")
    before = Benchmark.model_validate_json((out / "benchmark.json").read_text())
    (out / "seed-1" / "lightgbm.json").write_text('{"recipe": "half wri')
    again, watcher = run(out)
    told = [stage for stage in watcher.stages if stage.startswith("seed")]
    assert told == ["seed 1: partitioning by care unit", "seed 1: lightgbm"]
    quiet = {"runs": {"__all__": {"seconds"}}}
    assert again.model_dump(exclude=quiet) == before.model_dump(exclude=quiet), "the same seed, the same figures"


def test_a_released_model_is_evaluated_on_a_set_of_its_own(thin: Path, out: Path, tmp_path: Path) -> None:
    """As with a set that was kept back: prepared alone, from a YAML that names its files."""
    third = {
        "extends": str(out / "site.yaml"),
        "store": "third",
        "relations": {"measured": {"file": "set-b.csv.gz"}, "outcomes": {"file": "outcomes-b.csv"}},
    }
    (tmp_path / "third.yaml").write_text(yaml.safe_dump(third))
    site = load_site(tmp_path / "third.yaml")
    prepare(extract_of(site), site.store, cohort=site.cohort, study=site.study, encoder=site.encoder)
    command = [BIN / "consilium-server", "evaluate", out / "seed-1" / "best" / "model", site.store, "--bootstrap", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    lines = (thin / "outcomes-b.csv").read_text().splitlines()
    assert found["patients"] == pytest.approx(len(lines) - 1, abs=5)
    assert 0.4 < found["metrics"]["auroc"]["value"] < 0.95


def test_a_site_is_simulated_with_what_its_yaml_says(out: Path, tmp_path: Path) -> None:
    """Cohort, study and encoder are the file's, but for what the command line says. It stops before a federation."""
    config, where = str(out / "site.yaml"), tmp_path / "run"
    settings = ["--units", "Nowhere", "--label", "in_icu", "--set", "window-hours=2", "--out", where]
    command = [BIN / "consilium-simulate", "--site", config, *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "no unit 'Nowhere' in the cohort; it has Cardiac Surgery" in done.stderr
    config = json.loads((where / "results.json").read_text())["config"]
    assert (config["prediction-hours"], config["window-hours"], config["label"]) == (48, 2, "in_icu")
    store = read_manifest(where / "stores" / "all")
    assert (store["source"], store["cohort"], store["encoder"]["name"]) == ("PhysioNet 2012", "all_icu", "none")
    assert store["study"]["prediction_hours"] == 48 and store["study"]["label"] == "in_icu"


def test_ctrl_c_leaves_no_process_and_a_partial_benchmark(thin: Path, tmp_path: Path) -> None:
    command = [BIN / "consilium-simulate", "benchmark", "--data", thin, "--out", tmp_path / "run"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    told = next(line for line in process.stderr if "partitioning" in line)  # then a federation begins
    os.killpg(process.pid, signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in told + printed, printed
    assert json.loads((tmp_path / "run" / "benchmark.json").read_text())["status"] == "partial"


def test_mistakes_are_named(thin: Path, out: Path, tmp_path: Path, run: Callable[..., object]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for file in thin.iterdir():
        if file.name != "set-a.csv.gz":
            (empty / file.name).symlink_to(file)
    with pytest.raises(MissingTableError, match=r"no set-a\.csv\.gz in "):
        benchmark.run_benchmark(empty, tmp_path / "a", Silent(), seeds=1, heldout_fraction=0.2, overrides={})
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match="exists"):
        run(tmp_path / "precious")
