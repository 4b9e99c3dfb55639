"""Reloads (HUP) under load, with the real daemon: no connection is refused, however often it reloads (promise 3)."""

from __future__ import annotations

import asyncio
import socket
import sys
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


def test_no_client_is_refused_during_reloads(daemon: Daemon, tmp_path: Path) -> None:
    run(_reload_under_load(daemon, tmp_path))


async def _greet_late(mx: Mx) -> None:
    """A server that takes its time to greet, so that at every moment somebody has not been greeted yet."""

    async def answer(peer: Peer) -> None:
        await asyncio.sleep(LATE)
        await answer_by(peer, ModelServer())

    while True:
        mx._start(answer(await mx.accept()))


async def _dialogue(client: Peer) -> bytes:
    """One message, command by command, as far as the other side goes along: what came."""
    last = await client.reply()
    for said in ("EHLO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<b@mx.example>", "DATA", DOT, "QUIT"):
        if last.startswith(b"421"):
            break
        last = await client.ask(said)
    await client.rest()
    client.close()
    return bytes(client.heard)


async def _reload_under_load(daemon: Daemon, folder: Path) -> None:
    heard: list[bytes] = []
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
    assert not [said for said in heard if codes(said) != MESSAGE_CODES], daemon.log.read_text()[-4000:]


AT_FILTERS = 20


def test_messages_at_filters_while_it_reloads(tmp_path: Path) -> None:
    """Each gets one answer, the right one; none is lost, none arrives twice."""
    waits = f"while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"
    refuses = "case $SENDER in bad*) echo 554 5.7.1 No >&2; exit 1;; esac"
    worker = f"exec {sys.executable} -c 'from proxsmtp_tp.worker import *; run(lambda _: passed())'"
    started = Daemon(
        tmp_path,
        f"DrainTimeOut: 60\nFilter: first worker {worker} max={AT_FILTERS}\n"
        f"Filter: second pipe echo >>{tmp_path}/asked; {waits}; {refuses}; cat max={AT_FILTERS} timeout=120\n"
        f"Filter: third worker {worker} max={AT_FILTERS}",
    )
    try:
        run(_reload_with_messages_at_filters(started, tmp_path))
    finally:
        started.end()


async def _judged_message(peers: DaemonPeers, number: int) -> list[int]:
    """Every fourth one is refused."""
    client = await peers.client()
    await client.reply()
    sender = f"{'bad' if number % 4 == 0 else 'good'}{number}@c.example"
    text = f"Subject: number {number}\n\nhello\n."
    for said in ("EHLO c.example", f"MAIL FROM:<{sender}>", "RCPT TO:<b@mx.example>", "DATA", text, "QUIT"):
        await client.ask(said)
    await client.rest()
    client.close()
    return codes(client.heard)


async def _reload_with_messages_at_filters(daemon: Daemon, folder: Path) -> None:
    models: list[ModelServer] = []

    def model() -> ModelServer:
        models.append(ModelServer())
        return models[-1]

    def asked() -> int:
        return len((folder / "asked").read_text().splitlines()) if (folder / "asked").exists() else 0

    async with Mx(socket.AF_UNIX, str(folder / "mx")) as mx:
        await until(lambda: daemon.ready, "the daemon is ready")
        mx.serve(model)
        peers = DaemonPeers(folder, mx)
        sending = [asyncio.create_task(_judged_message(peers, number)) for number in range(AT_FILTERS)]
        await until(lambda: asked() == AT_FILTERS, "all messages are at the second filter")
        before = set(daemon.workers)
        await daemon.reload()
        assert set(daemon.workers) - before
        (folder / "go").touch()
        heard = await asyncio.gather(*sending)
        late = await _judged_message(peers, 1)
    for number, told in enumerate(heard):
        assert told == [*MESSAGE_CODES[:-2], 554 if number % 4 == 0 else 250, 221], number
    assert late == MESSAGE_CODES
    arrived = [message for each in models for message in each.messages]
    numbers = [*(number for number in range(AT_FILTERS) if number % 4), 1]
    assert sorted(arrived) == sorted(b"Subject: number %d\r\n\r\nhello\r\n" % number for number in numbers)
