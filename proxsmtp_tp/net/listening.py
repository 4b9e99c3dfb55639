"""The sockets that clients connect to.

A port alone means two sockets, 0.0.0.0 and ::, each for its own IP version (IPV6_V6ONLY): so a client's address shows
its IP version, and a host without IPv6 opens only one. Every IPv6 socket is for IPv6 only.

With RuleMode tproxy or TransparentProxy full the sockets are transparent (IP_TRANSPARENT, ip(7)): they take
connections to addresses of other hosts. This needs CAP_NET_RAW.

Diagnostics: ListenError with the address and the fix; then no socket stays open.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.config.addresses import InetAddress, UnixAddress
from proxsmtp_tp.config.settings import RuleMode, TransparentProxy
from proxsmtp_tp.config.socket_names import socket_name
from proxsmtp_tp.net.original_destination import with_scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from proxsmtp_tp.config.settings import Settings

IPV6_TRANSPARENT = 75  # linux/in6.h; Python's socket module lacks it
_SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
# Every local user may connect, as to a port on loopback; the mode of the directory can restrict that.
_UNIX_MODE = 0o666


class ListenError(Exception):
    """A socket cannot be opened. The text names the address and the fix."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A socket to open. `optional`: the IPv6 socket of a port alone or of a name; a host without IPv6 has none."""

    family: socket.AddressFamily
    address: tuple[str, int] | str
    transparent: bool = False
    needs_transparent: bool = False
    optional: bool = False

    def __str__(self) -> str:
        """For people."""
        if isinstance(self.address, str):
            return self.address
        host, port = self.address
        return f"[{host}]:{port}" if self.family == socket.AF_INET6 else f"{host}:{port}"


Listeners = dict[Endpoint, socket.socket]


def open_listeners(settings: Settings) -> list[socket.socket]:
    """Bind and listen as `settings` say; non-blocking. Raises ListenError."""
    return list(renew_listeners(settings, {}).values())


def renew_listeners(settings: Settings, existing: Mapping[Endpoint, socket.socket]) -> Listeners:
    """Like `open_listeners`, but a socket that is already open is used again, with the clients in its queue.

    The caller closes those of `existing` whose socket is not in the result. Raises ListenError; `existing` is
    as before then.
    """
    backlog = _backlog()
    standing = {_key(old): (old, listener) for old, listener in existing.items()}
    with ExitStack() as undo:
        result: Listeners = {}
        for endpoint in endpoints(settings):
            old, kept = standing.get(_key(endpoint), (None, None))
            if old is not None and kept is not None:
                if endpoint.transparent and not old.transparent:
                    _make_transparent(kept, endpoint)
                result[endpoint] = kept
            elif (opened := _open(endpoint, backlog)) is not None:
                undo.callback(close_listeners, {endpoint: opened})
                result[endpoint] = opened
        if not result:
            raise ListenError(f"Listen {', '.join(map(str, settings.listen))}: no socket could be opened")
        undo.pop_all()
        return result


def _key(endpoint: Endpoint) -> tuple[int, object]:
    """A key that is the same for all notations of one address: ::1 and 0:0::1, fe80::1%eth0 and fe80::1%2."""
    if isinstance(endpoint.address, str):
        return endpoint.family, endpoint.address
    host, port = endpoint.address
    ip, _, scope = host.partition("%")
    with suppress(OSError):
        number = int(scope or 0) if scope.isdecimal() or not scope else socket.if_nametoindex(scope)
        return endpoint.family, (socket.inet_pton(endpoint.family, ip), number, port)
    return endpoint.family, endpoint.address


def adopt(descriptors: Iterable[int], settings: Settings) -> Listeners:
    """The sockets among these descriptors that `settings` ask for; for `renew_listeners`, as `existing`.

    The others stop listening first, also for processes that have copies of them: a socket on all addresses would block
    a bind to one of these addresses, and clients would wait in a queue that no process serves. Raises ListenError; then
    all of them stop.
    """
    kept = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    found: Listeners = {}
    unused: Listeners = {}
    try:
        wanted = {_key(endpoint) for endpoint in endpoints(settings)}
        for sock in kept:
            endpoint = endpoint_of(sock)
            if endpoint is not None and endpoint not in found:
                (found if _key(endpoint) in wanted else unused)[endpoint] = sock
                sock.setblocking(False)
    finally:
        used = set(found.values())
        stop_listening([sock for sock in kept if sock not in used])
        close_listeners(unused)
        for sock in kept:
            if sock not in used:
                sock.close()
    return found


def endpoint_of(sock: socket.socket) -> Endpoint | None:
    """The end point of a socket. None: it accepts no connections, or no client can reach it any more."""
    try:
        if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return None
        name = sock.getsockname()
        if sock.family == socket.AF_UNIX:
            return Endpoint(sock.family, name) if isinstance(name, str) and Path(name).is_socket() else None
        if sock.family == socket.AF_INET6:
            transparent = sock.getsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT)
        else:
            transparent = sock.getsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT)
    except OSError:
        return None
    return Endpoint(sock.family, (with_scope(name).ip, name[1]), bool(transparent))


