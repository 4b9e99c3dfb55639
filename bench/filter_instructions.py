"""Messages that a milter or a worker judges, for `instructions`: a connection whose client and server say their next
line when they have got an answer. The filter is a process of its own, which is not counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.dialogue import DIALOGUE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxsmtp_tp.net.connection import Connection

BENCH = Path(__file__).parent

HANGS = 60.0
"""Seconds of a dialogue after which something is wrong: under valgrind it takes a second."""


async def milter(dialogues: int) -> None:
    """A milter that accepts each message at its end."""
    with _scripted_milter() as path:
        await _connections(dialogues, f"Filter: m milter {path}\n")


async def worker(dialogues: int) -> None:
    """`cat` as a worker."""
    os.pidfd_open = lambda *_given: os.eventfd(0)  # valgrind 3.19 knows no pidfd; the worker does not end here
    await _connections(dialogues, f"Filter: cat worker exec {sys.executable} -I {BENCH / 'cat_worker.py'}\n")


@contextlib.contextmanager
def _scripted_milter() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/milter"
        command = [sys.executable, str(BENCH / "scripted_milter.py"), path]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            try:
                if process.stdout is None or not process.stdout.readline():
                    raise RuntimeError("the milter does not start")
                yield path
            finally:
                process.kill()


class _Transport:
    """The side of the client or of the server: tells what was written."""

    def __init__(self, told: Callable[[bytes], None]) -> None:
        self.write = told

    def write_eof(self) -> None:
        """As in a transport."""

    close = abort = write_eof


class _Dialogue:
    """What client and server say. `ended`: the client has got the last reply."""

    def __init__(self, tested: Connection) -> None:
        self._loop = asyncio.get_running_loop()
        self._tested = tested
        self._said = iter([said for said, _ in DIALOGUE])
        self._answers = iter([answer for _, answer in DIALOGUE])
        self._in_text = False
        self.ended = self._loop.create_future()
        tested.client_made(_Transport(self._to_client))
        tested.server_ip, tested.server_port = "198.51.100.25", 25
        tested.server_made(_Transport(self._to_server))
        next(self._said)
        self._answer()

    def _to_client(self, data: bytes) -> None:
        if data.startswith(b"221"):
            self.ended.set_result(None)
        else:
            self._loop.call_soon(self._tested.client_data, next(self._said))

    def _to_server(self, data: bytes) -> None:
        if self._in_text and not data.endswith(b"\r\n.\r\n"):
            return
        self._in_text = data == b"DATA\r\n"
        self._loop.call_soon(self._answer)

    def _answer(self) -> None:
        self._tested.server_data(next(self._answers))


async def _connections(dialogues: int, lines: str) -> None:
    from proxsmtp_tp.config.reader import parse_config  # noqa: PLC0415  (what is not measured is not imported)
    from proxsmtp_tp.net.admission import Admission  # noqa: PLC0415
    from proxsmtp_tp.net.connection import Connection  # noqa: PLC0415
    from proxsmtp_tp.net.proxy import Proxy  # noqa: PLC0415

    config = f"Listen: 127.0.0.1:10025\nOutAddress: 127.0.0.1:10026\n{lines}".encode()
    settings = parse_config(config, "bench").settings
    admission = Admission(1000, 1)
    admission.prepare_filters(line.name for line in settings.filter)
    proxy = Proxy(settings, [], admission, 0)
    listener = socket.create_server(("127.0.0.1", 0))
    for number in range(dialogues):
        with socket.create_connection(listener.getsockname()):
            accepted = listener.accept()
            names = f"{number:06X}", f"{number:013X}"
            tested = Connection(proxy.context, accepted, names, lambda _: None)
            async with asyncio.timeout(HANGS):
                await _Dialogue(tested).ended
            tested.client_lost()
            tested.server_lost()
            accepted[0].close()
    if proxy.context.filter is not None:
        proxy.context.filter.close()
