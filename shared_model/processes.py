"""Processes that we, or something that we started, have started: found by what they inherited, and ended."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


def carrying(variable: str, value: str) -> list[psutil.Process]:
    """Processes with this in their environment, and their children; this process is not among them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(variable) == value:
                found += [process, *process.children(recursive=True)]  # Ray's agents overwrite their environment
        except (psutil.Error, OSError):
            continue
    return list(set(found))


def end(processes: list[psutil.Process], grace: float) -> None:
    """SIGTERM, then SIGKILL to what is still there after ``grace`` seconds."""
    for process in processes:
        with gone_is_fine():
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=grace)
    for process in alive:
        with gone_is_fine():
            process.kill()
    psutil.wait_procs(alive, timeout=grace)


@contextmanager
def gone_is_fine() -> Iterator[None]:
    """What has ended by itself need not be ended."""
    try:
        yield
    except psutil.NoSuchProcess:
        return
