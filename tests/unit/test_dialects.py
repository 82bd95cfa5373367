"""The same patients in other forms: repeatable, whole or absent, and as messy as promised."""

import csv
import gzip
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from shared_model.errors import DataError, RunFolderError
from simulations.dialects.german import VITAL_FILES, write_german
from simulations.dialects.omop import write_omop
from simulations.synthetic import write_hospitals

WRITERS = {"german": write_german, "omop": write_omop}


@pytest.fixture(scope="module")
def mimic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "mimic"
    write_hospitals(folder, patients=60, seed=7, workers=1)
    return folder


@pytest.fixture(scope="module")
def german(mimic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("german") / "export"
    write_german(mimic, folder)
    return folder


def content(file: Path) -> bytes:
    return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()


def rows(file: Path, encoding: str = "utf-8") -> list[dict[str, str]]:
    return list(csv.DictReader(content(file).decode(encoding).splitlines(), delimiter=";"))


def mimic_rows(mimic: Path, table: str) -> int:
    return len(pd.read_csv(mimic / f"{table}.csv.gz", usecols=[0]))


@pytest.mark.parametrize("dialect", WRITERS)
def test_the_same_patients_give_the_same_bytes(dialect: str, mimic: Path, tmp_path: Path) -> None:
    for name in "ab":
        WRITERS[dialect](mimic, tmp_path / name)
    first, second = ({f.name: content(f) for f in (tmp_path / name).iterdir()} for name in "ab")
    assert first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]  # no scratch is left


@pytest.mark.parametrize("dialect", WRITERS)
def test_an_export_is_whole_or_absent(dialect: str, mimic: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(RunFolderError, match="there exists already"):
        WRITERS[dialect](mimic, tmp_path / "there")
    with pytest.raises(DataError):
        WRITERS[dialect](tmp_path, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_every_patient_stay_value_and_note_is_in_the_german_export(mimic: Path, german: Path) -> None:
    assert len(rows(german / "patienten.csv")) == mimic_rows(mimic, "hosp/patients")
    assert len(rows(german / "faelle.csv", "cp1252")) == mimic_rows(mimic, "hosp/admissions")
    assert len(rows(german / "intensivaufenthalte.csv")) == mimic_rows(mimic, "icu/icustays")
    with gzip.open(mimic / "icu" / "outputevents.csv.gz", "rt") as outputs:
        assert len(rows(german / "ausfuhr.csv")) == sum(1 for _ in outputs) - 1
    vitals = [len(rows(german / f"vitalwerte_{part + 1}.csv.gz")) for part in range(VITAL_FILES)]
    assert min(vitals) > 0


def test_the_german_export_is_messy(german: Path) -> None:
    with pytest.raises(UnicodeDecodeError):
        (german / "faelle.csv").read_text(encoding="utf-8")
    assert {row["Kostenträger"] for row in rows(german / "faelle.csv", "cp1252")} == {"gesetzlich"}
    [vitals, *_] = (rows(german / f"vitalwerte_{part + 1}.csv.gz") for part in range(VITAL_FILES))
    assert all(row["Zeit"].endswith("+01:00") for row in vitals)
    assert any("," in row["Wert"] for row in vitals) and not any("." in row["Wert"] for row in vitals)
    labs = rows(german / "labor.csv.gz")
    assert all(row["Abnahme"].endswith("Z") for row in labs)
    assert {"µmol/l", "mmol/l"} <= {row["Einheit"] for row in labs}
    assert {"ZZ_TEST", "KALZ"} <= {row["Code"] for row in labs}  # one to ignore, one that nothing maps


def test_the_command_writes_an_export_of_synthetic_patients(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("consilium-simulate"), "export", "german", "--out", tmp_path / "de"]
    done = subprocess.run([*command, "--synthetic", "20"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(rows(tmp_path / "de" / "patienten.csv")) == 20
