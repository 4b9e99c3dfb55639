"""Full transparent mode: the source of the upstream connection is the client's address, with a port of our choice.

Binding to the client's address (IP_TRANSPARENT, ip(7); IPV6_TRANSPARENT, linux/in6.h) needs CAP_NET_RAW. The port must
not be that of one of the client's own connections to this server: with the same two end points, connection tracking
takes our packets for the client's, and NAT sends them back to our listener. connect(2) does not know the client's
connections when it chooses a port, so we choose it: from net.ipv4.ip_local_port_range, without
net.ipv4.ip_local_reserved_ports (Documentation/networking/ip-sysctl.rst). With SO_REUSEADDR (socket(7)) connections to
different servers may share a port, so a busy client address does not run out of ports.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxsmtp_tp.net.original_destination import Endpoint

IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75

PORT_TAKEN = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL})
"""Errors of bind(2) and connect(2) for a port that is in use towards this server."""

TRIES = 256
"""Ports tried for one connection. With nine of ten ports in use, one of 10 ** 11 connections finds none."""

_SETTINGS = Path("/proc/sys/net/ipv4")
_NAMES = ("ip_local_port_range", "ip_local_reserved_ports")
_SIZE_MAX = 1 << 20
"""Octets of a list of reserved ports: every second one of 65536 with its comma, and more."""
_USUAL_RANGE = range(32768, 61000)  # the kernel's own default


class PortSettings:
    """The kernel's settings for one worker: its files stay open, so that a look takes two system calls."""

    def __init__(self) -> None:
        self._files: tuple[int, ...] | None = None
        self._said: tuple[bytes, ...] = ()
        self._meaning: tuple[range, tuple[range, ...]] = _USUAL_RANGE, ()

    def __call__(self) -> tuple[range, tuple[range, ...]]:
        """What `port_range` and `reserved_ports` return now."""
        if self._files is None:
            try:
                self._files = tuple(os.open(_SETTINGS / name, os.O_RDONLY | os.O_CLOEXEC) for name in _NAMES)
            except OSError:
                return port_range(), reserved_ports()
        said = tuple([os.pread(file, _SIZE_MAX, 0) for file in self._files])
        if said != self._said:
            self._meaning = _range(said[0].decode("ascii", "replace")), _reserved(said[1].decode("ascii", "replace"))
            self._said = said
        return self._meaning

    def close(self) -> None:
        """The worker ends. Idempotent."""
        files, self._files = self._files or (), None
        for file in files:
            os.close(file)


class Source:
    """One client's address; `taken(ours, theirs)` says whether the client has a connection with these end points."""

    def __init__(
        self,
        ip: str,
        taken: Callable[[tuple[str, int], tuple[str, int]], bool],
        settings: Callable[[], tuple[range, tuple[range, ...]]] | None = None,
    ) -> None:
        """`settings`: the port range and the reserved ports; None: they are read now."""
        self.ip = ip
        self._taken = taken
        self._settings = settings

    def ports(self, target: Endpoint) -> Iterator[int]:
        """Ports to try towards this target, in random order: at most TRIES."""
        allowed, reserved = self._settings() if self._settings is not None else (port_range(), reserved_ports())
        start = secrets.randbelow(len(allowed))
        for step in range(min(len(allowed), TRIES)):
            few = len(allowed) <= TRIES
            port = allowed[(start + step) % len(allowed) if few else secrets.randbelow(len(allowed))]
            if not any(port in part for part in reserved) and not self._taken((self.ip, port), target):
                yield port

    def bind(self, sock: socket.socket, port: int) -> None:
        """Bind a socket to the client's address and this port. Raises OSError."""
        make_transparent(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self.ip, port))


def make_transparent(sock: socket.socket) -> None:
    """Allow a socket to bind to an address that is not this host's. Raises PermissionError without CAP_NET_RAW."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)


def port_range() -> range:
    """net.ipv4.ip_local_port_range."""
    try:
        return _range((_SETTINGS / _NAMES[0]).read_text("ascii"))
    except (OSError, ValueError):
        return _USUAL_RANGE


def _range(text: str) -> range:
    try:
        first, last = text.split()
        return range(int(first), int(last) + 1)
    except ValueError:
        return _USUAL_RANGE


def reserved_ports() -> tuple[range, ...]:
    """net.ipv4.ip_local_reserved_ports."""
    try:
        return _reserved((_SETTINGS / _NAMES[1]).read_text("ascii"))
    except OSError:
        return ()


def _reserved(text: str) -> tuple[range, ...]:
    ends = [part.partition("-") for part in text.strip().split(",") if part]
    return tuple(range(int(first), int(last or first) + 1) for first, _, last in ends)
