"""Dialogues that one side breaks off, at each octet in turn.

Many dialogues run at once through one worker, each with a number in its addresses and in its message: so it is known
which of them came out at the server, whole or not.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.unit.net.proxy_harness import PIECE, WAIT_SECONDS, Mx, Peer, codes, until
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from tests.unit.net.proxy_harness import ProxyHarness

AT_ONCE = 24
"""Dialogues at a time: below MaxConnections, and not more filters than a small machine can start."""

FINAL = 5
"""Which reply of a dialogue settles its message: after the greeting, EHLO, MAIL, RCPT and DATA."""


@dataclass(frozen=True)
class Script:
    """One client's part. `message` is what a server keeps of it (dots still stuffed)."""

    number: int

    @property
    def message(self) -> bytes:
        """The text, whole."""
        return b"S: %04d\r\n\r\nhi\r\n..\r\n" % self.number

    @property
    def steps(self) -> list[bytes]:
        """What the client says, each after the reply to the one before."""
        return [
            b"EHLO c\r\n", b"MAIL FROM:<%04d@c>\r\n" % self.number, b"RCPT TO:<b@mx>\r\n", b"DATA\r\n",
            self.message + b".\r\n", b"QUIT\r\n",
        ]  # fmt: skip

    @property
    def stream(self) -> bytes:
        """All of it."""
        return b"".join(self.steps)

    @property
    def complete_at(self) -> int:
        """Octets of the stream up to the end of data."""
        return len(b"".join(self.steps[:-1]))


LENGTH = len(Script(0).stream)


@dataclass
class Result:
    """The result of one dialogue."""

    told: list[int] = field(default_factory=list)
    server: ObservedServer | None = None

    @property
    def accepted(self) -> bool:
        """The client was told 2xx for its message."""
        return len(self.told) > FINAL and self.told[FINAL] // 100 == 2


class ObservedServer(ModelServer):
    """The model server, which stores how much of its last reply was sent."""

    def __init__(self) -> None:
        super().__init__(keywords=(b"PIPELINING",))
        self.confirmed = False
        """The whole reply to the message was sent."""
        self.spoken = 0

    @property
    def number(self) -> int | None:
        """Whose dialogue it is, once it knows."""
        for command in self.commands:
            if command.startswith(b"MAIL FROM:<"):
                return int(command[11:15])
        return None


class RecordingServer:
    """The server: an ObservedServer for each connection, and the places where it breaks off."""

    def __init__(self, mx: Mx, cut: Callable[[Peer, ObservedServer], Awaitable[None]] | None = None) -> None:
        self.mx = mx
        self.observed: list[ObservedServer] = []
        self._open_now = 0
        self._cut = cut or whole
        mx._start(self._open())

    async def _open(self) -> None:
        while True:
            peer = await self._accept()
            observed = ObservedServer()
            self.observed.append(observed)
            self.mx._start(self._answer(peer, observed))

    async def _accept(self) -> Peer:
        sock, _ = await asyncio.get_running_loop().sock_accept(self.mx.listener)
        self.mx.peers.append(Peer(sock))
        return self.mx.peers[-1]

    async def _answer(self, peer: Peer, observed: ObservedServer) -> None:
        self._open_now += 1
        with suppress(OSError):
            await self._cut(peer, observed)
        peer.close()
        self._open_now -= 1

    async def quiet(self) -> None:
        """Until every connection has been heard to its end."""
        await until(lambda: not self._open_now, "the server heard every dialogue to its end")

    def delivered(self, number: int) -> list[bytes]:
        """The messages that came out, of one dialogue."""
        return [message for observed in self.observed if observed.number == number for message in observed.messages]

    def untouched(self) -> list[ObservedServer]:
        """Connections whose MAIL never came."""
        return [observed for observed in self.observed if observed.number is None]

    def commands(self, number: int) -> list[bytes]:
        """The commands that the server saw in one dialogue."""
        return [command for observed in self.observed if observed.number == number for command in observed.commands]


async def whole(peer: Peer, observed: ObservedServer) -> None:
    """A server that is never cut."""
    await speak(peer, observed, b"220 mx\r\n", None)
    while data := await hear(peer):
        if not await speak(peer, observed, observed.receive(data), None):
            return


async def hear(peer: Peer) -> bytes:
    """Some octets."""
    return await asyncio.get_running_loop().sock_recv(peer.sock, PIECE)


async def speak(peer: Peer, observed: ObservedServer, answer: bytes, most: int | None) -> bool:
    """Send it, up to `most` octets in all. False: the limit was reached."""
    part = answer if most is None else answer[: max(most - observed.spoken, 0)]
    if part:
        await asyncio.get_running_loop().sock_sendall(peer.sock, part)
    observed.spoken += len(part)
    observed.confirmed = observed.confirmed or b"queued\r\n" in part or (b"queued\r\n" in answer and part == answer)
    return len(part) == len(answer)


async def play(
    harness: ProxyHarness, script: Script, cut: int | None = None, *, way: str = "close", burst: bool = False
) -> Result:
    """One client. With `cut`, it goes away after so many octets; in a `burst` it waits for no reply."""
    client = await harness.client()
    said = script.stream[:cut]
    async with asyncio.timeout(WAIT_SECONDS):
        with suppress(OSError):
            for step in [said] if burst else taken(script.steps, len(said)):
                if not burst and not await client.reply():
                    break
                await client.say(step)
        if cut is None or way == "finish":
            with suppress(OSError):
                if way == "finish":
                    client.finish()
                await client.rest()
            client.close()
        elif way == "reset":
            client.reset()
        else:
            client.close()
    return Result(codes(client.heard))


def taken(steps: Iterable[bytes], octets: int) -> Iterable[bytes]:
    """The steps as far as so many octets go, the last one in part."""
    for step in steps:
        if not octets:
            return
        yield step[:octets]
        octets -= min(octets, len(step))


async def play_all(plays: Iterable[Awaitable[Result]]) -> list[Result]:
    """Many clients, AT_ONCE at a time, results in order."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(play_one: Awaitable[Result]) -> Result:
        async with slots:
            return await play_one

    return await asyncio.gather(*(one(play_one) for play_one in plays))
