"""What ends a daemon and what does not, from what Flower 1.41 really writes; and how its lines are followed."""

from pathlib import Path

import pytest

from client.connection import ANSWERED, CONNECTED, ENDED, NOT_ACCEPTED, RETRYING, Watch, read_state
from client.diagnosis import PATIENCE, Diagnosis
from client.membership import Membership, Place

HEAD = "ERROR :     Exit Code: 305\nFailed to initialize the connection to the SuperLink.\n"
TLS = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
PLACE = Place(Path("/s/site.yaml"), Path("/s/site.federation"))
MEMBER = Membership(federation="f", site="s", superlink="127.0.0.1:1", ticket="t", federation_key="a b")


def diagnosis(*, known: bool = False, times: tuple[float, ...] = (0.0,)) -> Diagnosis:
    clock = iter(times)
    return Diagnosis(place=PLACE, membership=MEMBER, known=lambda: known, clock=lambda: next(clock))


@pytest.mark.parametrize(
    ("wrote", "words"),
    [
        (TLS + "certificate has expired (_ssl.c:1016)", "its certificate has expired"),
        (TLS + "self-signed certificate in certificate chain (_ssl.c:1016)", "not signed by this federation's CA"),
        (
            TLS + "unable to get local issuer certificate",
            "not signed by this federation's CA (/s/site.federation/ca.crt)",
        ),
        (TLS + "IP address mismatch, certificate is not valid for '127.0.0.1'.", "not for the name 127.0.0.1"),
        (TLS + "Hostname mismatch, certificate is not valid for 'x'.", "not for the name"),
        (TLS + "certificate is not yet valid", "not valid yet; set this machine's clock"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1016)", "does not speak TLS"),
        ("[code: 2004] Failed to activate SuperNode.", "this site's key is not registered there"),
    ],
)
def test_what_only_a_person_can_put_right_is_one_line_that_says_how(wrote: str, words: str) -> None:
    found = diagnosis().hopeless(1, (HEAD + wrote).splitlines())
    assert found is not None and words in str(found)
    assert str(found).startswith("SuperLink 127.0.0.1:1: ") and "\n" not in str(found) and "{" not in str(found)


@pytest.mark.parametrize(
    "wrote",
    ["[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred", "Server disconnected without sending a response.", ""],
)
def test_a_network_that_fails_is_not_hopeless(wrote: str) -> None:
    assert diagnosis().hopeless(1, (HEAD + wrote).splitlines()) is None
    assert diagnosis().hopeless(-9, []) is None
    assert diagnosis().hopeless(0, ["SuperNode terminated gracefully."]) is None  # and no clock to compare with


def test_a_site_that_was_connected_waits_until_the_superlink_has_noticed_that_it_had_gone() -> None:
    lines = (HEAD + "[code: 2004] Failed to activate SuperNode.").splitlines()
    patient = diagnosis(known=True, times=(0.0, PATIENCE - 1, PATIENCE + 1))
    assert patient.hopeless(1, lines) is None
    assert patient.hopeless(1, lines) is None
    found = patient.hopeless(1, lines)
    assert found is not None and "no longer registered" in str(found)


def test_the_connection_is_told_once_and_kept(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "connection.json"
    watch = Watch(path, ("127.0.0.1", 1), 9095, told.append)
    for _ in range(3):
        watch.line("WARNING :   Connection attempt failed, retrying in 1.00 seconds")
    assert told == ["127.0.0.1:1 does not answer (connection refused); trying again"]
    watch.line("INFO :      Connection successful after 3.00 seconds and 3 tries.")  # it may not be accepted yet
    assert read_state(path).state == RETRYING
    watch.line("INFO :      SuperNode ID: 17")
    assert told[1:] == ["connected to 127.0.0.1:1"]
    held = read_state(path)
    assert (held.state, held.node, held.health_port) == (CONNECTED, "17", 9095)
    watch.line("WARNING :   Connection attempt failed, retrying in 1.00 seconds")
    watch.line("INFO :      Connection successful after 3.00 seconds and 3 tries.")
    assert read_state(path).state == CONNECTED
    watch.line("WARNING :   Connection attempt failed, retrying in 1.00 seconds")
    watch.line(f"{ANSWERED}: Run is finished.")
    assert read_state(path).state == CONNECTED
    watch.ended("SuperNode ended with status -9")
    watch.line("[code: 2004] Failed to activate SuperNode.")
    watch.ended("SuperNode ended with status 1")
    assert told[-1] == "127.0.0.1:1 does not accept this site, or counts it as connected still"
    assert read_state(path).state == NOT_ACCEPTED
    watch.close("stopped")
    assert read_state(path).state == ENDED
    assert Watch(path, ("127.0.0.1", 1), 9095, told.append).node == "17"  # the next one knows that it was accepted
