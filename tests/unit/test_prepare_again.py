"""A store that is prepared again takes over what still holds, redoes what does not, and ends as a fresh one would."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from site_builders import TINY, tiny_encoder, tiny_folder, write_csv

import client.windows
from client import encoder as text_encoder
from client import recipe
from client.prepare import prepare_mimic
from shared_model.batch import open_store
from shared_model.manifest import TENSORS, read_manifest
from shared_model.study import Study

Build = Callable[..., dict[str, Any]]
HEADER = TINY["radiology"].split("\n")[0]
CHEST = '1-RR-1,1,1000,2150-03-10 08:00:00,2150-03-10 09:00:00,"CHEST, portable, clear"\n'
HEAD = "1-RR-2,1,1000,2150-03-10 10:00:00,2150-03-10 11:00:00,CT of the head\n"
ABDOMEN = "1-RR-3,1,1000,2150-03-10 12:00:00,2150-03-10 13:00:00,Abdomen without free air\n"
PATIENTS = "subject_id,gender,anchor_age,anchor_year,septic,shock\n1,F,60,2150,yes,1\n2,M,71,2150,no,0\n"
CEFEPIME = "1,1000,2150-03-10 08:00:00,2150-03-11 08:00:00,MAIN,Cefepime,IV\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "mimic", radiology=f"{HEADER}\n{CHEST}{HEAD}", patients=PATIENTS)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def build(source: Path, tmp_path: Path, encoder: str) -> Build:
    """Prepare the source; without arguments always the same store with the same settings."""

    def build(name: str = "store", **options: Any) -> dict[str, Any]:
        settings = {"cohort": "all_icu", "encoder": encoder, "memory_limit": "1GB"} | options
        return prepare_mimic(source, tmp_path / "stores" / name, **settings)

    return build


@pytest.fixture
def store(build: Build, tmp_path: Path) -> Path:
    build()
    return tmp_path / "stores" / "store"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one each time that features are computed."""
    calls, genuine = [], client.windows.build_features
    monkeypatch.setattr("client.windows.build_features", lambda *given: (calls.append(1), genuine(*given))[1])
    return calls


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the encoder has embedded."""
    texts: list[str] = []
    genuine = text_encoder.Embedder.embed
    monkeypatch.setattr(text_encoder.Embedder, "embed", lambda self, new: (texts.extend(new), genuine(self, new))[1])
    return texts


def contents(folder: Path) -> dict[str, str]:
    files = (f for f in sorted(folder.rglob("*")) if f.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def tables(store: Path) -> dict[str, int]:
    """The inode of every extracted table: the same number is the same file, not read again."""
    return {file.stem: file.stat().st_ino for file in (store / "tables").iterdir()}


def read_again(store: Path, before: dict[str, int]) -> set[str]:
    return {name for name, inode in tables(store).items() if before[name] != inode}


def held_open(store: Path, folder: Path) -> dict[str, int]:
    """Inodes of a store's tables, which a second name keeps from being given to new files."""
    folder.mkdir()
    for file in (store / "tables").iterdir():
        os.link(file, folder / file.name)
    return tables(store)


def test_a_second_preparation_of_the_same_does_nothing(
    store: Path, build: Build, built: list[int], embedded: list[str]
) -> None:
    before, manifest, stages = {f: f.stat() for f in store.rglob("*")}, read_manifest(store), []
    assert build(on_stage=stages.append) == manifest == read_manifest(store)
    assert stages == ["nothing has changed since this store was prepared"]
    after = {f: f.stat() for f in store.rglob("*")}
    assert after.keys() == before.keys()
    assert all((s.st_ino, s.st_mtime_ns) == (after[f].st_ino, after[f].st_mtime_ns) for f, s in before.items())
    assert (built, embedded) == ([], [])


@pytest.mark.parametrize("change", ["touched", "another file"])
def test_a_changed_table_alone_is_read_again_and_the_features_are_those_of_a_fresh_store(
    change: str, source: Path, store: Path, build: Build, built: list[int], embedded: list[str], tmp_path: Path
) -> None:
    before, old = held_open(store, tmp_path / "links"), open_store(store).static_NF.clone()
    if change == "touched":
        os.utime(source / "hosp" / "prescriptions.csv.gz", (1, 1))
    else:
        (source / "hosp" / "prescriptions.csv.gz").unlink()
        write_csv(source, "prescriptions", TINY["prescriptions"] + CEFEPIME, suffix=".csv")
    build()
    assert read_again(store, before) == {"prescriptions"}
    assert (built, embedded) == ([1], [])
    build("fresh")
    assert contents(store) == contents(store.with_name("fresh"))
    new = open_store(store, verify=True).static_NF
    assert np.array_equal(old.numpy(), new.numpy(), equal_nan=True) is (change == "touched")


