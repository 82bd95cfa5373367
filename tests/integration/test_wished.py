"""A real SuperLink is asked for what holds already: runs that have ended, keys that it has, nodes that are gone."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from consortium import PATIENCE, Consortium
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from server_folder import answer, site_key

from server.control import has_ended, nodes, ready, register_key, stop_run, unregister_node
from server.federation import Federation, Member, open_federation
from server.joining import file_name, invite, register, unregister
from server.runs import Run, all_runs, new_run, stop_if_active, submit
from shared_model.errors import ConfigError
from shared_model.supervise import running
from simulations.runner import ended_afterwards, marked


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    mark = uuid4().hex
    with ended_afterwards(mark):
        held = Consortium(tmp_path_factory.mktemp("wished"), mark)
        held.serve()
        yield held
        held.close()
    assert not marked(mark), "processes outlived the federation"


@pytest.fixture(scope="module")
def federation(consortium: Consortium) -> Federation:
    held = open_federation(consortium.centre)
    consortium.until(lambda: running(held.pid_file), "the SuperLink's supervisor")
    ready(held, PATIENCE)
    return held


def _submitted(federation: Federation, name: str, **settings: object) -> tuple[Run, int]:
    """A run that waits for sites, as there are none."""
    run = new_run(federation, name, {"min-sites": 2, **{key.replace("_", "-"): held for key, held in settings.items()}})
    return run, submit(run)


def test_a_run_is_stopped_once_and_after_that_it_is_stopped(consortium: Consortium, federation: Federation) -> None:
    run, run_id = _submitted(federation, "twice")
    assert stop_if_active(run) and has_ended(federation, run_id)
    assert not stop_if_active(run)
    said = consortium.command("consilium-server", "stop", consortium.centre, "--run", "twice")
    assert said == "run twice does not run\n"
    assert not stop_run(federation, 99), "which never was"


def test_a_run_that_has_ended_by_itself_needs_no_stop(consortium: Consortium, federation: Federation) -> None:
    """Between the question whether it runs and the stop, say."""
    run, run_id = _submitted(federation, "ended", admission_timeout=0.5)
    consortium.until(lambda: has_ended(federation, run_id), "the run to end for want of sites")
    assert not stop_if_active(run)
    assert run in all_runs(federation) and run.events()[-1]["event"] == "error"


def test_a_key_is_registered_twice_and_has_one_node(federation: Federation, tmp_path: Path) -> None:
    keys = [tmp_path / "one.pub", tmp_path / "other.pub"]
    for path in keys:
        path.write_bytes(site_key().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    one, other = (register_key(federation, path) for path in keys)
    assert one != other and register_key(federation, keys[0]) == one
    assert nodes(federation)[one] == nodes(federation)[other] == "registered"


def test_a_node_is_unregistered_twice_and_its_key_opens_nothing_more(federation: Federation, tmp_path: Path) -> None:
    key = tmp_path / "site.pub"
    key.write_bytes(site_key().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    node = register_key(federation, key)
    for _ in range(2):
        unregister_node(federation, node)
        assert nodes(federation)[node] == "unregistered"
    unregister_node(federation, 99)
    with pytest.raises(ConfigError, match="was unregistered, and Flower takes it no more"):
        register_key(federation, key)


def test_a_command_that_died_before_the_roster_was_written_is_given_again(
    federation: Federation, tmp_path: Path
) -> None:
    invitation, _ = invite(federation, "Mercy")
    sent, _ = answer(invitation, tmp_path / "answer.json")
    member = register(federation, sent)
    federation.write_roster([])
    again = register(federation, sent)
    assert again.node_id == member.node_id and federation.roster() == [again]
    assert register(federation, sent) == again and federation.roster() == [again]
    _another_key_is_refused(federation, again, tmp_path)
    unregister(federation, "Mercy")
    federation.write_roster([again])
    assert unregister(federation, "Mercy") == again and federation.roster() == []


def _another_key_is_refused(federation: Federation, member: Member, folder: Path) -> None:
    """Under the name of a site that has one; what is registered stays."""
    path = federation.invitations / f"{file_name(member.site)}.json"
    sent, _ = answer(path, folder / "other.json")
    with pytest.raises(ConfigError, match="Mercy is registered already; unregister it first"):
        register(federation, sent)
    assert federation.roster() == [member] and nodes(federation)[member.node_id] == "registered"
