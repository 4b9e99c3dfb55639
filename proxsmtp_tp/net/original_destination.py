"""Where a client wanted to go before the firewall turned its connection to us.

Under REDIRECT the kernel's connection tracking knows: getsockopt(SOL_IP, SO_ORIGINAL_DST) and
getsockopt(SOL_IPV6, IP6T_SO_ORIGINAL_DST), linux/netfilter_ipv4.h and linux/netfilter_ipv6/ip6_tables.h. Under TPROXY
the socket's own name is the destination, and no connection tracking is needed
(Documentation/networking/tproxy.rst). Which of the two it was shows in the connection itself, so rules loaded by hand
work as well as ours.

The family of the socket says nothing: a dual-stack listener gives v4 clients as mapped addresses, and their original
destination is then an IPv4 matter.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Any, NamedTuple

SO_ORIGINAL_DST = 80
"""The same number at SOL_IP and SOL_IPV6; Python's socket module has neither."""

_SOCKADDR_IN = struct.Struct("!2xH4s8x")
"""struct sockaddr_in: sin_family (host order, skipped), sin_port, sin_addr, padding."""

_SOCKADDR_IN6 = struct.Struct("!2xHI16sI")
"""struct sockaddr_in6: sin6_family (skipped), sin6_port, sin6_flowinfo, sin6_addr, sin6_scope_id."""

_MAPPED = "::ffff:"


class Endpoint(NamedTuple):
    """An IP address without brackets or v4 mapping, and a TCP port. Only what is to be dialled has a scope."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class NoDestinationError(Exception):
    """This connection can not be relayed anywhere; the text says why, for the log."""


def endpoint(name: tuple[str | int, ...]) -> Endpoint:
    """What getsockname or getpeername returned, with a mapped v4 address as the v4 address that it is."""
    ip = str(name[0]).partition("%")[0]
    if ip.startswith(_MAPPED) and "." in ip:
        ip = ip[len(_MAPPED) :]
    return Endpoint(ip, int(name[1]))


def with_scope(name: tuple[Any, ...]) -> Endpoint:
    """The same with the scope without which a link-local address cannot be dialled: fe80::1%2."""
    ip, port = endpoint(name)
    scope = name[3] if len(name) > 3 else 0
    return Endpoint(f"{ip}%{scope}" if scope else ip, port)


def decode_sockaddr_in(raw: bytes) -> Endpoint:
    """An Endpoint from the 16 bytes of a struct sockaddr_in."""
    port, address = _SOCKADDR_IN.unpack(raw[: _SOCKADDR_IN.size])
    return Endpoint(socket.inet_ntop(socket.AF_INET, address), port)


def decode_sockaddr_in6(raw: bytes) -> Endpoint:
    """An Endpoint from the 28 bytes of a struct sockaddr_in6."""
    port, _flow, address, _scope = _SOCKADDR_IN6.unpack(raw[: _SOCKADDR_IN6.size])
    return Endpoint(socket.inet_ntop(socket.AF_INET6, address), port)


def before_redirect(sock: socket.socket, own: Endpoint) -> Endpoint | None:
    """What connection tracking knows of the destination; None where it knows nothing of this connection."""
    try:
        if ":" in own.ip:
            return decode_sockaddr_in6(sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, _SOCKADDR_IN6.size))
        return decode_sockaddr_in(sock.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, _SOCKADDR_IN.size))
    except OSError:  # ENOENT: not tracked; ENOPROTOOPT: no connection tracking in this kernel
        return None


def is_local(address: Endpoint) -> bool:
    """Whether the address is one of this box's own: the kernel then chooses it as its own source too."""
    if ipaddress.ip_address(address.ip).is_loopback:
        return True  # 127.0.0.2 is ours as well, but 127.0.0.1 is what the kernel chooses
    family = socket.AF_INET6 if ":" in address.ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address.ip, address.port))  # a datagram socket: nothing is sent
        except OSError:
            return False
        return endpoint(probe.getsockname()).ip == address.ip


def original_destination(sock: socket.socket, listening_ports: frozenset[int]) -> Endpoint:
    """Where the client of an accepted connection wanted to go.

    `listening_ports` are our own listeners' ports. Raises NoDestinationError for a connection that nobody
    redirected, and for one that was made to ourselves: relaying it would be a loop.
    """
    own = endpoint(sock.getsockname())
    destination = own
    if own.port in listening_ports:
        tracked = before_redirect(sock, own)
        if tracked is not None and tracked != own:
            destination = tracked
        elif is_local(own):
            known = "it was made to our listener directly" if tracked else "connection tracking does not know it"
            raise NoDestinationError(f"connection to {own} has no original destination: {known}")
    if destination.port in listening_ports and is_local(destination):
        raise NoDestinationError(f"original destination {destination} is our own listener: that would be a loop")
    return destination
