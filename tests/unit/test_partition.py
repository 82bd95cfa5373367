"""One store becomes hospitals and a held-out set, and not a patient, a stay or a note is lost, doubled or moved."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from site_builders import chunks_of, made_store, prepared, read_tables, synthetic, tiny_encoder, write_tables

from client.site import load_site, simulated_sites
from client.store import short_unit
from shared_model.batch import PatientData, open_store
from shared_model.errors import ConfigError
from shared_model.manifest import TENSORS, file_digest, read_manifest
from simulations.partition import Partition, first_unit, partition_by_unit, slug

PATIENTS, UNITS = 120, ("CCU", "MICU", "MICU/SICU", "Neuro SICU")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 stays of 120 patients: of 40 patients two more stays in other units; every fourth patient dies."""
    stays = sorted([(p, 0) for p in range(PATIENTS)] + [(p, k) for p in range(0, PATIENTS, 3) for k in (1, 2)])
    folder = tmp_path_factory.mktemp("made") / "store"
    made_store(
        folder,
        patient=[1000 + p for p, _ in stays],
        unit=[UNITS[(p + k) % 4 if k else p % 4] for p, k in stays],
        death=[p % 4 == p // 4 % 4 and k == (2 if p % 3 == 0 else 0) for p, k in stays],
    )
    return folder


@pytest.fixture(scope="module")
def partition(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Partition:
    return split(store, tmp_path_factory.mktemp("out"))


def split(
    store: Path, out: Path, *, units: list[str] | None = None, seed: int = 1, fraction: float = 0.25
) -> Partition:
    return partition_by_unit(store, out, units=units, heldout_fraction=fraction, seed=seed, smallest_cell=7)


def opened(partition: Partition) -> dict[str, PatientData]:
    folders = {"heldout": partition.heldout, **partition.sites}
    return {name: open_store(folder, verify=True) for name, folder in folders.items()}


def patients(data: PatientData) -> set[int]:
    return set(data.patient_N.tolist())


def test_every_patient_is_in_exactly_one_place_with_every_stay(store: Path, partition: Partition) -> None:
    whole, parts = open_store(store), opened(partition)
    placed = [patient for data in parts.values() for patient in patients(data)]
    assert sorted(placed) == sorted(patients(whole))
    assert sum(len(data) for data in parts.values()) == len(whole)
    assert {name for name, data in parts.items() if len(data)} == {"heldout", *UNITS}


def test_the_held_out_set_holds_no_training_patient(partition: Partition) -> None:
    parts = opened(partition)
    held_out = patients(parts.pop("heldout"))
    assert held_out
    assert all(held_out.isdisjoint(patients(data)) for data in parts.values())


def test_a_patient_of_several_units_belongs_to_the_first(store: Path, partition: Partition) -> None:
    whole = open_store(store)
    first = {}
    for patient, unit in zip(whole.patient_N.tolist(), whole.unit_N.tolist(), strict=True):
        first.setdefault(patient, whole.units[unit])
    parts = opened(partition)
    for unit in UNITS:
        assert {first[patient] for patient in patients(parts[unit])} == {unit}
    moved = [whole.units[u] != first[p] for p, u in zip(whole.patient_N.tolist(), whole.unit_N.tolist(), strict=True)]
    assert sum(moved) > 20
    assert [whole.units[u] for u in first_unit(whole).tolist()] == [first[p] for p in whole.patient_N.tolist()]


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_the_held_out_set_is_stratified_by_death(fraction: float, store: Path, tmp_path: Path) -> None:
    whole, held_out = open_store(store), open_store(split(store, tmp_path, fraction=fraction).heldout)
    assert 20 < whole.deaths < 60
    assert held_out.deaths == round(fraction * whole.deaths)
    assert held_out.patients - held_out.deaths == round(fraction * (whole.patients - whole.deaths))


def test_a_seed_gives_one_partition_and_another_seed_another(store: Path, partition: Partition, tmp_path: Path) -> None:
    same, other = split(store, tmp_path / "same"), split(store, tmp_path / "other", seed=2)
    for one, again in zip(opened(partition), opened(same), strict=True):
        assert one == again
    for folder, again in zip(partition.sites.values(), same.sites.values(), strict=True):
        assert file_digest(folder / TENSORS) == file_digest(again / TENSORS)
    assert file_digest(partition.heldout / TENSORS) == file_digest(same.heldout / TENSORS)
    assert patients(open_store(other.heldout)) != patients(open_store(partition.heldout))


def test_stays_tensors_and_manifest_of_a_part_agree(store: Path, partition: Partition) -> None:
    for folder in (partition.heldout, *partition.sites.values()):
        data, stays, manifest = open_store(folder), pd.read_parquet(folder / "stays.parquet"), read_manifest(folder)
        assert stays["subject_id"].tolist() == data.patient_N.tolist()
        assert (
            stays["stay_id"].tolist() == data.static_NF[:, 0].int().tolist() == data.series_NTC[:, 0, 0].int().tolist()
        )
        assert stays["label"].tolist() == data.label_N.tolist()
        assert (manifest["stays"], manifest["patients"], manifest["deaths"]) == (len(data), data.patients, data.deaths)
        assert manifest["encoder"] == read_manifest(store)["encoder"]


def test_notes_stay_with_their_stays_and_no_others_come_along(store: Path, partition: Partition) -> None:
    whole = open_store(store)
    for data in opened(partition).values():
        assert len(data.embedding_ME) == int(data.chunk_count_N.sum()) > 0
        for row, stay in enumerate(data.static_NF[:, 0].int().tolist()):
            np.testing.assert_array_equal(chunks_of(data, row), chunks_of(whole, stay))
            assert {tuple(chunk) for chunk in chunks_of(data, row)} == {(stay, k) for k in range(stay % 4)}


@pytest.mark.parametrize("units", [["MICU", "CCU"], ["ccu", "micu"], ["MICU", "ccu", "micu"]])
def test_only_the_named_units_take_part(units: list[str], store: Path, tmp_path: Path) -> None:
    whole, found = open_store(store), split(store, tmp_path, units=units)
    assert list(found.sites) == ["CCU", "MICU"]
    home = [whole.units[u] for u in first_unit(whole).tolist()]
    wanted = {p for p, unit in zip(whole.patient_N.tolist(), home, strict=True) if unit in ("CCU", "MICU")}
    assert set().union(*(patients(data) for data in opened(found).values())) == wanted


def test_an_unknown_unit_is_refused_with_those_there_are(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        split(store, tmp_path / "out", units=["MICU", "Burns"])
    assert "'Burns'" in str(caught.value)
    assert all(unit in str(caught.value) for unit in UNITS)
    assert not (tmp_path / "out").exists()


def test_the_site_files_load_in_the_order_of_the_sites(partition: Partition) -> None:
    sites = [load_site(path) for path in simulated_sites(partition.configs)]
    assert [site.site for site in sites] == list(partition.sites) == list(UNITS)
    assert [site.store for site in sites] == [folder.resolve() for folder in partition.sites.values()]
    assert {(s.cohort, s.prediction_hours, s.encoder, s.release.smallest_cell) for s in sites} == {
        ("all_icu", 24.0, "none", 7)
    }
    assert [len(open_store(site.store)) for site in sites] == [len(open_store(f)) for f in partition.sites.values()]


def test_more_than_ten_sites_keep_their_order(tmp_path: Path) -> None:
    names = [f"Unit {letter}" for letter in "ABCDEFGHIJKL"]
    made_store(tmp_path / "store", patient=list(range(48)), unit=names * 4, death=[n % 5 == 0 for n in range(48)])
    found = split(tmp_path / "store", tmp_path / "out")
    assert [load_site(path).site for path in simulated_sites(found.configs)] == list(found.sites) == names


@pytest.mark.parametrize("names", [("Ward A", "Ward-A"), ("Heldout", "MICU"), ("Configs", "MICU")])
def test_no_unit_takes_the_place_of_another_store(names: tuple[str, str], tmp_path: Path) -> None:
    made_store(tmp_path / "store", patient=list(range(40)), unit=[*names] * 20, death=[n % 4 == 0 for n in range(40)])
    found = split(tmp_path / "store", tmp_path / "out")
    assert len({found.heldout, found.configs, *found.sites.values()}) == 4
    assert sum(len(data) for data in opened(found).values()) == 40
    assert len(simulated_sites(found.configs)) == 2


@pytest.mark.parametrize(
    ("name", "short", "file"),
    [
        ("Medical Intensive Care Unit (MICU)", "MICU", "micu"),
        ("Medical/Surgical Intensive Care Unit (MICU/SICU)", "MICU/SICU", "micu-sicu"),
        ("Neuro Surgical Intensive Care Unit (Neuro SICU)", "Neuro SICU", "neuro-sicu"),
        ("Neuro Intermediate", "Neuro Intermediate", "neuro-intermediate"),
        ("(old) ward", "(old) ward", "old-ward"),
        ("重症", "重症", "unit"),
    ],
)
def test_units_have_short_names_and_plain_file_names(name: str, short: str, file: str) -> None:
    assert short_unit(name) == short
    assert slug(short) == file


def test_partitioning_a_store_equals_preparing_the_partitioned_extract(tmp_path: Path) -> None:
    """A hospital that prepares its own patients gets, bit for bit, what the simulation gives it."""
    source = synthetic(tmp_path / "mimic", patients=150)
    encoder = tiny_encoder(tmp_path / "encoder")
    prepared(source, tmp_path / "all", encoder=encoder)
    found = split(tmp_path / "all", tmp_path / "out", units=["MICU"])
    tables = read_tables(source)
    parts = opened(found)
    own = {str(patient) for data in parts.values() for patient in patients(data)}
    assert len(own) > 15
    cut = {name: rows[rows["subject_id"].isin(own)] for name, rows in tables.items()}
    alone = prepared(write_tables(cut, tmp_path / "micu"), tmp_path / "alone", encoder=encoder)
    assert {str(patient) for patient in patients(alone)} == own
    for data in parts.values():
        for row, patient in enumerate(data.patient_N.tolist()):
            there = alone.patient_N.tolist().index(patient)
            for name in ("static_NF", "series_NTC", "label_N"):
                one, other = getattr(data, name)[row], getattr(alone, name)[there]
                assert torch.equal(one.nan_to_num(-1e9), other.nan_to_num(-1e9)), name
            np.testing.assert_allclose(chunks_of(data, row), chunks_of(alone, there), atol=2e-2)  # batches differ
    assert len(alone.embedding_ME) > 0
