"""The capture sees what it must see, and no test with a daemon is without one."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tests.tls.capture import Capture, Stream, check_legs

HELLO = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"
ASKED = b"EHLO c.example\r\nSTARTTLS\r\n"
RECORD = b"\x17\x03\x03\x00\x23\r\nMAIL FROM:<a@b.example> by chance"
MAIL = b"MAIL FROM:<a@b.example> SIZE=5\r\n"


def sent(*octets: bytes, family: socket.AddressFamily = socket.AF_INET) -> Stream:
    """What is captured of a client that sends this, in several segments."""
    address = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with Capture() as capture, socket.socket(family) as listener:
        listener.bind((address, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with socket.create_connection((address, port)) as client, listener.accept()[0] as server:
            for each in octets:
                client.sendall(each)
                assert server.recv(len(each), socket.MSG_WAITALL) == each
    (stream,) = (each for each in capture.streams if each.port == port)
    return stream


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_what_is_sent_is_captured(family: socket.AddressFamily) -> None:
    stream = sent(ASKED, MAIL, b"x" * 500_000, family=family)
    assert stream.octets == ASKED + MAIL + b"x" * 500_000
    assert not stream.tls


def test_what_leaks_is_found() -> None:
    encrypted, clear = sent(ASKED, HELLO, RECORD), sent(ASKED.partition(b"STARTTLS")[0] + MAIL)
    assert encrypted.tls
    check_legs([encrypted], [encrypted])
    check_legs([clear], [clear, encrypted])
    with pytest.raises(AssertionError, match="in clear to the server"):
        check_legs([encrypted], [clear])
    with pytest.raises(AssertionError, match="in clear to the server"):
        check_legs([clear, encrypted], [clear, clear])
    with pytest.raises(AssertionError, match="in clear to the server"):
        check_legs([encrypted], [sent(ASKED, HELLO, HELLO, MAIL)])


@pytest.mark.parametrize("command", [b"rcpt to:<b@c.example>", b"AUTH PLAIN AGEAYg==", b"MAIL FROM:<>"])
def test_every_command_that_must_not_leak(command: bytes) -> None:
    with pytest.raises(AssertionError, match="in clear to the server"):
        check_legs([], [Stream(25, b"EHLO c.example\r\n" + command + b"\r\n")])


def test_every_daemon_of_these_tests_is_captured() -> None:
    """`tests.tls.daemon.daemon`, and the fixture `start_proxy`, compare both legs; who starts one otherwise must."""
    tests = Path(__file__).parents[1]
    found = {path.name: path.read_text() for path in (*tests.glob("tls/*.py"), *tests.glob("mta/*tls*.py"))}
    starting = {name for name, text in found.items() if re.search(r"\.running\(\)|\"serve\"", text)} - {
        Path(__file__).name
    }
    assert starting == {"daemon.py", "levels.py", "test_levels_ways.py", "test_rejected.py", "tls_senders.py"}
    assert [name for name in starting if "check_legs(" not in found[name]] == []
