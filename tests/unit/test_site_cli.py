"""``consilium-site`` as a data engineer meets it: a real process, its exit status and what it prints."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from site_builders import TINY, synthetic, table_file, tiny_folder, write_csv

from client.cohort import DERIVED_TABLES
from client.encoder import resolve_encoder
from client.site import load_site
from shared_model.batch import open_store
from shared_model.errors import ConfigError
from shared_model.manifest import TENSORS, file_digest, read_manifest

COMMAND = Path(sys.executable).parent / "consilium-site"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(COMMAND), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def site_file(folder: Path, **changed: object) -> Path:
    """A site whose extract is ``mimic`` beside it; None removes a key."""
    document = {"site": "St. Vincent", "store": "store", "source": {"path": "mimic"}, "cohort": "all_icu"}
    document = {key: value for key, value in (document | {"encoder": "none"} | changed).items() if value is not None}
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def everything(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def refused(found: subprocess.CompletedProcess[str], *, words: list[str]) -> None:
    """Status 2 and one line of error; nothing that looks like a program's inside."""
    assert found.returncode == 2, found.stderr
    lines = [line for line in found.stderr.splitlines() if not line.startswith("  ")]  # those are stages
    assert "Traceback" not in found.stderr
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert all(word in lines[0] for word in words), lines[0]


def test_check_reports_on_the_extract_and_writes_nothing(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "mimic")
    config = site_file(tmp_path)
    before = everything(tmp_path)
    found = run("check", config)
    assert found.returncode == 0, found.stderr
    assert "St. Vincent: ready with gaps" in found.stdout
    assert "heart_rate" in found.stdout and "not measured" in found.stdout
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"source": None}, ["site.yaml", "source"]),
        ({"source": {"path": "nowhere"}}, ["nowhere", "hosp/"]),
        ({"cohort": "sepsis4"}, ["site.yaml", "cohort", "'sepsis3'"]),
        ({"prediction_hour": 24}, ["site.yaml", "prediction_hour"]),
    ],
    ids=["no source", "no such folder", "unknown cohort", "misspelt key"],
)
def test_check_refuses_a_bad_config_in_one_line(changed: dict[str, object], words: list[str], tmp_path: Path) -> None:
    tiny_folder(tmp_path / "mimic")
    refused(run("check", site_file(tmp_path, **changed)), words=words)


def test_check_refuses_an_absent_or_unreadable_config_in_one_line(tmp_path: Path) -> None:
    refused(run("check", tmp_path / "absent.yaml"), words=["absent.yaml"])
    (tmp_path / "bad.yaml").write_text("site: [unclosed\nstore")
    refused(run("check", tmp_path / "bad.yaml"), words=["bad.yaml", "YAML"])


def test_check_sees_a_missing_table_and_a_renamed_column(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "mimic")
    config = site_file(tmp_path)
    write_csv(tmp_path / "mimic", "labevents", TINY["labevents"].replace("charttime", "chart_time"))
    refused(run("check", config), words=["labevents.csv.gz", "'charttime'", "'chart_time'"])
    table_file(tmp_path / "mimic", "labevents").unlink()
    refused(run("check", config), words=["hosp/labevents"])


def test_prepare_twice_prints_the_flow_and_gives_one_store(tmp_path: Path) -> None:
    synthetic(tmp_path / "mimic", patients=40)
    config = site_file(tmp_path)
    first = run("prepare", config)
    assert first.returncode == 0, first.stderr
    digest, manifest = file_digest(tmp_path / "store" / TENSORS), read_manifest(tmp_path / "store")
    for step in manifest["flow"]:
        assert any(step["step"] in line and f"{step['stays']:,} stays" in line for line in first.stdout.splitlines())
    checks = manifest["row_checks"] + manifest["event_checks"]
    assert checks
    for found in checks:
        told = f"{found['rows']:,} rows {found['action']}"
        assert any(found["rule"] in line and told in line for line in first.stdout.splitlines())
    assert first.stdout.splitlines()[-1] == f"prepared: {tmp_path / 'store'}"
    assert "reading tables" in first.stderr
    again = run("prepare", config)
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert file_digest(tmp_path / "store" / TENSORS) == digest
    assert len(open_store(tmp_path / "store", verify=True)) == manifest["stays"] > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mimic", "site.yaml", "store"]


def test_prepare_of_a_spoiled_extract_ends_in_one_line_and_leaves_no_store(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "mimic", labevents=TINY["labevents"].replace("1.4,mg/dL", "12.3SECRET,mg/dL"))
    found = run("prepare", site_file(tmp_path))
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
    assert "SECRET" not in found.stderr + found.stdout
    assert [line for line in found.stderr.splitlines() if not line.startswith("  ")] == [found.stderr.splitlines()[-1]]
    assert "valuenum: not DOUBLE" in found.stderr.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".store.unfinished", "mimic", "site.yaml"]


def test_cohort_counts_explains_and_writes_tables_and_no_store(tmp_path: Path) -> None:
    synthetic(tmp_path / "mimic", patients=40)
    config = site_file(tmp_path, cohort="sepsis3")
    counted = run("cohort", config, "--tables", tmp_path / "tables")
    assert counted.returncode == 0, counted.stderr
    assert "40 patients" in counted.stdout and "Sepsis-3" in counted.stdout
    written = {file.stem: pd.read_parquet(file) for file in (tmp_path / "tables").iterdir()}
    assert set(written) == set(DERIVED_TABLES)
    septic = written["sepsis3"].query("sepsis3").iloc[0]
    explained = run("cohort", config, "--explain", str(septic["stay_id"]))
    assert explained.returncode == 0, explained.stderr
    assert "Sepsis-3: yes" in explained.stdout
    for secret in (str(septic["subject_id"]), str(septic["suspected_time"].year)):
        assert secret not in explained.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mimic", "site.yaml", "tables"]
    refused(run("cohort", config, "--explain", "7"), words=["stay 7", "icustays"])
    refused(run("cohort", config, "--tables", tmp_path / "tables"), words=["--tables", "exists"])
    refused(run("cohort", config, "--all-hours"), words=["--explain"])


def test_a_flag_belongs_to_its_cohort_and_names_a_column(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "mimic")
    refused(run("prepare", site_file(tmp_path, cohort="flag")), words=["site.yaml", "flag"])
    refused(run("prepare", site_file(tmp_path, cohort="flag", flag="icustays.sepsis")), words=["icustays", "'sepsis'"])
    refused(run("prepare", site_file(tmp_path, cohort="flag", flag="chartevents.x")), words=["flag", "icustays"])


def test_a_memory_limit_that_is_none_is_a_users_mistake(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "mimic")
    found = run("prepare", site_file(tmp_path), "--memory-limit", "banana")
    assert found.returncode == 2, found.stderr
    assert "Traceback" not in found.stderr
    assert "banana" in found.stderr


def test_a_relative_encoder_folder_is_relative_to_the_yaml_file(tmp_path: Path) -> None:
    """As SiteConfig promises for paths; the folder here has no weights, and the error tells that it was found."""
    (tmp_path / "bert").mkdir()
    site = load_site(site_file(tmp_path, encoder="./bert"))
    with pytest.raises(ConfigError, match=r"\*\.safetensors"):
        resolve_encoder(site.encoder)
