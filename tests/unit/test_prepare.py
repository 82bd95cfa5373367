"""A prepared store: what its manifest says is what it holds, the same again, and whole or absent."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file
from site_builders import TINY, as_parquet, prepared, read_tables, synthetic, tiny_folder, write_csv

from client import extract as extract_module
from client.folders import resumable_folder
from client.prepare import prepare_mimic
from shared_model.batch import open_store
from shared_model.contract import STORE_VERSION, contract_digest
from shared_model.errors import ConsiliumError, EmptyCohortError, StoreError
from shared_model.manifest import MANIFEST, TENSORS, read_manifest
from shared_model.study import EARLY, Cohort

COHORTS = ("all_icu", "sepsis3")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic(tmp_path_factory.mktemp("source") / "mimic", patients=400)


@pytest.fixture(scope="module")
def stores(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    for cohort in COHORTS:
        prepared(source, folder / cohort, cohort=cohort)
    return {cohort: folder / cohort for cohort in COHORTS}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("tiny") / "mimic")


@pytest.fixture
def copy(stores: dict[str, Path], tmp_path: Path) -> Path:
    """A store that a test may spoil."""
    folder = tmp_path / "copy"
    shutil.copytree(stores["sepsis3"], folder)
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with its digest, hidden ones too."""
    files = (f for f in sorted(folder.rglob("*")) if f.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.mark.parametrize("cohort", COHORTS)
def test_the_manifest_counts_what_tensors_and_stays_hold(cohort: str, stores: dict[str, Path]) -> None:
    manifest, data = read_manifest(stores[cohort]), open_store(stores[cohort], verify=True)
    stays = pd.read_parquet(stores[cohort] / "stays.parquet")
    assert manifest["stays"] == len(stays) == len(data) > 100
    assert manifest["patients"] == stays["subject_id"].nunique() == data.patients
    assert manifest["deaths"] == stays.loc[stays["label"], "subject_id"].nunique() == data.deaths > 10
    assert manifest["chunks"] == len(data.embedding_ME) == 0
    assert manifest["flow"][-1]["stays"] == len(stays)
    assert [step["stays"] for step in manifest["flow"]] == sorted((s["stays"] for s in manifest["flow"]), reverse=True)
    assert manifest["units"] == sorted(stays["unit"].unique())
    assert data.static_NF.shape == (len(stays), len(EARLY.static))
    assert data.series_NTC.shape == (len(stays), 24, len(EARLY.series))


@pytest.mark.parametrize("cohort", COHORTS)
def test_tensors_and_stays_are_in_one_order(cohort: str, stores: dict[str, Path]) -> None:
    data, stays = open_store(stores[cohort]), pd.read_parquet(stores[cohort] / "stays.parquet")
    assert data.patient_N.tolist() == stays["subject_id"].tolist() == sorted(stays["subject_id"])
    assert data.label_N.tolist() == stays["label"].tolist()
    assert [data.units[u] for u in data.unit_N.tolist()] == stays["unit"].tolist()
    assert (stays["prediction_time"] - stays["intime"] == pd.Timedelta(hours=24)).all()
    assert (stays["outtime"] >= stays["prediction_time"]).all()


def test_the_label_is_the_death_in_hospital_that_the_extract_tells(source: Path, stores: dict[str, Path]) -> None:
    died = read_tables(source)["admissions"].set_index("hadm_id")["hospital_expire_flag"] == "1"
    stays = pd.read_parquet(stores["all_icu"] / "stays.parquet")
    assert stays["label"].tolist() == died[stays["hadm_id"].astype(str)].tolist()


def test_a_heart_rate_in_the_store_is_the_mean_of_the_charted_hour(source: Path, stores: dict[str, Path]) -> None:
    data, stays = open_store(stores["all_icu"]), pd.read_parquet(stores["all_icu"] / "stays.parquet")
    chart = read_tables(source)["chartevents"].query("itemid == '220045' and valuenum != ''").drop_duplicates()
    own = chart.assign(stay_id=chart["stay_id"].astype(int), v=chart["valuenum"].astype(float)).merge(
        stays, on="stay_id"
    )
    for name in ("charttime", "storetime"):
        own[name] = pd.to_datetime(own[name])
    own = own[(own["storetime"] <= own["prediction_time"]) & own["v"].between(0, 300)]
    own["hour"] = (own["charttime"] - own["intime"]) // pd.Timedelta(hours=1)
    expected = np.full((len(stays), 24), np.nan, dtype=np.float32)
    row = {stay: n for n, stay in enumerate(stays["stay_id"])}
    for (stay, hour), mean in own.groupby(["stay_id", "hour"])["v"].mean().items():
        if 0 <= hour < 24:
            expected[row[stay], hour] = mean
    assert np.isfinite(expected).mean() > 0.8
    np.testing.assert_allclose(data.series_NTC[:, :, EARLY.series.index("heart_rate")].numpy(), expected, rtol=1e-5)


def test_the_manifest_names_versions_and_digests(source: Path, stores: dict[str, Path]) -> None:
    manifest, tables = read_manifest(stores["all_icu"]), read_tables(source)
    assert manifest["store_version"] == STORE_VERSION
    assert manifest["contract"] == contract_digest(EARLY)
    assert manifest["tensors_sha256"] == contents(stores["all_icu"])[TENSORS]
    assert manifest["cohort"] == "all_icu"
    assert manifest["source"] == source.name
    for name in ("patients", "admissions", "icustays", "radiology", "discharge", "prescriptions"):
        assert manifest["rows"][name] == len(tables[name])


def test_a_second_preparation_is_bit_identical(source: Path, stores: dict[str, Path], tmp_path: Path) -> None:
    for cohort in COHORTS:
        prepared(source, tmp_path / cohort, cohort=cohort)
        assert contents(tmp_path / cohort) == contents(stores[cohort])


def test_what_is_not_to_be_resumed_leaves_nothing_at_all(tmp_path: Path) -> None:
    """A simulation begins anew: what it had read when it ended must not stay in its run folder."""
    folder = tiny_folder(tmp_path / "mimic", patients=TINY["patients"].replace(",60,", ",10,"))
    with pytest.raises(EmptyCohortError):
        prepare_mimic(folder, tmp_path / "stores" / "store", cohort="all_icu", encoder="none", resumable=False)
    assert list((tmp_path / "stores").iterdir()) == []


def test_a_parquet_extract_gives_the_tensors_of_csv_gz(source: Path, stores: dict[str, Path], tmp_path: Path) -> None:
    prepared(as_parquet(source, tmp_path / "parquet", typed=True), tmp_path / "store")
    assert contents(tmp_path / "store")[TENSORS] == contents(stores["all_icu"])[TENSORS]


@pytest.mark.parametrize("ending", [RuntimeError("out of disk"), KeyboardInterrupt()], ids=["failure", "Ctrl-C"])
def test_a_preparation_that_does_not_end_leaves_nothing_new(
    ending: BaseException, tiny: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise ending

    before = contents(tmp_path)
    monkeypatch.setattr("client.windows.build_features", stop)
    for store in (tmp_path / "new", copy):
        with pytest.raises(type(ending)):
            prepare_mimic(tiny, store, cohort="all_icu", encoder="none")
    assert {path: digest for path, digest in contents(tmp_path).items() if ".unfinished/" not in path} == before
    assert sorted(f.name for f in tmp_path.iterdir()) == [".copy.unfinished", ".new.unfinished", "copy"]
    assert len(open_store(copy, verify=True)) > 0


def test_an_interrupted_preparation_goes_on_with_the_tables_that_it_had_read(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("client.windows.build_features", stop)
        prepare_mimic(tiny, tmp_path / "store", cohort="all_icu", encoder="none")
    read: list[str] = []
    extract = extract_module._extract

    def watched(connection: Any, table: Any, file: Path, store: Path) -> None:
        read.append(table.name)
        extract(connection, table, file, store)

    monkeypatch.setattr(extract_module, "_extract", watched)
    write_csv(tiny, "outputevents", TINY["outputevents"].replace(",120", ",130"))
    prepare_mimic(tiny, tmp_path / "store", cohort="all_icu", encoder="none")
    assert read == ["outputevents"]
    prepare_mimic(tiny, tmp_path / "fresh", cohort="all_icu", encoder="none")
    assert contents(tmp_path / "store") == contents(tmp_path / "fresh")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["fresh", "store"]


def test_two_preparations_of_one_store_do_not_meet(tiny: Path, tmp_path: Path) -> None:
    with resumable_folder(tmp_path / "store"), pytest.raises(StoreError, match="another preparation"):
        prepare_mimic(tiny, tmp_path / "store", cohort="all_icu", encoder="none")


def test_a_new_preparation_takes_the_old_ones_place(source: Path, copy: Path, stores: dict[str, Path]) -> None:
    prepared(source, copy, cohort="all_icu")
    assert contents(copy) == contents(stores["all_icu"])
    assert [f.name for f in copy.parent.iterdir()] == [copy.name]


@pytest.mark.parametrize("path", ["thesis.txt", "hosp/patients.csv.gz"])
def test_a_folder_that_is_no_store_is_never_replaced(path: str, tiny: Path, tmp_path: Path) -> None:
    """``store: /home/me`` or ``store:`` equal to the extract's path must not cost the user that folder."""
    precious = tmp_path / "home" / path
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    with pytest.raises(ConsiliumError):
        prepare_mimic(tiny, tmp_path / "home", cohort="all_icu", encoder="none")
    assert precious.read_text() == "years of work"


def test_a_store_may_lie_in_a_folder_with_an_apostrophe(tiny: Path, tmp_path: Path) -> None:
    assert len(prepared(tiny, tmp_path / "St Mary's" / "store")) > 0


def _edit_manifest(store: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    edited = edit(json.loads((store / MANIFEST).read_text()))
    (store / MANIFEST).write_text(json.dumps(edited))


def _flip_last_byte(store: Path) -> None:
    raw = (store / TENSORS).read_bytes()
    (store / TENSORS).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))


def _cut(store: Path) -> None:
    (store / TENSORS).write_bytes((store / TENSORS).read_bytes()[:1000])


def _drop_a_tensor(store: Path) -> None:
    tensors = load_file(store / TENSORS)
    del tensors["series_NTC"]
    save_file(tensors, store / TENSORS)


def _remove(store: Path) -> None:
    shutil.rmtree(store)


SPOILED: dict[str, tuple[bool, Callable[[Path], Any]]] = {
    "altered": (True, _flip_last_byte),
    "truncated": (False, _cut),
    "truncated, verified": (True, _cut),
    "absent": (False, _remove),
    "without tensors": (False, lambda store: (store / TENSORS).unlink()),
    "without tensors, verified": (True, lambda store: (store / TENSORS).unlink()),
    "without one tensor": (False, _drop_a_tensor),
    "of a later version": (False, lambda s: _edit_manifest(s, lambda m: m | {"store_version": STORE_VERSION + 1})),
    "of no version": (False, lambda s: _edit_manifest(s, lambda m: {k: v for k, v in m.items() if "version" not in k})),
    "with half a manifest": (False, lambda store: (store / MANIFEST).write_text('{"store_version": 1, ')),
    "with a list for a manifest": (False, lambda s: _edit_manifest(s, lambda m: [])),
    "without its digest": (True, lambda s: _edit_manifest(s, lambda m: (m.pop("tensors_sha256"), m)[1])),
    "without its units": (False, lambda s: _edit_manifest(s, lambda m: (m.pop("units"), m)[1])),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_spoiled_store_is_refused_in_one_line(how: str, copy: Path) -> None:
    verify, spoil = SPOILED[how]
    assert len(open_store(copy, verify=True)) > 0
    spoil(copy)
    with pytest.raises(StoreError) as caught:
        open_store(copy, verify=verify)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cohort", COHORTS)
def test_the_rejects_are_the_impossible_values_with_reasons(cohort: str, stores: dict[str, Path]) -> None:
    rejects, manifest = pd.read_parquet(stores[cohort] / "rejects" / "events.parquet"), read_manifest(stores[cohort])
    counted = (rejects["source"] + "|" + rejects["concept"] + ": " + rejects["rule"]).value_counts().to_dict()
    told = manifest["event_checks"]
    dropped = [c for c in told if c["action"] == "dropped" and c["rule"] != "duplicate row"]
    assert counted == {f"{c['table']}|{c['rule']}": c["rows"] for c in dropped}
    assert {"outside plausible range", "not a number"} <= set(rejects["rule"])
    heart = rejects.query("concept == 'heart_rate' and rule == 'outside plausible range'")["value"]
    assert len(heart) > 0
    assert not heart.between(0, 300).any()
    assert rejects.loc[rejects["rule"] == "not a number", "value"].isna().all()
    stays = pd.read_parquet(stores[cohort] / "stays.parquet")
    assert set(rejects["stay_id"]) <= set(stays["stay_id"])


@pytest.mark.parametrize(
    ("cohort", "name", "text", "step"),
    [
        ("all_icu", "patients", TINY["patients"].replace(",60,", ",10,"), "adults"),
        ("all_icu", "icustays", TINY["icustays"].replace("2150-03-13", "2150-03-10"), "valid times"),
        ("sepsis3", "prescriptions", TINY["prescriptions"].split("\n")[0] + "\n", "Sepsis-3"),
    ],
)
def test_an_empty_cohort_is_told_by_its_step_and_leaves_nothing(
    cohort: Cohort, name: str, text: str, step: str, tmp_path: Path
) -> None:
    folder = tiny_folder(tmp_path / "mimic", **{name: text})
    with pytest.raises(EmptyCohortError, match=step):
        prepare_mimic(folder, tmp_path / "stores" / "store", cohort=cohort, encoder="none")
    assert [f.name for f in (tmp_path / "stores").iterdir()] == [".store.unfinished"]  # what was read, for the next try
