"""A line to a server that a test can cut, restore, slow down and stall: a TCP proxy on loopback."""

import socket
import threading
import time
from contextlib import suppress

_PIECE = 1 << 14  # bytes that pass at once
_BUFFER = 1 << 13  # so small that a slow line is felt by who sends


class Link:
    """Passes everything on to ``target``. ``sent``: bytes that the dialling side has sent over it."""

    def __init__(self, target: int) -> None:
        self._target, self._lock = target, threading.Lock()
        self._listener = _listener(0)
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._flows, self._rate = threading.Event(), float("inf")
        self.sent, self._cut_at = 0, float("inf")
        self.cuts = 0
        self.restored()

    def restored(self) -> None:
        """As a sound line is."""
        self._rate, self._cut_at = float("inf"), float("inf")
        self._flows.set()
        if self._listener.fileno() < 0:
            self._listener = _listener(self.port)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Every connection ends, and none can be made."""
        self._break(self._listener)

    def broken_after(self, size: int) -> None:
        """Every connection ends once, when ``size`` more bytes have been sent; new ones can be made at once."""
        self._cut_at = self.sent + size

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
            self.cuts += 1
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
            while data := source.recv(min(_PIECE, max(1, int(min(self._rate, _PIECE) / 10)))):
                self._flows.wait()
                time.sleep(len(data) / self._rate)
                if upwards and (self.sent + len(data)) >= self._cut_at:
                    self._cut_at = float("inf")
                    self._break()
                    return
                sink.sendall(data)
                self.sent += len(data) if upwards else 0
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def _listener(port: int) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", port))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)  # inherited by what it accepts
    return listener
