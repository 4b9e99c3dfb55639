"""Peers that send without end or do not read: memory stays the same, and the session ends by a deadline. Eight clients,
eight servers.

`GROWTH` bounds what one session and the peers, which the test plays in the same process, take at any moment. Without a
bound a flood takes tens of megabytes. Limits are short for everything that a session waits for: which of them ends a
session is for test_deadlines.
"""

from __future__ import annotations

import asyncio
import socket
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.settings import FilterType
from proxsmtp_tp.session.state import Wait
from tests.unit.net.dialogue import address, meet
from tests.unit.net.proxy_harness import PIECE, Mx
from tests.unit.net.test_deadlines import set_limits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.unit.net.proxy_harness import Peer, ProxyHarness, StartProxy

    Hostile = Callable[[ProxyHarness, Mx], Awaitable[None]]

GROWTH = 4 << 20
"""Octets that a session may have in its buffers (two sides, each 64 KiB and a read of 256 KiB), and a reserve."""

SHORT = 0.6
"""Seconds for each wait."""

REJECT: dict[str, Any] = {"filter_type": FilterType.REJECT, "filter_reject": "550 5.7.1 " + "no " * 130}
LONG = (b"250-" + b"x" * 1900 + b"\r\n") * 20 + b"250 ok\r\n"
NOOP = b"NOOP ".ljust(1000, b"x") + b"\r\n"


def over(harness: ProxyHarness) -> bool:
    """The session is gone."""
    return not harness.proxy._connections


async def flood(peer: Peer, piece: bytes, harness: ProxyHarness) -> None:
    """Send for as long as the session lives, and read nothing."""
    at = 0
    with suppress(BrokenPipeError, ConnectionResetError):
        while not over(harness):
            try:
                at = (at + peer.sock.send(memoryview(piece)[at:])) % len(piece)
                await asyncio.sleep(0)
            except BlockingIOError:
                await asyncio.sleep(0.005)


async def drip(peer: Peer, data: bytes, harness: ProxyHarness) -> None:
    """Send an octet now and then."""
    with suppress(BrokenPipeError, ConnectionResetError):
        for at in range(10**9):
            if over(harness):
                return
            await peer.say(data[at % len(data) :][:1])
            await asyncio.sleep(SHORT / 20)


