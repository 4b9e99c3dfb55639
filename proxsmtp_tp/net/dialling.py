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
import socket
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


async def candidates(address: Address) -> list[Endpoint | str]:
    """What to try for a configured address, in order: end points, or the path of a unix socket."""
    if isinstance(address, UnixAddress):
        return [address.path]
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        pass
    else:
        return [Endpoint(address.host, address.port)]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise DialError(f"{address.host}: {error.strerror or error}") from error
    return list(dict.fromkeys(with_scope(name) for *_, name in found))


def open_socket(target: Endpoint | str) -> socket.socket:
    """A non-blocking socket for this target."""
    if isinstance(target, str):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        sock = socket.socket(socket.AF_INET6 if ":" in target.ip else socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


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


async def dial(
    targets: list[Endpoint | str],
    *,
    source: Source | None,
    time_out: float,
    started: Callable[[socket.socket, Endpoint | str], None],
) -> tuple[socket.socket, str]:
    """Connect to the first target that answers: the socket, and the server's IP address ("" for a unix socket).

    `started` gets each socket and its target, once its own end point is chosen and before the server has answered, so
    that a connection that the firewall redirects back to us can be recognised. Raises DialError.
    """
    failures = []
    unreachable: list[Endpoint | str] = []
    for target in targets:
        sock: socket.socket | None = None
        try:
            sock, pending = _begin(target, source)
            started(sock, target)
            if pending:
                await asyncio.wait_for(_connected(sock), time_out)
        except TimeoutError:
            failures.append(f"{target}: no answer within {time_out:g} s (ConnectTimeOut)")
            unreachable.append(target)
        except OSError as error:
            failures.append(f"{target}: {error.strerror or error}")
            if error.errno in UNREACHABLE:
                unreachable.append(target)
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        else:
            return sock, endpoint(target).ip if isinstance(target, Endpoint) else ""
        if sock is not None:
            sock.close()
    found = tuple(target for target in unreachable if isinstance(target, Endpoint))
    raise DialError("; ".join(failures) or "the name has no address", found)


async def _connected(sock: socket.socket) -> None:
    """Wait until connect(2) has finished: the socket becomes writable, and SO_ERROR has the result."""
    loop = asyncio.get_running_loop()
    decided = loop.create_future()

    def ready() -> None:
        if not decided.done():  # it may have been cancelled, or be called twice
            decided.set_result(None)

    loop.add_writer(sock.fileno(), ready)
    try:
        await decided
    finally:
        loop.remove_writer(sock.fileno())
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))
