"""One connection: whichever peer disconnects, and when, the other one gets its replies or 421, and nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.net import phases
from tests.unit.net.dialogue import DOT, MESSAGE, MESSAGE_CODES, WHOLE, address, meet
from tests.unit.net.phases import PHASES
from tests.unit.net.proxy_harness import Mx, codes, until
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from proxsmtp_tp.net.connection import Connection
    from tests.unit.net.phases import Reach
    from tests.unit.net.proxy_harness import StartProxy

EACH_PHASE = pytest.mark.parametrize("reach", PHASES, ids=lambda reach: reach.__name__)
BOTH_PATHS = pytest.mark.parametrize("filter_command", [None, "cat"], ids=["streamed", "filtered"])
END_OF_DATA = b"\r\n.\r\n"


@pytest.fixture(autouse=True)
def no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever would wait for LINGER to pass fails."""
    monkeypatch.setattr("proxsmtp_tp.net.deadlines.LINGER", 3600.0)


def gets_quit(reach: Reach, filter_command: str | None, way: str) -> bool:
    """Whether the server gets QUIT: while it waits for a command, not in a message nor before a reply."""
    if reach in {phases.before_the_greeting, phases.waiting_for_a_reply, phases.half_a_reply}:
        return way == "close"  # the reply came, and only then is the half-closed client's dialogue over
    if reach is phases.waiting_for_354:  # the message that was judged is delivered to a half-closed client's server
        return way == "close" and filter_command is not None
    if reach is phases.in_the_text:
        return filter_command is not None
    return reach not in {phases.in_auth, phases.waiting_for_the_goodbye}


@EACH_PHASE
@BOTH_PATHS
@pytest.mark.parametrize("way", ["close", "reset"])
async def test_the_client_closes(start_proxy: StartProxy, reach: Reach, filter_command: str | None, way: str) -> None:
    """The server has got a whole dialogue, or no end of data."""
    async with Mx() as mx, start_proxy(mx, filter_command=filter_command, max_connections=1) as harness:
        client, server = await reach(harness, mx)
        was_sent = END_OF_DATA in server.heard
        getattr(client, way)()
        if (
            reach is phases.waiting_for_the_final_reply
        ):  # the server's reply is awaited, although the client may be gone
            await server.say("250 2.0.0 queued")
        if way == "close" and reach is phases.waiting_for_a_reply:  # it may still read
            await server.say("250 2.1.0 ok")
        if way == "close" and reach is phases.half_a_reply:
            await server.say(b" 2.1.0 ok\r\n")
        if way == "close" and reach is phases.waiting_for_the_goodbye:
            await server.say("221 2.0.0 bye")
        if way == "close" and reach is phases.before_the_greeting:
            await server.say("220 mx ESMTP")
        if way == "close" and reach is phases.waiting_for_354:
            await server.say("354 go")
            if filter_command is not None:
                await server.text()
                await server.say("250 2.0.0 queued")
                was_sent = True
        rest = await server.rest()
        assert (END_OF_DATA in server.heard) == was_sent
        assert rest == b"QUIT\r\n" if gets_quit(reach, filter_command, way) else rest == b"", rest
        await harness.empty()


@EACH_PHASE
@BOTH_PATHS
@pytest.mark.parametrize("way", ["close", "reset"])
async def test_the_server_closes(start_proxy: StartProxy, reach: Reach, filter_command: str | None, way: str) -> None:
    """The client gets 421, in place of the next reply, and never 2xx for a message."""
    async with Mx() as mx, start_proxy(mx, filter_command=filter_command, max_connections=1) as harness:
        client, server = await reach(harness, mx)
        getattr(server, way)()
        if reach is phases.in_the_text:
            await client.say("more\n.")
        if reach is phases.in_a_chunk:
            await client.say(b"x" * 96)
        last = await client.rest()
        if reach is phases.waiting_for_the_goodbye:
            assert last.startswith(b"221 2.0.0 Bye")
        elif reach is phases.before_the_greeting:
            assert last.startswith(b"421 4.4."), last  # a reset may come before or after the connection stands
        else:
            assert last.startswith(b"421 4.4.2 Lost connection"), last
        assert last.count(b"\r\n") == 1
        client.close()
        await harness.empty()


@BOTH_PATHS
async def test_a_client_that_only_listens_on_gets_all_replies(
    start_proxy: StartProxy, filter_command: str | None
) -> None:
    """printf ... | nc -N"""
    model = ModelServer()
    async with Mx() as mx, start_proxy(mx, filter_command=filter_command) as harness:
        mx.serve(lambda: model)
        client = await harness.client()
        await client.say(WHOLE)
        client.finish()
        assert codes(await client.rest()) == MESSAGE_CODES
        await harness.empty()
    assert model.messages == [MESSAGE]


