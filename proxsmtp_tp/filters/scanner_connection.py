"""The connection to a scanner (asyncio's Protocol callbacks).

Every address of a host name is tried in the resolver's order; each gets an equal share of the time. A unix socket with
a full queue gives EAGAIN (connect(2)): it is tried again until the time has passed.

`freed` is called once, from the event loop, when neither a socket nor a task is left. After `quit` or `abort` the owner
gets no more calls.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Any, Protocol

from proxsmtp_tp.config.addresses import UnixAddress
from proxsmtp_tp.config.socket_names import socket_name
from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.filters.scanner_dialogue import QUIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.config.addresses import Address

OUTPUT_HIGH = 64 * 1024
"""Octets that may wait for the scanner before no more are written."""
OUTPUT_LOW = 16 * 1024
"""Octets below which more are written, so that the scanner always has input."""

QUIT_GRACE = 5.0
"""Seconds to wait for the reply to QUIT. Without the wait, the scanner would log a lost connection."""

BUSY_PAUSE = 0.05
"""Seconds after which a unix socket with a full queue is tried again."""


class ScannerOwner(Protocol):
    """The user of a connection. Called from the event loop."""

    def scanner_data(self, data: bytes) -> None:
        """Bytes from the scanner."""

    def scanner_flow(self) -> None:
        """`stalled` has changed."""

    def scanner_unreachable(self, reason: str) -> None:
        """The connection failed."""

    def scanner_lost(self, reason: str) -> None:
        """The connection was lost."""

    def failed(self, error: Exception) -> None:
        """A bug, here or in a call to the owner. The connection is closed; nothing else comes."""


class ScannerConnection(asyncio.Protocol):
    """A connection for one message. `time_out`, in seconds, is for all addresses together."""

    def __init__(self, address: Address, time_out: float, owner: ScannerOwner, freed: Callable[[], None]) -> None:
        self.stalled = False
        """Whether the scanner does not read what was written."""
        self._loop = asyncio.get_running_loop()
        self._owner: ScannerOwner | None = owner
        self._freed = freed
        self._transport: Any = None
        self._handed_over = False
        self._made = False
        self._grace: asyncio.TimerHandle | None = None
        self._opening = self._loop.create_task(self._open(address, time_out), name=f"dial scanner {address}")
        self._opening.add_done_callback(self._opened)

    # Methods for the owner.

    def write(self, data: bytes) -> None:
        """Send bytes. Call it only after the scanner has sent something."""
        if data:
            self._transport.write(data)

    @property
    def unsent(self) -> bool:
        """Whether a part of what was written is still in our own buffer."""
        return bool(self._transport is not None and self._transport.get_write_buffer_size())

    def quit(self) -> None:
        """Send QUIT and close. Call it only between commands. If the scanner does not read, close without QUIT."""
        self._owner = None
        if self._transport is None or self._transport.is_closing() or self.unsent:
            self.abort()
            return
        self._transport.write(QUIT)
        self._grace = self._loop.call_later(QUIT_GRACE, self._transport.abort)

    def abort(self) -> None:
        """Close at once, without sending the rest. Idempotent."""
        self._owner = None
        # Do not close a transport that is being made: uvloop would leave a socket object whose descriptor may already
        # belong to another socket when it is collected. `connection_made` closes it.
        if self._made:
            self._transport.abort()
        elif not self._handed_over:
            self._opening.cancel()

    def failed(self, error: Exception) -> None:
        """CallbackOwner."""
        owner = self._owner
        if owner is not None:
            owner.failed(error)
        self.abort()
        if owner is None:
            raise error  # nobody waits for it any more: the event loop logs it

    # Connecting.

    async def _open(self, address: Address, time_out: float) -> None:
        sock = await dial(address, time_out)
        self._handed_over = True
        try:
            await self._loop.create_connection(lambda: self, sock=sock)
        except OSError:
            self._handed_over = False
            sock.close()
            raise
        self._made = True
        if self._owner is None and self._grace is None:
            self._transport.abort()

    @callback
    def _opened(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            error: BaseException | None = None
        else:
            error = task.exception()
            if error is None:
                return
        if self._handed_over:
            return  # connection_lost will come
        self._freed()
        if error is not None and not isinstance(error, OSError | UnicodeError):  # a name may be no domain name
            raise error
        if self._owner is not None:
            self._owner.scanner_unreachable(str(error or "cancelled"))
            self._owner = None

    # asyncio.Protocol.

    @callback
    def connection_made(self, transport: Any) -> None:
        """The connection is established."""
        self._transport = transport
        transport.set_write_buffer_limits(high=OUTPUT_HIGH, low=OUTPUT_LOW)

    @callback
    def data_received(self, data: bytes) -> None:
        """Bytes from the scanner. After QUIT any reply means that the connection can be closed."""
        if self._owner is not None:
            self._owner.scanner_data(data)
        elif self._grace is not None:
            self._transport.close()

    @callback
    def eof_received(self) -> None:
        """The scanner sends no more, so it can give no verdict: close without sending the rest."""
        if self._made:
            self._transport.abort()

    @callback
    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        if self._grace is not None:
            self._grace.cancel()
        self._freed()
        if self._owner is not None:
            self._owner.scanner_lost(_reason(exc) if isinstance(exc, OSError) else "end of file")
            self._owner = None

    @callback
    def pause_writing(self) -> None:
        """The scanner does not read fast enough."""
        self._set_stalled(True)

    @callback
    def resume_writing(self) -> None:
        """The scanner reads again."""
        self._set_stalled(False)

    def _set_stalled(self, stalled: bool) -> None:
        self.stalled = stalled
        if self._owner is not None:
            self._owner.scanner_flow()


async def dial(address: Address, time_out: float) -> socket.socket:
    """A connected socket, non-blocking. Raises OSError, whose text names every address tried and why it failed."""
    failures: list[str] = []
    targets = await _targets(address)
    for family, name in targets:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(time_out / len(targets)):
                await _connect(sock, name)
        except TimeoutError:
            failures.append(f"{_shown(name)}: no answer")
        except OSError as error:
            failures.append(f"{_shown(name)}: {_reason(error)}")
        except BaseException:
            sock.close()
            raise
        else:
            return sock
        sock.close()
    raise OSError("; ".join(failures) or f"{address}: the name has no address")


async def _connect(sock: socket.socket, name: Any) -> None:
    while True:
        pending = sock.connect_ex(name)
        if pending != errno.EAGAIN:
            break
        await asyncio.sleep(BUSY_PAUSE)
    if pending == errno.EINPROGRESS:
        await _writable(sock)
        pending = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if pending:
        raise OSError(pending, os.strerror(pending))


async def _writable(sock: socket.socket) -> None:
    """Wait until connect(2) has finished: after EINPROGRESS the socket becomes writable."""
    loop = asyncio.get_running_loop()
    decided = asyncio.Event()
    loop.add_writer(sock.fileno(), decided.set)
    try:
        await decided.wait()
    finally:
        loop.remove_writer(sock.fileno())


async def _targets(address: Address) -> list[tuple[int, Any]]:
    """Families and socket names to connect to, in order. A name is looked up, an address is not."""
    if isinstance(address, UnixAddress):
        return [(socket.AF_UNIX, address.path)]
    try:
        version = ipaddress.ip_address(address.host).version
    except ValueError:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise OSError(f"{address.host}: {_reason(error)}") from error
        return list(dict.fromkeys((int(family), name) for family, _, _, _, name in found))
    return [(socket.AF_INET6 if version == 6 else socket.AF_INET, socket_name(address.host, address.port))]


def _shown(name: Any) -> str:
    return name if isinstance(name, str) else f"{name[0]}:{name[1]}"


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
