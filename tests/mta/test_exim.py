"""Exim remembers what a server offered without the proxy, and counts commands that are no mail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab import network
from proxsmtp_tp.lab.client import Client
from proxsmtp_tp.lab.gateway import Instance
from proxsmtp_tp.smtp import answers
from tests.mta.exim import Exim
from tests.trace_ids import without_ids

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxsmtp_tp.lab.network import GatewayNetwork

REFUSE = 'if grep -q SPAM; then echo "550 5.7.1 spam" >&2; exit 1; fi; printf "Subject: judged\\n\\nmail\\n"'


@pytest.fixture(scope="module")
def mx(lab: GatewayNetwork, directory: Path) -> Iterator[Exim]:
    """The server."""
    with Exim.made(lab.mx, directory / "exim-mx") as server:
        server.start()
        yield server


@pytest.fixture
def sender(lab: GatewayNetwork, directory: Path, request: pytest.FixtureRequest) -> Iterator[Exim]:
    """The client: it sends all to the MX."""
    with Exim.made(lab.sender, directory / f"exim-{request.node.name}", network.MX_V4) as client:
        yield client


def gateway(lab: GatewayNetwork, directory: Path, name: str, **directives: str) -> Instance:
    """Transparent, for clients in the LAN."""
    usual = {"TransparentProxy": "client", "TempDirectory": str(directory), "RuleInterface": "lan"}
    return Instance(lab.gateway, directory, usual | directives, name)


@pytest.mark.parametrize("filtered", [False, True])
def test_a_cache_from_before_costs_a_retry_and_no_mail(
    lab: GatewayNetwork, directory: Path, mx: Exim, sender: Exim, *, filtered: bool
) -> None:
    """PIPECONNECT: it says MAIL, RCPT and BDAT in one, by what the server offered when it was asked directly."""
    before = mx.messages()
    for name in ("asks", "remembers"):
        sender.send(name)
    mx.wait_mailbox(before + 2)
    assert " L* K " in sender.log, f"the second message did not use early pipelining and CHUNKING:\n{sender.log}"

    judges = {"FilterCommand": "cat"} if filtered else {}
    with gateway(lab, directory, f"cache-{filtered}", **judges).running() as instance:
        sender.send("tries")
        assert "451 4.5.1" in sender.log, f"{sender.log}\n{instance.log}"
        assert " ** " not in sender.log, "a bounce"
        sender.run("-qff")
        mx.wait_mailbox(before + 3)
        sender.send("knows better")
        mx.wait_mailbox(before + 4)
    assert sender.log.count(" == ") == 1, "one retry is enough"
    assert " ** " not in sender.log, "a bounce"


@pytest.mark.parametrize("reset", [True, False])
def test_it_disconnects_no_sooner_than_without_us_and_the_client_gets_the_reason(
    lab: GatewayNetwork, directory: Path, mx: Exim, *, reset: bool
) -> None:
    """smtp_accept_max_nonmail is 10: an RSET for each refused message, and no more, is what it may count."""
    assert mx.log
    with gateway(lab, directory, f"count-{reset}", FilterCommand=REFUSE).running() as instance:
        with Client(lab.sender, network.MX_V4) as client:
            client.ehlo()
            refused = 0
            while True:
                code, words = client.docmd("MAIL FROM:<a@sender.example>")
                if code == 421:
                    break
                assert client.docmd("RCPT TO:<b@mx.example>")[0] == 250
                assert client.data("Subject: SPAM\r\n\r\nx") == (550, b"5.7.1 spam")
                refused += 1
                code, words = client.docmd("RSET") if reset else (250, b"")
                if code == 421:  # it has left already: otherwise ours stands for the client's, and MAIL learns of it
                    break
                assert code == 250
            told = [b"4.4.2 The server ends the session: 554 Too many nonmail commands"]
            if not reset:  # MAIL was on its way already: the kernel may have reset the connection under the 554
                told.append(answers.SERVER_LOST.wire[4:-2])
            assert code == 421
            assert without_ids(b"421 " + words)[4:] in told, instance.log
            assert refused > 10
        with Client(lab.sender, network.MX_V4) as client:
            client.ehlo()
            assert client.submit("a@sender.example", ["b@mx.example"], b"Subject: x\r\n\r\nx\r\n").startswith("250 ")
