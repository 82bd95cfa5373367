"""A consortium on loopback as its people would set it up: a centre and hospitals, by their commands alone."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
from builders import MemoryGrid, patients, write_store
from federation import answers_of
from safetensors.torch import load_file

from client.policy import KINDS
from server.app import federate
from server.progress import Progress
from shared_model.config import RunConfig, Scalar
from shared_model.flower import flower_environment, free_port
from shared_model.messages import Weights
from shared_model.study import Study
from simulations.runner import MARK

BIN = Path(sys.executable).parent
PATIENCE = 150.0  # seconds until a wait gives up: a slow machine may need them, a sound one does not
WINDOWS = 3
SMALL = {
    "prediction-hours": float(WINDOWS),
    "text-dimension": 6,
    "static-hidden": 5,
    "series-hidden": 5,
    "text-hidden": 5,
    "fusion-width": 5,
    "rounds": 2,
    "bootstrap": 0,
    "expected-sites": 2,
    "local-steps": 2,
}
T = TypeVar("T")


class Consortium:
    """``folder/centre`` and one folder a hospital; everything that is started carries ``mark``."""

    def __init__(self, folder: Path, mark: str, host: str = "127.0.0.1") -> None:
        self.folder, self.mark, self.host, self.port = folder, mark, host, free_port()
        self.environment = flower_environment(
            folder / "nowhere", **{MARK: mark, "OMP_NUM_THREADS": "1"}
        )  # they share the cores
        self.centre = folder / "centre"
        self.sites: dict[str, Path] = {}
        self.dials: dict[str, str] = {}  # site -> another address for the SuperLink than the invitation's
        self.inside: dict[str, list[str]] = {}  # command -> in which network it runs (`ip netns exec NAME`)
        self.daemons: list[subprocess.Popen[bytes]] = []

    def command(self, name: str, *args: object, status: int | None = 0) -> str:
        """Run a command to its end; what it printed. ``status``: what it must end with; None: anything."""
        done = subprocess.run(
            [*self.inside.get(name, []), str(BIN / name), *map(str, args)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
        )
        said = done.stdout + done.stderr
        assert status is None or done.returncode == status, f"{name} {args}: {done.returncode}\n{said}\n{self.logs()}"
        return said

    def start(self, name: str, *args: object) -> subprocess.Popen[bytes]:
        """Start a command that stays; its words go to ``folder/NAME-N.out``."""
        out = (self.folder / f"{name}-{len(self.daemons)}.out").open("wb")
        command = [*self.inside.get(name, []), str(BIN / name), *map(str, args)]
        process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=out, stderr=out)
        out.close()
        self.daemons.append(process)
        return process

    def serve(self) -> None:
        """A centre whose SuperLink is being started."""
        self.folder.mkdir(parents=True, exist_ok=True)
        address = f"{self.host}:{self.port}"
        self.command(
            *("consilium-server", "init", self.centre, "--address", address),
            *("--host", self.host, "--port", self.port),
        )  # fmt: skip
        self.start("consilium-server", "start", self.centre)

    def open(self, **hospitals: int) -> None:
        """A centre that serves and hospitals that are online; a name and how many patients each."""
        self.serve()
        for seed, (name, size) in enumerate(hospitals.items(), start=1):
            self.sites[name] = self._site(name, size, seed)
            self.command("consilium-server", "invite", self.centre, name)
            [invitation] = self.centre.glob(f"invitations/{name}*.json")
            self.command("consilium-site", "join", invitation, self.sites[name])
            self._dial(name)
        self.until(lambda: "registered" in self._register(), "the SuperLink")
        for site in self.sites.values():
            self.start("consilium-site", "start", site, "--health-port", free_port())
        self.until(lambda: self.status().count(" online") == len(hospitals), "sites online")

    def _dial(self, name: str) -> None:
        if name in self.dials:
            path = self.folder / name / "site.federation" / "membership.json"
            held = json.loads(path.read_text(encoding="utf-8"))
            path.write_text(json.dumps(held | {"superlink": self.dials[name]}), encoding="utf-8")

    def status(self) -> str:
        """What `consilium-server status` says."""
        return self.command("consilium-server", "status", self.centre, status=None)

    def close(self) -> None:
        """Ask everything to end, and wait for it."""
        for process in self.daemons:
            process.terminate()
        for process in self.daemons:
            process.wait(timeout=60)

    def train(self, name: str, status: int | None = 0, **settings: object) -> str:
        """`consilium-server run`; what it printed."""
        return self.command("consilium-server", "run", self.centre, *self.named(name, **settings), status=status)

    def named(self, name: str, **settings: object) -> list[str]:
        """The arguments of a run."""
        held = SMALL | {key.replace("_", "-"): value for key, value in settings.items()}
        return ["--name", name, *(part for key, value in held.items() for part in ("--set", f"{key}={value}"))]

    def weights(self, name: str) -> Weights:
        """Of the model that a run released."""
        return load_file(self.centre / "runs" / name / "model" / "model.safetensors")

    def processes(self, words: str, home: Path) -> Iterator[psutil.Process]:
        """Running processes with ``words`` in their command whose FLWR_HOME lies in ``home``."""
        for process in psutil.process_iter():
            try:
                here = process.environ()
                ours = here.get(MARK) == self.mark and here.get("FLWR_HOME", "").startswith(str(home.resolve()))
                if ours and words in " ".join(process.cmdline()):
                    yield process
            except (psutil.Error, OSError):
                continue

    def audit(self, site: str) -> list[dict[str, object]]:
        """What the site's audit log says so far."""
        path = self.folder / site / "store.audit.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def until(self, found: Callable[[], T], what: str) -> T:
        """What ``found`` returns once it is true."""
        end = time.monotonic() + PATIENCE
        while not (value := found()):
            assert time.monotonic() < end, f"waited in vain for {what}\n{self.logs()}"
            time.sleep(0.05)
        return value

    def logs(self) -> str:
        """The last lines of every log, for a test that fails."""
        paths = [path for pattern in ("*.out", "*/logs/*.log", "*/*/logs/*.log") for path in self.folder.glob(pattern)]
        ends = {path: path.read_text(encoding="utf-8", errors="replace").splitlines()[-12:] for path in paths}
        return "\n".join("\n".join([f"== {path}", *lines]) for path, lines in ends.items())

    def _site(self, name: str, size: int, seed: int) -> Path:
        folder = self.folder / name
        study = Study(prediction_hours=float(WINDOWS))
        write_store(folder / "store", patients(size, seed=seed, windows=WINDOWS), study=study)
        held = {
            "site": name,
            "store": "store",
            "prediction_hours": float(WINDOWS),
            "release": {"allow": KINDS, "smallest_cell": 3},
        }
        path = folder / "site.yaml"
        path.write_text(json.dumps(held), encoding="utf-8")
        return path

    def _register(self) -> str:
        said = ""
        for site in self.sites.values():
            answer = site.parent / "site.federation" / "registration.json"
            said = self.command("consilium-server", "register", self.centre, answer, status=None)
            if "registered" not in said:
                return ""
        return said


def undisturbed(consortium: Consortium, place: Path, **settings: Scalar) -> Weights:
    """What a run with these settings ends with when nothing happens to it: the same ClientApp and ServerApp over copies
    of the same stores, in this process."""
    told = SMALL | settings | {"name": "whole", "output": str(place / "run")}
    config = RunConfig.from_flat(RunConfig().to_flat() | told)
    nodes = {}
    for number, (site, path) in enumerate(consortium.sites.items(), start=1):
        shutil.copytree(path.parent, place / site)
        nodes[number] = answers_of(place / site / path.name, number, config)
    federate(MemoryGrid(nodes), config, Progress(place / "run"))
    return load_file(place / "run" / "model" / "model.safetensors")
