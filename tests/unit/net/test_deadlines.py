"""Each wait for a peer has a limit, and the client gets 421 with the side that was late.

A limit is made short only for the wait that a test is about, and only once that wait is next: a slow machine must not
run into another. None of these tests measures a time.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.net.deadlines import PARTING, Deadlines, limits_of
from proxsmtp_tp.session import events
from proxsmtp_tp.session.state import Phase, Wait
from tests.unit.net import phases
from tests.unit.net.dialogue import DOT, address, meet, relayed
from tests.unit.net.proxy_harness import Mx, codes, until

if TYPE_CHECKING:
    from tests.unit.net.proxy_harness import Peer, ProxyHarness, StartProxy

SHORT = 0.1
CLIENT_TIMED_OUT = b"421 4.4.2 Error: timeout exceeded\r\n"
SERVER_TIMED_OUT = b"421 4.4.2 The server did not answer in time\r\n"
END_OF_DATA = b"\r\n.\r\n"


def set_limits(harness: ProxyHarness, **directives: Any) -> None:
    """Other directives, from now on, also for connections that there are already."""
    harness.proxy.context.settings = replace(harness.proxy.context.settings, **directives)
    for connection in harness.proxy._connections:
        connection.times._settings = harness.proxy.context.settings


async def drip(peer: Peer, listener: Peer, data: bytes) -> None:
    """Octet by octet, again and again, until the listener gets something."""
    heard = len(listener.heard)
    at = 0

    hearing = asyncio.create_task(listener.line())
    try:
        while not hearing.done() and len(listener.heard) == heard:
            await peer.say(data[at : at + 1])
            at = (at + 1) % len(data)
            await asyncio.sleep(SHORT / 20)  # what dripping is
    except (BrokenPipeError, ConnectionResetError):
        pass
    await hearing


@pytest.mark.parametrize(
    ("directives", "expected"),
    [
        ({}, 540),
        ({"filter_timeout": 900}, 900),  # 1.10's configuration keeps its meaning
        ({"filter_timeout": 900, "answer_within": 100}, 100),
        ({"answer_within": 0}, float("inf")),
    ],
)
def test_how_long_an_answer_may_take(directives: dict[str, Any], expected: float) -> None:
    settings = Settings(**directives)
    times = Deadlines(settings, limits_of(settings), 0)
    times.message_complete(1000)
    assert times.answer - 1000 == expected


def test_the_final_reply_has_the_time_that_the_rfc_wants() -> None:
    """A shorter time causes duplicate mail: the server has the message, the client sends it again."""
    limits = limits_of(Settings(time_out=5))
    assert limits[Wait.FINAL] == 600
    waits = (Wait.GREETING, Wait.REPLY, Wait.START, Wait.COMMAND, Wait.QUIT, Wait.TEXT, Wait.SENDING)
    assert {limits[wait] for wait in waits} == {5}
    assert limits_of(Settings(time_out=300))[Wait.QUIT] == PARTING
    assert limits_of(Settings(time_out=1800))[Wait.FINAL] == 1800


def test_without_timeout_each_phase_has_the_time_of_rfc_5321() -> None:
    """Section 4.5.3.2, which says what a client that relays has to wait at least, and a server for a command."""
    limits = limits_of(Settings())
    wanted = {Wait.GREETING: 5, Wait.REPLY: 5, Wait.START: 2, Wait.SENDING: 3, Wait.FINAL: 10, Wait.COMMAND: 5}
    assert {wait: limits[wait] for wait in wanted} == {wait: 60 * minutes for wait, minutes in wanted.items()}
    assert limits[Wait.QUIT] == PARTING
    assert limits.keys() == set(Wait)


# The client.


async def test_a_client_that_is_idle(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await meet(harness, mx)
        harness.proxy.context.limits[Wait.COMMAND] = SHORT
        await relayed(client, server, "NOOP", "250 ok")
        assert await client.rest() == CLIENT_TIMED_OUT
        assert await server.rest() == b"QUIT\r\n"


async def test_a_client_that_drips_a_command(start_proxy: StartProxy) -> None:
    """A deadline belongs to the command: its octets do not recharge it."""
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await meet(harness, mx)
        harness.proxy.context.limits[Wait.COMMAND] = SHORT
        await relayed(client, server, "NOOP", "250 ok")
        await drip(client, client, b"x")
        assert client.heard.endswith(CLIENT_TIMED_OUT)
        assert await server.rest() == b"QUIT\r\n"


@pytest.mark.parametrize("filter_command", [None, "cat"])
async def test_a_client_that_is_silent_in_a_message(start_proxy: StartProxy, filter_command: str | None) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command=filter_command) as harness:
        client, server = await phases.in_the_text(harness, mx)
        harness.proxy.context.limits[Wait.TEXT] = SHORT
        await client.say("more")
        assert await client.rest() == CLIENT_TIMED_OUT
        assert END_OF_DATA not in await server.rest()


@pytest.mark.parametrize("filter_command", [None, "cat"])
async def test_a_client_that_drips_a_message(start_proxy: StartProxy, filter_command: str | None) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command=filter_command) as harness:
        client, server = await phases.in_a_transaction(harness, mx)
        set_limits(harness, message_time_out=3 * SHORT)
        await client.say("DATA")
        if filter_command is None:
            await server.line()
            await server.say("354 go")
        await client.reply()
        await drip(client, client, b"drip\r\n")
        assert client.heard.endswith(b"421 4.4.2 Error: the message took too long\r\n")
        assert END_OF_DATA not in await server.rest()


async def test_a_client_that_drips_a_chunk(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        client, _ = await meet(harness, mx)
        set_limits(harness, message_time_out=3 * SHORT)
        assert (await client.ask("BDAT 1000000")).startswith(b"451")
        await drip(client, client, b"x")
        assert client.heard.endswith(b"421 4.4.2 Error: the message took too long\r\n")


# The server.


async def test_a_server_that_does_not_greet(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        harness.proxy.context.limits[Wait.GREETING] = SHORT
        client = await harness.client()
        server = await mx.accept()
        assert await client.rest() == SERVER_TIMED_OUT
        assert await server.rest() == b""


@pytest.mark.parametrize("said", [b"", b"250-2.1.0 and"])
async def test_a_server_that_does_not_answer(start_proxy: StartProxy, said: bytes) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await meet(harness, mx)
        harness.proxy.context.limits[Wait.REPLY] = SHORT
        await client.say("MAIL FROM:<a@c.example>")
        await server.say(said)
        assert await client.rest() == SERVER_TIMED_OUT


async def test_a_server_that_drips_its_reply(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await meet(harness, mx)
        harness.proxy.context.limits[Wait.REPLY] = SHORT
        await client.say("NOOP")
        await server.line()
        await drip(server, client, b"250-drip\r\n")
        assert client.heard.endswith(SERVER_TIMED_OUT)


async def test_pipelined_commands_do_not_extend_the_servers_time_limit(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        client, _ = await meet(harness, mx, "PIPELINING")
        harness.proxy.context.limits[Wait.REPLY] = 3 * SHORT
        await drip(client, client, b"RSET\r\n")
        assert client.heard.endswith(SERVER_TIMED_OUT)


@pytest.mark.parametrize("filter_command", [None, "cat"])
async def test_a_server_that_does_not_say_354(start_proxy: StartProxy, filter_command: str | None) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command=filter_command) as harness:
        client, server = await phases.in_a_transaction(harness, mx)
        harness.proxy.context.limits[Wait.START] = SHORT
        await client.say("DATA")
        if filter_command is not None:
            await client.reply()
            await client.say(DOT)
        assert await client.rest() == SERVER_TIMED_OUT
        assert await server.rest() == b"DATA\r\n"


@pytest.mark.parametrize("filter_command", [None, "cat"])
async def test_a_server_without_a_final_reply(start_proxy: StartProxy, filter_command: str | None) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command=filter_command) as harness:
        harness.proxy.context.limits[Wait.FINAL] = SHORT
        client, _ = await phases.waiting_for_the_final_reply(harness, mx)
        assert await client.rest() == SERVER_TIMED_OUT
        client.close()
        await harness.empty()


async def test_a_message_given_up_is_not_finished_later(start_proxy: StartProxy) -> None:
    """Its end waits in our buffer when its time is up: a server that reads on must not get it, the client got 421."""
    async with Mx() as mx, start_proxy(mx) as harness:
        mx.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client, server = await phases.in_the_text(harness, mx)
        harness.proxy.context.limits[Wait.FINAL] = SHORT
        [connection] = harness.proxy._connections
        with socket.socket(fileno=os.dup(connection.server.get_extra_info("socket").fileno())) as ours:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await client.say(b"x" * 60000 + END_OF_DATA)  # below the high water mark: all of it is read
        await until(lambda: connection.session._d.phase is Phase.SETTLING, "all of it was read")
        assert connection.server.get_write_buffer_size() > 0
        await until(lambda: connection.closing, "it is given up")
        assert await client.rest() == SERVER_TIMED_OUT
        await server.rest()
        assert END_OF_DATA not in server.heard


async def test_a_client_that_left_does_not_make_us_wait_longer_for_the_final_reply(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        harness.proxy.context.limits[Wait.FINAL] = 10 * SHORT
        client, _ = await phases.waiting_for_the_final_reply(harness, mx)
        client.reset()
        await harness.empty()


async def test_a_server_that_does_not_answer_our_rset(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat >/dev/null; exit 1") as harness:
        client, server = await phases.in_a_transaction(harness, mx)
        harness.proxy.context.limits[Wait.REPLY] = SHORT
        await client.ask("DATA")
        assert (await client.ask(DOT)).startswith(b"550")
        assert await server.line() == b"RSET"
        assert await client.rest() == SERVER_TIMED_OUT


async def test_a_server_that_stops_reading_a_streamed_message(start_proxy: StartProxy) -> None:
    """Not the client's fault, though it is the client's text that is waited for."""
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await phases.in_the_text(harness, mx)
        harness.proxy.context.limits[Wait.TEXT] = 3 * SHORT
        [connection] = harness.proxy._connections
        await client.press(b"x" * 65536, lambda: connection.server_is_full, 1 << 28)
        await until(lambda: connection.closing, "given up")
        assert (await client.rest()).endswith(SERVER_TIMED_OUT)
        assert END_OF_DATA not in await server.rest()


async def test_a_server_that_stops_reading_a_judged_message(start_proxy: StartProxy) -> None:
    async with (
        Mx() as mx,
        start_proxy(mx, filter_command="cat >/dev/null; head -c 30000000 /dev/zero | tr '\\0' x") as harness,
    ):
        client, server = await phases.waiting_for_354(harness, mx)
        harness.proxy.context.limits[Wait.SENDING] = 3 * SHORT
        await server.say("354 go")
        assert await client.rest() == SERVER_TIMED_OUT
        assert END_OF_DATA not in await server.rest()


# The filter.


async def test_a_filter_that_works_as_it_reads_has_its_time_once_it_has_the_message(start_proxy: StartProxy) -> None:
    """2 MB take it longer than FilterTimeout; it never pauses as long as that."""
    work = 'while [ "$(head -c 131072 | wc -c)" -gt 0 ]; do sleep 0.25; done; echo passed'
    async with Mx() as mx, start_proxy(mx, filter_command=work, filter_timeout=3) as harness:
        client, server = await phases.in_the_text(harness, mx)
        await client.say(b"x" * 2_000_000 + b"\r\n.\r\n")
        assert await server.line() == b"DATA"
        await server.say("354 go")
        assert await server.text() == b"passed\r\n.\r\n"
        await server.say("250 queued")
        assert await client.reply() == b"250 queued"


async def test_a_filter_that_does_not_read_a_complete_message(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="sleep 600", filter_timeout=SHORT) as harness:
        client, server = await phases.in_the_text(harness, mx)
        await asyncio.sleep(3 * SHORT)  # while the message comes no time counts
        assert (await client.ask(b"x" * 2_000_000 + b"\r\n.\r\n")).startswith(b"451 ")
        assert await server.line() == b"RSET"


async def test_a_filter_that_judges_for_too_long(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat >/dev/null; sleep 600", filter_timeout=SHORT) as harness:
        client, server = await phases.in_a_transaction(harness, mx)
        await client.ask("DATA")
        assert (await client.ask(DOT)).startswith(b"451 ")
        assert await server.line() == b"RSET"


async def test_judging_is_part_of_the_time_of_a_message(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat >/dev/null; sleep 600", filter_timeout=3600) as harness:
        client, server = await phases.in_a_transaction(harness, mx)
        set_limits(harness, message_time_out=3 * SHORT)
        await client.ask("DATA")
        await client.say(DOT)
        assert await client.rest() == b"421 4.4.2 Error: the message took too long\r\n"
        assert await server.rest() == b"QUIT\r\n"


async def test_the_server_gets_noop_while_a_slow_message_comes(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxsmtp_tp.net.deadlines.NOOP_SECONDS", SHORT)
    async with Mx() as mx, start_proxy(mx, filter_command="cat", keep_alives=SHORT) as harness:
        client, server = await phases.in_the_text(harness, mx)
        for _ in range(3):
            assert await server.line() == b"NOOP"
            await server.say("250 still here")
        await client.say("\n.")
        while (line := await server.line()) == b"NOOP":
            await server.say("250 still here")
        assert line == b"DATA"
        await server.say("354 go")
        await server.text()
        await server.say("250 2.0.0 queued")
        assert await client.reply() == b"250 2.0.0 queued"


def test_no_more_than_one_keep_alive_a_minute() -> None:
    """Over all messages of a session: servers count (Exim: ten commands that are no mail)."""
    deadlines = Deadlines(Settings(keep_alives=1), {}, 0)
    heard = []
    for second in range(300):
        if second % 10 == 0:
            deadlines.message_begins(second)
        if second % 10 == 9:
            deadlines.message_ends()
        heard += [second for event in deadlines.passed(second) if isinstance(event, events.KeepAlive)]
    assert heard[0] == 1
    assert len(heard) == 5
    assert all(later - earlier >= 60 for earlier, later in itertools.pairwise(heard))


# The whole connection.


async def test_a_connection_that_has_lasted_too_long_ends_between_messages(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, session_time_out=SHORT) as harness:
        client, server = await meet_quickly(harness, mx)
        assert (await client.rest()).endswith(b"421 4.4.2 The connection has lasted too long, connect again\r\n")
        assert (await server.rest()).endswith(b"QUIT\r\n")


async def meet_quickly(harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    """As far as the session's short life lets us."""
    return await harness.client(), await mx.greeted()


