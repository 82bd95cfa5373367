"""A line to a server that a test can cut, restore, slow down and stall, also within an upload: a TCP proxy."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

LARGE = 4096  # bytes that are sent at once: no question, but a part of a reply's arrays
_PIECE = 1 << 14  # bytes that pass at once
_BUFFER = 1 << 13  # so small that a slow line is felt by who sends


class Link:
    """Passes everything on to ``target``. ``struck``: how often something happened to it within an upload."""

    def __init__(self, target: int) -> None:
        self._target, self._lock = target, threading.Lock()
        self._listener = _listener(0)
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._flows, self._rate = threading.Event(), float("inf")
        self._within: Callable[[], None] | None = None
        self.struck = 0
        self._serve()

    def restored(self) -> None:
        """As a sound line is."""
        self._rate, self._within = float("inf"), None
        self._flows.set()
        if self._listener.fileno() < 0:
            self._listener = _listener(self.port)
            self._serve()

    def _serve(self) -> None:
        self._flows.set()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Every connection ends, and none can be made."""
        self._break(self._listener)

    def within_the_next_upload(self, what: Callable[[], None]) -> None:
        """Let this happen, once, when half of a large piece has passed."""
        self._within = what

    def broken(self) -> None:
        """Every connection ends; new ones can be made at once."""
        self._break()

    def slow(self, rate: float) -> None:
        """So many bytes a second in each direction."""
        self._rate = rate

    def stalled(self) -> None:
        """Connections stay and can be made, and nothing passes."""
        self._flows.clear()

    def close(self) -> None:
        self._flows.set()
        self.cut()

    def _break(self, *others: socket.socket) -> None:
        with self._lock:
            held, self._open = [*self._open, *others], []
        for one in held:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                inner, _ = listener.accept()
                try:
                    outer = socket.create_connection(("127.0.0.1", self._target))
                except OSError:  # the server is away
                    inner.close()
                    continue
                with self._lock:
                    self._open += [inner, outer]
                for ends in ((inner, outer, True), (outer, inner, False)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, upwards: bool) -> None:
        with suppress(OSError):
            while data := source.recv(max(1, int(min(_PIECE, self._rate / 10)))):
                if upwards and len(data) >= LARGE and self._within is not None:
                    sink.sendall(data[: LARGE // 2])
                    data, happens, self._within = data[LARGE // 2 :], self._within, None
                    happens()
                    self.struck += 1
                self._flows.wait()
                time.sleep(len(data) / self._rate)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def _listener(port: int) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", port))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)  # inherited by what it accepts
    return listener