def test_a_changed_report_keeps_the_features_and_only_its_text_is_embedded(
    source: Path, store: Path, build: Build, embedded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, stages = held_open(store, tmp_path / "links"), []
    write_csv(source, "radiology", f"{HEADER}\n{HEAD}{ABDOMEN}")
    with monkeypatch.context() as forbidden:
        forbidden.setattr("client.windows.build_features", lambda *_: pytest.fail("the features have not changed"))
        build(on_stage=stages.append)
    assert read_again(store, before) == {"radiology"}
    assert embedded == ["Abdomen without free air"]
    assert stages == ["reading tables", "embedding notes"]
    fresh = build("fresh")
    assert read_manifest(store).keys() == fresh.keys()
    ours, theirs = (open_store(s, verify=True) for s in (store, store.with_name("fresh")))
    for name in ("static_NF", "series_NTC", "chunk_start_N", "chunk_count_N", "label_N"):
        assert np.array_equal(getattr(ours, name).numpy(), getattr(theirs, name).numpy(), equal_nan=True)
    np.testing.assert_allclose(ours.embedding_ME.float(), theirs.embedding_ME.float(), atol=2e-3)


def test_a_removed_report_needs_no_encoder(source: Path, store: Path, build: Build, embedded: list[str]) -> None:
    vectors = open_store(store).embedding_ME.clone()
    write_csv(source, "radiology", f"{HEADER}\n{HEAD}")
    assert build()["chunks"] == 1
    assert embedded == []
    assert open_store(store, verify=True).embedding_ME.tolist() == vectors[1:].tolist()


@pytest.mark.parametrize(
    ("options", "reads"),
    [
        ({"study": Study(prediction_hours=12)}, set()),
        ({"study": Study(label="in_icu")}, set()),
        ({"study": Study(window_statistics="mean,max")}, set()),
        ({"cohort": "icd"}, set()),
        ({"stays": "all"}, set()),
        ({"cohort": "flag", "flag": "patients.septic"}, {"patients"}),
    ],
)
def test_another_study_or_cohort_computes_the_features_from_the_tables_at_hand(
    options: dict[str, Any],
    reads: set[str],
    store: Path,
    build: Build,
    built: list[int],
    embedded: list[str],
    tmp_path: Path,
) -> None:
    before = held_open(store, tmp_path / "links")
    build(**options)
    assert read_again(store, before) == reads
    assert (built, embedded) == ([1], [])
    build("fresh", **options)
    assert contents(store) == contents(store.with_name("fresh"))
    build(**options)
    assert built == [1, 1]  # the fresh store's; the third time nothing has changed


def test_another_flag_of_the_same_table_reads_it_again(
    store: Path, build: Build, built: list[int], tmp_path: Path
) -> None:
    build(cohort="flag", flag="patients.septic")
    before = held_open(store, tmp_path / "links")
    manifest = build(cohort="flag", flag="patients.shock")
    assert read_again(store, before) == {"patients"}
    assert (manifest["flag"], built) == ("patients.shock", [1, 1])


def test_another_encoder_keeps_the_features_and_embeds_every_text(
    store: Path, build: Build, built: list[int], embedded: list[str], tmp_path: Path
) -> None:
    before, other = held_open(store, tmp_path / "links"), Path(tiny_encoder(tmp_path / "other"))
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace('"hidden_act": "gelu"', '"hidden_act": "relu"'))
    manifest = build(encoder=str(other))
    assert read_again(store, before) == set()
    assert built == []
    assert embedded == ["CHEST, portable, clear", "CT of the head"]
    assert manifest["encoder"]["name"] == str(other)
    assert build(encoder="none")["chunks"] == 0
    assert (built, len(embedded)) == ([], 2)
    build("fresh", encoder="none")
    assert contents(store) == contents(store.with_name("fresh"))


def test_a_store_with_an_altered_tensor_file_is_not_taken_over(
    store: Path, build: Build, built: list[int], embedded: list[str], tmp_path: Path
) -> None:
    before, good = held_open(store, tmp_path / "links"), contents(store)
    raw = (store / TENSORS).read_bytes()
    (store / TENSORS).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    build()
    assert contents(store) == good
    assert read_again(store, before) == set(before)
    assert (built, len(embedded)) == ([1], 2)


@pytest.mark.parametrize("ending", [RuntimeError("out of disk"), KeyboardInterrupt()], ids=["failure", "Ctrl-C"])
@pytest.mark.parametrize(
    ("changed", "at"),
    [
        ("prescriptions", "client.windows.build_features"),
        ("radiology", "client.encoder.Embedder.embed"),
        ("radiology", "client.store.write_store"),
    ],
)
def test_a_failure_amid_a_new_preparation_leaves_the_old_store_whole(
    changed: str,
    at: str,
    ending: BaseException,
    source: Path,
    store: Path,
    build: Build,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> None:
        raise ending

    before = contents(store.parent)
    write_csv(source, changed, TINY[changed] + {"prescriptions": CEFEPIME, "radiology": ABDOMEN}[changed])
    with monkeypatch.context() as broken:
        broken.setattr(at, stop)
        with pytest.raises(type(ending)):
            build()
    whole = {path: digest for path, digest in contents(store.parent).items() if ".unfinished/" not in path}
    assert whole == before
    assert {f.name for f in store.parent.iterdir()} <= {"store", ".store.unfinished"}
    build()
    build("fresh")
    assert contents(store) == contents(store.with_name("fresh"))


@pytest.mark.parametrize("file", ["stays.parquet", "notes.parquet", "rejects/events.parquet"])
def test_a_store_without_one_of_its_files_is_not_taken_over(file: str, store: Path, build: Build) -> None:
    (store / file).unlink()
    build()
    assert (store / file).exists()


def test_a_disk_without_hard_links_is_no_hindrance(
    source: Path, store: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", refuse)
    write_csv(source, "radiology", f"{HEADER}\n{CHEST}{HEAD}{ABDOMEN}")
    assert build()["chunks"] == 3


def test_what_python_compiles_is_no_change_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "prepare.py").write_text("")
    monkeypatch.setattr(recipe, "__file__", str(tmp_path / "prepare.py"))
    before = recipe.code_digest()
    (tmp_path / "__pycache__" / "windows.cpython-311.pyc").write_bytes(b"compiled later")
    assert recipe.code_digest() == before


@pytest.mark.parametrize("name", ["cohort.py", "sql/known.sql"])
def test_another_rule_or_query_is_a_change_of_the_code(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sql").mkdir()
    (tmp_path / name).write_text("one")
    monkeypatch.setattr(recipe, "__file__", str(tmp_path / "prepare.py"))
    before = recipe.code_digest()
    (tmp_path / name).write_text("two")
    assert recipe.code_digest() != before