def stop_listening(listeners: Iterable[socket.socket]) -> None:
    """Stop listening in all processes that have the sockets: a close leaves them open in others (inet(7), unix(7)).

    Clients in the queue of an Internet socket are reset by the kernel; those in the queue of a unix socket would wait
    until the last process closes it, so they are closed here. Later clients are refused, until a process binds the
    address again.
    """
    for listener in listeners:
        with suppress(OSError):  # stopped by another worker already
            listener.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):  # EINVAL or EAGAIN: the queue is empty
            while listener.family == socket.AF_UNIX:
                listener.accept()[0].close()


def close_listeners(listeners: Mapping[Endpoint, socket.socket]) -> None:
    """Close sockets, and remove the files of unix sockets where we may. Sockets that are closed already are ignored."""
    for endpoint, listener in listeners.items():
        if listener.fileno() == -1:
            continue
        listener.close()
        if isinstance(endpoint.address, str):
            with suppress(OSError):  # User may not write to the folder: the next start removes the socket
                Path(endpoint.address).unlink()


def endpoints(settings: Settings) -> list[Endpoint]:
    """The sockets that `settings` ask for, in their order, each once. Looks names up. Raises ListenError."""
    needed = settings.rule_mode is RuleMode.TPROXY
    transparent = needed or settings.transparent_proxy is TransparentProxy.FULL
    found = [
        Endpoint(family, address, transparent, needed, optional)
        for where in settings.listen
        if isinstance(where, InetAddress)
        for family, address, optional in _inet(where)
    ]
    found += [Endpoint(socket.AF_UNIX, where.path) for where in settings.listen if isinstance(where, UnixAddress)]
    return list(dict.fromkeys(found))


def _inet(where: InetAddress) -> Iterable[tuple[socket.AddressFamily, tuple[str, int], bool]]:
    if where.port_only:
        every, every6 = ("0.0.0.0", where.port), ("::", where.port)  # noqa: S104  (what a port alone means)
        return [(socket.AF_INET, every, False), (socket.AF_INET6, every6, True)]
    if ":" in where.host:
        return [(socket.AF_INET6, (where.host, where.port), False)]
    try:
        found = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ListenError(f"Listen {where}: the name is unknown ({error}): give an IP address") from None
    both = len({family for family, *_ in found}) > 1
    return [
        (family, (with_scope(address).ip, where.port), both and family == socket.AF_INET6)
        for family, _, _, _, address in found
    ]


def _open(endpoint: Endpoint, backlog: int) -> socket.socket | None:
    """Open a socket. None: this host has no IPv6, and this endpoint does not need it."""
    with ExitStack() as undo:
        try:
            listener = undo.enter_context(socket.socket(endpoint.family, socket.SOCK_STREAM))
            _prepare(listener, endpoint)
            _bind(listener, endpoint)
            listener.listen(backlog)
        except OSError as error:
            if endpoint.optional and error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
                return None
            raise ListenError(f"Listen {endpoint}: {_explain(endpoint, error)}") from None
        undo.pop_all()
        return listener


def _prepare(listener: socket.socket, endpoint: Endpoint) -> None:
    listener.setblocking(False)
    if isinstance(endpoint.address, str):
        _remove_dead(endpoint.address)
        return
    listener.setsockopt(
        socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
    )  # otherwise connections in TIME_WAIT prevent a restart
    if endpoint.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if endpoint.transparent:
        _make_transparent(listener, endpoint)


def _bind(listener: socket.socket, endpoint: Endpoint) -> None:
    if not isinstance(endpoint.address, str):
        listener.bind(socket_name(*endpoint.address))
        return
    os.fchmod(
        listener.fileno(), _UNIX_MODE
    )  # the file that bind makes gets this mode at once, without the bits of the umask
    mask = os.umask(0)
    try:
        listener.bind(endpoint.address)
    finally:
        os.umask(mask)


def _make_transparent(listener: socket.socket, endpoint: Endpoint) -> None:
    try:
        if endpoint.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        else:
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
    except PermissionError:
        # Under redirect the connections come to our own address: a listener that is not transparent takes
        # them.
        if endpoint.needs_transparent:
            raise ListenError(
                f"Listen {endpoint}: RuleMode tproxy needs CAP_NET_RAW here: start as root, with User to drop"
                " the rest, or write RuleMode: redirect"
            ) from None


def _remove_dead(path: str) -> None:
    """Remove a socket file on which no process listens, as a killed daemon leaves it. Never remove anything else."""
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            return  # bind says that the address is in use
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
        except BlockingIOError:
            pass  # its queue is full: a process listens on it


def _backlog() -> int:
    """The longest queue that the kernel allows (listen(2)): clients wait in it while a reload replaces the workers."""
    try:
        return int(_SOMAXCONN.read_text())
    except (OSError, ValueError):
        return socket.SOMAXCONN


def _explain(endpoint: Endpoint, error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE and isinstance(endpoint.address, str):
        return f"{reason}: another program listens there, or it is no socket: `ss -xlp` names it"
    if error.errno == errno.EADDRINUSE:
        return f"{reason}: another program has this port: `ss -ltnp 'sport = :{endpoint.address[1]}'` names it"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{reason}: this machine has no such address: `ip address` shows those it has"
    if error.errno == errno.EACCES and isinstance(endpoint.address, str):
        return f"{reason}: the user may not make a socket in that folder"
    if error.errno == errno.EACCES:
        return f"{reason}: ports below 1024 need CAP_NET_BIND_SERVICE: start as root, or take a higher one"
    return reason
