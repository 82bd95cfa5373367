"""Flower's requests to the SuperLink, with what a broken connection takes from them given back.

Flower sends a request again when its answer did not come. Two of them do not bear that: the SuperLink takes a message
as delivered once it has answered, and an array of a reply that it holds already it refuses. The message would be waited
for until the round's time limit, and the reply would be dropped. Nor does Flower try again where TLS was cut short or
stalled: it takes that for a wrong certificate, and drops the reply too.

And Flower tells that a broken connection is back only where what it sent again was granted. A reply of a run that has
ended meanwhile is refused, without a word; the site would count as disconnected for good.
"""

import sys
from typing import TYPE_CHECKING, Any

import httpx
from flwr.proto.fleet_pb2 import DeactivateNodeRequest, PullMessagesRequest, PullMessagesResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse
from flwr.supercore.error import FlowerError
from flwr.supernode.fleet_http_client import FleetHttpClient

from client.connection import ANSWERED

if TYPE_CHECKING:
    from flwr.proto.node_pb2 import Node

HEARTBEAT = 10  # seconds; Flower's least. After two that were missed a site counts as offline and may come back
CUT_SHORT = (
    "EOF occurred in violation of protocol",
    "handshake operation timed out",
)  # Flower sees "SSL" in both lines
NEVER_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)  # such a request cannot have been answered


class Fleet(FleetHttpClient):
    """Stands in for Flower's client of the Fleet API."""

    _interrupted = _message_in_doubt = False

    def _unary_unary(self, **named: Any) -> Any:
        """A connection that ended or stalled within TLS is one that did; and a refusal is an answer."""
        try:
            return super()._unary_unary(**named)
        except httpx.HTTPStatusError as error:
            _tell_answered(error.response)
            raise
        except httpx.TransportError as error:
            if any(words in str(error) for words in CUT_SHORT):
                raise type(error)("the connection was cut or stalled") from error
            raise

    def PullMessages(self, request: PullMessagesRequest) -> PullMessagesResponse:
        """After an interruption the site reports at once; its next heartbeat may be 20 s away. A message whose delivery
        broke is not delivered again, so the site reports as after a restart, upon which the centre sends what it waits
        for (server/exchange.py)."""
        try:
            response = super().PullMessages(request)
        except httpx.TransportError as error:
            self._interrupted = True
            self._message_in_doubt |= not isinstance(error, NEVER_LEFT)
            raise
        if self._interrupted:
            self._report(request.node, anew=self._message_in_doubt and not response.messages_list)
        self._interrupted = self._message_in_doubt = False
        return response

    def PushObject(self, request: PushObjectRequest) -> PushObjectResponse:
        """Refused after an attempt without an answer: it has been stored by that attempt. (Or the upload took too long;
        the SuperLink then drops the reply and says so to the centre, which asks again.)"""
        try:
            response = super().PushObject(request)
        except httpx.TransportError as error:
            if not isinstance(error, NEVER_LEFT):
                self._stored_in_doubt().add((request.session_id, request.object_id))
            raise
        key = request.session_id, request.object_id
        response.stored = response.stored or key in self._stored_in_doubt()
        self._stored_in_doubt().discard(key)
        return response

    def _report(self, node: "Node", *, anew: bool) -> None:
        if anew:
            self.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))
        self.SendNodeHeartbeat(SendNodeHeartbeatRequest(node=node, heartbeat_interval=HEARTBEAT))

    def _stored_in_doubt(self) -> set[tuple[str, str]]:
        held: set[tuple[str, str]] = self.__dict__.setdefault("_in_doubt", set())
        return held


def _tell_answered(response: httpx.Response) -> None:
    """Not of what a proxy says, nor of 401, upon which Flower ends the process."""
    refusal = FlowerError.from_json(response.text)
    if refusal is not None and response.status_code != httpx.codes.UNAUTHORIZED:
        sys.stderr.write(f"{ANSWERED}: {refusal.message}\n")
