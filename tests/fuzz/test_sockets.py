"""Random dialogues over real sockets, with a real filter: the same invariants, and nothing left behind.

Each client says EHLO with a number, so that it is known which server it had. Numbers are seeds: the same every time.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.random_peers import (
    RandomServer,
    assert_one_reading,
    assert_only_the_clients_commands,
    client_stream,
    pieces_of,
    plain,
    view,
)
from tests.unit.net.proxy_harness import WAIT_SECONDS, Mx, codes

if TYPE_CHECKING:
    from tests.unit.net.proxy_harness import ProxyHarness, StartProxy

DIALOGUES = 150
AT_ONCE = 24
FILTERS = {"streamed": None, "filtered": "sed '/SPAM/q1'"}


def stream(seed: int) -> bytes:
    return client_stream(Random(seed)).replace(b"EHLO c\r\n", b"EHLO c%04d\r\n" % seed, 1)


async def talk(harness: ProxyHarness, seed: int, *, leave: bool) -> list[int]:
    """Say it in random pieces, listening meanwhile. With `leave`, go away somewhere."""
    random = Random(-seed)
    said = stream(seed)
    client = await harness.client()
    listening = asyncio.create_task(client.rest())
    async with asyncio.timeout(WAIT_SECONDS):
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces_of(random, said[: random.randrange(len(said)) if leave else None]):
                await client.say(piece)
                if random.random() < 0.5:
                    await asyncio.sleep(0)
            if leave and random.random() < 0.5:
                listening.cancel()
                client.reset()
            else:
                client.finish()
        await asyncio.wait([listening])
    client.close()
    return codes(client.heard)


@pytest.mark.parametrize("leave", [False, True], ids=["to the end", "cut off"])
@pytest.mark.parametrize("path", FILTERS)
async def test_random_dialogues(start_proxy: StartProxy, path: str, leave: bool) -> None:
    servers: list[RandomServer] = []

    def server() -> RandomServer:
        servers.append(RandomServer(Random(len(servers))))
        return servers[-1]

    async with Mx() as mx, start_proxy(mx, filter_command=FILTERS[path]) as harness:
        harness.errors_expected = True
        mx.serve(server)
        places = asyncio.Semaphore(AT_ONCE)

        async def one(seed: int) -> list[int]:
            async with places:
                return await talk(harness, seed, leave=leave)

        told = await asyncio.gather(*(one(seed) for seed in range(DIALOGUES)))
        await harness.empty()
    by_seed = {number_of(server): server for server in servers}
    for seed, heard in enumerate(told):
        judge(by_seed.get(seed), stream(seed), heard, path, whole=not leave)


def number_of(server: RandomServer) -> int | None:
    """Whose server it was; None where the client did not come as far as its EHLO."""
    found = re.match(rb"EHLO c(\d{4})\r\n", server.wire)
    return int(found[1]) if found else None


def judge(server: RandomServer | None, said: bytes, heard: list[int], path: str, *, whole: bool) -> None:
    """What must hold for one dialogue."""
    words = f"{said!r} -> {heard}"
    seen = view(said, heard)
    if server is None:
        assert not whole or heard[-1] in {221, 421}, words
        return
    assert_one_reading(server, words)
    assert_only_the_clients_commands(server.commands, said)
    accepted = sum(code // 100 == 2 for code in seen.finals)
    if whole:
        assert accepted == len(server.accepted), words
    assert accepted <= len(server.accepted), words
    sent = iter([plain(text) for text in all_texts(said)])
    assert all(plain(message) in sent for message in server.messages), words
    assert path == "streamed" or not [message for message in server.messages if b"SPAM" in message], words


def all_texts(said: bytes) -> list[bytes]:
    """All that may be a message: what stands between a line that says DATA and an end of data, wherever it begins."""
    texts = []
    at = 0
    while (at := said.upper().find(b"DATA", at)) >= 0:
        start = said.find(b"\r\n", at)
        end = said.find(b"\r\n.\r\n", start)
        if 0 <= start <= end:
            texts.append(said[start:end])
        at += 1
    return texts
