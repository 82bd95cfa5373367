"""The main job, as a user runs it: the console script, on synthetic hospitals and on the MIMIC-IV demo."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from server.results import RunResults, read_results

SIMULATE = str(Path(sys.executable).with_name("consilium-simulate"))
SMALL = ("--synthetic", "700", "--encoder", "none", "--cohort", "all_icu", "--set", "bootstrap=50")


def simulate(*arguments: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SIMULATE, *arguments], capture_output=True, text=True, timeout=seconds)


def started_in(place: Path) -> set[int]:
    """Processes whose temporary folder this is, by their environment or, as Ray's agents overwrite that, their command;
    those of another test on the same machine are none of them."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == str(place) or str(place) in " ".join(process.cmdline()):
                found.add(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small run that several tests look at."""
    out = tmp_path_factory.mktemp("small") / "run"
    done = simulate(*SMALL, "--rounds", "2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


def test_a_run_ends_with_results_report_and_model(small_run: Path) -> None:
    results = read_results(small_run / "results.json")
    assert results.status == "complete" and len(results.rounds) == 2
    assert results.data is not None and results.data.oracle_auroc is not None
    admitted = [site.site for site in results.sites if site.admitted]
    assert len(admitted) >= 2
    rows = [row.model for row in results.comparison]
    assert rows == ["federated", "pooled", *(f"local-only: {site}" for site in admitted)]
    assert results.timing.federation_overhead is not None
    assert (small_run / "report.html").stat().st_size > 20_000
    assert {f.name for f in (small_run / "model").iterdir()} == {"model.safetensors", "plan.json", "config.json"}


def test_the_retrospective_profile_runs_here_and_says_what_it_is(tmp_path: Path) -> None:
    """The paper's windows: 24 hours with four statistics, straight lines between them, lengths of stay."""
    day = ("window-hours=24", "window-step-hours=24", "window-statistics=max,min,mean,sd", "series-fill=linear")
    settings = [part for setting in day for part in ("--set", setting)]
    out = tmp_path / "paper"
    options = ("--profile", "paper", "--label", "in_icu", "--rounds", "1", "--no-baselines", "--out", str(out))
    done = simulate(*SMALL, *options, *settings)
    assert done.returncode == 0, done.stderr
    results = read_results(out / "results.json")
    assert results.data is not None and (results.data.profile, results.data.label) == ("paper", "in_icu")
    assert "has seen the future" in (out / "report.html").read_text()
    plan = json.loads((out / "model" / "plan.json").read_text())
    static, series = ({f["name"] for f in plan[kind]} for kind in ("static_features", "series_features"))
    assert "los_hospital" in static and "lactate_sd" in series and plan["series_fill"] == "linear"


def test_a_unit_below_the_smallest_cell_takes_no_part_and_the_report_says_so(small_run: Path) -> None:
    results = read_results(small_run / "results.json")
    refused = [site for site in results.sites if not site.admitted]
    assert refused, "the smallest units of 700 patients have fewer than ten"
    assert all("release.smallest_cell" in site.reason and site.patients is None for site in refused)
    assert all(site.site in (small_run / "report.html").read_text() for site in refused)


def test_no_patient_is_in_two_stores(small_run: Path) -> None:
    import pandas as pd

    folder = small_run / "stores"
    stores = [folder / "heldout", *(manifest.parent for manifest in (folder / "sites").glob("*/manifest.json"))]
    assert len(stores) > 2
    patients = pd.concat([pd.read_parquet(s / "stays.parquet").subject_id.drop_duplicates() for s in stores])
    whole = pd.read_parquet(small_run / "stores" / "all" / "stays.parquet").subject_id
    assert patients.is_unique and set(patients) == set(whole)


def test_the_same_seed_gives_identical_metrics(small_run: Path, tmp_path: Path) -> None:
    again = simulate(*SMALL, "--rounds", "2", "--out", str(tmp_path / "again"))
    assert again.returncode == 0, again.stderr
    first, second = (_comparable(read_results(p / "results.json")) for p in (small_run, tmp_path / "again"))
    assert first == second
    other = simulate(*SMALL, "--rounds", "2", "--seed", "2", "--no-baselines", "--out", str(tmp_path / "other"))
    assert other.returncode == 0, other.stderr
    assert _comparable(read_results(tmp_path / "other" / "results.json"))["heldout"] != first["heldout"]


def test_a_released_model_is_evaluated_from_the_command_line(small_run: Path) -> None:
    server = str(Path(sys.executable).with_name("consilium-server"))
    command = [server, "evaluate", str(small_run / "model"), str(small_run / "stores" / "heldout"), "--bootstrap", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    heldout = read_results(small_run / "results.json").heldout
    assert heldout is not None
    assert json.loads(done.stdout)["metrics"]["auroc"]["value"] == pytest.approx(heldout.metrics["auroc"].value)


def test_an_existing_run_folder_is_left_alone(small_run: Path, tmp_path: Path) -> None:
    before = (small_run / "results.json").read_bytes()
    done = simulate(*SMALL, "--out", str(small_run))
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "--replace" in done.stderr
    assert (small_run / "results.json").read_bytes() == before
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    done = simulate(*SMALL, "--replace", "--out", str(precious))
    assert done.returncode == 2 and "not a run" in done.stderr and (precious / "thesis.txt").exists()


@pytest.mark.parametrize("until", ["preparing", "federated training", "round 1/"])
def test_ctrl_c_stops_everything_and_leaves_a_partial_run(tmp_path: Path, until: str) -> None:
    out, place = tmp_path / "run", Path(tempfile.mkdtemp(prefix="t-"))  # short: Ray's sockets lie there
    process = subprocess.Popen(
        [SIMULATE, *SMALL, "--rounds", "50", "--out", str(out)],
        env=os.environ | {"TMPDIR": str(place)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    _wait_for(out, until)
    assert started_in(place)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal sends: to every process of the group
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "Traceback" not in printed and "interrupted" in printed
    assert read_results(out / "results.json").status == "partial"
    assert not (out / "report.html").exists()
    assert not [p for p in out.rglob(".*") if p.name.startswith(".all.")], "a half-written store stayed"
    end = time.monotonic() + 10
    while started_in(place) and time.monotonic() < end:
        time.sleep(0.2)  # the kernel may not have reaped the last of them yet
    assert not started_in(place)
    shutil.rmtree(place)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mimic", "{tmp}/nowhere"], "no MIMIC-IV folder"),
        (["--synthetic", "0"], "at least 1"),
        (["--synthetic", "300", "--units", "MICU,Nowhere"], "no unit 'Nowhere'"),
        (["--synthetic", "300", "--set", "learning-rate=-1"], "learning-rate = -1"),
        (["--synthetic", "300", "--set", "lerning-rate=1"], "lerning-rate"),
        (["--synthetic", "300", "--encoder", "no/such-encoder"], "no/such-encoder"),
        (["--synthetic", "30", "--set", "admission-timeout=10"], "min-sites"),
        (["--synthetic", "3", "--mimic", "x"], "give one of them"),
        (["--rounds", "many"], "many"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_status_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    given = [a.format(tmp=tmp_path) for a in arguments]
    if "--encoder" not in given:
        given += ["--encoder", "none"]
    done = simulate(*given, "--out", str(tmp_path / "run"))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "report.html").exists()


def test_the_mimic_iv_demo_runs_through(mimic_demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = simulate(
        "--mimic", str(mimic_demo), "--cohort", "all_icu", "--smallest-cell", "3", "--heldout", "0.4",
        "--rounds", "2", "--set", "bootstrap=50", "--out", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = read_results(out / "results.json")
    assert results.data is not None and results.data.oracle_auroc is None
    assert results.data.flow[0].stays == 140
    assert results.heldout is not None and results.heldout.patients > 20


def _comparable(results: RunResults) -> dict[str, object]:
    """Everything but the clock and the folders."""
    document = results.model_dump(exclude={"timing": True, "config": {"output", "heldout"}})
    assert document["heldout"]["metrics"]
    return document


def _wait_for(out: Path, until: str, seconds: float = 120) -> None:
    """The moment to interrupt, seen from the files of the run."""
    signs = {
        "preparing": lambda: any((out / "stores").glob(".all.*")),
        "federated training": lambda: (out / "flower" / "superlink.db").exists(),
        "round 1/": lambda: "round" in _read(out / "progress.jsonl"),
    }
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if signs[until]():
            return
        time.sleep(0.05)
    raise AssertionError(f"never reached {until}")


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
