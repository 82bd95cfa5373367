"""The federation's folder: ``init``, every mistake in ``server.yaml``, what keeps ``start`` from starting, the door,
and the settings of runs."""

import asyncio
import socket
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from server_folder import SETTINGS, new_federation

from server import runs
from server.control import write_connection
from server.federation import CONFIG, EVERYWHERE, Federation, open_federation
from server.launch import check_start
from server.overview import overview
from server.progress import Progress, follow, lines_of
from server.runs import all_runs, new_run, resumed_run, settings_of
from server.superlink import Door
from shared_model.errors import ConfigError, RunFolderError
from shared_model.flower import free_port


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return new_federation(tmp_path / "fed", port=free_port(), health_port=free_port())


def rewrite(federation: Federation, /, **changed: object) -> Path:
    path = federation.folder / CONFIG
    document = yaml.safe_load(path.read_text()) | changed
    path.write_text(yaml.safe_dump({key: value for key, value in document.items() if value is not None}))
    return federation.folder


def test_init_makes_a_folder_that_opens_and_refuses_one_that_holds_something(federation: Federation) -> None:
    assert open_federation(federation.folder) == federation
    assert federation.roster() == [] and federation.folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(ConfigError, match="exists and is not empty"):
        new_federation(federation.folder)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"adress": "x:1"}, "unknown key 'adress'; keys are federation, address, host"),
        ({"address": None}, "address: field required"),
        ({"address": "sepsis.example.org"}, r"address = 'sepsis.example.org': write HOST:PORT"),
        ({"address": "x:70000"}, "address = 'x:70000': write HOST:PORT"),
        ({"host": "centre"}, "host = 'centre': write an IP address of this machine"),
        ({"port": "many"}, "port = 'many': input should be a valid integer"),
        ({"port": 0}, "port = 0: "),
        ({"port": 9100, "health_port": 9100}, "port and health_port must differ"),
        ({"administration": ["10.1.2"]}, r"administration = .*'10.1.2' is no IP address or network"),
        ({"federation": "two words"}, "federation = 'two words': "),
    ],
)
def test_a_mistake_in_the_settings_is_one_line_with_file_key_value_and_rule(
    federation: Federation, changed: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=rf"server\.yaml: {words}") as found:
        open_federation(rewrite(federation, **changed))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("text", ["port: [", "- a\n- b\n", ""])
def test_settings_that_are_no_yaml_mapping_are_refused(federation: Federation, text: str) -> None:
    (federation.folder / CONFIG).write_text(text)
    with pytest.raises(ConfigError, match=r"server\.yaml: (is no YAML|holds no settings)"):
        open_federation(federation.folder)


def test_a_folder_that_is_no_federation_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no federation .* make one with: consilium-server init"):
        open_federation(tmp_path)


