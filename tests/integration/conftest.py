"""Real Flower processes for tests: everything they start is found by its mark and ended."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from shared_model.flower import flower_environment, free_port
from simulations.runner import MARK, ended_afterwards, marked

BIN = Path(sys.executable).parent


class Flower:
    """A SuperLink and its SuperNodes on loopback, as an administrator would start them."""

    def __init__(self, folder: Path, mark: str) -> None:
        self.folder, self.mark, self.port = folder, mark, free_port()
        self.environment = flower_environment(
            folder / "home", **{MARK: mark, "OMP_NUM_THREADS": "1"}
        )  # they share the cores
        self._empty = folder / "empty"
        self._empty.mkdir(parents=True)
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]], cwd=self._empty, env=self.environment, stdout=log, stderr=log
            )
        self._started.append(process)

    def stop(self) -> None:
        for process in self._started:
            process.terminate()
        for process in self._started:
            process.wait(timeout=30)

    def superlink(self) -> None:
        self.start(
            "superlink", "flower-superlink", "--insecure", "--port", str(self.port),
            "--disable-runtime-dependency-installation",
        )  # fmt: skip
        (self.folder / "home").mkdir(exist_ok=True)
        (self.folder / "home" / "config.toml").write_text(
            f'[superlink.here]\naddress = "127.0.0.1:{self.port}"\ninsecure = true\n'
        )

    def supernode(self, site_config: Path) -> None:
        self.start(
            site_config.stem, "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{self.port}",
            "--port", str(free_port()), "--node-config", f'site-config="{site_config}"',
        )  # fmt: skip

    def run(self, app: Path, overrides: str, seconds: float = 240) -> str:
        """`flwr run APP here --stream`; returns what it printed."""
        command = [str(BIN / "flwr"), "run", str(app), "here", "--stream", "--run-config", overrides]
        end = time.monotonic() + seconds
        while True:
            done = subprocess.run(
                command, cwd=self._empty, env=self.environment, capture_output=True, text=True, timeout=seconds
            )
            if done.returncode == 0 or time.monotonic() > end or "onnect" not in done.stdout + done.stderr:
                return done.stdout + done.stderr
            time.sleep(1)  # the SuperLink is still starting


@pytest.fixture
def flower(tmp_path: Path) -> Iterator[Flower]:
    mark = uuid4().hex
    with ended_afterwards(mark):
        processes = Flower(tmp_path / "flower", mark)
        yield processes
        processes.stop()
    assert not marked(mark), "Flower processes outlived the test"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Where the open clinical data lies; tests that need it skip when it is absent."""
    default = Path(__file__).parents[3] / "shared" / "data"
    return Path(os.environ.get("CONSILIUM_DATA", default))


@pytest.fixture(scope="session")
def mimic_demo(data_folder: Path) -> Path:
    folder = data_folder / "mimic-iv-demo-2.2"
    if not folder.is_dir():
        pytest.skip(f"no MIMIC-IV demo at {folder}; set CONSILIUM_DATA")
    return folder
