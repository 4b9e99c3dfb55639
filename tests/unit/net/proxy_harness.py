"""Runs the proxy in this process: real sockets on the loopback, a real event loop, peers that the test plays.

    async with start_proxy(mx, filter_command="cat") as harness:
        client = await harness.client()
        server = await mx.accept()

At the end nothing of the proxy may be left: no task, descriptor, process, row in the shared table or file. Errors in
the log fail the test unless it sets `errors_expected`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from proxsmtp_tp.config.addresses import Address, InetAddress, UnixAddress
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.net.admission import _CHUNK_BYTES, _CHUNKS, Admission
from proxsmtp_tp.net.listening import open_listeners
from proxsmtp_tp.net.proxy import Proxy
from tests.child_processes import child_processes
from tests.trace_ids import ids, without_ids
from tests.unit.net.tls_certificate import worker_tls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import Any

WAIT_SECONDS = 60.0
"""Seconds that a test waits for what must come. Far more than it takes on a busy machine; three times as many, for a
whole test, are fewer than pytest's own limit, which ends the run (pyproject.toml).
"""

PIECE = 65536


async def until(met: Callable[[], object], what: str) -> None:
    """Wait until the condition holds. AssertionError where it does not come true in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + WAIT_SECONDS
    while not met():
        assert loop.time() < end, f"waited in vain: {what}"
        await asyncio.sleep(0.002)


async def settled(measure: Callable[[], int]) -> int:
    """Wait until a number has stopped changing: the same at 25 looks in a row."""
    seen = [measure()]

    def steady() -> bool:
        seen.append(measure())
        return len(seen) > 25 and len(set(seen[-25:])) == 1

    await until(steady, "nothing moves any more")
    return seen[-1]


def wire(text: str | bytes) -> bytes:
    """A str is lines, each given its CRLF; bytes are themselves."""
    return text if isinstance(text, bytes) else "".join(f"{line}\r\n" for line in text.split("\n")).encode()


class Peer:
    """One end of a connection that the test plays itself."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setblocking(False)
        self.heard = bytearray()
        """All that came, without trace ids at the end of refusals."""
        self.trace_ids: list[str] = []
        """Those, in order."""
        self.wire = bytearray()
        """All that came, as it came."""
        self.said = bytearray()
        """All that `say` has sent in clear."""
        self.was_reset = False
        self._at = 0
        self._loop = asyncio.get_running_loop()

    async def say(self, text: str | bytes) -> None:
        """Send all of it."""
        self.said += wire(text)
        async with asyncio.timeout(WAIT_SECONDS):
            await self._loop.sock_sendall(self.sock, wire(text))

    async def press(self, piece: bytes, met: Callable[[], object], most: int, *, blocked: bool = False) -> int:
        """Send the same again and again until the condition holds, or so many octets are sent. Octets sent.

        With `blocked`, the condition counts only while no octet more can be sent. AssertionError where none of it
        comes true in time.
        """
        sent = 0
        end = self._loop.time() + WAIT_SECONDS
        while sent < most and (blocked or not met()):
            assert self._loop.time() < end, f"blocked after {sent} octets"
            try:
                sent += self.sock.send(piece[sent % len(piece) :])
            except BlockingIOError:
                if blocked and met():
                    break
                await asyncio.sleep(0.002)
            else:
                await asyncio.sleep(0)
        return sent

    async def _more(self) -> bool:
        async with asyncio.timeout(WAIT_SECONDS):
            try:
                data = await self._loop.sock_recv(self.sock, PIECE)
            except ConnectionResetError:
                self.was_reset = True
                return False
        before = len(self.heard)
        self.wire += data
        self.heard += data
        self._without_ids(before)
        return bool(data)

    def _without_ids(self, before: int) -> None:
        """What came since then is heard without trace ids."""
        if len(self.heard) > before and self.heard.endswith(b")\r\n"):
            self.trace_ids += ids(bytes(self.heard[self._at :]))
            self.heard[self._at :] = without_ids(bytes(self.heard[self._at :]))

    async def line(self) -> bytes:
        """The next line, without its CRLF; b"" at the end."""
        return (await self.text(b"\r\n"))[:-2]

    async def reply(self) -> bytes:
        """The next reply, its lines joined by CRLF; b"" at the end."""
        lines = [await self.line()]
        while lines[-1][3:4] == b"-":
            lines.append(await self.line())
        return b"\r\n".join(lines)

    async def ask(self, text: str | bytes) -> bytes:
        """Say something and take one reply."""
        await self.say(text)
        return await self.reply()

    async def rest(self) -> bytes:
        """Everything until the other side closes."""
        while await self._more():
            pass
        rest, self._at = bytes(self.heard[self._at :]), len(self.heard)
        return rest

    async def text(self, end: bytes = b"\r\n.\r\n") -> bytes:
        """What comes up to and with the end of data."""
        start = looked = self._at
        while (found := self.heard.find(end, looked)) < 0:
            looked = max(start, len(self.heard) - len(end))
            if not await self._more():
                return b""
        self._at = found + len(end)
        return bytes(self.heard[start : self._at])

    def finish(self) -> None:
        """Send no more, still listen (as `nc -N` does)."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close in the usual way."""
        self.sock.close()

    def reset(self) -> None:
        """Close with a RST (SO_LINGER of zero seconds, socket(7))."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def codes(heard: bytes | bytearray) -> list[int]:
    """The codes of the replies in what a client heard: one for each reply, its last line's."""
    return [int(line[:3]) for line in bytes(heard).split(b"\r\n") if line[:3].isdigit() and line[3:4] != b"-"]


