"""RFC 2920: commands in one segment are answered one by one, in order, and cost the server as few round trips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab import network
from proxsmtp_tp.lab.gateway import Instance
from tests.real.scripted_server import ScriptedServer, Step

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from proxsmtp_tp.lab.network import GatewayNetwork

MAIL, GOOD, BAD, DATA = (
    b"MAIL FROM:<alice@sender.example>\r\n",
    b"RCPT TO:<bob@mx.example>\r\n",
    b"RCPT TO:<eve@mx.example>\r\n",
    b"DATA\r\n",
)
MAIL_OK, GOOD_OK, BAD_NO, DATA_OK = (
    b"250 2.1.0 alice\r\n",
    b"250 2.1.5 bob\r\n",
    b"550-5.1.1 no\r\n550 5.1.1 eve\r\n",
    b"354 go on\r\n",
)
MESSAGE = b"Subject: x\r\n\r\n..\r\nx\r\n.\r\n"
EHLO = Step(b"EHLO c.example\r\n", b"250-mx.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
EHLO_PLAIN = Step(b"EHLO c.example\r\n", b"250-mx.example\r\n250 8BITMIME\r\n")
QUIT = Step(b"QUIT\r\n", b"221 bye\r\n")


@pytest.fixture(scope="module", params=[None, "cat"], ids=["unfiltered", "filtered"])
def gateway(request: pytest.FixtureRequest, lab: GatewayNetwork, directory: Path) -> Iterator[Instance]:
    """Running, with a filter that changes nothing, and with none."""
    directives = {"TransparentProxy": "client", "TempDirectory": str(directory), "RuleInterface": "lan"}
    if request.param:
        directives["FilterCommand"] = request.param
    with Instance(lab.gateway, directory, directives, f"gateway-{request.param}").running() as instance:
        yield instance


def _reply(link: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size and (chunk := link.recv(size - len(got))):
        got += chunk
    return got


def _talk(lab: GatewayNetwork, groups: list[tuple[bytes, bytes]]) -> None:
    """Each group is sent in one segment once the one before is answered; its answers must come exactly so."""
    with lab.sender.connect(network.MX_V4, 25, 20) as link:
        for sent, wanted in groups:
            if sent:
                link.sendall(sent)
            assert _reply(link, len(wanted)) == wanted
        assert link.recv(1) == b""


def test_one_segment_is_one_round_trip(lab: GatewayNetwork, gateway: Instance) -> None:
    """The server answers nothing before it has the whole group. With a filter DATA waits for the verdict."""
    if "FilterCommand" in gateway.directives:
        group = [
            Step(MAIL + GOOD + BAD, MAIL_OK + GOOD_OK + BAD_NO),
            Step(DATA, b"354 server\r\n"),
        ]
    else:
        group = [Step(MAIL + GOOD + BAD + DATA, MAIL_OK + GOOD_OK + BAD_NO + DATA_OK)]
    steps = [EHLO, *group, Step(MESSAGE, b"250 2.0.0 kept\r\n"), QUIT]
    with (
        ScriptedServer(lab.mx, network.MX_V4, 25, b"220 mx.example\r\n", steps),
        lab.sender.connect(network.MX_V4, 25, 20) as link,
    ):
        assert _reply(link, 16) == b"220 mx.example\r\n"
        link.sendall(EHLO.expects)
        assert _reply(link, len(EHLO.answers)) == EHLO.answers
        link.sendall(MAIL + GOOD + BAD + DATA)
        replies = MAIL_OK + GOOD_OK + BAD_NO
        assert _reply(link, len(replies)) == replies
        assert _reply(link, 4) == b"354 "  # its text is the server's, or with a filter ours
        while _reply(link, 1) not in {b"\n", b""}:
            pass
        link.sendall(MESSAGE)
        assert _reply(link, 16) == b"250 2.0.0 kept\r\n"
        link.sendall(QUIT.expects)
        assert _reply(link, 9) == QUIT.answers


def test_no_recipient_left(lab: GatewayNetwork, gateway: Instance) -> None:
    """All recipients refused: DATA gets the refusal, and what follows is a command again."""
    refused = b"554 5.5.1 no valid recipients\r\n"
    if "FilterCommand" in gateway.directives:
        group = [Step(MAIL + BAD, MAIL_OK + BAD_NO), Step(DATA, refused)]
    else:
        group = [Step(MAIL + BAD + DATA, MAIL_OK + BAD_NO + refused)]
    steps = [
        EHLO,
        *group,
        Step(b"RSET\r\n", b"250 2.0.0 reset\r\n"),
        QUIT,
    ]
    with ScriptedServer(lab.mx, network.MX_V4, 25, b"220 mx.example\r\n", steps):
        _talk(
            lab,
            [
                (b"", b"220 mx.example\r\n"),
                (EHLO.expects, EHLO.answers),
                (MAIL + BAD + DATA, MAIL_OK + BAD_NO + refused),
                (b"RSET\r\n", b"250 2.0.0 reset\r\n"),
                (QUIT.expects, QUIT.answers),
            ],
        )


def test_a_server_without_pipelining_gets_one_command_at_a_time(lab: GatewayNetwork, gateway: Instance) -> None:
    """A client that pipelines unasked: the server is spared. A second command in one step would fail it."""
    steps = [
        EHLO_PLAIN,
        Step(MAIL, MAIL_OK),
        Step(GOOD, GOOD_OK),
        Step(BAD, BAD_NO),
        Step(b"RSET\r\n", b"250 2.0.0 reset\r\n"),
        QUIT,
    ]
    with ScriptedServer(lab.mx, network.MX_V4, 25, b"220 mx.example\r\n", steps):
        _talk(
            lab,
            [
                (b"", b"220 mx.example\r\n"),
                (EHLO_PLAIN.expects, EHLO_PLAIN.answers),
                (MAIL + GOOD + BAD + b"RSET\r\n", MAIL_OK + GOOD_OK + BAD_NO + b"250 2.0.0 reset\r\n"),
                (QUIT.expects, QUIT.answers),
            ],
        )
