"""A run from the coordinating centre: what is submitted stays in ``runs/NAME``, so that it can be resumed.

::

    runs/NAME/app/               the Flower app as it was sent
    runs/NAME/run-config.toml    its settings
    runs/NAME/run.json           Flower's number of it
    runs/NAME/progress.jsonl ... written by the ServerApp (server/progress.py, server/results.py)
"""

import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from server.app_folder import stage_app
from server.control import FINISHED, ready, run_states, start_run, stop_run, stream_log
from server.federation import Federation, yaml_settings
from server.progress import FILE as PROGRESS
from server.progress import PROCESS, Event, events, follow
from shared_model.atomic import write_text
from shared_model.errors import ConfigError, FederationError, RunFolderError
from shared_model.overrides import Scalar, flat_toml, setting_pairs, toml_text
from shared_model.supervise import running

OURS = ("output", "name", "roster", "resume")  # settings that this module decides
NAMES = r"[A-Za-z0-9][\w.-]{0,63}"  # as RunConfig.name
RETRY = 3.0  # seconds


@dataclass(frozen=True)
class Run:
    """One folder below ``runs``."""

    federation: Federation
    name: str

    @property
    def folder(self) -> Path:
        return self.federation.runs / self.name

    @property
    def settings(self) -> Path:
        return self.folder / "run-config.toml"

    @property
    def progress(self) -> Path:
        return self.folder / PROGRESS

    @property
    def run_id(self) -> int | None:
        """Flower's number of the last submission; None when it was never submitted."""
        try:
            return int(json.loads((self.folder / "run.json").read_text(encoding="utf-8"))["run-id"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def events(self) -> list[Event]:
        """What its ServerApp told until now."""
        return events(self.progress)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: complete, or why not."""

    complete: bool
    reason: str = ""


def all_runs(federation: Federation) -> list[Run]:
    """Every run of the folder, by name."""
    folders = sorted(federation.runs.iterdir()) if federation.runs.is_dir() else []
    return [Run(federation, folder.name) for folder in folders if (folder / "run-config.toml").exists()]


def new_run(federation: Federation, name: str, settings: Mapping[str, Scalar]) -> Run:
    """A folder ready to submit. Raises RunFolderError for a name that is taken, ConfigError for a bad setting."""
    from shared_model.config import RunConfig

    run = Run(federation, _checked_name(name) if name else _free_name(federation))
    if run.folder.exists():
        raise RunFolderError(f"{run.folder}: exists; name another run, or go on with --resume {run.name}")
    if ours := [key for key in OURS if key in settings]:
        raise ConfigError(f"run-config: {ours[0]} is set by this command; leave it out")
    places = {"output": str(run.folder), "name": run.name, "roster": str(federation.roster_file)}
    config = RunConfig.from_flat(RunConfig().to_flat() | dict(settings) | places)
    run.folder.mkdir(mode=0o700, parents=True)
    stage_app(run.folder / "app")
    write_text(run.settings, toml_text(config.to_flat()))
    return run


def resumed_run(federation: Federation, name: str) -> Run:
    """A run of before with its own settings; what is left of it in the SuperLink is stopped. Raises RunFolderError when
    there is none, or it is complete."""
    run = Run(federation, _checked_name(name))
    try:
        settings: dict[str, Scalar] = flat_toml(run.settings.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = ", ".join(other.name for other in all_runs(federation)) or "none"
        raise RunFolderError(f"{run.folder}: is no run that can go on; runs are: {known}") from None
    _check_incomplete(run)
    stop_if_active(run)
    _check_incomplete(run)  # it may have come to its end before it was stopped
    write_text(run.settings, toml_text(settings | {"resume": True}))
    return run


def _check_incomplete(run: Run) -> None:
    told = run.events()
    if told and told[-1]["event"] == "done":
        raise RunFolderError(f"{run.folder}: is complete")


def submit(run: Run) -> int:
    """Hand the run to the SuperLink; Flower's number of it."""
    ready(run.federation)
    (run.folder / PROCESS).unlink(missing_ok=True)  # of an earlier ServerApp
    run_id = start_run(run.federation, run.folder / "app", run.settings)
    write_text(run.folder / "run.json", json.dumps({"run-id": run_id}) + "\n")
    return run_id


def stop_if_active(run: Run) -> bool:
    """Stop the run in the SuperLink, and its ServerApp; False when it was not active there. It is not asked first: the
    run may end before it is stopped."""
    ready(run.federation)
    stopped = run.run_id is not None and stop_run(run.federation, run.run_id)
    _end_server_app(run)
    return stopped


def _end_server_app(run: Run) -> None:
    """Flower leaves the ServerApp of a run that was stopped alone, and it may be busy for long."""
    import psutil

    from shared_model.processes import end

    try:
        process = psutil.Process(_server_app(run) or 0)
        ours = process.environ().get("FLWR_HOME") == str(run.federation.flower_home)
        if ours and "serverapp" in " ".join(process.cmdline()):
            end([process], 10.0)
    except (OSError, psutil.Error):
        return


def _server_app(run: Run) -> int | None:
    """The process number of the run's ServerApp, once it has begun."""
    try:
        return int((run.folder / PROCESS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _alive(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def watch(run: Run, run_id: int, offset: int, stopping: threading.Event, tell: Callable[[Event], None]) -> Outcome:
    """Tell every event from ``offset`` on until the run has ended or ``stopping`` is set."""
    watcher = _Watcher(run, run_id, stopping)
    last: Event = {}
    try:
        for event in follow(run.progress, watcher.running, offset=offset, pause=0.2):
            tell(event)
            last = event
    finally:
        watcher.close()
    if last.get("event") == "done":
        return Outcome(True)
    if last.get("event") == "error":
        return Outcome(False, str(last["message"]))
    return Outcome(False, watcher.reason)


class _Watcher:
    """Whether a run goes on: Flower's stream of its log ends with it; then, and when the SuperLink was away, Flower is
    asked."""

    def __init__(self, run: Run, run_id: int, stopping: threading.Event) -> None:
        self.run, self.run_id, self.stopping, self.reason = run, run_id, stopping, ""
        self.log = run.folder / "flwr-run.log"
        self.stream = stream_log(run.federation, run_id, self.log)

    def running(self) -> bool:
        if self.stopping.is_set() or self._gone():
            return False
        if self.stream.poll() is None:
            return True
        if self._ended():
            return False
        self.stopping.wait(RETRY)
        self.stream = stream_log(self.run.federation, self.run_id, self.log)
        return True

    def _gone(self) -> bool:
        """Whether the ServerApp has ended; Flower notices only after a while when it was killed."""
        pid = _server_app(self.run)
        if pid is None or _alive(pid):
            return False
        self.reason = f"its ServerApp was killed, or ended without a reason of its own; see {self.log}; {self._again}"
        return True

    @property
    def _again(self) -> str:
        return f"go on with: consilium-server run {self.run.federation.folder} --resume {self.run.name}"

    def close(self) -> None:
        if self.stream.poll() is None:
            self.stream.terminate()
        self.stream.wait()

    def _ended(self) -> bool:
        federation = self.run.federation
        again = self._again
        if running(federation.pid_file) is None:
            self.reason = f"the SuperLink has stopped; start it again, then {again}"
            return True
        try:
            status, details = run_states(federation).get(self.run_id, ("finished:unknown", ""))
        except FederationError:
            return False  # it is starting again
        if not status.startswith(FINISHED):
            return False
        because = f": {' '.join(details.split())}" if details else ""
        self.reason = f"its ServerApp ended without a reason of its own ({status}{because}); see {self.log}; {again}"
        if status.endswith("stopped"):
            self.reason = f"it was stopped; {again}"
        return True


def settings_of(pairs: list[str], file: Path | None) -> dict[str, Scalar]:
    """Run-config from a YAML file and from ``KEY=VALUE`` pairs, which win. Raises ConfigError for what is neither."""
    found: dict[str, Scalar] = {}
    if file is not None:
        found = _absolute({str(key): value for key, value in yaml_settings(file).items()}, file.parent)
    return found | _absolute(setting_pairs(pairs), Path.cwd())


def _absolute(settings: dict[str, Scalar], folder: Path) -> dict[str, Scalar]:
    """The ServerApp runs elsewhere, so a path is made independent of that."""
    heldout = settings.get("heldout")
    return settings | ({"heldout": str((folder / str(heldout)).resolve())} if heldout else {})


def _checked_name(name: str) -> str:
    if not re.fullmatch(NAMES, name, re.ASCII):
        raise ConfigError(f"--name {name!r}: write at most 64 letters, digits, '.', '_', '-', and no sign first")
    return name


def _free_name(federation: Federation) -> str:
    base = f"{datetime.now().astimezone():%Y-%m-%d-%H%M}"
    names = [base, *(f"{base}-{n}" for n in range(2, 100))]
    return next(name for name in names if not (federation.runs / name).exists())
