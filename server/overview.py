"""What ``consilium-server status`` says: the SuperLink, its certificate, every site, every run."""

import json
import time
from collections.abc import Iterator, Sequence

from server.certificates import WARN_DAYS, days_left
from server.control import listening, nodes, run_states
from server.federation import CONNECTION, Federation
from server.runs import Run, all_runs
from shared_model.errors import ConfigError, FederationError
from shared_model.health import serving
from shared_model.supervise import running


def overview(federation: Federation) -> tuple[bool, list[str]]:
    """Whether the SuperLink serves, and the lines to print."""
    pid = running(federation.pid_file)
    serves = pid is not None and listening(federation) and serving(federation.config.health_port)
    states: dict[int, tuple[str, str]] = {}
    online: dict[int, str] = {}
    problem = ""
    if serves:
        try:
            online, states = nodes(federation), run_states(federation)
        except FederationError as error:
            problem = str(error)
    lines = [
        f"federation  {federation.config.federation} at {federation.config.address}",
        f"SuperLink   {_superlink(federation, pid, serves)}",
        *([f"            {problem}"] if problem else []),
        f"certificate {_certificate(federation)}",
        "",
        *_table(("site", "status", "registered", "key"), _sites(federation, online)),
        "",
        *_table(("run", "status", "told last"), [_run(run, states) for run in all_runs(federation)]),
        "",
        f"plain Flower: export FLWR_HOME={federation.flower_home}",
        f"              flwr run . {CONNECTION}",
    ]
    return serves, lines


def _superlink(federation: Federation, pid: int | None, serves: bool) -> str:
    if pid is None:
        return f"does not run; start it with: consilium-server start {federation.folder}"
    return f"runs (process {pid}), {'serving' if serves else 'not serving'}; log: {federation.log}"


def _certificate(federation: Federation) -> str:
    try:
        expiry = federation.certificates.check(federation.config.names)
    except ConfigError as error:
        return str(error)
    left = days_left(expiry)
    advice = f"; renew it: consilium-server renew {federation.folder}" if left < WARN_DAYS else ""
    return f"until {expiry:%Y-%m-%d} ({left} days){advice}"


def _sites(federation: Federation, online: dict[int, str]) -> Iterator[Sequence[str]]:
    for member in federation.roster():
        state = online.get(member.node_id, "unknown")
        status = "never connected" if state == "registered" else state
        yield member.site, status, member.registered[:10], member.fingerprint


def _run(run: Run, states: dict[int, tuple[str, str]]) -> Sequence[str]:
    run_id = run.run_id
    status = "not submitted" if run_id is None else states.get(run_id, ("unknown", ""))[0]
    return run.name, status, _told(run)


def _told(run: Run) -> str:
    """The last event, and how long ago."""
    try:
        told = run.events()
    except (OSError, json.JSONDecodeError):
        return "progress.jsonl cannot be read"
    if not told:
        return "nothing yet"
    last = told[-1]
    name = last["event"]
    what = f"round {last['round']} of {last['rounds']}" if name == "round" else str(last.get("message", name))
    return f"{what}, {_ago(time.time() - last['time'])} ago"


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _table(head: Sequence[str], rows: "Iterator[Sequence[str]] | list[Sequence[str]]") -> list[str]:
    table = [head, *rows]
    if len(table) == 1:
        return [f"no {head[0]} yet"]
    widths = [max(len(row[n]) for row in table) for n in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
