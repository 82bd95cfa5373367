"""Note text becomes chunk embeddings from a frozen pretrained encoder (client/encoder.py).

Which notes: radiology reports of the stay (from a day before admission) and discharge summaries of earlier admissions,
charted and stored by the prediction time. A text is embedded once, whoever it is of and however often a store is
prepared. Texts are read, cut and embedded a block at a time, and vectors wait in files, so that memory does not grow
with the notes; an interrupted preparation goes on after the last whole block.
"""

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from client.encoder import BLANK, Embedder, Encoder
from client.folders import EMBEDDED, replacing_folder
from client.source import read_parquet
from shared_model.manifest import TENSORS, read_manifest

TEXTS = "notes.parquet"
BLOCK_BYTES = 1 << 18  # of text: a hundred thousand tokens or less, so some MB once they are cut

# Blocks follow from the notes alone, not from what is embedded already: so an interrupted preparation goes on with the
# very blocks, and the very vectors, of one that was not interrupted.
_NOTES = """
CREATE TABLE note AS SELECT *, sum(strlen(text)) OVER (ORDER BY m) // $block_bytes AS block FROM (
    SELECT row_number() OVER (ORDER BY n, charttime, note_id, text) AS m, n, text, sha256(text) AS sha256 FROM (
        SELECT n, charttime, note_id, trim(regexp_replace(text, $blank, ' ', 'g')) AS text FROM (
            SELECT c.n, r.charttime, r.note_id, r.text FROM radiology AS r JOIN numbered AS c USING (subject_id)
            WHERE r.charttime > c.intime - INTERVAL 1 DAY AND r.charttime <= c.cutoff
              AND ($retrospective OR coalesce(r.storetime, r.charttime) <= c.cutoff)
            UNION ALL
            SELECT c.n, d.charttime, d.note_id, d.text FROM discharge AS d JOIN numbered AS c USING (subject_id)
            JOIN admissions AS now ON now.hadm_id = c.hadm_id
            JOIN admissions AS earlier ON earlier.hadm_id = d.hadm_id
            WHERE CASE WHEN $retrospective THEN earlier.admittime <= now.admittime
                  ELSE earlier.dischtime < now.admittime AND coalesce(d.storetime, d.charttime) <= c.cutoff END
        ) WHERE $wanted
    ) WHERE text <> ''
) ORDER BY m
"""
_EMBEDDED = "CREATE TABLE embedded (sha256 VARCHAR, piece INTEGER, start BIGINT, chunks BIGINT)"
_ENTER = """
INSERT INTO embedded SELECT sha256, ?, min(start), any_value(chunks) FROM (
    SELECT sha256, chunks, sum(chunks) OVER (ORDER BY file_row_number) - chunks AS start FROM {texts}
) WHERE sha256 NOT IN (SELECT sha256 FROM embedded) GROUP BY sha256
"""
_BLOCKS = "SELECT DISTINCT block FROM note WHERE sha256 NOT IN (SELECT sha256 FROM embedded) ORDER BY block"
_NEW = """
SELECT sha256, text FROM note WHERE block = ? AND sha256 NOT IN (SELECT sha256 FROM embedded) ORDER BY m
"""
_PLACES = "SELECT n, sha256, piece, start, chunks FROM note JOIN embedded USING (sha256) ORDER BY m"


@dataclass(frozen=True)
class Notes:
    """Embeddings [M, E] of all chunks (memory-mapped), where each stay's begin and how many it has ([N] each), in time
    order.

    ``texts`` has a row a note in the order of the chunks: SHA-256 of the text, and how many chunks it has.
    """

    embedding_ME: NDArray[np.float16]
    chunk_start_N: NDArray[np.int64]
    chunk_count_N: NDArray[np.int64]
    texts: pd.DataFrame


