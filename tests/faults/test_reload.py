"""Reloads (HUP) under load, with the real daemon: no connection is refused, however often it reloads (promise 3)."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from tests.faults.daemon import Daemon, DaemonPeers
from tests.unit.net.dialogue import DOT, MESSAGE_CODES
from tests.unit.net.fixtures import run
from tests.unit.net.proxy_harness import Mx, Peer, answer_by, codes, until
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RELOADS = 15
SENDERS = 8
LATE = 0.02
"""Seconds to the server's greeting: far longer than all the rest of a dialogue."""
TOUCHED = 25
"""Dialogues between two reloads, so that every one of them meets clients at every point of theirs."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A running daemon that has the time to let everybody finish."""
    started = Daemon(tmp_path, "DrainTimeOut: 60")
    try:
        yield started
    finally:
        started.end()


def test_nobody_is_refused_while_reloads_go_on(daemon: Daemon, tmp_path: Path) -> None:
    run(_reload_under_load(daemon, tmp_path))


async def _greet_late(mx: Mx) -> None:
    """A server that takes its time to greet, so that at every moment somebody has not been greeted yet."""

    async def answer(peer: Peer) -> None:
        await asyncio.sleep(LATE)
        await answer_by(peer, ModelServer())

    while True:
        mx._start(answer(await mx.accept()))


async def _dialogue(client: Peer) -> list[int]:
    """One message, command by command, as far as the other side goes along: the codes that came."""
    last = await client.reply()
    for said in ("EHLO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<b@mx.example>", "DATA", DOT, "QUIT"):
        if last.startswith(b"421"):
            break
        last = await client.ask(said)
    await client.rest()
    client.close()
    return codes(client.heard)


async def _reload_under_load(daemon: Daemon, folder: Path) -> None:
    heard: list[list[int]] = []
    async with Mx(socket.AF_UNIX, str(folder / "mx")) as mx:
        await until(lambda: daemon.ready, "the daemon is ready")
        mx._start(_greet_late(mx))
        peers = DaemonPeers(folder, mx)
        going = True

        async def send() -> None:
            while going:
                client = await peers.client()
                heard.append(await _dialogue(client))

        senders = [asyncio.create_task(send()) for _ in range(SENDERS)]
        for _ in range(RELOADS):
            enough = len(heard) + TOUCHED
            await until(lambda: len(heard) >= enough, "mail flows")  # noqa: B023  (it is over before the next one)
            await daemon.reload()
        going = False
        await asyncio.gather(*senders)
    assert not [said for said in heard if said != MESSAGE_CODES]
