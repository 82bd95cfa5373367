"""What a connection that breaks within an answer takes from a site, and how it gets it back."""

from collections.abc import Callable

import httpx
import pytest
from flwr.proto.fleet_pb2 import DeactivateNodeResponse, PullMessagesRequest, PullMessagesResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import Message, PushObjectRequest, PushObjectResponse
from flwr.proto.node_pb2 import Node

from client.connection import ANSWERED
from client.fleet import Fleet

ANSWERS = {
    "pull-messages": PullMessagesResponse,
    "push-object": PushObjectResponse,
    "deactivate-node": DeactivateNodeResponse,
    "send-node-heartbeat": SendNodeHeartbeatResponse,
}


class Wire(Fleet):
    """``troubles``: what happens to the first requests; ``asked``: all requests, as the SuperLink got them."""

    def __init__(self, *troubles: Callable[[str], Exception], answer: object = None) -> None:
        super().__init__("https://here")
        self.asked: list[str] = []
        held = list(troubles)

        def respond(request: httpx.Request) -> httpx.Response:
            if held:
                raise held.pop(0)("trouble")
            name = request.url.path.rsplit("/", 1)[1]
            self.asked.append(name)
            given = answer if answer is not None and type(answer) is ANSWERS[name] else ANSWERS[name]()
            return httpx.Response(200, content=given.SerializeToString())

        self._client = httpx.Client(transport=httpx.MockTransport(respond))


def _pull(wire: Wire, error: type[Exception]) -> None:
    request = PullMessagesRequest(node=Node(node_id=7))
    with pytest.raises(error):
        wire.PullMessages(request)
    for _ in range(2):
        wire.PullMessages(request)


def test_a_message_that_may_have_been_lost_is_asked_for() -> None:
    wire = Wire(httpx.ReadError)
    _pull(wire, httpx.ReadError)
    assert wire.asked == ["pull-messages", "deactivate-node", "send-node-heartbeat", "pull-messages"]


def test_after_refused_connections_the_site_only_reports() -> None:
    wire = Wire(httpx.ConnectError)
    _pull(wire, httpx.ConnectError)
    assert wire.asked == ["pull-messages", "send-node-heartbeat", "pull-messages"]


def test_a_message_that_came_after_all_is_not_asked_for() -> None:
    wire = Wire(httpx.ReadError, answer=PullMessagesResponse(messages_list=[Message()]))
    _pull(wire, httpx.ReadError)
    assert "deactivate-node" not in wire.asked


@pytest.mark.parametrize(("trouble", "stored"), [(httpx.ReadError, True), (httpx.ConnectError, False)])
def test_an_array_whose_receipt_was_lost_counts_as_stored(trouble: type[Exception], stored: bool) -> None:
    wire = Wire(trouble)
    request = PushObjectRequest(session_id="s", object_id="o")
    with pytest.raises(trouble):
        wire.PushObject(request)
    assert wire.PushObject(request).stored is stored
    assert wire.PushObject(request).stored is False


@pytest.mark.parametrize(
    "words",
    [
        "[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol (_ssl.c:1006)",
        "_ssl.c:989: The handshake operation timed out",
    ],
)
def test_tls_that_was_cut_short_is_no_wrong_certificate(words: str) -> None:
    """Flower gives up on what has SSL in its words."""
    with pytest.raises(httpx.ConnectError, match=r"^the connection was cut or stalled$"):
        Wire(lambda _: httpx.ConnectError(words)).PushObject(PushObjectRequest())


def test_a_wrong_certificate_stays_one() -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        Wire(lambda _: httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]")).PushObject(PushObjectRequest())


RUN_ENDED = '{"code": 2007, "detail": "Run is finished."}'


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (403, RUN_ENDED, f"{ANSWERED}: Run is finished.\n"),
        (401, '{"code": 1008, "detail": "Authentication failed."}', ""),
        (503, "<html>no server is available</html>", ""),
    ],
)
def test_a_refusal_by_the_superlink_is_an_answer(
    status: int, body: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flower says no word where what it sends again belongs to a run that has ended."""
    wire = Wire()
    wire._client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(status, text=body)))
    with pytest.raises(httpx.HTTPStatusError):
        wire.PushObject(PushObjectRequest())
    assert capsys.readouterr().err == told