async def read_slowly(peer: Peer, harness: ProxyHarness) -> None:
    """Read an octet now and then."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionResetError):
        while not over(harness):
            with suppress(TimeoutError):
                await asyncio.wait_for(loop.sock_recv(peer.sock, 1), SHORT)
            await asyncio.sleep(SHORT / 20)


async def answer(server: Peer, reply: bytes) -> None:
    """A server that answers each line, and is flooded itself where nobody reads its replies."""
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while data := await loop.sock_recv(server.sock, PIECE):
            await loop.sock_sendall(server.sock, reply * max(1, data.count(b"\n")))


async def begun(harness: ProxyHarness, mx: Mx, *keywords: str) -> tuple[Peer, Peer]:
    """A session past EHLO, whose waits are short from here on."""
    client, server = await meet(harness, mx, *keywords)
    short(harness)
    return client, server


def short(harness: ProxyHarness) -> None:
    """All limits, and that of the wait which has begun."""
    for wait in set(Wait) - {Wait.VERDICT, Wait.NOTHING}:
        harness.proxy.context.limits[wait] = SHORT
    set_limits(harness, message_time_out=2 * SHORT)
    for connection in harness.proxy._connections:
        connection.times.step = connection.loop.time() + SHORT


# Clients.


async def reads_none_of_our_replies(harness: ProxyHarness, mx: Mx) -> None:
    client, _server = await begun(harness, mx)
    await client.say("MAIL FROM:<a@c.example>")
    await flood(client, b"RCPT TO:<b@mx.example>\r\n" * 1000, harness)


async def reads_none_of_the_server_s_replies(harness: ProxyHarness, mx: Mx) -> None:
    client, server = await begun(harness, mx)
    answering = asyncio.create_task(answer(server, LONG))
    await flood(client, NOOP * 100, harness)
    await answering


async def reads_an_octet_now_and_then(harness: ProxyHarness, mx: Mx) -> None:
    client, server = await begun(harness, mx)
    answering = asyncio.create_task(answer(server, LONG))
    reading = asyncio.create_task(read_slowly(client, harness))
    await flood(client, NOOP * 100, harness)
    await asyncio.gather(answering, reading)


async def says_a_line_without_an_end(harness: ProxyHarness, mx: Mx) -> None:
    client, _server = await begun(harness, mx)
    await flood(client, b"x" * 65536, harness)


async def names_recipients_without_end(harness: ProxyHarness, mx: Mx) -> None:
    client, _server = await begun(harness, mx, "PIPELINING")
    await flood(client, b"RCPT TO:<b@mx.example>\r\n" * 1000, harness)


async def asks_a_server_that_is_silent(harness: ProxyHarness, mx: Mx) -> None:
    client, _server = await begun(harness, mx)
    await flood(client, NOOP * 100, harness)


async def sends_text_without_end(harness: ProxyHarness, mx: Mx) -> None:
    client, server = await begun(harness, mx, "PIPELINING")
    await client.say("DATA")
    await server.line()
    await server.say("354 go")
    reading = asyncio.create_task(answer(server, b""))
    await flood(client, b"x" * 70 + b"\r\n", harness)
    await reading


async def sends_a_chunk_without_end(harness: ProxyHarness, mx: Mx) -> None:
    client, _server = await begun(harness, mx)
    await client.say("BDAT 100000000000")
    await flood(client, b"x" * 65536, harness)


# Servers.


async def replies_without_an_end(harness: ProxyHarness, mx: Mx) -> None:
    client, server = await begun(harness, mx)
    await client.say("NOOP")
    await flood(server, b"250-x\r\n" * 1000, harness)


async def replies_to_nothing(harness: ProxyHarness, mx: Mx) -> None:
    _client, server = await begun(harness, mx)
    await flood(server, b"250 ok\r\n" * 1000, harness)


async def replies_an_octet_now_and_then(harness: ProxyHarness, mx: Mx) -> None:
    client, server = await begun(harness, mx)
    await client.say("NOOP")
    await drip(server, b"250-" + b"x" * 70 + b"\r\n", harness)


async def does_not_read_the_text(harness: ProxyHarness, mx: Mx) -> None:
    client, server = await meet(harness, mx)
    await address(client, server)
    await client.say("DATA")
    await server.line()
    await server.say("354 go")
    short(harness)
    await flood(client, b"x" * 70 + b"\r\n", harness)


async def floods_before_the_greeting(harness: ProxyHarness, mx: Mx) -> None:
    await harness.client()
    server = await mx.accept()
    short(harness)
    await flood(server, b"220-x\r\n" * 1000, harness)


async def greets_again_and_again(harness: ProxyHarness, mx: Mx) -> None:
    await harness.client()
    server = await mx.accept()
    short(harness)
    await flood(server, b"220 mx ESMTP\r\n" * 1000, harness)


async def replies_without_a_line_end(harness: ProxyHarness, mx: Mx) -> None:
    client, server = await begun(harness, mx)
    await client.say("NOOP")
    await flood(server, b"2" * 65536, harness)


async def does_not_read_commands(harness: ProxyHarness, mx: Mx) -> None:
    client, _server = await begun(harness, mx, "PIPELINING")
    await flood(client, (b"RCPT TO:<b@mx.example> X=".ljust(2000, b"x") + b"\r\n") * 100, harness)


@pytest.mark.parametrize(
    ("hostile", "directives"),
    [
        (reads_none_of_our_replies, REJECT),
        (reads_none_of_the_server_s_replies, {}),
        (reads_an_octet_now_and_then, {}),
        (says_a_line_without_an_end, {}),
        (names_recipients_without_end, {}),
        (asks_a_server_that_is_silent, {}),
        (sends_text_without_end, {}),
        (sends_a_chunk_without_end, {}),
        (replies_without_an_end, {}),
        (replies_to_nothing, {}),
        (replies_an_octet_now_and_then, {}),
        (does_not_read_the_text, {}),
        (floods_before_the_greeting, {}),
        (greets_again_and_again, {}),
        (replies_without_a_line_end, {}),
        (does_not_read_commands, {}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_memory_stays_flat_and_a_deadline_ends_it(
    start_proxy: StartProxy, hostile: Hostile, directives: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxsmtp_tp.net.deadlines.LINGER", SHORT)
    async with Mx() as mx, start_proxy(mx, **directives) as harness:
        harness.errors_expected = True
        for listener in (*harness.listeners, mx.listener):  # small, so that what we hold ourselves is what grows
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        tracemalloc.start()
        try:
            await hostile(harness, mx)
            await harness.empty()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < GROWTH
