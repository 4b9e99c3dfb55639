"""The upstream connection: to the original destination, to OutAddress, or back to the client.

Every address of a host name is tried in the resolver's order, each for at most ConnectTimeOut. In full transparent mode
the connection comes from the client's own address and a port that it does not use itself towards this server
(`source_port`).
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import select
import socket
from functools import lru_cache
from typing import TYPE_CHECKING

from proxsmtp_tp.config.addresses import UnixAddress
from proxsmtp_tp.config.socket_names import socket_name
from proxsmtp_tp.net.original_destination import Endpoint, endpoint, with_scope
from proxsmtp_tp.net.refusals import UNREACHABLE
from proxsmtp_tp.net.source_port import PORT_TAKEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.config.addresses import Address
    from proxsmtp_tp.net.source_port import Source


class DialError(Exception):
    """No address could be reached; the text names each with its reason.

    `unreachable`: the addresses that refused the connection or gave no answer.
    """

    def __init__(self, text: str, unreachable: tuple[Endpoint, ...] = ()) -> None:
        super().__init__(text)
        self.unreachable = unreachable


@lru_cache(8)
def literal(address: Address) -> Endpoint | str | None:
    """What a configured address means without a look-up. None: it is a host name."""
    if isinstance(address, UnixAddress):
        return address.path
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        return None
    return Endpoint(address.host, address.port)


async def candidates(address: Address) -> list[Endpoint | str]:
    """What to try for a configured address, in order: end points, or the path of a unix socket."""
    if (known := literal(address)) is not None:
        return [known]
    if isinstance(address, UnixAddress):
        raise TypeError("a unix socket has no name to look up")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise DialError(f"{address.host}: {error.strerror or error}") from error
    return list(dict.fromkeys(with_scope(name) for *_, name in found))


def open_socket(target: Endpoint | str) -> socket.socket:
    """A non-blocking socket for this target."""
    family = socket.AF_UNIX if isinstance(target, str) else socket.AF_INET6 if ":" in target.ip else socket.AF_INET
    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


def _begin(target: Endpoint | str, source: Source | None) -> tuple[socket.socket, bool]:
    """Begin to connect a socket to the target; return it, and whether the connection is not ready yet. Raises
    OSError.
    """
    ports = source.ports(target) if source is not None and isinstance(target, Endpoint) else (None,)
    for port in ports:
        sock = open_socket(target)
        try:
            if source is not None and port is not None:
                source.bind(sock, port)
            error = sock.connect_ex(target if isinstance(target, str) else socket_name(*target))
            if error not in {0, errno.EINPROGRESS}:
                raise OSError(error, os.strerror(error))
        except BaseException as refused:
            sock.close()
            if port is not None and isinstance(refused, OSError) and refused.errno in PORT_TAKEN:
                continue
            raise
        return sock, bool(error)
    raise OSError(errno.EADDRNOTAVAIL, "no source port is free for this server (net.ipv4.ip_local_port_range)")


Dialled = tuple[socket.socket, str] | Exception
"""What `Dialling` has as its result."""


class Waiting:
    """Tells when the connecting sockets of one worker are connected. For one time limit, so one timer is enough.

    The sockets are in an epoll(7) set of their own, each for one event. `loop.add_writer` would need eight system calls
    for each socket, and this needs two.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, time_out: float) -> None:
        """`time_out` in seconds (ConnectTimeOut). Call `close` at the end."""
        self.time_out = time_out
        self._loop = loop
        self._epoll: select.epoll | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[int, tuple[float, socket.socket, Callable[[OSError | None], None]]] = {}
        """By descriptor, in the order of their time limits, which are the first values."""

    def add(self, sock: socket.socket, decided: Callable[[OSError | None], None]) -> None:
        """`decided` gets None once `sock` is connected, or why it is not: TimeoutError after the time limit."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._loop.add_reader(self._epoll.fileno(), self._look)
        self._epoll.register(sock.fileno(), select.EPOLLOUT | select.EPOLLONESHOT)
        self._waiting[sock.fileno()] = self._loop.time() + self.time_out, sock, decided
        if self._timer is None:
            self._timer = self._loop.call_later(self.time_out, self._expire)

    def remove(self, sock: socket.socket) -> None:
        """Do not wait for it any more. Call this before it is closed. Idempotent."""
        if self._waiting.pop(sock.fileno(), None) is not None and self._epoll is not None:
            self._epoll.unregister(sock.fileno())

    def close(self) -> None:
        """Wait for nothing more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
        self._waiting.clear()

    def _look(self) -> None:
        events = self._epoll.poll(0) if self._epoll is not None else []
        for descriptor, event in events:
            found = self._waiting.pop(descriptor, None)
            if found is None:  # removed by the callback of another one
                continue
            _, sock, decided = found
            error = 0
            if event & (select.EPOLLERR | select.EPOLLHUP):
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            decided(OSError(error, os.strerror(error)) if error else None)

    def _expire(self) -> None:
        self._timer = None
        while self._waiting:
            until, sock, decided = next(iter(self._waiting.values()))
            left = until - self._loop.time()
            if left > 0:
                self._timer = self._loop.call_later(left, self._expire)
                return
            self.remove(sock)
            decided(TimeoutError())


