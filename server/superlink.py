"""Flower's SuperLink behind a door: ``python -m server.superlink`` takes the arguments of ``flower-superlink``.

One port serves sites, administrators and ServerApps alike, and Flower asks only sites for a key: anybody who reaches
the port could start runs or take a ServerApp's place. Here only the client addresses of ``administration`` reach
anything but the sites' API. And a SuperLink whose supervisor has died ends itself, so that none is left unwatched.
"""

import json
import os
import signal
import sys
import threading
import time
from functools import partial
from ipaddress import IPv6Address, ip_address, ip_network

import uvicorn
from flwr.superlink import extensions
from flwr.superlink.cli import flower_superlink
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from server.federation import ADMINISTRATION, SUPERVISOR

OPEN = ("/v1/fleet/", "/health")
GRACE = 5  # seconds for open requests when it is told to end; a stream of logs would never end


class Door:
    """Middleware: 403 for a client that is no administrator, unless it asks for the sites' API or the health."""

    def __init__(self, app: ASGIApp, allowed: list[str]) -> None:
        self.app, self.allowed = app, [ip_network(entry) for entry in allowed]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._may_pass(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _refuse(send)

    def _may_pass(self, scope: Scope) -> bool:
        if scope["type"] == "http" and scope["path"].startswith(OPEN):
            return True
        client = scope.get("client")
        return client is not None and self._administrator(client[0])

    def _administrator(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self.allowed)


async def _refuse(send: Send) -> None:
    body = json.dumps({"detail": "this address is not in administration of the federation's server.yaml"}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _end_with(supervisor: int) -> None:
    """An orphan's parent is another process, also where the old one is not yet reaped."""
    while os.getppid() == supervisor:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(2 * GRACE)
    os._exit(1)


def main() -> None:
    """Add the door and run Flower's own command."""
    door = Middleware(Door, allowed=json.loads(os.environ[ADMINISTRATION]))
    others = extensions.get_middleware
    extensions.get_middleware = lambda: (door, *others())
    uvicorn.run = partial(uvicorn.run, timeout_graceful_shutdown=GRACE)
    if supervisor := os.environ.get(SUPERVISOR):
        threading.Thread(target=_end_with, args=(int(supervisor),), daemon=True).start()
    sys.argv[0] = "flower-superlink"
    flower_superlink()


if __name__ == "__main__":
    main()
