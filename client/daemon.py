"""The hospital's daemon: a SuperNode that is kept running and connected (client/supernode.py is what it runs)."""

import sys
from collections.abc import Callable

from client.connection import Watch
from client.diagnosis import Diagnosis
from client.membership import Membership, Place
from shared_model.errors import ConfigError, ConsiliumError
from shared_model.flower import check_port_free, flower_environment
from shared_model.health import LOOPBACK
from shared_model.supervise import Supervised, running


def check_can_start(place: Place, health_port: int) -> None:
    """Raises ConfigError when it runs already, or something else listens where its health is asked."""
    if (process := running(place.pid_file)) is not None:
        raise ConfigError(f"{place.config}: its daemon runs already (process {process}); `consilium-site stop` ends it")
    check_port_free(LOOPBACK, health_port, "--health-port")


def run_daemon(place: Place, membership: Membership, health_port: int, tell: Callable[[str], None]) -> None:
    """Until SIGTERM or Ctrl-C. Raises ConsiliumError when starting the SuperNode again could not help."""
    watch = Watch(place.connection, membership.address, health_port, tell)
    supervised = Supervised(
        name="SuperNode",
        command=_command(place, membership, health_port),
        environment=flower_environment(place.home),
        folder=place.empty,
        log=place.log,
        pid_file=place.pid_file,
        hopeless=Diagnosis(place=place, membership=membership, known=lambda: bool(watch.node)).hopeless,
        tell=watch.ended,
        on_line=watch.line,
    )
    try:
        supervised.run()
    except ConsiliumError as error:
        watch.close(str(error))
        raise
    watch.close("stopped")


def _command(place: Place, membership: Membership, health_port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "client.supernode", str(place.config)),
        *("--superlink", membership.superlink),
        *("--root-certificates", str(place.ca)),
        *("--auth-supernode-private-key", str(place.key)),
        *("--health-server-address", f"{LOOPBACK}:{health_port}"),
        *("--isolation", "subprocess"),
    ]
