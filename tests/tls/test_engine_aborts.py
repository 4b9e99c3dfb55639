"""Peers that reset or close at each step: 200 rounds leave no descriptor, no task and no stream."""

from __future__ import annotations

import asyncio
import gc
import socket
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.net.sides import reset
from proxsmtp_tp.net.tls_contexts import ClientContexts
from proxsmtp_tp.net.tls_stream import TlsStream
from tests.tls.engine import WAIT_SECONDS, ServerLeg, listening
from tests.unit.net.proxy_harness import descriptors
from tests.unit.net.tls_legs import TLS_1_2, TLS_1_3, client_leg, only, server_leg

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROUNDS = 200
STEPS = range(5)
VERSIONS = (TLS_1_2, TLS_1_3)
HOW = pytest.mark.parametrize("with_reset", [True, False])


async def read(sock: socket.socket, stream: TlsStream) -> None:
    """Read what has come, and answer it."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(WAIT_SECONDS):
        data = await loop.sock_recv(sock, 65536)
        stream.receive(data)
        await loop.sock_sendall(sock, stream.to_send())


async def steps(sock: socket.socket, stream: TlsStream, last: int) -> None:
    """A peer that does so many steps of the handshake."""
    loop = asyncio.get_running_loop()
    if last == 0:
        return
    data = stream.to_send()
    if last == 1 and data:
        await loop.sock_sendall(sock, data[: len(data) // 2])
        return
    await loop.sock_sendall(sock, data)
    if last == 2:
        return
    while stream.handshaking:
        await read(sock, stream)
    if last == 4:
        stream.write(b"half a line")
        await loop.sock_sendall(sock, stream.to_send())


def end(sock: socket.socket, with_reset: bool) -> None:
    if with_reset:
        reset(sock)
    sock.close()


def streams() -> int:
    return sum(isinstance(o, TlsStream) for o in gc.get_objects())


async def rounds(one: Callable[[int, int], Awaitable[None]]) -> None:
    """Each step 200 times; before, some that fill caches."""
    for step in STEPS:
        for version in VERSIONS:
            await one(step, version)
    await asyncio.sleep(0.05)
    gc.collect()
    before = descriptors(), len(asyncio.all_tasks()), streams()
    for step in STEPS:
        for at in range(ROUNDS):
            await one(step, VERSIONS[at % 2])
    await asyncio.sleep(0.05)
    gc.collect()
    assert (descriptors(), len(asyncio.all_tasks()), streams()) == before


@HOW
async def test_clients(with_reset: bool) -> None:
    loop = asyncio.get_running_loop()
    async with listening(ClientContexts()) as ours:

        async def one(step: int, version: int) -> None:
            sock = socket.socket()
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", ours.port))
            leg = await ours.accepted()
            await steps(sock, server_leg(version), step)
            end(sock, with_reset)
            while await leg.next() != "lost":
                pass

        await rounds(one)


@HOW
async def test_servers(with_reset: bool) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        async def one(step: int, version: int) -> None:
            _, leg = await loop.create_connection(
                lambda: ServerLeg(only(version), "mx.example"), *listener.getsockname()
            )
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            stream = client_leg(version)
            if step:
                await read(sock, stream)
            await steps(sock, stream, step)
            end(sock, with_reset)
            while await leg.next() != "lost":
                pass

        await rounds(one)
