"""Flower's answers where what was asked for holds already, as Flower 1.41 printed them: success, by their number."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from server_folder import new_federation, site_key

from server import control
from server.control import nodes, register_key, start_run, stop_run, unregister_node
from server.federation import Federation
from shared_model.errors import ConfigError, FederationError

SAID = "Using SuperLink: federation (127.0.0.1:9092)\n"
STOPPING = f"{SAID} Stopping run ID 7...\n\n"
ENDED = f"{STOPPING}[code: 18] Run is already finished."
UNKNOWN_RUN = f"{STOPPING}[code: 16] Run ID not found."
COULD_NOT = f"{STOPPING}Run 7 couldn't be stopped."
IN_USE = f"{SAID}\n[code: 23] Public key already in use."
UNKNOWN_NODE = f"{SAID}\n[code: 24] Node ID not found for account."
FORBIDDEN = f"{SAID}\n[code: 9] You do not have permission to perform this action."
AWAY = f"{STOPPING}Connection to the SuperLink is unavailable. Please check your network connection."
Answers = Callable[..., list[str]]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return new_federation(tmp_path_factory.mktemp("centre") / "fed")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """What Flower prints from here on, in order; the commands that were asked."""

    def printing(*documents: object) -> list[str]:
        left, asked = list(documents), []

        def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            asked.append(" ".join(command))
            return subprocess.CompletedProcess(command, 0, json.dumps(left.pop(0), indent=2) + "\n", "")

        monkeypatch.setattr(control.subprocess, "run", run)
        return asked

    return printing


def refused(message: str) -> dict[str, object]:
    """Flower ends with status 0 all the same."""
    return {"success": False, "error-message": message}


def listed(status: str) -> dict[str, object]:
    return {"success": True, "runs": [{"run-id": "7", "status": status, "status-details": "N/A"}]}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "site.pub"
    path.write_bytes(site_key().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    return path


def test_a_run_is_stopped(federation: Federation, answers: Answers) -> None:
    asked = answers({"success": True, "run-id": "7"})
    assert stop_run(federation, 7)
    assert len(asked) == 1


@pytest.mark.parametrize("message", [ENDED, UNKNOWN_RUN, ENDED.replace("already finished", "over")])
def test_a_run_that_does_not_run_needs_no_stop(federation: Federation, answers: Answers, message: str) -> None:
    answers(refused(message))
    assert not stop_run(federation, 7)


def test_a_run_may_end_while_flower_stops_it(federation: Federation, answers: Answers) -> None:
    """Flower asks its database twice, and names no number if the run has ended in between."""
    answers(refused(COULD_NOT), listed("finished:completed"))
    assert not stop_run(federation, 7)


@pytest.mark.parametrize("message", [COULD_NOT, FORBIDDEN])
def test_a_run_that_goes_on_was_not_stopped(federation: Federation, answers: Answers, message: str) -> None:
    answers(refused(message), listed("running"))
    with pytest.raises(FederationError, match="flwr stop 7: Using SuperLink"):
        stop_run(federation, 7)


def test_nothing_is_known_of_a_run_while_the_superlink_is_away(federation: Federation, answers: Answers) -> None:
    answers(refused(AWAY), refused(AWAY))
    with pytest.raises(FederationError, match="SuperLink is unavailable"):
        stop_run(federation, 7)


def test_a_key_that_is_registered_already_keeps_its_node(federation: Federation, answers: Answers, key: Path) -> None:
    node = 2**64 - 1
    asked = answers(refused(IN_USE), {"success": True, "node-id": node, "status": "offline"})
    assert register_key(federation, key) == node
    assert f"server.node_of_key {key}" in asked[1]


def test_a_key_that_was_unregistered_is_refused(federation: Federation, answers: Answers, key: Path) -> None:
    """Flower takes it never again, and would let in whoever holds a key that was lost."""
    answers(refused(IN_USE), {"success": True, "node-id": 5, "status": "unregistered"})
    with pytest.raises(ConfigError, match=r"key [0-9a-f-]{39}: was unregistered, .* join with a new key"):
        register_key(federation, key)


def test_a_node_that_is_none_needs_no_unregistering(federation: Federation, answers: Answers) -> None:
    answers(refused(UNKNOWN_NODE))
    unregister_node(federation, 5)


def test_any_other_refusal_is_told_in_flowers_words(federation: Federation, answers: Answers, key: Path) -> None:
    for ask in (lambda: unregister_node(federation, 5), lambda: register_key(federation, key)):
        answers(refused(FORBIDDEN))
        with pytest.raises(FederationError, match=r"supernode (un)?register: .*\[code: 9\] You do not have permission"):
            ask()


def test_a_number_within_other_words_is_no_refusals_number(federation: Federation, answers: Answers) -> None:
    """Only at the start of a line is it Flower's own."""
    answers(refused(f"{SAID}\n[code: 9] You are no [code: 24] here."))
    with pytest.raises(FederationError, match="code: 9"):
        unregister_node(federation, 5)


def test_what_a_question_is_refused_with_is_never_an_answer(federation: Federation, answers: Answers) -> None:
    answers(refused(UNKNOWN_NODE), refused(ENDED))
    with pytest.raises(FederationError, match="code: 24"):
        nodes(federation)
    with pytest.raises(FederationError, match="code: 18"):
        start_run(federation, Path("app"), Path("run-config.toml"))