@pytest.mark.parametrize("setting", ["port", "health_port"])
def test_start_refuses_a_port_in_use(federation: Federation, setting: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        folder = rewrite(federation, **{setting: other.getsockname()[1]})
        with pytest.raises(ConfigError, match=rf"server\.yaml: {setting}: 127\.0\.0\.1:\d+ cannot be used"):
            check_start(open_federation(folder))


def test_start_refuses_a_folder_that_it_cannot_write(federation: Federation) -> None:
    federation.state.rmdir()
    federation.state.write_text("a file where a folder belongs")
    with pytest.raises(ConfigError, match=r"state.*: cannot be written"):
        check_start(federation)


def test_start_refuses_a_certificate_that_does_not_cover_the_address(federation: Federation) -> None:
    with pytest.raises(ConfigError, match="sites would refuse it for moved"):
        check_start(open_federation(rewrite(federation, address="moved.example.org:9092")))


@pytest.mark.parametrize(
    ("client", "path", "status"),
    [
        ("10.1.2.3", "/v1/control/start-run", 200),
        ("::ffff:10.1.2.3", "/v1/control/start-run", 200),
        ("10.1.3.3", "/v1/control/start-run", 403),
        ("10.1.3.3", "/v1/runtime/acquire-task", 403),
        ("10.1.3.3", "/v1/fleetish", 403),
        ("10.1.3.3", "/openapi.json", 403),
        ("10.1.3.3", "/v1/fleet/pull-messages", 200),
        ("10.1.3.3", "/health", 200),
        (None, "/v1/control/start-run", 403),
        ("unix", "/v1/control/start-run", 403),
    ],
)
def test_the_door_opens_only_the_sites_api_to_everybody(client: str | None, path: str, status: int) -> None:
    assert _status(Door(_app, ["10.1.2.0/24", "::1"]), client, path) == status


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


def _status(door: Door, client: str | None, path: str) -> int:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    scope = {"type": "http", "path": path, "client": None if client is None else (client, 1)}
    asyncio.run(door(scope, receive, send))
    return int(sent[0]["status"])


def test_this_machine_may_always_start_runs(tmp_path: Path) -> None:
    made = new_federation(tmp_path / "fed", administration=["10.0.0.0/8"], host=EVERYWHERE)
    assert made.config.administrators == ["10.0.0.0/8", "127.0.0.1", "::1"]
    assert made.config.own_address == "127.0.0.1"


def test_plain_flower_finds_the_connection(tmp_path: Path) -> None:
    made = new_federation(tmp_path / "fed", host="::", address="[::1]:9092")
    write_connection(made)
    document = tomllib.loads((made.flower_home / "config.toml").read_text())
    assert document["superlink"] == {
        "default": "federation",
        "federation": {"address": "[::1]:9092", "root-certificates": str(made.certificates.ca)},
    }


def test_a_new_run_keeps_its_settings_and_its_app(federation: Federation, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("rounds: 30\nheldout: store\nmin-sites: 3\n")
    run = new_run(federation, "pilot", settings_of(["rounds=5", "profile=early"], tmp_path / "run.yaml"))
    held = tomllib.loads(run.settings.read_text())
    assert (held["rounds"], held["min-sites"], held["heldout"]) == (5, 3, str(tmp_path / "store"))
    assert (held["output"], held["name"], held["resume"]) == (str(run.folder), "pilot", False)
    assert held["roster"] == str(federation.roster_file)
    assert (run.folder / "app" / "server" / "app.py").is_file() and (run.folder / "app" / "pyproject.toml").is_file()
    assert [other.name for other in all_runs(federation)] == ["pilot"]
    with pytest.raises(RunFolderError, match="pilot: exists; name another run, or go on with --resume pilot"):
        new_run(federation, "pilot", {})


def test_a_run_that_comes_to_its_end_before_it_is_stopped_is_complete(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(federation, "pilot", {})
    monkeypatch.setattr(runs, "stop_if_active", lambda run: Progress(run.folder).tell("done"))
    with pytest.raises(RunFolderError, match="pilot: is complete"):
        resumed_run(federation, "pilot")
    assert not tomllib.loads(run.settings.read_text())["resume"]


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("../x", {}, r"--name '\.\./x': write"),
        ("ok", {"rounds": "many"}, "run-config: rounds = 'many'"),
        ("ok", {"output": "x"}, "output is set by this command"),
        ("ok", {"nonsense": 1}, "run-config: nonsense = 1"),
    ],
)
def test_a_mistake_leaves_no_run_behind(
    federation: Federation, name: str, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        new_run(federation, name, settings)
    assert all_runs(federation) == [] and not (federation.runs / "ok").exists()


def test_what_a_run_told_before_is_not_told_again(tmp_path: Path) -> None:
    progress = Progress(tmp_path)
    progress.tell("error", message="of the first try")
    told, offset = threading.Event(), (tmp_path / "progress.jsonl").stat().st_size
    progress.tell("admitted", sites=["Mercy", "Grace"], refused={"Hope": "another contract"})
    progress.tell("round", round=2, rounds=3, sites=1, failed={"Grace": "timeout"}, loss=0.5, auroc_before=0.75)
    path = tmp_path / "progress.jsonl"
    path.write_text(path.read_text() + '{"event": "half')
    events = follow(path, told.is_set, offset=offset)
    assert [line for event in events for line in lines_of(event)] == [
        "2 sites: Mercy, Grace",
        "not admitted: Hope: another contract",
        "round 2/3  sites 1  loss 0.5000  AUROC 0.750 after round 1",
        "Grace missed round 2: timeout",
    ]


def test_status_of_a_federation_that_does_not_run_says_how_to_start_it(federation: Federation) -> None:
    serves, lines = overview(federation)
    assert not serves
    assert f"does not run; start it with: consilium-server start {federation.folder}" in "\n".join(lines)
    assert f"plain Flower: export FLWR_HOME={federation.flower_home}" in lines


def test_the_default_settings_are_those_of_a_new_folder(federation: Federation) -> None:
    assert yaml.safe_load((federation.folder / CONFIG).read_text()).keys() >= SETTINGS.keys()
