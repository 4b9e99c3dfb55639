"""Promise 5 at four servers: a text that one of them could read as two messages, a line that it could cut in two.

Each text stands before the commands of a second message. Only where it holds the end of data that RFC 5321 knows may
the server see that message; and whatever the server makes of the octets, the proxy counts its replies as it does.
"""

from __future__ import annotations

import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from proxsmtp_tp.smtp import answers
from tests.mta import servers
from tests.mta.attempts import CLIENTS
from tests.mta.proxy import Proxy
from tests.mta.servers import START_BY_NAME
from tests.mta.sink import Sink
from tests.trace_ids import without_ids
from tests.unit.smtp.test_data import relay
from tests.unit.smtp.test_smuggling import END, VARIANTS

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER_PORT, PROXY_PORT = 2501, 2500
LIMITS = (512, 1000, 1024, 2048, 4096, 8192, 12288, 16384, 65536)
"""Octets at which one or another server cuts a line."""
TEXTS = [
    *{relay([b"hi" + text + b"next" + END]): text for text in VARIANTS}.values(),  # no two look alike to a server
    *(b"A" * (limit + more) + dot for limit in LIMITS for more in (-2, -1, 0) for dot in (b".\r\n", b"\r.\r\n")),
]
"""What stands between the first text and the commands of the second message."""
REAL = {number for number, text in enumerate(TEXTS) if text.endswith(END)}

INTRODUCTION = b"EHLO c.example\r\n"
ENVELOPE = b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\nDATA\r\n"
SECOND = b"MAIL FROM:<evil@c.example>\r\nRCPT TO:<victim@d.example>\r\nDATA\r\n"
SECONDS = 60.0
"""Until the second messages that are real have arrived: OpenSMTPD is slow."""


class Place(NamedTuple):
    """A server, the proxy before it, and where the server sends on what it took."""

    sink: Sink
    proxy: Proxy


@pytest.fixture(params=[None, "/bin/cat"], ids=["streamed", "filtered"])
def filter_command(request: pytest.FixtureRequest) -> str | None:
    command: str | None = request.param
    return command


@pytest.fixture(scope="module", params=list(START_BY_NAME))
def server(request: pytest.FixtureRequest) -> Iterator[Sink]:
    with tempfile.TemporaryDirectory(prefix="proxsmtp-mta.") as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        sink = Sink()
        stack.callback(sink.stop)
        mta = START_BY_NAME[request.param](Path(folder), servers.Place(SERVER_PORT, sink.port))
        stack.callback(mta.stop)
        mta.wait_ready()
        yield sink


@pytest.fixture
def place(server: Sink, filter_command: str | None) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="proxsmtp-mta.") as folder:
        Path(folder).chmod(0o755)
        proxy = Proxy(Path(folder), PROXY_PORT, SERVER_PORT, filter_command)
        try:
            proxy.wait_ready()
            yield Place(server, proxy)
        finally:
            proxy.stop()


class Talk:
    """A client, one line at a time."""

    def __init__(self) -> None:
        self._link = socket.create_connection(("127.0.0.1", PROXY_PORT), 60)
        self._replies = self._link.makefile("rb")
        self.reply()

    def reply(self) -> bytes:
        """The last line of the next one; b"" where the connection has ended."""
        while (line := self._replies.readline())[3:4] == b"-":
            pass
        return line

    def say(self, *lines: bytes) -> list[bytes]:
        """Each when the one before has its reply."""
        said = []
        for line in lines:
            self._link.sendall(line)
            said.append(self.reply())
        return said

    def rest(self, data: bytes) -> list[bytes]:
        """Send it all, and no more; the replies until the end."""
        self._link.sendall(data)
        return list(iter(self.reply, b""))

    def close(self) -> None:
        self._replies.close()
        self._link.close()


def second_messages(place: Place, label: str) -> set[int]:
    """The numbers of those that arrived; all that are real are waited for."""
    prefix = f"{label}-evil-".encode()
    place.sink.wait({prefix + str(number).encode() for number in REAL}, SECONDS)
    return {int(mark[len(prefix) :]) for mark in list(place.sink.arrived) if mark.startswith(prefix)}


def test_no_text_is_two_messages(place: Place, filter_command: str | None) -> None:
    label = "streamed" if filter_command is None else "filtered"

    def one(number: int) -> list[bytes]:
        talk = Talk()
        assert [reply[:1] for reply in talk.say(*(INTRODUCTION + ENVELOPE).splitlines(keepends=True))] == [
            b"2", b"2", b"2", b"3",
        ], number  # fmt: skip
        first = f"X-Form: {label}-first-{number}\r\n\r\nhi".encode()
        second = f"X-Form: {label}-evil-{number}\r\n\r\nboo\r\n.\r\nQUIT\r\n".encode()
        said = talk.rest(first + TEXTS[number] + SECOND + second)
        talk.close()
        return said

    with ThreadPoolExecutor(CLIENTS) as pool:
        replies = list(pool.map(one, range(len(TEXTS))))
    assert second_messages(place, label) == REAL
    for number, said in enumerate(replies):
        if END not in TEXTS[number]:  # one for the message, one for QUIT; 421 where the server leaves
            codes = [reply[:1] for reply in said]
            leaves = len(TEXTS[number]) > 65000 and codes == [b"4"]  # OpenSMTPD closes at such a line
            assert leaves or codes in ([b"2", b"2"], [b"5", b"2"], [b"5", b"4"]), (TEXTS[number][-40:], said)
    assert "out of step" not in place.proxy.log.read_text()


def padded(command: bytes, octets: int) -> bytes:
    return command + b" " * (octets - len(command))


@pytest.mark.parametrize("verb", [b"AUTH PLAIN ", b"X-EXPS LOGIN "])
def test_no_line_of_auth_is_two_commands(place: Place, verb: bytes) -> None:
    """A server that cuts it at 2048 would get a whole message by BDAT, which needs no line end (RFC 3030)."""
    for limit in (2048, 4096):
        pieces = [
            verb,
            b"MAIL FROM:<evil@c.example>",
            b"RCPT TO:<victim@d.example>",
            b"BDAT 2048 LAST",
            b"X-Form: auth",
        ]
        line = b"".join(padded(piece, limit) for piece in pieces)[:12286] + b"\r\n"
        talk = Talk()
        said = talk.say(INTRODUCTION, line, b"NOOP\r\n", b"QUIT\r\n")
        assert [without_ids(reply) for reply in said[1:2]] == [answers.LONG_AUTH_SYNTAX.wire]
        assert [reply[:3] for reply in said[2:]] == [b"250", b"221"]
        talk.close()


@pytest.mark.parametrize("verb", [b"AUTH PLAIN ", b"X-EXPS LOGIN "])
def test_each_line_of_auth_has_one_reply(place: Place, verb: bytes) -> None:
    """Or the connection ends, if the server still cuts the line: Sendmail, of 12288 octets."""
    for octets in (512, 1000, 2047, 2048, 2049, 4096, 4097, 8192, 12286, 12287, 12288):
        talk = Talk()
        said = talk.say(INTRODUCTION, verb.ljust(octets - 2, b"A") + b"\r\n", b"NOOP\r\n", b"MAIL FROM:<>\r\n")
        codes = [reply[:3] for reply in said[1:]]
        assert codes[0][:2] == b"50" or codes[0] == b"421", (octets, said)
        assert codes[1:] == [b"250", b"250"] or (b"421" in codes and b"250" not in codes), (octets, said)
        talk.close()
