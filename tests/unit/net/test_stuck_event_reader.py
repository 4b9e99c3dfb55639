"""EventLog to a socket whose reader is stuck: mail goes on at once, and every event that is lost is counted."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.telemetry import event_log
from proxsmtp_tp.telemetry.counters import Counter
from tests.unit.net.dialogue import TEXT
from tests.unit.net.proxy_harness import Mx, codes
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.net.proxy_harness import Peer, StartProxy

SESSIONS, MESSAGES = 10, 40
"""More events than a socket and the backlog of this test take together."""


async def some_messages(client: Peer) -> list[int]:
    """One session, command by command."""
    await client.reply()
    await client.ask("EHLO c.example")
    for _ in range(MESSAGES):
        for said in ("MAIL FROM:<a@c.example>", "RCPT TO:<b@mx.example>", "DATA", f"{TEXT}\n."):
            await client.ask(said)
    await client.ask("QUIT")
    client.close()
    return codes(client.heard)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
@pytest.mark.parametrize("comes_back", [True, False])
async def test_mail_goes_on(
    start_proxy: StartProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: socket.SocketKind,
    comes_back: bool,
) -> None:
    monkeypatch.setattr(event_log, "BACKLOG_MAX", 8192)
    path = tmp_path / "reader"
    with socket.socket(socket.AF_UNIX, kind) as reader:
        reader.bind(str(path))
        if kind == socket.SOCK_STREAM:
            reader.listen()
        async with Mx() as mx, start_proxy(mx, event_log=f"unix:{path}") as harness:
            mx.serve(ModelServer)
            began = time.monotonic()
            clients = [await harness.client() for _ in range(SESSIONS)]
            replies = await asyncio.gather(*map(some_messages, clients))
            assert time.monotonic() - began < 60
            assert replies == [[220, 250, *[250, 250, 354, 250] * MESSAGES, 221]] * SESSIONS
            await harness.empty()
            lost = harness.admission.counters.totals()[Counter.EVENTS_LOST]
            assert 0 < lost < SESSIONS * MESSAGES
            peer = reader.accept()[0] if kind == socket.SOCK_STREAM else reader
            peer.setblocking(False)
            heard = b""
            if comes_back:
                target = harness.proxy.context.events._target  # type: ignore[union-attr]
                assert isinstance(target, event_log.SocketTarget)
                while target._waiting:  # the tick of each second sends what waits
                    heard += everything(peer)
                    await asyncio.sleep(0.05)
        heard += everything(peer)
        if kind == socket.SOCK_STREAM:
            peer.close()
    counted = harness.admission.counters.totals()[Counter.EVENTS_LOST]
    told = [json.loads(line) for line in heard.split(b"\n")[:-1]]  # perhaps one in part
    assert all(event["status"] == "delivered" for event in told)
    assert len(told) + counted == SESSIONS * MESSAGES
    assert (counted == lost) is comes_back  # what still waited at the end of the worker is lost, too


def everything(peer: socket.socket) -> bytes:
    """What can be read now."""
    heard = b""
    try:
        while data := peer.recv(1 << 16):
            heard += data
    except BlockingIOError:
        pass
    return heard
