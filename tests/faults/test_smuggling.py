"""Promise 5, over real sockets: one message in, one message out, whatever server listens.

Every variant of an end of data that somebody's server accepts (before, dot, behind: line ends, NULs, spaces), followed
by commands and a second message: sent by a client, and written by a filter. What leaves for the server is read as
strict and lenient servers read it (tests.unit.smtp.servers): all of them must see the same messages and commands.
"""

from __future__ import annotations

import asyncio
import base64
import re
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.faults.cuts import AT_ONCE
from tests.unit.net.proxy_harness import WAIT_SECONDS, Mx, codes
from tests.unit.session.models import ModelServer
from tests.unit.smtp.servers import MODELS, ends_seen, ends_seen_without_nuls
from tests.unit.smtp.test_smuggling import VARIANTS

if TYPE_CHECKING:
    from tests.unit.net.proxy_harness import ProxyHarness, StartProxy

SMUGGLED = b"MAIL FROM:<evil@c>\r\nRCPT TO:<victim@mx>\r\nDATA\r\nSubject: smuggled\r\n\r\nboo\r\n.\r\n"
BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class Recorder(ModelServer):
    """Strict, as the model server is; keeps the wire of each message and what it answered to everything."""

    def __init__(self) -> None:
        super().__init__(keywords=(b"PIPELINING",))
        self.wire = b""
        self._stage = 0

    def receive(self, data: bytes) -> bytes:
        self.wire += data
        return super().receive(data)

    def _answer(self, line: bytes) -> bytes:
        """As servers do: each command in its turn, and no others."""
        verb = line[:4].upper()
        if verb not in {b"EHLO", b"MAIL", b"RCPT", b"DATA", b"RSET", b"NOOP", b"QUIT"}:
            return b"500 what?\r\n"
        needed = {b"RCPT": 1, b"DATA": 2}.get(verb, 0)
        if self._stage < needed:
            return b"503 not now\r\n"
        self._stage = {b"MAIL": 1, b"RCPT": 2, b"NOOP": self._stage}.get(verb, 0)
        return super()._answer(line)

    def texts(self) -> list[bytes]:
        """The wire of each message, final dot included."""
        return [message + b".\r\n" for message in self.messages]


def opening(number: int) -> bytes:
    return b"EHLO c\r\nMAIL FROM:<%04d@c>\r\nRCPT TO:<b@mx>\r\nDATA\r\n" % number


async def converse(harness: ProxyHarness, said: bytes) -> bytes:
    """Send it all, in pieces that cut every line end somewhere; what the client gets."""
    client = await harness.client()
    async with asyncio.timeout(WAIT_SECONDS):
        with suppress(OSError):
            for at in range(0, len(said), 7):
                await client.say(said[at : at + 7])
            client.finish()
        heard = await client.rest()
    client.close()
    return heard


async def converse_all(harness: ProxyHarness, mx: Mx, talks: list[bytes]) -> tuple[list[list[int]], list[Recorder]]:
    """Each in a connection of its own; what each client heard, and the recorders by number."""
    recorders: list[Recorder] = []

    def recorder() -> Recorder:
        recorders.append(Recorder())
        return recorders[-1]

    mx.serve(recorder)
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(said: bytes) -> list[int]:
        async with slots:
            return codes(await converse(harness, said))

    told = await asyncio.gather(*(one(said) for said in talks))
    await harness.empty()
    return told, sorted(recorders, key=lambda it: int(re.findall(rb"MAIL FROM:<(\d{4})@c>", it.wire)[0]))


def assert_all_servers_agree(recorder: Recorder, why: object) -> None:
    """No server, however lenient, sees an end of data, a line or a command that a strict one does not."""
    assert not BARE.search(recorder.wire), why
    for wire in recorder.texts():
        for newlines, nuls in MODELS:
            assert ends_seen(wire, newlines, nuls) == [len(wire) - 3], (newlines, nuls, why)
        assert ends_seen_without_nuls(wire) == 1, why
    commands = recorder.wire
    for wire in recorder.texts():
        commands = commands.replace(wire, b"")
    assert b"\0" not in commands, why


def normalised(message: bytes) -> bytes:
    """The text without everything that is not a letter: the order and number of its words."""
    return re.sub(rb"[^A-Za-z0-9:@<>]", b"", message)