class Mx:
    """A server: listens, and gives its connections to the test, or has a model answer them."""

    def __init__(self, family: int = socket.AF_INET, where: str | tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.setblocking(False)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(where)
        self.listener.listen(128)
        self.peers: list[Peer] = []
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.listener.getsockname()[1])

    @property
    def address(self) -> Address:
        """As OutAddress has it."""
        name = self.listener.getsockname()
        return UnixAddress(name) if isinstance(name, str) else InetAddress(name[0], name[1])

    async def accept(self) -> Peer:
        """The next connection."""
        async with asyncio.timeout(WAIT_SECONDS):
            sock, _ = await asyncio.get_running_loop().sock_accept(self.listener)
        self.peers.append(Peer(sock))
        return self.peers[-1]

    async def greeted(self) -> Peer:
        """The next connection, with its greeting said."""
        peer = await self.accept()
        await peer.say("220 mx ESMTP")
        return peer

    def serve(self, model: Callable[[], Model]) -> None:
        """Answer every connection from now on by a model of its own."""
        self._start(self._accept_for(model))

    async def _accept_for(self, model: Callable[[], Model]) -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(self.listener)
            self.peers.append(Peer(sock))
            self._start(answer_by(self.peers[-1], model()))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for peer in self.peers:
            peer.close()
        self.listener.close()


class Model(Protocol):
    """What answers for a server: bytes in, bytes out."""

    def receive(self, data: bytes) -> bytes:
        """What it answers to these bytes."""


async def answer_by(peer: Peer, model: Model, greeting: bytes = b"220 mx ESMTP\r\n") -> None:
    """Let a model speak for a server until either side closes."""
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        await loop.sock_sendall(peer.sock, greeting)
        while data := await loop.sock_recv(peer.sock, PIECE):
            peer.heard += data
            if answer := model.receive(data):
                await loop.sock_sendall(peer.sock, answer)
                if answer.endswith(b"221 bye\r\n"):
                    break
    peer.close()


@dataclass
class ProxyHarness:
    """A running proxy: its workers, their listeners and shared table, and the clients that the test opened."""

    settings: Settings
    proxies: list[Proxy]
    admission: Admission
    listeners: list[socket.socket]
    running: list[asyncio.Task[None]]
    clients: list[Peer] = field(default_factory=list)
    errors_expected: bool = False

    @property
    def temp_directory(self) -> Path:
        """TempDirectory."""
        return Path(self.settings.temp_directory)

    @property
    def proxy(self) -> Proxy:
        """The first worker, usually the only one."""
        return self.proxies[0]

    async def client(self, listener: int = 0) -> Peer:
        """A client that has connected."""
        where = self.listeners[listener]
        sock = socket.socket(where.family, socket.SOCK_STREAM)
        sock.setblocking(False)
        peer = Peer(sock)
        self.clients.append(peer)
        await asyncio.get_running_loop().sock_connect(sock, where.getsockname())
        return peer

    async def empty(self) -> None:
        """Until the proxy has no connection any more."""
        await until(lambda: not any(self.admission.counts()), "every connection ended")

    async def ended(self) -> None:
        """Until every worker has ended by itself."""
        async with asyncio.timeout(WAIT_SECONDS):
            await asyncio.gather(*self.running)


