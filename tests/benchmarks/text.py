"""Notes to embeddings: rate, against a plain `AutoModel` loop over the same chunks, and peak memory as notes grow.

Both loops in turns on one device with the same threads: the plain one takes batches of 32 chunks sorted by length, as
tutorials do; ours is timed with the cutting into chunks, which the plain one has for nothing. ClinicalBERT has the size
of BERT base; random weights of that size take as long. Memory is that of a process of its own, where every note is
another text; the encoder there has ClinicalBERT's width and no layers, for the notes' share is what is asked.
Alone: python -m tests.benchmarks.text [NOTES]
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from client.encoder import BATCH_TOKENS, Chunks, Embedder, Encoder, resolve_encoder, similar
from tests.benchmarks.preparation import measured

SHOWN, REPEATS = 120, 3
MEMORY_NOTES = (2_000, 8_000)
_EMBED = """
import sys
from pathlib import Path
import duckdb
import numpy as np
from client.encoder import resolve_encoder
from client.extract import working_database
from client.notes import embed_notes
from tests.benchmarks.text import reports
from safetensors.numpy import save_file
folder, notes = Path(sys.argv[2]), int(sys.argv[3])
folder.mkdir()
with working_database(folder, memory_limit="1GB") as connection:
    connection.execute("CREATE TABLE numbered AS SELECT i AS n, i AS subject_id, i AS hadm_id,"
                       " TIMESTAMP '2150-01-01' AS intime, TIMESTAMP '2150-01-02' AS cutoff"
                       " FROM range(?) AS r(i)", [notes])
    for table in ("radiology", "discharge"):
        connection.execute(f"CREATE TABLE {table} (note_id VARCHAR, subject_id INT, hadm_id INT, charttime TIMESTAMP,"
                           " storetime TIMESTAMP, text VARCHAR)")
    connection.execute("CREATE TABLE admissions (hadm_id INT, admittime TIMESTAMP, dischtime TIMESTAMP)")
    for first in range(0, notes, 500):
        texts = reports(500, seed=first)
        connection.execute("INSERT INTO radiology SELECT 'R', i + ?, i + ?, TIMESTAMP '2150-01-01 12:00:00', NULL,"
                           " list_extract(?, i + 1) FROM range(500) AS r(i)", [first, first, texts])
    made = embed_notes(connection, notes, resolve_encoder(sys.argv[1]), folder)
    save_file({"embedding_ME": np.ascontiguousarray(made.embedding_ME)}, folder / "store")
"""


def measure(folder: Path, notes: int = SHOWN) -> Table:
    """The table of figures; ``folder`` is for scratch."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder.mkdir(exist_ok=True)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    table = Table("figure", "measured", "aim", title=f"notes to embeddings ({device})", title_justify="left")
    _rate(table, "packaged MiniLM", resolve_encoder("minilm"), reports(notes, seed=1))
    _rate(table, "BERT base, random weights", _bert_base(folder / "bert"), reports(max(notes // 4, 1), seed=1))
    _memory(table, folder)
    return table


def _rate(table: Table, name: str, encoder: Encoder, texts: list[str]) -> None:
    embedder = Embedder(encoder)
    chunks = embedder.chunks(texts)
    padded = {
        "batches of 32": _padding(chunks, _plain_batches(chunks)),
        "ours": _padding(chunks, list(similar(chunks.length_M, BATCH_TOKENS[embedder.device.type]))),
    }
    ours, plain = [], []
    _plain(embedder, chunks)
    for _ in range(REPEATS):
        plain.append(_seconds(lambda: _plain(embedder, chunks)))
        ours.append(_seconds(lambda: embedder.embed(texts)))
    seconds, tokens = median(ours), int(chunks.length_M.sum())
    table.add_row(f"{name}: notes, chunks, tokens", f"{len(texts):,}, {len(chunks.length_M):,}, {tokens:,}", "")
    table.add_row("  notes a second, tokens a second", f"{len(texts) / seconds:,.1f}, {tokens / seconds:,.0f}", "")
    ratio = median(p / o for p, o in zip(plain, ours, strict=True))
    table.add_row("  rate over the plain loop's, cutting included", f"{ratio:.2f}", ">= 1")
    table.add_row("  padding over tokens, plain and ours", ", ".join(f"{share:.1%}" for share in padded.values()), "")


def _memory(table: Table, folder: Path) -> None:
    encoder = str(_bert_base(folder / "flat", layers=0).folder)
    peaks = {}
    for notes in MEMORY_NOTES:
        place = folder / f"memory-{notes}"
        peaks[notes] = measured([sys.executable, "-c", _EMBED, encoder, str(place), str(notes)]).gigabytes * 1e3
        file = (place / "store").stat().st_size / 1e6
        table.add_row(f"peak memory of {notes:,} notes, MB", f"{peaks[notes]:,.0f} (embeddings: {file:,.0f})", "")
    small, large = MEMORY_NOTES
    table.add_row(f"  {large / small:g} times the notes", f"{peaks[large] - peaks[small]:+,.0f} MB", "the embeddings")


def _plain_batches(chunks: Chunks) -> list[np.ndarray]:
    order = np.argsort(chunks.length_M, kind="stable")
    return [order[start : start + 32] for start in range(0, len(order), 32)]


def _plain(embedder: Embedder, chunks: Chunks) -> np.ndarray:
    """What one writes first: sort by length, pad, run, take the mean."""
    import torch

    tokenizer, model, device = embedder.tokenizer, embedder.model, embedder.device
    ids = [row[:length].tolist() for row, length in zip(chunks.ids_MT, chunks.length_M, strict=True)]
    vectors = np.zeros((len(ids), model.config.hidden_size), np.float16)
    half = torch.autocast(device.type, torch.float16, enabled=device.type == "cuda")
    for index in _plain_batches(chunks):
        batch = tokenizer.pad({"input_ids": [ids[i] for i in index]}, return_tensors="pt").to(device)
        with torch.inference_mode(), half:
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][:, :, None]
        vectors[index] = ((hidden * mask).sum(1) / mask.sum(1)).half().cpu().numpy()
    return vectors


def _padding(chunks: Chunks, batches: list[np.ndarray]) -> float:
    filled = sum(len(index) * int(chunks.length_M[index].max()) for index in batches)
    return filled / int(chunks.length_M.sum()) - 1


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _bert_base(folder: Path, *, layers: int = 12) -> Encoder:
    """ClinicalBERT's size (768 wide) with the packaged encoder's tokenizer."""
    from transformers import BertConfig, BertModel

    packaged = Path(str(resolve_encoder("minilm").folder))
    BertModel(BertConfig(vocab_size=30_522, num_hidden_layers=layers)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(packaged / name, folder / name)
    return resolve_encoder(str(folder))


def reports(count: int, *, seed: int) -> list[str]:
    """Texts of synthetic chest, abdomen and head reports; each is another."""
    from simulations.hospital.radiology import CHOICES, _text

    rng = np.random.default_rng(seed)
    study, grade = rng.choice(3, size=count, p=[0.8, 0.1, 0.1]), rng.integers(0, 6, count)
    flags, choices = rng.random((count, 2)) < 0.5, rng.random((count, CHOICES))
    rows = zip(study.tolist(), grade.tolist(), flags.tolist(), choices.tolist(), strict=True)
    return [f"{_text(s, g, tube, female, u)}\nStudy {seed}-{n}." for n, (s, g, (tube, female), u) in enumerate(rows)]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="consilium-bench-") as scratch:
        Console(width=120).print(measure(Path(scratch) / "text", *map(int, sys.argv[1:])))
