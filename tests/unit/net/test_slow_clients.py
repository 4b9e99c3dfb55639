"""Clients that send slowly hold nothing that others need."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.unit.net.proxy_harness import Mx
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from tests.unit.net.proxy_harness import Peer, ProxyHarness, StartProxy


async def test_64_slow_clients_do_not_keep_a_quick_one_from_its_verdict(start_proxy: StartProxy) -> None:
    """They are in the middle of their messages, and stay there; two filters may run."""
    async with (
        Mx() as mx,
        start_proxy(mx, filter_command="cat", filter_processes=2, filter_timeout=20, max_connections=100) as harness,
    ):
        mx.serve(ModelServer)
        slow = await asyncio.gather(*(in_the_text(harness) for _ in range(64)))
        for _ in range(3):
            for client in slow:
                await client.say(b"x")
            quick = await in_the_text(harness)
            assert (await quick.ask("quick\n.")).startswith(b"250")
        for client in slow:
            assert (await client.ask("\n.")).startswith(b"250")


async def in_the_text(harness: ProxyHarness) -> Peer:
    client = await harness.client()
    assert (await client.reply()).startswith(b"220")
    for command in ("EHLO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<b@mx.example>"):
        assert (await client.ask(command)).startswith(b"250")
    assert (await client.ask("DATA")).startswith(b"354")
    return client