class StartProxy(Protocol):
    """The fixture `start_proxy`."""

    def __call__(
        self, mx: Mx | Address | None, *listen: Address, workers: int = 1, **directives: Any
    ) -> AbstractAsyncContextManager[ProxyHarness]:
        """`mx` is OutAddress, `directives` are fields of Settings; without `listen`, 127.0.0.1 with any port."""


@asynccontextmanager
async def running_proxy(
    mx: Mx | Address | None,
    listen: Sequence[Address],
    temp_directory: Path,
    workers: int,
    directives: dict[str, Any],
) -> AsyncIterator[ProxyHarness]:
    """The proxy with its workers, and the check that it leaves nothing. `start_proxy` is the fixture of it."""
    before = descriptors()
    settings = Settings(
        listen=tuple(listen) or (InetAddress("127.0.0.1", 0),),
        out_address=mx.address if isinstance(mx, Mx) else mx,
        temp_directory=str(temp_directory),
        workers=workers,
        **directives,
    )
    listeners = open_listeners(settings)
    admission = Admission(settings.max_connections, workers)
    admission.prepare_filters(line.name for line in settings.filter)
    # One loop: each worker has descriptors of its own for the same sockets, as over fork.
    tls = worker_tls(settings, admission.tls_rejections)
    proxies = [Proxy(settings, [sock.dup() for sock in listeners], admission, row, tls=tls) for row in range(workers)]
    async with AsyncExitStack() as closing:
        for proxy in proxies:
            for sock in proxy._listeners:
                closing.callback(sock.close)
        running = [asyncio.create_task(proxy.run(), name="run") for proxy in proxies]
        harness = ProxyHarness(settings, proxies, admission, listeners, running)
        await asyncio.sleep(0)  # each has started to accept
        try:
            yield harness
        finally:
            for peer in harness.clients:
                peer.close()
            for proxy in proxies:
                proxy.stop()
            await harness.ended()
            for sock in listeners:
                sock.close()
    assert admission.counts() == [0] * workers
    assert not has_upstreams(admission), "connections that ended are still in the table"
    await nothing_left(before, temp_directory)


def has_upstreams(admission: Admission) -> bool:
    """Whether some connection of ours is in the table."""
    used = admission._header[_CHUNKS] * _CHUNK_BYTES
    return bool(bytes(admission._keys[:used]).strip(b"\0"))


async def nothing_left(before: dict[str, str], temp_directory: Path) -> None:
    """No task, process, descriptor or file of the proxy is there any more."""
    tasks: Callable[[], set[str]] = lambda: {  # noqa: E731  (asked for again in the message)
        task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith(("open", "dial", "run"))
    }
    await until(lambda: not tasks(), "no task is left")
    await until(lambda: not child_processes(), "no process is left")
    new = [kind for name, kind in descriptors().items() if before.get(name) != kind]
    assert not [kind for kind in new if kind.startswith(("pipe:", str(temp_directory), "anon_inode:[pidfd]"))], new
    assert not files(temp_directory)


def descriptors() -> dict[str, str]:
    """Descriptors of this process, and what each is. Not the lock of a table: that goes when the table is collected."""
    found = {}
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the list itself
            found[link.name] = str(link.readlink())
    of_the_table = (
        "/memfd:lock",
        "/memfd:admission",
        "anon_inode:[eventfd]",
    )  # its locks and bells live as long as it does
    return {name: kind for name, kind in found.items() if not kind.startswith(of_the_table)}


def files(folder: Path) -> list[str]:
    """What is in a folder."""
    return [path.name for path in folder.iterdir()]


def living() -> list[int]:
    """Processes of ours that run: what a worker that exits leaves to others."""
    states = {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in child_processes()}
    return [pid for pid, state in states.items() if state != "Z"]
