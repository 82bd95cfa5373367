"""Flower's SuperNode as a site runs it: ``python -m client.supernode SITE.yaml`` and arguments of flower-supernode.

Flower's own process, with six changes: it runs approved code only (client/approved.py), it asks for messages more
often while a run goes on, a broken connection takes nothing from it (client/fleet.py), a reply that is late does not
wait for the next message, the SuperLink notices within half a minute when it is gone, and it ends with its supervisor.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.approved import identity, refusal
from client.connection import REFUSED
from client.site import load_site
from shared_model.errors import ConsiliumError
from shared_model.flower import free_port

if TYPE_CHECKING:
    from flwr.supercore.fab import Fab
    from flwr.supercore.run import Run

POLL = "CONSILIUM_POLL"  # seconds between two questions, for tests
BUSY, IDLE, AT_WORK, LIVELY = 0.5, 3.0, 0.1, 120.0


class Pace:
    """Stands in for ``time`` in Flower's main loop: it sleeps 3 s after an empty poll, and 0.5 s for its ClientApp."""

    def __init__(self) -> None:
        self._worked = -LIVELY

    def sleep(self, seconds: float) -> None:
        """Shorter while a ClientApp runs, and for two minutes afterwards."""
        now = time.monotonic()
        if seconds < 1:
            self._worked, pause = now, AT_WORK
        else:
            pause = BUSY if now - self._worked < LIVELY else IDLE
        time.sleep(min(pause, float(os.environ.get(POLL) or pause)))


class Gate:
    """Lets approved bundles through. Flower calls ``verify`` for every run that it does not know, before it starts."""

    def __init__(self, site: Path, signed: "Callable[[Fab, dict[str, str]], bool]", *, entities: bool) -> None:
        self._site, self._signed, self._entities = site, signed, entities
        self._run: Run | None = None

    @contextmanager
    def connection(self, opened: Any) -> Iterator[Any]:
        """Flower's connection; what is asked for passes through here, so that both halves can be compared."""
        with opened as (node_id, receive, send, get_run, get_fab, *others):

            def run_of(run_id: int) -> "Run":
                self._run = get_run(run_id)
                return self._run

            def fab_of(fab_hash: str, run_id: int) -> "Fab":
                fab: Fab = get_fab(fab_hash, run_id)
                fab.verifications = dict(fab.verifications) | {"valid_license": "local"}  # else nothing is verified
                return fab

            yield (node_id, receive, send, run_of, fab_of, *others)

    def verify(self, fab: "Fab", trusted: dict[str, str]) -> bool:
        """Whether the bundle may run; says in the log why not."""
        reason = self._disguised(fab)
        if reason is None:
            reason = self._refusal(fab)
            if reason is not None and self._entities and self._is_signed(fab, trusted):
                return True
        if reason is not None:
            sys.stderr.write(f"{REFUSED}: {reason}\n")
        return reason is None

    def _disguised(self, fab: "Fab") -> str | None:
        """Flower unpacks a bundle where it says itself, and starts what lies where the run's record says."""
        try:
            own = identity(fab.content)
        except ValueError as error:
            return f"the bundle {error}"
        run = self._run
        if run is None or own != (run.fab_id, run.fab_version) or fab.hash_str != sha256(fab.content).hexdigest():
            return "the run's record names another bundle"
        return None

    def _refusal(self, fab: "Fab") -> str | None:
        try:  # read anew: what is listed now counts
            return refusal(fab.content, load_site(self._site, for_training=True).release.apps)
        except ConsiliumError as error:
            return str(error)

    def _is_signed(self, fab: "Fab", trusted: dict[str, str]) -> bool:
        try:
            return self._signed(fab, trusted)
        except Exception:  # the verifications come from the server
            return False


def with_late_replies(pull: Callable[..., int | None]) -> Callable[..., int | None]:
    """Flower's step that pulls a message, which also goes on to the sending of replies when one waits there.

    Flower sends once for each message that it pulls. Where the reply of a run that was stopped takes that turn, the one
    of the new run would stay until the server asks again.
    """

    def pulled(**named: Any) -> int | None:
        run_id, state = pull(**named), named["state"]
        if run_id is not None:
            return run_id
        with state.lock_msg_store:
            held = [entry for entry in state.msg_store.values() if not entry.is_retrieved]
        late = [entry.message.metadata for entry in held if entry.message.metadata.reply_to_message_id]
        return late[0].run_id if late else None

    return pulled


def install(site: Path, *, entities: bool) -> None:
    """Put the changes into Flower's modules."""
    from client.fleet import HEARTBEAT, Fleet

    loop: Any = import_module("flwr.supernode.start_client_internal")
    cli: Any = import_module("flwr.supernode.cli.flower_supernode")
    gate = Gate(site, loop._verify_fab, entities=entities)
    connect, start = loop.http_request_response, cli.start_client_internal
    loop.http_request_response = lambda *args, **named: gate.connection(connect(*args, **named))
    loop._verify_fab = gate.verify
    loop._pull_and_store_message = with_late_replies(loop._pull_and_store_message)
    loop.time = Pace()
    # Flower verifies only where entities are given; ours is asked whether or not there are any.
    cli.start_client_internal = lambda **named: start(
        **named | {"trusted_entities": named["trusted_entities"] or {"none": ""}}
    )
    vars(import_module("flwr.supernode.fleet_http_connection"))["FleetHttpClient"] = Fleet
    for module in ("flwr.supernode.fleet_http_connection", "flwr.supercore.heartbeat"):
        vars(import_module(module))["HEARTBEAT_DEFAULT_INTERVAL"] = HEARTBEAT


def _end_with_any_thread(failed: "threading.ExceptHookArgs") -> None:
    """Flower goes on without the thread that sends its heartbeats; the supervisor starts a whole process instead."""
    threading.__excepthook__(failed)
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Until SIGTERM, or until the connection is lost in a way that Flower does not retry."""
    from flwr.supercore.app_utils import start_parent_process_monitor
    from flwr.supercore.exit import ExitCode, flwr_exit
    from flwr.supernode.cli.flower_supernode import flower_supernode

    site = Path(sys.argv[1])
    try:
        trusted = load_site(site, for_training=True).release.trusted_entities
    except ConsiliumError as error:
        sys.exit(str(error))
    install(site, entities=trusted is not None)
    threading.excepthook = _end_with_any_thread
    start_parent_process_monitor(os.getppid())
    node = f"site-config={json.dumps(str(site), ensure_ascii=False)}"
    own = ["--node-config", node, "--host", "127.0.0.1", "--port", str(free_port())]
    signers = [] if trusted is None else ["--trusted-entities", str(trusted)]
    sys.argv = ["flower-supernode", *sys.argv[2:], *own, *signers]
    try:
        flower_supernode()
    except SystemExit:
        raise
    except BaseException:  # some of Flower's are no Exception
        traceback.print_exc()
    flwr_exit(ExitCode.SUPERNODE_CONNECTION_ERROR, "The SuperNode lost its connection.")  # else its threads stay


if __name__ == "__main__":
    main()
