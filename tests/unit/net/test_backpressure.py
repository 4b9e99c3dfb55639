"""If a peer does not read, the other one is not read either; what waits in between is bounded.

`MOST` octets are what the kernel may hold on the way (its socket buffers grow to some megabytes) and a small part of
what is pressed in. What we store ourselves is bounded by WAITING, whichever peer sends.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.pipe import CHUNK as PIPE_CHUNK
from proxsmtp_tp.filters.pipe import PipeRun
from proxsmtp_tp.net.back_pressure import BACKLOG_LIMIT
from proxsmtp_tp.net.judging import CHUNK
from proxsmtp_tp.session.dialogue import OUTSTANDING_LIMIT
from proxsmtp_tp.smtp.answers import OUT_OF_STEP
from proxsmtp_tp.smtp.replies import TOTAL_LIMIT
from tests.unit.net import phases
from tests.unit.net.dialogue import meet
from tests.unit.net.proxy_harness import Mx, codes, settled, until

if TYPE_CHECKING:
    import pytest

    from proxsmtp_tp.net.connection import Connection
    from tests.unit.net.proxy_harness import Peer, ProxyHarness, StartProxy

PRESSED = 200 << 20
MOST = 64 << 20
LINE = b"0123456789" * 7 + b"\r\n"
BLOCK = LINE * 900
READ = 256 * 1024
"""Octets that uvloop reads at once."""
HIGH_WATER = 64 * 1024
"""Octets in a transport's buffer at which it says stop (asyncio's default)."""
WAITING = HIGH_WATER + READ


def only_connection(harness: ProxyHarness) -> Connection:
    [connection] = harness.proxy._connections
    return connection


async def test_a_server_that_stops_reading(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await phases.in_the_text(harness, mx)
        connection = only_connection(harness)
        sent = await client.press(BLOCK, lambda: connection._pressure.client_paused, PRESSED, blocked=True)
        assert sent < MOST
        assert connection.server.get_write_buffer_size() <= WAITING
        reading = asyncio.create_task(server.text())
        await client.say(BLOCK[sent % len(BLOCK) :] + b".\r\n")
        assert await reading == BLOCK * (sent // len(BLOCK) + 1) + b".\r\n"
        await server.say("250 2.0.0 queued")
        assert await client.reply() == b"250 2.0.0 queued"


async def test_a_filter_that_stops_reading(start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds its message in the spool, not in memory. At the end the client is read again: its last reply must not be
    lost behind what it still sends."""
    monkeypatch.setattr("proxsmtp_tp.net.deadlines.LINGER", 3600.0)
    async with Mx() as mx, start_proxy(mx, filter_command="read -r line; sleep 600") as harness:
        client, server = await phases.in_the_text(harness, mx)
        connection = only_connection(harness)
        await client.say(BLOCK * 400 + b".\r\n")
        await until(lambda: getattr(connection.judging.run, "_child", None), "the filter runs")
        run = connection.judging.run
        assert isinstance(run, PipeRun)
        assert run._child is not None
        await until(lambda: run._child is not None and run._child.input.stalled, "the filter does not read on")
        assert run._child.input.queued <= PIPE_CHUNK
        harness.proxy.stop()
        assert await client.press(BLOCK, lambda: False, 1 << 25) >= 1 << 25
        assert (await client.rest()).startswith(b"421 ")
        assert not client.was_reset
        assert await server.rest() == b"QUIT\r\n"


async def test_a_filter_that_reads_late(start_proxy: StartProxy) -> None:
    """It is not waited for while the message comes, and the message is whole."""
    async with (
        Mx() as mx,
        start_proxy(mx, filter_command="while [ ! -e $TMPDIR/go ]; do sleep 0.02; done; cat") as harness,
    ):
        client, server = await phases.in_a_transaction(harness, mx)
        await client.ask("DATA")
        await client.say(BLOCK * 400 + b".\r\n")
        go = harness.temp_directory / "go"
        go.touch()
        assert await server.line() == b"DATA"
        go.unlink()
        await server.say("354 go")
        assert await server.text() == BLOCK * 400 + b".\r\n"
        await server.say("250 2.0.0 queued")
        assert await client.reply() == b"250 2.0.0 queued"


async def test_a_judged_message_is_read_back_as_the_server_takes_it(start_proxy: StartProxy) -> None:
    size = 30_000_000
    async with (
        Mx() as mx,
        start_proxy(mx, filter_command=f"cat >/dev/null; head -c {size} /dev/zero | tr '\\0' x") as harness,
    ):
        client, server = await phases.waiting_for_354(harness, mx)
        connection = only_connection(harness)
        await server.say("354 go")
        await until(lambda: connection.server_is_full, "the server is full")
        assert connection.server.get_write_buffer_size() <= HIGH_WATER + CHUNK + 16
        assert await server.text() == b"x" * size + b"\r\n.\r\n"
        await server.say("250 2.0.0 queued")
        assert await client.reply() == b"250 2.0.0 queued"