def embed_notes(
    connection: duckdb.DuckDBPyConnection,
    stays: int,
    encoder: Encoder,
    folder: Path,
    *,
    held: Path | None = None,
    retrospective: bool = False,
) -> Notes:
    """Embed the notes of the stays in ``numbered``; vectors wait in ``folder`` below ``EMBEDDED``.

    Texts that the prepared store ``held``, or an interrupted preparation in ``folder``, has embedded by the same
    encoder are taken from there, and the encoder is loaded only when there is a new one. Raises ConfigError when it
    cannot be.
    """
    wanted = {"wanted": encoder.folder is not None, "retrospective": retrospective}
    connection.execute(_NOTES, wanted | {"blank": BLANK, "block_bytes": BLOCK_BYTES})
    connection.execute(_EMBEDDED)
    own = folder / EMBEDDED / encoder.digest
    own.mkdir(parents=True, exist_ok=True)
    pieces = [*_held(held, encoder), *sorted(own.glob("[0-9a-f]*"))]
    for number, piece in enumerate(pieces):
        _enter(connection, number, piece)
    blocks = [block for (block,) in connection.execute(_BLOCKS).fetchall()]
    embedder = Embedder(encoder) if blocks else None
    for block in blocks:
        new = dict(connection.execute(_NEW, [block]).fetchall())
        if embedder and new:  # a block may hold nothing but texts of an earlier one
            pieces.append(_keep(own, new, embedder.embed(list(new.values()))))
            _enter(connection, len(pieces) - 1, pieces[-1])
    found = connection.execute(_PLACES).fetchdf()
    count_N = np.bincount(found["n"], found["chunks"], minlength=stays).astype(np.int64)
    if found.empty:
        embedding_ME = np.zeros((0, encoder.width()), np.float16)
    else:
        embedding_ME = _gather(found, pieces, own.with_suffix(".ordered"))
    return Notes(embedding_ME, np.cumsum(count_N) - count_N, count_N, found[["sha256", "chunks"]])


def _held(store: Path | None, encoder: Encoder) -> list[Path]:
    """An earlier store, if its vectors are of the same encoder."""
    same = store is not None and read_manifest(store)["encoder"]["digest"] == encoder.digest
    return [store] if store is not None and same else []


def _keep(own: Path, new: dict[str, str], vectors: list[NDArray[np.float16]]) -> Path:
    """Write the vectors of a block's texts as a piece: a folder, whole or absent, with the two files that a store has
    of them. It has the name of its first text, which no other piece holds."""
    piece = own / next(iter(new))
    with replacing_folder(piece) as building:
        save_file({"embedding_ME": np.concatenate(vectors)}, building / TENSORS)
        texts = pd.DataFrame({"sha256": list(new), "chunks": [len(vector_KE) for vector_KE in vectors]})
        texts.to_parquet(building / TEXTS, index=False)
    return piece


def _enter(connection: duckdb.DuckDBPyConnection, number: int, piece: Path) -> None:
    """List the texts of a piece, or of a store, and where their chunks begin in it."""
    connection.execute(_ENTER.format(texts=read_parquet(piece / TEXTS, ", file_row_number = true")), [number])


def _gather(found: pd.DataFrame, pieces: list[Path], file: Path) -> NDArray[np.float16]:
    """The vectors of all notes in their order, in a file that is mapped, not read."""
    ends = found["chunks"].cumsum()
    found = found.assign(to=ends - found["chunks"])
    with safe_open(pieces[found["piece"].iloc[0]] / TENSORS, framework="numpy") as tensors:
        shape = int(ends.iloc[-1]), tensors.get_slice("embedding_ME").get_shape()[1]
    embedding_ME = np.memmap(file, np.float16, "w+", shape=shape)
    for _, rows in found.groupby("piece"):
        with safe_open(pieces[rows["piece"].iloc[0]] / TENSORS, framework="numpy") as tensors:
            vectors = tensors.get_slice("embedding_ME")
            for to, start, chunks in rows[["to", "start", "chunks"]].to_numpy().tolist():
                embedding_ME[to : to + chunks] = vectors[start : start + chunks]
    return embedding_ME
