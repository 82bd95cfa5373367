"""Synthetic hospitals: MIMIC-IV's form, repeatable, with a truth that fits what happened."""

import gzip
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from shared_model.errors import ConfigError, RunFolderError
from shared_model.metrics import auroc
from shared_model.schema import TABLES
from simulations import synthetic
from simulations.hospital.latents import UNITS
from simulations.hospital.mimic_csv import HEADERS
from simulations.synthetic import write_hospitals

PATIENTS = 3000


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    write_hospitals(folder, patients=PATIENTS, seed=11)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): gzip.decompress(f.read_bytes()) for f in sorted(folder.rglob("*.csv.gz"))}


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv.gz", low_memory=False)


def test_one_seed_gives_the_same_bytes_whatever_the_workers_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed, workers in (("a", 3, 1), ("b", 3, 2), ("c", 4, 1)):
        write_hospitals(tmp_path / name, patients=300, seed=seed, workers=workers)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != contents(tmp_path / "c")
    truths = [pd.read_parquet(tmp_path / name / "truth.parquet") for name in "abc"]
    assert truths[0].equals(truths[1]) and not truths[0].equals(truths[2])


def test_a_second_process_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    pool = synthetic.ProcessPoolExecutor
    monkeypatch.setattr(
        synthetic, "ProcessPoolExecutor", lambda count, **kw: started.append(count) or pool(count, **kw)
    )
    for name, workers in (("alone", 1), ("together", 2)):
        write_hospitals(tmp_path / name, patients=4 * synthetic.CHUNK, seed=5, workers=workers)
    assert started == [2], "fewer chunks than this would stay in one process and show nothing"
    assert contents(tmp_path / "alone") == contents(tmp_path / "together")


def test_a_patient_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    for patients in (20, 270):
        write_hospitals(tmp_path / str(patients), patients=patients, seed=5)
    few, many = contents(tmp_path / "20"), contents(tmp_path / "270")
    assert all(many[name].startswith(rows) for name, rows in few.items())


def test_headers_are_the_official_ones_in_order(hospitals: Path) -> None:
    chart = "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,valueuom,warning"
    stays = "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los"
    for name, header in (("icu/chartevents", chart), ("icu/icustays", stays)):
        with gzip.open(hospitals / f"{name}.csv.gz", "rt") as file:
            assert file.readline().strip() == header
    for name, columns in HEADERS.items():
        with gzip.open(hospitals / f"{name}.csv.gz", "rt") as file:
            assert file.readline().strip().split(",") == list(columns), name


def test_every_declared_column_reads_with_its_declared_type(hospitals: Path) -> None:
    for declared in TABLES:
        file = hospitals / declared.folder / f"{declared.name}.csv.gz"
        with gzip.open(file, "rt") as text:
            header = text.readline().strip().split(",")
        assert set(declared.columns) <= set(header), declared.name
        kinds = {name: declared.columns.get(name, "VARCHAR") for name in header}
        query = "SELECT count(*) FROM read_csv(?, header = true, auto_detect = false, quote = '\"', columns = {})"
        literal = "{" + ", ".join(f"'{k}': '{v}'" for k, v in kinds.items()) + "}"
        [(rows,)] = duckdb.execute(query.replace("{}", literal), [str(file)]).fetchall()
        assert rows > 0, declared.name


def test_units_have_the_sizes_and_death_rates_of_mimic_iv(hospitals: Path) -> None:
    stays = table(hospitals, "icu/icustays").merge(table(hospitals, "hosp/admissions"), on="hadm_id")
    share = stays.first_careunit.value_counts(normalize=True)
    death = stays.groupby("first_careunit").hospital_expire_flag.mean()
    total = sum(unit.stays for unit in UNITS)
    assert set(share.index) == {unit.name for unit in UNITS}
    for unit in UNITS:
        noise = 3.5 * np.sqrt(unit.death_rate * (1 - unit.death_rate) / (share[unit.name] * len(stays)))
        assert share[unit.name] == pytest.approx(unit.stays / total, abs=0.03)
        assert death[unit.name] == pytest.approx(unit.death_rate, abs=noise + 0.01)


def test_the_true_risk_is_calibrated_and_leaves_room_for_chance(hospitals: Path) -> None:
    truth = pd.read_parquet(hospitals / "truth.parquet")
    died = truth.died.to_numpy(bool)
    assert truth.true_risk.mean() == pytest.approx(died.mean(), abs=0.015)
    best = auroc(truth.true_risk.to_numpy(float), died)
    assert best is not None and 0.82 < best < 0.93
    top = truth.true_risk > truth.true_risk.quantile(0.9)
    assert truth.true_risk[top].mean() == pytest.approx(died[top].mean(), abs=0.1)


def test_nobody_is_measured_after_death(hospitals: Path) -> None:
    deaths = table(hospitals, "hosp/admissions").dropna(subset=["deathtime"])[["hadm_id", "deathtime"]]
    for name in ("icu/chartevents", "icu/outputevents", "hosp/labevents"):
        seen = table(hospitals, name)[["hadm_id", "charttime"]].merge(deaths, on="hadm_id")
        assert len(seen) > 0 and (seen.charttime <= seen.deathtime).all(), name


def test_the_sicker_are_measured_more(hospitals: Path) -> None:
    truth = pd.read_parquet(hospitals / "truth.parquet")
    lactate = table(hospitals, "hosp/labevents").query("itemid == 50813").groupby("subject_id").size()
    drawn = truth.subject_id.isin(lactate.index)
    sick = truth.severity > truth.severity.median()
    assert drawn[sick].mean() > drawn[~sick].mean() + 0.1


def test_the_habits_of_real_extracts_are_there(hospitals: Path) -> None:
    labs, stays = table(hospitals, "hosp/labevents"), table(hospitals, "icu/icustays")
    assert labs.hadm_id.isna().mean() > 0.005, "emergency laboratory rows without an admission"
    assert (stays.groupby("subject_id").size() > 1).any(), "repeated stays"
    assert (table(hospitals, "hosp/patients").anchor_age < 18).any(), "minors"
    notes = table(hospitals, "note/radiology")
    assert (notes.storetime > notes.charttime).mean() > 0.9 and notes.text.str.contains("___").any()


def test_the_folder_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_hospitals(tmp_path / "data", patients=300, seed=1, on_progress=stop, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        write_hospitals(tmp_path / "data", patients=0, seed=1)
    (tmp_path / "there").mkdir()
    with pytest.raises(RunFolderError, match="exists"):
        write_hospitals(tmp_path / "there", patients=1, seed=1)
    assert synthetic.__doc__ and "true risk" in synthetic.__doc__
