"""The embedded MX tells everything, exactly and in order."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.client import Client
from proxsmtp_tp.lab.mx import Arrived, Closed, Commanded, Connected, Journal
from proxsmtp_tp.lab.network import LabError, Network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxsmtp_tp.lab.network import Host

SECONDS = 60.0
OCTETS = bytes(value for value in range(256) if value not in b"\r\n")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Network() as network:
        yield network.host(f"t{os.getpid()}mx")


@pytest.fixture
def journal(host: Host, tmp_path: Path) -> Iterator[Journal]:
    """Of an MX that listens on both loopback addresses."""
    path = tmp_path / "mx.jsonl"
    with path.open("wb") as output:
        process = host.start(
            sys.executable, "-m", "proxsmtp_tp.lab.mx", "--listen", "127.0.0.1", "--listen", "::1", output=output
        )
    journal = Journal(path)
    assert journal.wait(lambda journal: journal.ready, SECONDS), path.read_text()
    yield journal
    assert host.stop(process) == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_everything_is_reported(host: Host, journal: Journal, address: str) -> None:
    octets = b"Subject: x\r\n\r\n.\r\n..\r\n" + OCTETS + b"\r\n" + b"y" * 5000 + b"\r\n\r\n"
    with Client(host, address, name="client.example") as client:
        assert client.greeting == "220 mx.example.net ESMTP"
        client.ehlo()
        assert client.sock is not None
        local, port = client.sock.getsockname()[:2]
        options = ["SMTPUTF8", "BODY=8BITMIME"]
        reply = client.submit("jürgen@sender.example", ["bob@mx.example", "用户@mx.example"], octets, options)
        assert reply == "250 2.0.0 Ok: kept as number 1"
        assert client.docmd("RSET")[0] == 250
    assert journal.wait(lambda journal: Closed(1) in journal.events, SECONDS)
    recipients = ["bob@mx.example", "用户@mx.example"]
    assert journal.events == [
        Connected(1, local, port, address),
        Commanded(1, "EHLO client.example"),
        Commanded(1, "MAIL FROM:<jürgen@sender.example> SMTPUTF8 BODY=8BITMIME"),
        Commanded(1, "RCPT TO:<bob@mx.example>"),
        Commanded(1, "RCPT TO:<用户@mx.example>"),
        Arrived(1, address, "client.example", "jürgen@sender.example", recipients, octets.decode("latin-1"), reply),
        Commanded(1, "RSET"),
        Commanded(1, "QUIT"),
        Closed(1),
    ]
    assert journal.messages[0].octets == octets


def test_null_sender_and_numbers(host: Host, journal: Journal) -> None:
    for number in (1, 2):
        with Client(host, "::1") as client:
            client.ehlo()
            assert client.submit("", ["bob@mx.example"], b"\r\n") == f"250 2.0.0 Ok: kept as number {number}"
    assert journal.wait(lambda journal: Closed(2) in journal.events, SECONDS)
    assert [(message.connection, message.sender) for message in journal.messages] == [(1, ""), (2, "")]


def test_half_a_line_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text('{"event": "ready"}\n{"event": "close", "connect')
    journal = Journal(path)
    journal.update()
    assert journal.ready
    assert journal.events == []
    with path.open("a") as file:
        file.write('ion": 7}\n')
    journal.update()
    assert journal.events == [Closed(7)]


def test_waiting_ends(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.touch()
    assert not Journal(path).wait(lambda journal: journal.ready, 0.05)


def test_a_taken_address_is_reported(host: Host, journal: Journal) -> None:
    assert journal.ready
    done = host.run(sys.executable, "-m", "proxsmtp_tp.lab.mx", "--listen", "127.0.0.1", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("mx: ")
    assert "Traceback" not in done.stderr


def test_a_refused_step_is_named(host: Host, journal: Journal) -> None:
    """The client tells which command was refused, and how."""
    with Client(host, "127.0.0.1") as client:
        client.ehlo()
        with pytest.raises(LabError, match=r"RCPT TO:<bob@mx.example> BAD=1: 555 "):
            client.submit("", ["bob@mx.example"], b"\r\n", rcpt_options=["BAD=1"])