class Dialling:
    """Connects to the first target that answers. `done` gets the socket, and the server's IP address ("" for a unix
    socket), or DialError, or a bug. It is not called after `cancel`.

    `started` gets each socket and its target, once its own end point is chosen and before the server has answered, so
    that a connection that the firewall redirects back to us can be recognised.
    """

    __slots__ = ("_done", "_failures", "_left", "_sock", "_source", "_started", "_target", "_unreachable", "_waiting")

    def __init__(
        self,
        targets: list[Endpoint | str],
        waiting: Waiting,
        source: Source | None,
        started: Callable[[socket.socket, Endpoint | str], None],
        done: Callable[[Dialled], None],
    ) -> None:
        self._left = iter(targets)
        self._waiting = waiting
        self._source = source
        self._started = started
        self._done = done
        self._target: Endpoint | str = ""
        self._sock: socket.socket | None = None
        self._failures: list[str] = []
        self._unreachable: list[Endpoint] = []

    def begin(self) -> None:
        """Try the targets that are left. Raises nothing; `done` may be called before this returns."""
        try:
            found = self._try()
        except Exception as error:  # noqa: BLE001  (a bug: whoever gets the result reports it)
            self._close()
            found = error
        if found is not None:
            self._done(found)

    def _try(self) -> Dialled | None:
        """None: the present target has not answered yet."""
        for target in self._left:
            self._target = target
            try:
                self._sock, pending = _begin(target, self._source)
                self._started(self._sock, target)
                if pending:
                    self._waiting.add(self._sock, self._decided)
            except OSError as error:
                self._failed(error)
            else:
                return None if pending else self._connected()
        text = "; ".join(self._failures) or "the name has no address"
        return DialError(text, tuple(self._unreachable))

    def cancel(self) -> None:
        """Give up. Idempotent."""
        self._close()

    def _decided(self, error: OSError | None) -> None:
        if error is None:
            self._done(self._connected())
        else:
            self._failed(error)
            self.begin()

    def _connected(self) -> tuple[socket.socket, str]:
        sock, self._sock, target = self._sock, None, self._target
        if sock is None:
            raise RuntimeError("nothing was dialled")
        return sock, endpoint(target).ip if isinstance(target, Endpoint) else ""

    def _failed(self, error: OSError) -> None:
        self._close()
        silent = isinstance(error, TimeoutError)
        said = f"no answer within {self._waiting.time_out:g} s (ConnectTimeOut)" if silent else error.strerror or error
        self._failures.append(f"{self._target}: {said}")
        if isinstance(self._target, Endpoint) and (silent or error.errno in UNREACHABLE):
            self._unreachable.append(self._target)

    def _close(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._waiting.remove(sock)
            sock.close()


async def dial(
    targets: list[Endpoint | str],
    *,
    source: Source | None,
    time_out: float,
    started: Callable[[socket.socket, Endpoint | str], None],
) -> tuple[socket.socket, str]:
    """What `Dialling` does, with the limit `time_out` (seconds) for each target. Raises DialError."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Dialled] = loop.create_future()

    def done(found: Dialled) -> None:
        if not result.done():
            result.set_result(found)
        elif isinstance(found, tuple):  # cancelled, and this coroutine has not run since
            found[0].close()

    waiting = Waiting(loop, time_out)
    dialling = Dialling(targets, waiting, source, started, done)
    try:
        dialling.begin()
        found = await result
    except asyncio.CancelledError:
        if result.done() and not result.cancelled() and not isinstance(connected := result.result(), Exception):
            connected[0].close()
        raise
    finally:
        dialling.cancel()
        waiting.close()
    if isinstance(found, Exception):
        raise found
    return found