async def test_a_running_transaction_may_end_first(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await meet(harness, mx)
        await address(client, server)
        [connection] = harness.proxy._connections
        connection.times.session = 0
        await until(lambda: connection.times._winding_down, "it is wound down")
        await client.say(f"DATA\n{DOT}")
        await server.line()
        await server.say("354 go")
        await server.text()
        await server.say("250 2.0.0 queued")
        assert codes(await client.rest()) == [354, 250, 421]


async def test_a_transaction_that_never_ends_does(start_proxy: StartProxy) -> None:
    """MAIL, and then NOOP for ever: SessionTimeOut lets a transaction finish, not last."""
    async with Mx() as mx, start_proxy(mx, message_time_out=SHORT) as harness:
        harness.proxy.context.limits[Wait.FINAL] = SHORT
        client, server = await meet(harness, mx)
        await address(client, server)
        [connection] = harness.proxy._connections
        connection.times.session = 0
        answers = asyncio.create_task(noop_for_ever(server))
        with_end = asyncio.create_task(noops(client))
        assert (await with_end).startswith(b"421 4.3.2")
        client.close()
        await harness.empty()
        await answers


async def noops(client: Peer) -> bytes:
    while not (reply := await client.ask("NOOP")).startswith(b"421"):
        pass
    return reply


async def noop_for_ever(server: Peer) -> None:
    while await server.line() == b"NOOP":
        await server.say("250 ok")


# The rate of a message.


def text_deadlines(rate: int = 500) -> Deadlines:
    """A minute for each piece of a message; it begins at 0."""
    times = Deadlines(Settings(time_out=60, min_data_rate=rate), limits_of(Settings(time_out=60)), 0)
    times.arm(Wait.TEXT, 0)
    return times


def test_text_buys_the_time_that_it_takes_at_the_least_rate() -> None:
    times = text_deadlines()
    for now in range(1, 50):
        times.octets += 1
        times.arm(Wait.TEXT, now)
    assert times.step == pytest.approx(60 + 49 / 500)
    times.octets += 500 * 20
    times.arm(Wait.TEXT, 50)
    assert times.step == pytest.approx(80 + 49 / 500)
    times.octets += 1 << 30
    times.arm(Wait.TEXT, 51)
    assert times.step == 51 + 60  # never more than the limit


def test_without_a_rate_each_piece_buys_the_whole_limit() -> None:
    times = text_deadlines(0)
    times.octets += 1
    times.arm(Wait.TEXT, 50)
    assert times.step == 50 + 60


def test_the_time_in_which_a_client_is_not_read_is_not_its_own() -> None:
    times = text_deadlines()
    times.pause_text(50)
    assert times.step == 50 + 60  # the server's, to take what it has
    times.resume_text(100)
    assert times.step == 100 + 10
    times.pause_text(105)
    times.arm(Wait.FINAL, 106)
    times.resume_text(107)
    assert times.step == 106 + times.limits[Wait.FINAL]
    times.arm(Wait.TEXT, 200)  # another message
    assert times.step == 200 + 60


@pytest.mark.parametrize("filter_command", [None, "cat"])
async def test_a_client_that_sends_less_than_the_least_rate(
    start_proxy: StartProxy, filter_command: str | None
) -> None:
    """It never pauses as long as TimeOut."""
    async with Mx() as mx, start_proxy(mx, filter_command=filter_command, min_data_rate=1_000_000) as harness:
        client, server = await phases.in_a_transaction(harness, mx)
        harness.proxy.context.limits[Wait.TEXT] = 5 * SHORT
        await client.say("DATA")
        if filter_command is None:
            await server.line()
            await server.say("354 go")
        await client.reply()
        await drip(client, client, b"drip\r\n")
        assert client.heard.endswith(CLIENT_TIMED_OUT)
        assert END_OF_DATA not in await server.rest()


async def test_a_refused_chunk_has_the_same_minimum_rate(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, min_data_rate=1_000_000) as harness:
        client, _ = await meet(harness, mx)
        harness.proxy.context.limits[Wait.TEXT] = 5 * SHORT
        assert (await client.ask("BDAT 1000000")).startswith(b"451")
        await drip(client, client, b"x")
        assert client.heard.endswith(CLIENT_TIMED_OUT)
