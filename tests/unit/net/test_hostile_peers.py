"""Whoever floods or does not read: memory stays flat, and the session ends by a deadline. Eight clients, eight servers.

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
from tests.unit.net.stage import PIECE, Mx
from tests.unit.net.test_deadlines import set_limits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.unit.net.stage import OpenStage, Peer, Stage

    Hostile = Callable[[Stage, Mx], Awaitable[None]]

GROWTH = 4 << 20
"""Octets: what a session may hold in its buffers (two sides, each 64 KiB and a read of 256 KiB), with room."""

SHORT = 0.6
"""Seconds for each wait."""

REJECT: dict[str, Any] = {"filter_type": FilterType.REJECT, "filter_reject": "550 5.7.1 " + "no " * 130}
LONG = (b"250-" + b"x" * 1900 + b"\r\n") * 20 + b"250 ok\r\n"
NOOP = b"NOOP ".ljust(1000, b"x") + b"\r\n"


def over(stage: Stage) -> bool:
    """The session is gone."""
    return not stage.proxy._connections


async def flood(peer: Peer, piece: bytes, stage: Stage) -> None:
    """Send for as long as the session lives, and read nothing."""
    at = 0
    with suppress(BrokenPipeError, ConnectionResetError):
        while not over(stage):
            try:
                at = (at + peer.sock.send(memoryview(piece)[at:])) % len(piece)
                await asyncio.sleep(0)
            except BlockingIOError:
                await asyncio.sleep(0.005)


async def drip(peer: Peer, data: bytes, stage: Stage) -> None:
    """Send an octet now and then."""
    with suppress(BrokenPipeError, ConnectionResetError):
        for at in range(10**9):
            if over(stage):
                return
            await peer.say(data[at % len(data) :][:1])
            await asyncio.sleep(SHORT / 20)


async def sip(peer: Peer, stage: Stage) -> None:
    """Read an octet now and then."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionResetError):
        while not over(stage):
            with suppress(TimeoutError):
                await asyncio.wait_for(loop.sock_recv(peer.sock, 1), SHORT)
            await asyncio.sleep(SHORT / 20)


async def answer(server: Peer, reply: bytes) -> None:
    """A server that answers each line, and is flooded itself where nobody reads its replies."""
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while data := await loop.sock_recv(server.sock, PIECE):
            await loop.sock_sendall(server.sock, reply * max(1, data.count(b"\n")))


async def begun(stage: Stage, mx: Mx, *keywords: str) -> tuple[Peer, Peer]:
    """A session past EHLO, whose waits are short from here on."""
    client, server = await meet(stage, mx, *keywords)
    short(stage)
    return client, server


def short(stage: Stage) -> None:
    """All limits, and that of the wait which has begun."""
    for wait in set(Wait) - {Wait.VERDICT, Wait.NOTHING}:
        stage.proxy.context.limits[wait] = SHORT
    set_limits(stage, message_time_out=2 * SHORT)
    for connection in stage.proxy._connections:
        connection._times.step = connection.loop.time() + SHORT


# Clients.


async def reads_none_of_our_replies(stage: Stage, mx: Mx) -> None:
    client, _server = await begun(stage, mx)
    await client.say("MAIL FROM:<a@c.example>")
    await flood(client, b"RCPT TO:<b@mx.example>\r\n" * 1000, stage)


async def reads_none_of_the_server_s_replies(stage: Stage, mx: Mx) -> None:
    client, server = await begun(stage, mx)
    answering = asyncio.create_task(answer(server, LONG))
    await flood(client, NOOP * 100, stage)
    await answering


async def reads_an_octet_now_and_then(stage: Stage, mx: Mx) -> None:
    client, server = await begun(stage, mx)
    answering = asyncio.create_task(answer(server, LONG))
    sipping = asyncio.create_task(sip(client, stage))
    await flood(client, NOOP * 100, stage)
    await asyncio.gather(answering, sipping)


async def says_a_line_without_an_end(stage: Stage, mx: Mx) -> None:
    client, _server = await begun(stage, mx)
    await flood(client, b"x" * 65536, stage)


async def names_recipients_without_end(stage: Stage, mx: Mx) -> None:
    client, _server = await begun(stage, mx, "PIPELINING")
    await flood(client, b"RCPT TO:<b@mx.example>\r\n" * 1000, stage)


async def asks_a_server_that_is_silent(stage: Stage, mx: Mx) -> None:
    client, _server = await begun(stage, mx)
    await flood(client, NOOP * 100, stage)


async def sends_text_without_end(stage: Stage, mx: Mx) -> None:
    client, server = await begun(stage, mx, "PIPELINING")
    await client.say("DATA")
    await server.line()
    await server.say("354 go")
    reading = asyncio.create_task(answer(server, b""))
    await flood(client, b"x" * 70 + b"\r\n", stage)
    await reading


async def sends_a_chunk_without_end(stage: Stage, mx: Mx) -> None:
    client, _server = await begun(stage, mx)
    await client.say("BDAT 100000000000")
    await flood(client, b"x" * 65536, stage)


# Servers.


async def replies_without_an_end(stage: Stage, mx: Mx) -> None:
    client, server = await begun(stage, mx)
    await client.say("NOOP")
    await flood(server, b"250-x\r\n" * 1000, stage)


async def replies_to_nothing(stage: Stage, mx: Mx) -> None:
    _client, server = await begun(stage, mx)
    await flood(server, b"250 ok\r\n" * 1000, stage)


async def replies_an_octet_now_and_then(stage: Stage, mx: Mx) -> None:
    client, server = await begun(stage, mx)
    await client.say("NOOP")
    await drip(server, b"250-" + b"x" * 70 + b"\r\n", stage)


async def does_not_read_the_text(stage: Stage, mx: Mx) -> None:
    client, server = await meet(stage, mx)
    await address(client, server)
    await client.say("DATA")
    await server.line()
    await server.say("354 go")
    short(stage)
    await flood(client, b"x" * 70 + b"\r\n", stage)


async def floods_before_the_greeting(stage: Stage, mx: Mx) -> None:
    await stage.client()
    server = await mx.accept()
    short(stage)
    await flood(server, b"220-x\r\n" * 1000, stage)


async def greets_again_and_again(stage: Stage, mx: Mx) -> None:
    await stage.client()
    server = await mx.accept()
    short(stage)
    await flood(server, b"220 mx ESMTP\r\n" * 1000, stage)


async def replies_without_a_line_end(stage: Stage, mx: Mx) -> None:
    client, server = await begun(stage, mx)
    await client.say("NOOP")
    await flood(server, b"2" * 65536, stage)


async def does_not_read_commands(stage: Stage, mx: Mx) -> None:
    client, _server = await begun(stage, mx, "PIPELINING")
    await flood(client, (b"RCPT TO:<b@mx.example> X=".ljust(2000, b"x") + b"\r\n") * 100, stage)


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
    open_stage: OpenStage, hostile: Hostile, directives: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxsmtp_tp.net.deadlines.LINGER", SHORT)
    async with Mx() as mx, open_stage(mx, **directives) as stage:
        stage.errors_expected = True
        for listener in (*stage.listeners, mx.listener):  # small, so that what we hold ourselves is what grows
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        tracemalloc.start()
        try:
            await hostile(stage, mx)
            await stage.empty()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < GROWTH
