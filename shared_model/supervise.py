"""Keep one process running until told to stop: what both daemons are.

A process that ends is started again after a pause that doubles up to a minute and begins anew once it has run for a
while; one that can only fail again is not. Its output goes to a log file that is rotated. SIGTERM and Ctrl-C end the
process, and then this one, cleanly.
"""

import logging
import os
import re
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from time import monotonic
from types import FrameType

from shared_model.errors import ConfigError, ConsiliumError

LOG_BYTES, LOG_FILES, LINES_KEPT = 10_000_000, 5, 200
SHORTEST, LONGEST, STEADY = 1.0, 60.0, 120.0  # seconds of pause; seconds after which a process counts as steady
GRACE = 15.0  # seconds from SIGTERM to SIGKILL
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

Hopeless = Callable[[int, Sequence[str]], ConsiliumError | None]
"""From exit status and last lines of output: the error that starting again would only repeat, or None."""


@dataclass(kw_only=True)
class Supervised:
    """A process to keep running. ``pid_file`` holds the supervisor's process number and is locked while it runs."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    folder: Path
    log: Path
    pid_file: Path
    hopeless: Hopeless = lambda status, lines: None
    tell: Callable[[str], None] = lambda line: None
    afterwards: Callable[[], None] = lambda: None  # ends what outlives the process in sessions of its own
    on_line: Callable[[str], None] = lambda line: None  # every line of output, from a thread of its own
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises ConfigError when it runs already, or what ``hopeless`` says."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(self.pid_file, self.name), signals_set(self.stopping), _rotating(self.log) as log:
            pause = SHORTEST
            while not self.stopping.is_set():
                started = monotonic()
                status, lines = self._once(log)
                if self.stopping.is_set():
                    break
                if error := self.hopeless(status, lines):
                    raise error
                pause = SHORTEST if monotonic() - started > STEADY else pause
                self.tell(f"{self.name} ended with status {status}; starting again in {pause:.0f} s (log: {self.log})")
                self.stopping.wait(pause)
                pause = min(pause * 2, LONGEST)

    def _once(self, log: logging.Logger) -> tuple[int, list[str]]:
        process = subprocess.Popen(
            list(self.command),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the supervisor, which passes it on
        )
        lines: deque[str] = deque(maxlen=LINES_KEPT)
        reader = threading.Thread(target=_copy, args=(process, log, lines, self.on_line), daemon=True)
        reader.start()
        try:
            while process.poll() is None and not self.stopping.wait(0.1):
                pass
        finally:
            _end(process)
            self.afterwards()
        reader.join(timeout=2)  # a grandchild may hold the pipe open
        return process.returncode, list(lines)


def running(pid_file: Path) -> int | None:
    """The supervisor's process number while it runs."""
    from filelock import FileLock, Timeout

    try:
        pid = int(pid_file.read_text(encoding="ascii"))
        with FileLock(_lock_of(pid_file), timeout=0):
            return None  # nobody holds it: what the file says is of an earlier one
    except Timeout:
        return pid
    except (OSError, ValueError):
        return None


def stop(pid_file: Path, *, seconds: float = GRACE + 10) -> bool:
    """Ask the supervisor to end and wait for it; False when none runs. Raises ConfigError when it does not end."""
    pid = running(pid_file)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    end, waiting = monotonic() + seconds, threading.Event()
    while running(pid_file) is not None:
        if monotonic() > end:
            raise ConfigError(f"process {pid} does not end; see its log")
        waiting.wait(0.1)
    return True


def _copy(
    process: subprocess.Popen[bytes], log: logging.Logger, lines: "deque[str]", on_line: Callable[[str], None]
) -> None:
    if process.stdout is None:
        return
    with process.stdout as output:
        for raw in output:
            line = _COLOUR.sub("", raw.decode("utf-8", "replace")).rstrip()
            lines.append(line)
            log.info(line)
            on_line(line)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the process, then SIGKILL to its whole session."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)  # what it may have left behind; nobody else is in its session
    except (ProcessLookupError, PermissionError):
        return


@contextmanager
def _only_one(pid_file: Path, name: str) -> Iterator[None]:
    from filelock import FileLock, Timeout

    pid_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(_lock_of(pid_file), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"{name} runs already (process {pid_file.read_text(encoding='ascii')}); stop it first"
        ) from None
    try:
        pid_file.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        pid_file.unlink(missing_ok=True)
        lock.release()


def _lock_of(pid_file: Path) -> Path:
    return pid_file.with_name(pid_file.name + ".lock")


@contextmanager
def signals_set(stopping: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set the event; the handlers of before come back afterwards."""

    def ask(signum: int, frame: FrameType | None) -> None:
        stopping.set()

    before = {signum: signal.signal(signum, ask) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def _rotating(path: Path) -> Iterator[logging.Logger]:
    logger = logging.Logger(f"consilium.supervised.{path}")
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        handler.close()
