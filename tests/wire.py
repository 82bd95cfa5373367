"""A TCP proxy that keeps every byte in both directions, and a search for patients' data in them."""

import re
import socket
import threading
import zlib
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared_model.batch import PatientData

_WORD = 8  # bytes
_PACKED = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")  # gzip, zlib


class Recorder:
    """Listens on a port of its own and passes everything on to ``target``."""

    def __init__(self, target: int) -> None:
        self.streams: list[bytearray] = []
        self._target, self._listener = target, socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def captured(self) -> bytes:
        return b"\0".join(bytes(stream) for stream in self.streams)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                inner, _ = self._listener.accept()
                try:
                    outer = socket.create_connection(("127.0.0.1", self._target))
                except OSError:  # the SuperLink is still starting
                    inner.close()
                    continue
                self._open += [inner, outer]
                for source, sink in ((inner, outer), (outer, inner)):
                    self.streams.append(bytearray())
                    pump = threading.Thread(target=_pump, args=(source, sink, self.streams[-1]), daemon=True)
                    pump.start()


def _pump(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            kept += data
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def decompressed(raw: bytes) -> bytes:
    """With what lies in it compressed, and with what HTTP's chunks cut put together."""
    parts = [raw, re.sub(rb"\r\n[0-9a-fA-F]+\r\n", b"", raw)]
    for part in list(parts):
        for start in (found.start() for found in _PACKED.finditer(part)):
            with suppress(zlib.error):
                parts.append(zlib.decompressobj(wbits=47).decompress(part[start:], 1 << 26))
    return b"\0".join(parts)


@dataclass
class Secrets:
    """Name to what must not be on the wire: words of eight bytes, numbers as decimal text, and texts."""

    words: dict[str, NDArray[np.uint64]] = field(default_factory=dict)
    numbers: dict[str, set[bytes]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def found_in(self, captured: bytes) -> set[str]:
        padded = captured + bytes(-len(captured) % _WORD + _WORD)
        shifted = (np.frombuffer(padded[n : n - _WORD], dtype="<u8") for n in range(_WORD))
        known = np.unique(np.concatenate(list(self.words.values())))
        hits = np.concatenate([seen[known[np.searchsorted(known, seen) % len(known)] == seen] for seen in shifted])
        numbers = set(re.findall(rb"\d+\.\d+(?:e[+-]?\d+)?|\d{6,}", captured))
        found = {name for name, held in self.words.items() if np.isin(held, hits).any()}
        found |= {name for name, held in self.numbers.items() if numbers & held}
        forms = {name: (text.encode(), text.encode("utf-16-le"), text.encode().hex().encode()) for name, text in
                 self.texts.items()}  # fmt: skip
        return found | {name for name, held in forms.items() if any(form in captured for form in held)}


def secrets_of(data: PatientData, **texts: str) -> Secrets:
    """Every patient id and every measured value of a store, in the forms that a program would write them in."""
    ids = data.patient_N.numpy()
    secrets = Secrets(
        words={"id": ids.astype("<i8").view("<u8"), "id, big-endian": ids.astype(">i8").view("<u8")},
        numbers={"id as text": {str(one).encode() for one in ids}},
        texts=texts,
    )
    rows = {"static": data.static_NF.numpy(), "series": data.series_NTC.numpy().reshape(-1, data.series_NTC.shape[2])}
    for name, held in rows.items():
        pairs = np.stack([held[:, :-1], held[:, 1:]], axis=-1)
        whole = held[np.isfinite(held)]
        secrets.words[f"{name}, float32"] = _words(pairs[np.isfinite(pairs).all(axis=-1)].astype("<f4"))
        secrets.words[f"{name}, float64"] = _words(whole.astype("<f8"))
        secrets.numbers[f"{name} as text"] = {
            text.encode().lstrip(b"-") for one in whole for text in (repr(float(one)), str(one)) if len(text) > 7
        }
    embedding = data.embedding_ME.numpy()
    secrets.words["notes, float16"] = _words(embedding[:, : embedding.shape[1] // 4 * 4].astype("<f2"))
    return secrets


def _words(values: NDArray[np.generic]) -> NDArray[np.uint64]:
    return np.frombuffer(values.tobytes(), dtype="<u8")