@pytest.mark.parametrize("filter_command", [None, "cat"], ids=["streamed", "filtered"])
async def test_from_a_client(start_proxy: StartProxy, filter_command: str | None) -> None:
    talks = [
        opening(at) + b"Subject: a\r\n\r\nhi" + variant + SMUGGLED + b"QUIT\r\n" for at, variant in enumerate(VARIANTS)
    ]
    async with Mx() as mx, start_proxy(mx, filter_command=filter_command) as harness:
        harness.errors_expected = True
        told, recorders = await converse_all(harness, mx, talks)
        assert len(recorders) == len(talks)
    for variant, said, heard, recorder in zip(VARIANTS, talks, told, recorders, strict=True):
        assert_all_servers_agree(recorder, variant)
        meant = Recorder()  # what a strict server makes of the same bytes without us
        meant.receive(said)
        assert [normalised(m) for m in recorder.messages] == [normalised(m) for m in meant.messages], variant
        assert heard.count(354) == len(meant.messages), variant
        assert (b"MAIL FROM:<evil@c>" in recorder.commands) == (b"MAIL FROM:<evil@c>" in meant.commands), variant


@pytest.mark.parametrize("bare", ["\\n", "\\r", "\\0"])
async def test_from_a_client_in_its_commands(start_proxy: StartProxy, bare: str) -> None:
    """Refused, and the server sees nothing of it."""
    octet = bare.encode().decode("unicode_escape").encode()
    talks = [
        opening(0) + b"hi\r\n.\r\n" + line.replace(b"!", octet) + b"\r\nQUIT\r\n"
        for line in (
            b"NOOP!MAIL FROM:<evil@c>", b"MAIL FROM:<a@c>!RCPT TO:<victim@mx>", b"RCPT TO:<a@c!>", b"!DATA", b"DATA!",
            b"VRFY !.!", b"AUTH LOGIN!MAIL FROM:<evil@c>", b"XFORWARD ADDR=192.0.2.1!MAIL FROM:<evil@c>",
        )
    ]  # fmt: skip
    async with Mx() as mx, start_proxy(mx) as harness:
        told, recorders = await converse_all(harness, mx, talks)
    for heard, recorder in zip(told, recorders, strict=True):
        assert not BARE.search(recorder.wire)
        assert b"\0" not in recorder.wire
        assert b"evil" not in recorder.wire
        assert 500 in heard
        assert heard[-1] in {221, 421}


async def test_from_a_filter(start_proxy: StartProxy) -> None:
    """It writes what the message holds in base64: any octets."""
    texts = [b"Subject: a\r\n\r\nhi" + variant + SMUGGLED for variant in VARIANTS]
    talks = [
        opening(at) + base64.encodebytes(text).replace(b"\n", b"\r\n") + b".\r\nQUIT\r\n"
        for at, text in enumerate(texts)
    ]
    async with Mx() as mx, start_proxy(mx, filter_command="base64 -di") as harness:
        told, recorders = await converse_all(harness, mx, talks)
        assert len(recorders) == len(talks)
    for text, heard, recorder in zip(texts, told, recorders, strict=True):
        assert_all_servers_agree(recorder, text)
        assert heard == [220, 250, 250, 250, 354, 250, 221], text
        assert [normalised(message) for message in recorder.messages] == [normalised(text)], text
        assert [command[:4] for command in recorder.commands] == [b"EHLO", b"MAIL", b"RCPT", b"DATA", b"QUIT"], text


async def test_a_filter_can_not_add_a_reply(start_proxy: StartProxy) -> None:
    """What it says on standard error is one line of one reply, whatever is in it."""
    says = r"printf '550-5.7.1 one\r\n250 two\r250 three\n354\0 four\033[2J\200 last\r' >&2; exit 1"
    async with Mx() as mx, start_proxy(mx, filter_command=f"cat >/dev/null; {says}") as harness:
        mx.serve(ModelServer)
        client = await harness.client()
        await client.say(opening(0) + b"hi\r\n.\r\nQUIT\r\n")
        assert codes(await client.rest()) == [220, 250, 250, 250, 354, 550, 221]
        assert re.fullmatch(rb"(?:[ -~]*\r\n)*", client.heard)