@pytest.mark.parametrize(
    ("behind", "told"),
    [("c.exa", [220]), ("EHLO c.example\r\n", [220, 250]), ("RCPT", [220, 250, 250]),
     ("DATA\r\n", [220, 250, 250, 250, 354]), ("hello", [220, 250, 250, 250, 354])],
)  # fmt: skip
async def test_a_client_that_stops_in_the_middle_gets_what_it_asked_for(
    start_proxy: StartProxy, behind: str, told: list[int]
) -> None:
    model = ModelServer()
    whole = WHOLE.replace("\n", "\r\n")
    said = whole[: whole.index(behind) + len(behind)].encode()
    async with Mx() as mx, start_proxy(mx) as harness:
        mx.serve(lambda: model)
        client = await harness.client()
        await client.say(said)
        client.finish()
        assert codes(await client.rest()) == told
        await harness.empty()
    assert not model.messages


async def test_the_last_reply_reaches_a_client_that_is_still_sending(start_proxy: StartProxy) -> None:
    """Closing with unread bytes would reset the connection, and the reply with it (RFC 9293 section 3.6.1)."""
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await phases.in_the_text(harness, mx)
        server.reset()
        await until(lambda: not mx.peers or next(iter(harness.proxy._connections)).server is None, "it is noticed")
        for _ in range(200):
            await client.say(b"x" * 65536)
        await client.say("\n.")
        assert (await client.rest()).startswith(b"421 4.4.2 Lost connection")
        assert not client.was_reset


async def test_the_last_reply_reaches_a_client_in_the_middle_of_a_big_message(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await phases.in_the_text(harness, mx)
        await server.say("421 4.3.2 going down")
        server.close()
        for _ in range(100):
            await client.say(b"x" * 65536)
        harness.proxy.stop()
        for _ in range(100):
            await client.say(b"x" * 65536)
        assert codes(await client.rest()) == [421]
        assert not client.was_reset
        client.close()


async def test_lingering_has_an_end(start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that neither reads nor closes keeps its place no longer than that."""
    monkeypatch.setattr("proxsmtp_tp.net.deadlines.LINGER", 0.1)
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await meet(harness, mx)
        server.close()
        await harness.empty()
        assert (await client.rest()).startswith(b"421 4.4.2 Lost")


async def test_a_server_that_ends_its_half_gets_no_more(start_proxy: StartProxy) -> None:
    """It could not answer any more: if it still accepted a message, this would be sent twice."""
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await phases.in_the_text(harness, mx)
        connection: Connection = next(iter(harness.proxy._connections))
        await client.press(b"x" * 65536, lambda: connection.server_is_full, 1 << 28)
        server.finish()
        await until(lambda: connection.server is None, "it is noticed")
        await client.say("\n.")
        assert (await client.rest()).startswith(b"421 4.4.2 Lost connection")
        assert END_OF_DATA not in await server.rest()
        client.close()
        await harness.empty()


async def test_a_refusal_before_the_end_of_data(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await phases.in_the_text(harness, mx)
        await server.say("552 5.3.4 too big")
        assert END_OF_DATA not in await server.rest()
        assert await client.ask("more\n.") == b"552 5.3.4 too big"
        assert (await client.rest()).startswith(b"421 4.4.2 Lost connection")


async def test_the_servers_last_words_before_it_closes(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await meet(harness, mx)
        await server.say("421 4.3.2 mx going down")
        server.close()
        assert await client.rest() == b"421 4.3.2 mx going down\r\n"


async def test_a_refusing_server_in_place_of_its_greeting(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        client = await harness.client()
        server = await mx.accept()
        await server.say("554 5.7.1 not you")
        assert await client.reply() == b"554 5.7.1 not you"
        await client.say("QUIT")
        assert await server.line() == b"QUIT"
        await server.say("221 2.0.0 bye")
        assert await client.rest() == b"221 2.0.0 bye\r\n"


async def test_pipelined_commands_while_the_filter_judges(start_proxy: StartProxy) -> None:
    """What comes behind a message waits for its reply; the replies come in order."""
    async with Mx() as mx, start_proxy(mx, filter_command="cat >/dev/null; echo 'no thanks' >&2; exit 1") as harness:
        client, server = await meet(harness, mx)
        await address(client, server)
        assert (await client.ask("DATA")).startswith(b"354")
        await client.say(f"{DOT}\nNOOP\nQUIT")
        assert (await client.reply()).startswith(b"550 ")
        for command, reply in (("RSET", "250 flushed"), ("NOOP", "250 noop"), ("QUIT", "221 bye")):
            assert await server.line() == command.encode()
            await server.say(reply)
        assert codes(await client.rest()) == [250, 221]
