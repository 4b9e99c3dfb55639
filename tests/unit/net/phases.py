"""Every point of a dialogue at which a peer may go away, and how to get there with both peers played by the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.net.dialogue import DOT, address, meet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.unit.net.proxy_harness import Mx, Peer, ProxyHarness

    Reach = Callable[[ProxyHarness, Mx], Awaitable[tuple[Peer, Peer]]]


async def before_the_greeting(harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    return await harness.client(), await mx.accept()


async def idle(harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    return await meet(harness, mx)


async def half_a_command(harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    client, server = await meet(harness, mx)
    await client.say(b"MAIL FR")
    return client, server


async def waiting_for_a_reply(harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    client, server = await meet(harness, mx)
    await client.say("MAIL FROM:<a@c.example>")
    await server.line()
    return client, server


async def half_a_reply(harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    client, server = await waiting_for_a_reply(harness, mx)
    await server.say(b"250-2.1.0 ok\r\n250")
    return client, server


async def in_auth(harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    client, server = await meet(harness, mx, "AUTH LOGIN")
    await client.say("AUTH LOGIN")
    await server.line()
    await server.say("334 VXNlcm5hbWU6")
    await client.reply()
    return client, server


async def in_a_transaction(harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    client, server = await meet(harness, mx)
    await address(client, server)
    return client, server


async def waiting_for_354(harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    """Streamed: after the client's DATA; filtered: after our own."""
    client, server = await in_a_transaction(harness, mx)
    await client.say("DATA")
    if harness.proxy.context.filter is not None:
        await client.reply()
        await client.say(DOT)
    await server.line()
    return client, server


async def in_the_text(harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    client, server = await in_a_transaction(harness, mx)
    await client.say("DATA")
    if harness.proxy.context.filter is None:
        await server.line()
        await server.say("354 go")
    await client.reply()
    await client.say("Subject: one\n\nhalf")
    if harness.proxy.context.filter is None:
        await server.text(b"half\r\n")
    return client, server


async def waiting_for_the_final_reply(harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    client, server = await waiting_for_354(harness, mx)
    await server.say("354 go")
    if harness.proxy.context.filter is None:
        await client.reply()
        await client.say(DOT)
    await server.text()
    return client, server


async def after_a_message(harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    client, server = await waiting_for_the_final_reply(harness, mx)
    await server.say("250 2.0.0 queued")
    await client.reply()
    return client, server


async def in_a_chunk(harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    client, server = await meet(harness, mx)
    await client.say(b"BDAT 100\r\nhalf")
    await client.reply()
    return client, server


async def waiting_for_the_goodbye(harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    client, server = await meet(harness, mx)
    await client.say("QUIT")
    await server.line()
    return client, server


PHASES: list[Reach] = [
    before_the_greeting, idle, half_a_command, waiting_for_a_reply, half_a_reply, in_auth, in_a_transaction,
    waiting_for_354, in_the_text, waiting_for_the_final_reply, after_a_message, in_a_chunk, waiting_for_the_goodbye,
]  # fmt: skip
