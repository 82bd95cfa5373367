"""The wrapper's changes reach into Flower: its real main loop must ask the gate, and must refuse as Flower does."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from builders import write_site
from flwr.app import Message, RecordDict
from flwr.cli.build import build_fab_from_disk
from flwr.common.constant import ErrorCode
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run, RunStatus
from flwr.supernode.nodestate import NodeStateFactory

from client.fleet import HEARTBEAT
from client.supernode import Pace, install
from server.app_folder import stage_app

LOOP: Any = import_module("flwr.supernode.start_client_internal")
CLI: Any = import_module("flwr.supernode.cli.flower_supernode")
FLEET: Any = import_module("flwr.supernode.fleet_http_connection")
BEAT: Any = import_module("flwr.supercore.heartbeat")
RUN_ID = 1


@pytest.fixture
def flower(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Flower's modules as they were, afterwards; holds with what its main loop would have been started."""
    for module, name in (
        (LOOP, "_verify_fab"),
        (LOOP, "_pull_and_store_message"),
        (LOOP, "time"),
        (FLEET, "HEARTBEAT_DEFAULT_INTERVAL"),
        (BEAT, "HEARTBEAT_DEFAULT_INTERVAL"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    started: list[dict[str, object]] = []
    monkeypatch.setattr(CLI, "start_client_internal", lambda **named: started.append(named))
    return started


def _serve(bundle: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the SuperLink answers: one message of a run that has this bundle."""
    status, digest = RunStatus("running", "", ""), sha256(bundle).hexdigest()
    run = Run(
        RUN_ID, "consilium/consilium", "0.1.0", digest, {}, "", "", "", "", status, "", "", None, 0, 0, 0.0, series_id=3
    )
    message = Message(RecordDict(), dst_node_id=1, message_type="query.describe")
    message.metadata.__dict__["_message_id"] = message.object_id
    objects = {key: held.deflate() for key, held in get_all_nested_objects(message).items()}

    @contextmanager
    def opened(*_: object) -> Iterator[tuple[object, ...]]:
        yield (
            1,
            lambda: (message, get_object_tree(message)),
            None,
            lambda run_id: run,
            lambda fab_hash, run_id: Fab(digest, bundle, {}),
            lambda run_id, object_id: objects[object_id],
            None,
            lambda run_id, object_id: None,
        )

    monkeypatch.setattr(LOOP, "http_request_response", opened)


def _pulled(site: Path, trusted: object) -> Any:
    """The state of a SuperNode that has pulled the message."""
    store = ObjectStoreFactory()
    state = NodeStateFactory(objectstore_factory=store).state()
    state.set_node_id(1)
    with LOOP._init_connection(server_address="127.0.0.1:1", insecure=False) as connection:
        _, receive, _, get_run, get_fab, pull, _, confirm = connection
        LOOP._pull_and_store_message(
            state=state, object_store=store.store(), node_config={}, receive=receive, get_run=get_run, get_fab=get_fab,
            pull_object=pull, confirm_message_received=confirm, trusted_entities=trusted,
        )  # fmt: skip
    return state


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # flwr build on pathspec
def test_flowers_main_loop_runs_the_installed_app_and_refuses_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flower: list[dict[str, object]]
) -> None:
    app = tmp_path / "consilium"
    stage_app(app)
    good = build_fab_from_disk(app)
    (app / "client" / "extra.py").write_text("")
    _serve(good, monkeypatch)
    install(write_site(tmp_path), entities=False)
    CLI.start_client_internal(trusted_entities=None, other=1)
    [started] = flower
    assert started["other"] == 1
    state = _pulled(tmp_path / "site.yaml", started["trusted_entities"])
    assert state.get_run(RUN_ID) is not None and not state.get_messages_legacy(is_reply=True)
    assert len(state.get_messages_legacy(is_reply=False)) == 1  # waits for its ClientApp

    _serve(build_fab_from_disk(app), monkeypatch)
    install(tmp_path / "site.yaml", entities=False)
    state = _pulled(tmp_path / "site.yaml", started["trusted_entities"])
    assert state.get_run(RUN_ID) is None
    [reply] = state.get_messages_legacy(is_reply=True)
    assert reply.error.code == ErrorCode.INVALID_FAB
    assert isinstance(LOOP.time, Pace)
    assert FLEET.HEARTBEAT_DEFAULT_INTERVAL == BEAT.HEARTBEAT_DEFAULT_INTERVAL == HEARTBEAT


def test_a_reply_that_waits_is_sent_without_another_message(flower: list[dict[str, object]], tmp_path: Path) -> None:
    """In Flower's own loop the reply of a stopped run can take the turn of the next run's reply."""
    store = ObjectStoreFactory()
    state = NodeStateFactory(objectstore_factory=store).state()
    install(write_site(tmp_path), entities=False)
    nothing: dict[str, Any] = dict.fromkeys(("get_run", "get_fab", "pull_object", "confirm_message_received"))
    nothing |= {"receive": lambda: None, "object_store": store.store(), "node_config": {}, "trusted_entities": None}
    assert LOOP._pull_and_store_message(state=state, **nothing) is None
    question = Message(RecordDict(), dst_node_id=1, message_type="query.describe")
    question.metadata.__dict__["_message_id"] = question.object_id
    LOOP._insert_message(Message(RecordDict(), reply_to=question), state, store.store())
    assert LOOP._pull_and_store_message(state=state, **nothing) is not None
    sent: list[Message] = []

    def send(message: Message, *_: object) -> tuple[set[str], str]:
        sent.append(message)
        return set(), ""

    LOOP._push_messages(state=state, object_store=store.store(), send=send, push_object=lambda *_: None)
    assert len(sent) == 1
    assert LOOP._pull_and_store_message(state=state, **nothing) is None
