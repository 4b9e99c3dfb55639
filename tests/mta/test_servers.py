"""Each server behind the gateway: what is offered, what is refused, a client that closes its sending half."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.client import Client
from proxsmtp_tp.lab.gateway import Instance
from tests.mta.exchange import ADDRESSES, FILTER, NAMES, Exchange, exchange, judged, text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxsmtp_tp.lab.network import GatewayNetwork

SECONDS = 60.0
NEVER = {"VERB", "TURN", "ATRN", "PIPECONNECT", "X_PIPE_CONNECT", "CHUNKING", "BINARYMIME", "STARTTLS"}
"""What a proxy with a filter can not carry (docs/architecture.md)."""


@pytest.fixture(scope="module")
def servers(lab: GatewayNetwork, directory: Path) -> Iterator[Exchange]:
    """All four, on the MX only."""
    with exchange(lab, directory, senders=()) as made:
        yield made


@pytest.fixture(scope="module", params=["redirect", "tproxy"])
def instance(request: pytest.FixtureRequest, servers: Exchange, directory: Path) -> Iterator[Instance]:
    """With a filter."""
    script = directory / "judge"
    script.write_text(FILTER)
    script.chmod(0o755)
    directives = {
        "TransparentProxy": "full" if request.param == "tproxy" else "client", "RuleMode": request.param,
        "TempDirectory": str(directory), "RuleInterface": "lan", "FilterCommand": str(script),
    }  # fmt: skip
    with Instance(servers.lab.gateway, directory, directives, request.param).running() as running:
        yield running


def keywords(client: Client) -> set[str]:
    """What EHLO offers."""
    client.ehlo()
    return {keyword.upper() for keyword in client.esmtp_features}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_offered(servers: Exchange, instance: Instance, name: str) -> None:
    """No more than the server offers itself, and nothing that a proxy can not carry."""
    with Client(servers.lab.mx, ADDRESSES[name]) as direct, Client(servers.lab.sender, ADDRESSES[name]) as proxied:
        offered, passed = keywords(direct), keywords(proxied)
    assert passed - {"XFILTERED"} <= offered
    assert not passed & NEVER
    assert {"8BITMIME", "SIZE"} & offered <= passed
    assert instance.log


@pytest.mark.parametrize("name", NAMES)
def test_what_is_refused_and_mail_still_passes(servers: Exchange, instance: Instance, name: str) -> None:
    with Client(servers.lab.sender, ADDRESSES[name]) as client:
        assert client.docmd("LHLO client.example")[0] == 500
        client.ehlo()
        assert [client.docmd(command)[0] for command in ("VERB", "TURN", "ATRN x.example")] == [502, 502, 502]
        mark = f"refused.{instance.name}.{name}"
        octets = f"X-Form: {mark}\r\n\r\nhello\r\n".encode()
        assert client.submit("a@client.example", [f"b@{name}.example"], octets)[:4] == "250 "
    assert not servers.sink.wait({mark.encode()}, SECONDS), servers.logs()


@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_closes_its_sending_half(servers: Exchange, instance: Instance, name: str) -> None:
    """As `printf ... | nc -N`: in step until the text, then the end of file behind the final dot. It gets 250."""
    mark = f"half.{instance.name}.{name}".encode()
    with servers.lab.sender.connect(ADDRESSES[name], 25, SECONDS) as link, link.makefile("rb") as replies:
        assert replies.readline()[:3] == b"220"
        for line, code in (
            (b"HELO client.example", b"250"),
            (b"MAIL FROM:<a@client.example>", b"250"),
            (b"RCPT TO:<b@%s.example>" % name.encode(), b"250"),
            (b"DATA", b"354"),
        ):
            link.sendall(line + b"\r\n")
            assert replies.readline()[:3] == code
        link.sendall(b"X-Form: " + mark + b"\r\n\r\nhello\r\n.\r\n")
        link.shutdown(socket.SHUT_WR)
        assert replies.readline()[:4] == b"250 ", instance.log
    assert not servers.sink.wait({mark}, SECONDS), servers.logs()
    (message,) = [message for message in servers.sink.all if message.mark == mark]
    assert judged(text(message))[0]
