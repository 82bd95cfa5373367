"""Notes on the way into a store: an interrupted preparation keeps what it embedded, and a site may have no notes."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from site_builders import TINY, tiny_encoder, tiny_folder

from client.encoder import Embedder
from client.prepare import prepare_mimic
from shared_model.batch import open_store

HEADER = TINY["radiology"].split("\n")[0]
WIDTH = 768


def reports(*texts: str) -> str:
    rows = (f'1-RR-{n},1,1000,2150-03-10 08:{n:02}:00,2150-03-10 09:00:00,"{text}"\n' for n, text in enumerate(texts))
    return f"{HEADER}\n{''.join(rows)}"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_encoder(tmp_path_factory.mktemp("bert"), hidden_size=WIDTH, num_attention_heads=12)


def contents(folder: Path) -> dict[str, str]:
    files = (f for f in sorted(folder.rglob("*")) if f.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.mark.parametrize("held", [False, True], ids=["first", "another encoder before"])
def test_an_interrupted_preparation_embeds_no_text_twice_and_ends_as_a_fresh_one(
    held: bool, encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = [f"Film {n}. " + "Clear. " * n for n in range(12)]
    source = tiny_folder(tmp_path / "mimic", radiology=reports(*films))
    monkeypatch.setattr("client.notes.BLOCK_BYTES", 100)
    if held:
        prepare_mimic(source, tmp_path / "store", cohort="all_icu", encoder="none")
    genuine, read = Embedder.embed, []

    def embed(self: Embedder, texts: list[str]) -> list[np.ndarray]:
        if len(read) > 4:
            raise KeyboardInterrupt
        read.extend(texts)
        return genuine(self, texts)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Embedder, "embed", embed)
        prepare_mimic(source, tmp_path / "store", cohort="all_icu", encoder=encoder)
    before = list(read)
    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "embed", lambda self, texts: (read.extend(texts), genuine(self, texts))[1])
        manifest = prepare_mimic(source, tmp_path / "store", cohort="all_icu", encoder=encoder)
    assert 4 < len(before) < len(films)
    assert read == [film.strip() for film in films]
    assert prepare_mimic(source, tmp_path / "fresh", cohort="all_icu", encoder=encoder) == manifest
    assert contents(tmp_path / "store") == contents(tmp_path / "fresh")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["fresh", "mimic", "store"]


@pytest.mark.parametrize("radiology", [reports(), reports("", "   ", "___")], ids=["no notes", "empty notes"])
def test_a_site_whose_notes_say_nothing_has_no_chunks_of_the_encoders_width(
    radiology: str, encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Embedder, "__init__", lambda *_: pytest.fail("there is nothing to embed"))
    source = tiny_folder(tmp_path / "mimic", radiology=radiology)
    manifest = prepare_mimic(source, tmp_path / "store", cohort="all_icu", encoder=encoder)
    data = open_store(tmp_path / "store", verify=True)
    assert manifest["chunks"] == 0
    assert tuple(data.embedding_ME.shape) == (0, WIDTH)
    assert data.chunk_count_N.sum() == 0
    assert prepare_mimic(source, tmp_path / "store", cohort="all_icu", encoder=encoder) == manifest
