"""Promise 6 (and 7): a server sends replies without a command, or no replies. That connection ends with 421."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.smtp import answers
from tests.unit.net import phases
from tests.unit.net.dialogue import DOT, WHOLE, meet, relayed
from tests.unit.net.proxy_harness import Mx, codes

if TYPE_CHECKING:
    from tests.unit.net.phases import Reach
    from tests.unit.net.proxy_harness import StartProxy

OUT_OF_STEP = b"421 4.3.0 The server's replies do not fit the commands, closing\r\n"
CLEAN = re.compile(rb"(?:[2-5]\d\d(?:[ -][^\x00-\x1f\x7f]*)?\r\n)*")
BOTH_PATHS = pytest.mark.parametrize("filter_command", [None, "cat"], ids=["streamed", "filtered"])

NO_REPLIES = {
    "text": b"hello\r\n",
    "no digits": b"25x ok\r\n",
    "a code below": b"199 ok\r\n",
    "a code above": b"600 ok\r\n",
    "four digits": b"2500 ok\r\n",
    "blank lines without end": b"\r\n" * 1000,
    "a line of a megabyte": b"250 " + b"x" * (1 << 20) + b"\r\n",
    "endless lines": b"250-x\r\n" * 100_000,
    "a megabyte without a line end": b"250 " + b"x" * (1 << 20),
    "nothing but NULs": b"\0" * 5000 + b"\r\n",
    "binary": bytes(range(256)) * 20,
}
UNTIDY = {
    "codes that change": b"250-one\r\n251 two\r\n",
    "lines that are none": b"250-one\r\ntwo\r\n250 three\r\n",
    "a NUL for a blank": b"250\0ok\r\n",
}
"""No replies either, but to the end of data: there the last line decides."""
REACHED = [phases.waiting_for_a_reply, phases.idle, phases.waiting_for_the_final_reply]


@pytest.mark.parametrize(
    ("reach", "said"),
    [pytest.param(reach, said, id=f"{reach.__name__}-{name}") for reach in REACHED for name, said in NO_REPLIES.items()]
    + [
        pytest.param(reach, said, id=f"{reach.__name__}-{name}")
        for reach in REACHED[:2]
        for name, said in UNTIDY.items()
    ],
)
@BOTH_PATHS
async def test_what_is_no_reply(start_proxy: StartProxy, reach: Reach, said: bytes, filter_command: str | None) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command=filter_command) as harness:
        harness.errors_expected = True
        client, server = await reach(harness, mx)
        with suppress(BrokenPipeError, ConnectionResetError):  # it is not heard to the end
            await server.press(said, lambda: not harness.proxy._connections, len(said))
        assert await client.rest() == OUT_OF_STEP
        assert server.was_reset or await server.rest() == b""


@pytest.mark.parametrize("said", UNTIDY.values(), ids=UNTIDY)
@BOTH_PATHS
async def test_an_untidy_reply_to_the_end_of_data(
    start_proxy: StartProxy, said: bytes, filter_command: str | None
) -> None:
    """The server took the message: one tidy 2xx for the client, and the dialogue goes on."""
    async with Mx() as mx, start_proxy(mx, filter_command=filter_command) as harness:
        client, server = await phases.waiting_for_the_final_reply(harness, mx)
        await server.say(said)
        reply = await client.reply()
        assert reply[:2] == b"25"
        assert CLEAN.fullmatch(reply + b"\r\n")
        await relayed(client, server, "NOOP", "250 in step")


HARMLESS = {
    "control characters": b"250 a\0b\x07c\x1bd\x7fe\r\n",
    "a bare LF at the end": b"250 ok\n",
    "a bare CR inside": b"250 a\rb\r\n",
    "a code alone": b"250\r\n",
    "a code and a hyphen": b"250-\r\n250-\r\n250\r\n",
    "eight bit": "250 grüß\r\n".encode(),
    "latin-1": b"250 gr\xfc\xdf\r\n",
    "a second digit of its own": b"271 ok\r\n",
}


@pytest.mark.parametrize("said", HARMLESS.values(), ids=HARMLESS)
async def test_what_is_a_reply_if_one_is_kind(start_proxy: StartProxy, said: bytes) -> None:
    """It reaches the client as one clean reply, and the dialogue goes on."""
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await meet(harness, mx)
        await client.say("NOOP")
        await server.line()
        await server.say(said)
        reply = await client.reply()
        assert int(reply[:3]) == int(said[:3])
        assert CLEAN.fullmatch(reply + b"\r\n")
        await relayed(client, server, "NOOP", "250 in step")


# Replies to nothing.


@pytest.mark.parametrize("unasked", ["250 ok", "354 go", "550 no", "334 more", "220 mx again", "250-a\n250 b"])
async def test_a_reply_before_the_command(start_proxy: StartProxy, unasked: str) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        harness.errors_expected = True
        client, server = await meet(harness, mx)
        await server.say(unasked)
        assert await client.rest() == OUT_OF_STEP
        assert await server.rest() == b""


@pytest.mark.parametrize("second", ["250 two", "550 two", "354 two"])
async def test_two_replies_to_one_command(start_proxy: StartProxy, second: str) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        harness.errors_expected = True
        client, server = await phases.waiting_for_a_reply(harness, mx)
        await server.say(f"250 one\n{second}")
        assert await client.rest() == b"250 one\r\n" + OUT_OF_STEP


@pytest.mark.parametrize("told", ["250 ok", "354 go", "550 no"])
async def test_a_greeting_with_more_words(start_proxy: StartProxy, told: str) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        harness.errors_expected = True
        client = await harness.client()
        server = await mx.accept()
        await server.say(f"220 mx\n{told}")
        assert codes(await client.rest()) == [220, 421]


@pytest.mark.parametrize("greeting", ["354 go", "334 more"])
async def test_a_greeting_that_is_none(start_proxy: StartProxy, greeting: str) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        harness.errors_expected = True
        client = await harness.client()
        server = await mx.accept()
        await server.say(greeting)
        assert await client.rest() == OUT_OF_STEP


# Replies of the wrong kind.


@pytest.mark.parametrize("command", ["EHLO c", "HELO c", "MAIL FROM:<a@c>", "RSET", "NOOP", "VRFY a", "QUIT", "XYZZY"])
async def test_go_on_with_what(start_proxy: StartProxy, command: str) -> None:
    """3xx to a command that has nothing to go on with."""
    async with Mx() as mx, start_proxy(mx) as harness:
        harness.errors_expected = True
        client, server = await meet(harness, mx)
        await client.say(command)
        await server.line()
        await server.say("354 go")
        assert await client.rest() == OUT_OF_STEP
        assert await server.rest() == b""


@BOTH_PATHS
@pytest.mark.parametrize("reply", ["250 done", "250-done\n250 really", "220 hello"])
async def test_done_with_a_message_that_was_not_sent(
    start_proxy: StartProxy, reply: str, filter_command: str | None
) -> None:
    """2xx to DATA: the client must not take it for the reply to its message."""
    async with Mx() as mx, start_proxy(mx, filter_command=filter_command) as harness:
        harness.errors_expected = True
        client, server = await phases.waiting_for_354(harness, mx)
        await server.say(reply)
        assert await client.rest() == OUT_OF_STEP
        assert await server.rest() == b""


async def test_done_before_the_end_of_the_message(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        harness.errors_expected = True
        client, server = await phases.in_the_text(harness, mx)
        await server.say("250 2.0.0 queued already")
        assert b"\r\n.\r\n" not in await server.rest()
        await client.say("more\n.")
        assert (await client.rest()).startswith(b"421 4.3.0 The server's replies do not fit")


async def test_a_judged_message_refused_while_it_is_sent(start_proxy: StartProxy) -> None:
    async with (
        Mx() as mx,
        start_proxy(mx, filter_command="cat >/dev/null; head -c 30000000 /dev/zero | tr '\\0' x") as harness,
    ):
        client, server = await phases.waiting_for_354(harness, mx)
        await server.say("354 go\n552 5.3.4 too big")
        assert await client.reply() == b"552 5.3.4 too big"
        assert b"\r\n.\r\n" not in await server.rest()
        assert (await client.rest()).startswith(b"421 4.4.2")


@BOTH_PATHS
async def test_a_server_that_refuses_rset(start_proxy: StartProxy, filter_command: str | None) -> None:
    """Whose envelope would the next message have? After a refusal of ours the client is told, and starts again."""
    refusing = "cat >/dev/null; exit 1" if filter_command else None
    async with Mx() as mx, start_proxy(mx, filter_command=refusing) as harness:
        harness.errors_expected = True
        client, server = await phases.in_a_transaction(harness, mx)
        if refusing:
            await client.ask("DATA")
            assert (await client.ask(DOT)).startswith(b"550")
            assert await server.line() == b"RSET"
            await server.say("502 what is that")
            assert await server.rest() == b""
            assert await client.ask("MAIL FROM:<c@c.example>") == answers.server_leaves("502 what is that").wire[:-2]
            assert await client.rest() == b""
        else:
            await client.say("RSET")
            await server.line()
            await server.say("502 what is that")
            assert await client.reply() == b"502 what is that"


@pytest.mark.parametrize("many", [1, 3, 50])
async def test_replies_to_a_group_that_are_more_than_its_commands(start_proxy: StartProxy, many: int) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        harness.errors_expected = True
        client, server = await meet(harness, mx, "PIPELINING")
        await client.say("MAIL FROM:<a@c>\nRCPT TO:<b@mx>\nRSET")
        await server.text(b"RSET\r\n")
        await server.say("\n".join(["250 ok"] * (3 + many)))
        assert codes(await client.rest()) == [250, 250, 250, 421]


async def test_a_whole_dialogue_answered_before_it_is_sent(start_proxy: StartProxy) -> None:
    """All replies at once with the greeting: none of them is the server's word on anything."""
    async with Mx() as mx, start_proxy(mx) as harness:
        harness.errors_expected = True
        client = await harness.client()
        await client.say(WHOLE)
        server = await mx.accept()
        await server.say("220 mx\n250 mx\n250 ok\n250 ok\n354 go\n250 queued\n221 bye")
        told = codes(await client.rest())
        heard = await server.rest()
        assert 250 not in told[5:6] or b"\r\n.\r\n" in heard