async def test_endless_lines_in_a_reply(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        harness.errors_expected = True
        client, server = await phases.waiting_for_a_reply(harness, mx)
        connection = only_connection(harness)
        sent = await server.press((b"250-" + LINE) * 900, lambda: connection.server is None, PRESSED)
        assert sent < MOST
        assert await client.rest() == OUT_OF_STEP.wire


async def test_a_reply_without_an_end_of_line(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        harness.errors_expected = True
        client, server = await phases.waiting_for_a_reply(harness, mx)
        connection = only_connection(harness)
        await server.say(b"250 ")
        sent = await server.press(b"x" * 65536, lambda: connection.server is None, PRESSED)
        assert sent < MOST
        assert await client.rest() == OUT_OF_STEP.wire


async def test_a_command_without_an_end(start_proxy: StartProxy) -> None:
    """Octets of a line that is too long are counted, not kept; the line is refused once, where it ends."""
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await meet(harness, mx)
        connection = only_connection(harness)
        sent = 0
        for _ in range(30):
            sent += await client.press(b"x" * 65536, lambda: False, 1 << 20)
            assert connection.session.waiting_octets <= WAITING
        await client.say("\nNOOP")
        assert (await client.reply()).startswith(b"500 5.5.2 Error: line too long")
        assert await server.line() == b"NOOP"


async def test_a_client_that_does_not_read_its_replies(start_proxy: StartProxy) -> None:
    """Many commands, none of their long replies read: each side waits, and then everything comes."""
    async with Mx() as mx, start_proxy(mx) as harness:
        harness.listeners[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # few commands fill it
        client, server = await meet(harness, mx)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        connection = only_connection(harness)
        answering = asyncio.create_task(answer_at_length(server))
        command = b"NOOP ".ljust(1000, b"x") + b"\r\n"
        sent = await client.press(command * 100, lambda: connection._pressure.client_paused, 1 << 24, blocked=True)
        await until(lambda: connection.client.get_write_buffer_size() > HIGH_WATER, "the client is full")
        assert sent < 1 << 24
        assert await settled(connection.client.get_write_buffer_size) <= WAITING + TOTAL_LIMIT
        assert connection.session.waiting_octets <= BACKLOG_LIMIT + READ
        listening = asyncio.create_task(client.rest())
        await client.say(command[sent % len(command) :] + b"QUIT\r\n")
        assert codes(await listening) == [250] * (sent // len(command) + 1) + [221]
        await answering


async def test_a_client_that_takes_no_more_is_not_read(start_proxy: StartProxy) -> None:
    """Not even the little that the session would keep for later."""
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await meet(harness, mx)
        connection = only_connection(harness)
        connection.client_full(True)
        await until(lambda: connection._pressure.client_paused, "it is not read")
        await client.say("NOOP")
        await asyncio.sleep(0.1)
        assert connection.session.waiting_octets == 0
        connection.client_full(False)
        assert await server.line() == b"NOOP"


async def answer_at_length(server: Peer) -> None:
    while (line := await server.line()).startswith(b"NOOP"):
        await server.say((b"250-" + b"x" * 1900 + b"\r\n") * 20 + b"250 ok\r\n")
    assert line == b"QUIT"
    await server.say("221 bye")


async def test_a_client_that_asks_a_server_which_never_answers(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await meet(harness, mx, "PIPELINING")
        connection = only_connection(harness)
        reading = asyncio.create_task(server.rest())
        sent = await client.press(b"RSET\r\n" * 1000, lambda: connection._pressure.client_paused, PRESSED, blocked=True)
        assert sent < MOST
        assert len(connection.session._d.outstanding) == OUTSTANDING_LIMIT
        assert connection.session.waiting_octets <= BACKLOG_LIMIT + READ
        harness.proxy.stop()
        assert (await client.rest()).startswith(b"421 ")
        assert await reading == b"RSET\r\n" * OUTSTANDING_LIMIT


async def test_what_comes_after_the_last_reply_is_not_kept(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxsmtp_tp.net.deadlines.LINGER", 3600.0)
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await meet(harness, mx)
        connection = only_connection(harness)
        server.close()
        await until(lambda: connection.closing, "it ends")
        await client.press(BLOCK, lambda: False, 1 << 25)
        assert connection.session.waiting_octets == 0
        assert codes(await client.rest()) == [421]
