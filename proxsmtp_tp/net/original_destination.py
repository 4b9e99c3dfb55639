"""The address that a client dialled before the firewall redirected its connection to us.

Under REDIRECT the kernel's connection tracking knows: getsockopt(SOL_IP, SO_ORIGINAL_DST) and
getsockopt(SOL_IPV6, IP6T_SO_ORIGINAL_DST), linux/netfilter_ipv4.h and linux/netfilter_ipv6/ip6_tables.h. Under TPROXY
the socket's own name is the destination, and no connection tracking is needed
(Documentation/networking/tproxy.rst). The connection itself shows which of the two it was, so rules loaded by
hand work as well as ours.

The family of the socket is not enough: a dual-stack listener shows IPv4 clients with mapped addresses, and their
original destination is an IPv4 address. A mapped address in an IPv6 packet is different: connect(2) would connect to
the IPv4 address, although no rule for IPv4 has seen the packet. Here it stays a mapped address, and is refused
(`refused_destinations`).
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from proxsmtp_tp.net.refused_destinations import RecentAnswers, why_refused
from proxsmtp_tp.smtp.answers import DESTINATION_REFUSED, NO_DESTINATION

if TYPE_CHECKING:
    from proxsmtp_tp.smtp.replies import Reply

SO_ORIGINAL_DST = 80
"""The same number at SOL_IP and SOL_IPV6; Python's socket module has neither."""

_SOCKADDR_IN = struct.Struct("!2xH4s8x")
"""struct sockaddr_in: sin_family (host order, skipped), sin_port, sin_addr, padding."""

_SOCKADDR_IN6 = struct.Struct("!2xHI16sI")
"""struct sockaddr_in6: sin6_family (skipped), sin6_port, sin6_flowinfo, sin6_addr, sin6_scope_id."""

_MAPPED: Final = "::ffff:"


class Endpoint(NamedTuple):
    """An IP address without brackets and v4 mapping, and a TCP port. Only addresses to be dialled have a scope."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


Ends = tuple[Endpoint, Endpoint | None]
"""The own name of a socket, and the destination before a redirect."""


class NoDestinationError(Exception):
    """This connection cannot be relayed; the text says why, for the log."""

    reply: ClassVar[Reply] = NO_DESTINATION
    """The reply to the client."""


class RefusedDestinationError(NoDestinationError):
    """The client asked for an address that is not dialled."""

    reply: ClassVar[Reply] = DESTINATION_REFUSED


def endpoint(name: tuple[str | int, ...]) -> Endpoint:
    """What getsockname or getpeername returned, with a mapped v4 address as the v4 address that it is."""
    ip = str(name[0])
    if ":" in ip:
        ip = ip.partition("%")[0]
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
    """The destination that connection tracking has recorded; None if it has not recorded this connection."""
    try:
        if ":" in own.ip:
            return decode_sockaddr_in6(sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, _SOCKADDR_IN6.size))
        return decode_sockaddr_in(sock.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, _SOCKADDR_IN.size))
    except OSError:  # ENOENT: not tracked; ENOPROTOOPT: no connection tracking in this kernel
        return None


def own_name(sock: socket.socket, name: tuple[Any, ...] | None = None) -> Endpoint:
    """The address that the client sends to; with TPROXY it may belong to any host. `name`: what getsockname gave."""
    if name is None:
        name = sock.getsockname()
    if str(name[0]).startswith(_MAPPED) and not _came_by_ipv4(sock):
        return Endpoint(str(name[0]), int(name[1]))
    return endpoint(name)


def ends(sock: socket.socket, name: tuple[Any, ...] | None = None) -> Ends:
    """`own_name` and `before_redirect` of a socket. `name`: what getsockname returned."""
    own = own_name(sock, name)
    return own, before_redirect(sock, own)


def dialled_port(sock: socket.socket) -> int:
    """The port that the client dialled, also where its destination is refused. Raises OSError: the client is gone."""
    own, before = ends(sock)
    return (before or own).port


def _came_by_ipv4(sock: socket.socket) -> bool:
    """Whether a socket with a mapped name has an IPv4 client. The kernel drops IPv6 packets from a mapped address
    (ip6_rcv_core).
    """
    only_v6 = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return not only_v6 and str(sock.getpeername()[0]).startswith(_MAPPED)


def original_destination(
    sock: socket.socket,
    listening_ports: frozenset[int],
    known: Ends | None = None,
    recent: RecentAnswers | None = None,
) -> Endpoint:
    """The address that the client of an accepted connection dialled.

    `listening_ports` are our own listeners' ports. Raises NoDestinationError for a connection that was not redirected,
    and for one to our own listener, which would be a loop. Raises RefusedDestinationError for an address that no server
    has. `known`: what the kernel has returned for the socket; None: it is asked. `recent`: answers of `why_refused`
    that still hold.
    """

    def why(ip: str) -> str | None:
        return why_refused(ip) if recent is None else recent.why_refused(ip, why_refused)

    own = known[0] if known is not None else own_name(sock)
    destination = own
    if own.port in listening_ports:
        tracked = known[1] if known is not None else before_redirect(sock, own)
        if tracked is not None and tracked != own:
            destination = tracked
        elif why(own.ip):
            missing = "it was made to our listener directly" if tracked else "connection tracking does not know it"
            raise NoDestinationError(f"connection to {own} has no original destination: {missing}")
    if reason := why(destination.ip):
        if destination.port in listening_ports:
            raise NoDestinationError(f"original destination {destination} is our own listener: that would be a loop")
        raise RefusedDestinationError(f"original destination {destination} is refused: it is {reason}")
    return destination
