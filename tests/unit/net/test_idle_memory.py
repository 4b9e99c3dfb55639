"""How much memory an idle session takes: the proxy is in a process of its own, so that nothing else counts.

Both legs, after EHLO, and its row in the tables of all workers. Buffers of sockets are the kernel's, and do not count.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB_MAX = 7.3
"""6.8 are measured, interpreted and compiled; 2.4 of them are the two transports of uvloop. Forgotten `__slots__`, a
deque or a task in each session take 1 or 2 more."""
WARM, SESSIONS = 100, 800

SCRIPT = """
import asyncio, gc, socket, sys, uvloop
from proxsmtp_tp.config.reader import parse_config
from proxsmtp_tp.net.admission import Admission
from proxsmtp_tp.net.proxy import Proxy

def private():
    gc.collect()
    with open("/proc/self/smaps_rollup") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))

async def main():
    loop = asyncio.get_running_loop()
    text = f"Listen: 127.0.0.1:10025\\nOutAddress: 127.0.0.1:{sys.argv[1]}\\nMaxConnections: 4000\\n" + sys.argv[2]
    settings = parse_config(text.encode(), "test").settings
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=1000)]
    listeners[0].setblocking(False)
    proxy = Proxy(settings, listeners, Admission(settings.max_connections, 1), 0)
    serving = loop.create_task(proxy.run())
    print(listeners[0].getsockname()[1], flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        await asyncio.sleep(1.2)  # the rows of sessions are written once a second
        print(private(), flush=True)

uvloop.run(main())
"""


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Enough for both ends of all sessions, here and in the process that is started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mx.example ESMTP\r\n")
    while await reader.readline():
        writer.write(b"250-mx.example\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-STARTTLS\r\n250 8BITMIME\r\n")
    writer.close()


async def _session(port: int) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    writer.write(b"EHLO client.example\r\n")
    while not (await reader.readline()).startswith(b"250 "):
        pass
    return writer


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("directives", ["", "FilterCommand: cat\n"])
async def test_an_idle_session_takes_little_memory(directives: str) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=1000)
    command = [sys.executable, "-c", SCRIPT, str(server.sockets[0].getsockname()[1]), directives]
    kept: list[asyncio.StreamWriter] = []
    measured = []
    pipe, tree = subprocess.PIPE, Path(__file__).parents[3]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=tree) as proxy:  # noqa: ASYNC220
        assert proxy.stdin is not None
        assert proxy.stdout is not None
        try:
            port = int(await asyncio.to_thread(proxy.stdout.readline))
            for number in (WARM, SESSIONS):
                for _ in range(number):
                    kept.append(await _session(port))  # noqa: PERF401  (one after the other)
                proxy.stdin.write(b"measure\n")
                proxy.stdin.flush()
                measured.append(int(await asyncio.to_thread(proxy.stdout.readline)))
        finally:
            proxy.kill()
            server.close()
            for writer in kept:
                writer.close()
    assert 3 < (measured[1] - measured[0]) / SESSIONS < KIB_MAX
