"""Counters are exact, however many workers are killed: many messages, SIGKILL now and then, and a comparison.

    .venv/bin/python -m bench.killed_workers --messages 100000 --kills 40

Clients count what they are answered; the daemon must have counted the same. In the first half workers are killed while
no message is on its way: every number must be equal. In the second half they are killed at any time: a message whose
reply was lost with its worker may have been counted or not, and only such a message.

The master waits longer and longer before it starts a worker where workers die often: a kill takes up to ten seconds.
tests/faults/test_counters.py does the same with fewer messages.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from proxsmtp_tp.service.status import read_status
from tests.faults.daemon import Daemon

CLIENTS = 12
_ENVELOPE = b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@mx.example>\r\nDATA\r\n"
_TEXT = b"Subject: one\r\n\r\nhello\r\n"
_SECONDS = 600.0
"""The longest time of any step, also the messages between two kills on a busy machine."""


@dataclass(slots=True)
class Seen:
    """What the clients and the server have seen."""

    answered: int = 0
    """Messages with a positive reply."""
    unanswered: int = 0
    """Messages that were sent completely, and whose reply was lost with the worker."""
    cut: int = 0
    """Connections that were lost while a reply was awaited."""
    replies: Counter[str] = field(default_factory=Counter)
    """Of the daemon, by class."""
    connections: int = 0
    """Connections that were greeted."""
    at_server: int = 0
    """Messages that the server has accepted."""


class Run:
    """Messages through the daemon in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen = Seen()
        self.kills = 0
        self._left = 0
        self._flying = 0
        self._gate = asyncio.Event()
        self._gate.set()

    async def all(self, messages: int, kills: int) -> list[str]:
        """Run it; return what differs: nothing if all is well."""
        server = await asyncio.start_unix_server(self._serve, self.folder / "mx")
        daemon = Daemon(self.folder, "LogLevel: 0")
        try:
            await self._until(lambda: daemon.ready)
            before = self.status()
            await self._part(daemon, messages // 2, kills // 2, abrupt=False)
            differences = self.exact(before, self.status())
            before, self.seen = self.status(), Seen()
            await self._part(daemon, messages - messages // 2, kills - kills // 2, abrupt=True)
            return differences + self.bounded(before, self.status())
        finally:
            daemon.end()
            server.close()

    def status(self) -> dict[str, Any]:
        """The counters of the daemon."""
        answer = read_status(next(self.folder.glob("*.sock")))
        assert answer is not None
        return answer

    def exact(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """Numbers that differ from what the clients saw."""
        seen = self.seen
        wanted = {
            "messages_total relayed": seen.answered,
            "message_replies_total 2xx": seen.answered,
            "recipients_total accepted": seen.answered,
            "message_bytes_total ": seen.answered * len(_TEXT),
            "connections_total accepted": seen.connections,
            **{f"replies_total client {name}": number for name, number in seen.replies.items()},
        }
        found = {name: _difference(name, before, after) for name in wanted}
        print(f"{seen}\ncounted: {found}")
        wrong = [name for name in wanted if found[name] != wanted[name]]
        return [f"{name}: {found[name]} counted, {wanted[name]} seen" for name in wrong]

    def bounded(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """The same, where a reply may have been lost."""
        seen, counted = self.seen, _difference("message_replies_total 2xx", before, after)
        print(f"{seen}\ncounted: {counted} messages")
        least, most = seen.answered, seen.answered + seen.unanswered
        return [] if least <= counted <= most else [f"{counted} messages counted, {least} to {most} seen"]

    # Clients.

    async def _part(self, daemon: Daemon, messages: int, kills: int, *, abrupt: bool) -> None:
        self._left = messages
        clients = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        for number in range(kills):
            due = messages - messages * (number + 1) // (kills + 1)
            await self._until(partial(self._is_left, due))
            await self._kill(daemon, abrupt=abrupt)
        await asyncio.gather(*clients)
        await self._until(lambda: self.status()["connections"] == 0)

    def _is_left(self, messages: int) -> bool:
        return self._left <= messages

    async def _kill(self, daemon: Daemon, *, abrupt: bool) -> None:
        if not abrupt:
            self._gate.clear()
            await self._until(lambda: not self._flying)
        workers = daemon.workers
        os.kill(random.choice(workers), signal.SIGKILL)
        self.kills += 1
        await self._until(lambda: self.status()["replaced_workers"] == self.kills)
        self._gate.set()

    async def _client(self) -> None:
        while self._left > 0:
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_unix_connection(self.folder / "in")
                try:
                    await self._session(reader, writer)
                finally:
                    writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._flying += 1  # a greeting that is on its way is counted, too
        try:
            await self._reply(reader)
            self.seen.connections += 1
            await self._ask(reader, writer, b"EHLO client.example\r\n", 1)
        finally:
            self._flying -= 1
        while self._left > 0:
            await self._gate.wait()
            if reader.at_eof():
                return
            self._left -= 1
            self._flying += 1
            try:
                await self._message(reader, writer)
            finally:
                self._flying -= 1
        with suppress(asyncio.IncompleteReadError):
            self._flying += 1
            try:
                await self._ask(reader, writer, b"QUIT\r\n", 1)
            finally:
                self._flying -= 1

    async def _message(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._ask(reader, writer, _ENVELOPE, 3)
        except (OSError, asyncio.IncompleteReadError):
            self._left += 1
            raise
        try:
            await self._ask(reader, writer, _TEXT + b".\r\n", 1)
        except (OSError, asyncio.IncompleteReadError):
            self.seen.unanswered += 1
            raise
        self.seen.answered += 1

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytes, replies: int) -> None:
        writer.write(said)
        for _ in range(replies):
            await self._reply(reader)

    async def _reply(self, reader: asyncio.StreamReader) -> None:
        try:
            while (line := await reader.readuntil(b"\n"))[3:4] == b"-":
                pass
        except asyncio.IncompleteReadError:
            self.seen.cut += 1
            raise
        self.seen.replies[f"{line[:1].decode()}xx"] += 1
        if line[:1] not in b"23":
            raise ConnectionError(line.decode())

    # The server.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):  # cancelled: the run has ended
            writer.write(b"220 mx.example ESMTP\r\n")
            while True:
                verb = (await reader.readuntil(b"\n"))[:4].upper()
                if verb == b"EHLO":
                    writer.write(b"250-mx.example\r\n250 PIPELINING\r\n")
                elif verb == b"DATA":
                    writer.write(b"354 go on\r\n")
                    await reader.readuntil(b"\r\n.\r\n")
                    self.seen.at_server += 1
                    writer.write(b"250 2.0.0 Ok\r\n")
                else:
                    writer.write(b"221 2.0.0 Bye\r\n" if verb == b"QUIT" else b"250 2.0.0 Ok\r\n")
        writer.close()

    async def _until(self, what: Any) -> None:
        end = time.monotonic() + _SECONDS
        while not what():
            if time.monotonic() > end:
                raise TimeoutError(f"{self.seen}, {self._flying} on their way, {self._left} to be sent")
            await asyncio.sleep(0.005)


def _difference(name: str, before: dict[str, Any], after: dict[str, Any]) -> int:
    family, _, labels = name.partition(" ")
    return int(after["totals"][family][labels] - before["totals"][family][labels])


def run(folder: Path, messages: int, kills: int) -> list[str]:
    """What differs."""
    return asyncio.run(Run(folder).all(messages, kills))


def main() -> int:
    """0: every number is right."""
    parser = argparse.ArgumentParser(description="counters after many messages with killed workers")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=40)
    args = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        differences = run(Path(folder), args.messages, args.kills)
    print("\n".join(differences) or f"exact: {args.messages} messages, {args.kills} kills", end="")
    print(f" ({time.monotonic() - begin:.0f} s)")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
