"""What client and server say to each other in most tests, and steps to get there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.net.proxy_harness import codes

if TYPE_CHECKING:
    from tests.unit.net.proxy_harness import Mx, Peer, ProxyHarness

TEXT = "Subject: one\n\nhello\n.."
DOT = f"{TEXT}\n."
MESSAGE = TEXT.replace("\n", "\r\n").encode() + b"\r\n"
"""As the model server keeps it: dots stuffed."""

WHOLE = f"EHLO c.example\nMAIL FROM:<a@c.example>\nRCPT TO:<b@mx.example>\nDATA\n{DOT}\nQUIT"
"""A dialogue that may be sent at once."""


async def meet(harness: ProxyHarness, mx: Mx, *keywords: str) -> tuple[Peer, Peer]:
    """Client and server, past greeting and EHLO."""
    client = await harness.client()
    server = await mx.greeted()
    assert (await client.reply()).startswith(b"220")
    await client.say("EHLO c.example")
    assert await server.line() == b"EHLO c.example"
    lines = ["mx", *keywords]
    await server.say("\n".join(f"250{' ' if line is lines[-1] else '-'}{line}" for line in lines))
    assert (await client.reply()).startswith(b"250")
    return client, server


async def relayed(client: Peer, server: Peer, command: str, reply: str) -> None:
    """A command goes to the server and its reply comes back."""
    await client.say(command)
    assert await server.line() == command.encode()
    await server.say(reply)
    assert await client.reply() == reply.replace("\n", "\r\n").encode()


async def address(client: Peer, server: Peer) -> None:
    """MAIL and RCPT, accepted."""
    await relayed(client, server, "MAIL FROM:<a@c.example>", "250 2.1.0 ok")
    await relayed(client, server, "RCPT TO:<b@mx.example>", "250 2.1.5 ok")


async def one_message(client: Peer, text: str = DOT) -> list[int]:
    """A whole dialogue, command by command, with a server that is played by a model."""
    await client.reply()
    for said in ("EHLO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<b@mx.example>", "DATA", text, "QUIT"):
        await client.ask(said)
    assert not await client.rest()
    client.close()
    return codes(client.heard)


MESSAGE_CODES = [220, 250, 250, 250, 354, 250, 221]
