"""Addresses as the kernel needs them. Not in `addresses`, so that reading a configuration needs no sockets."""

from __future__ import annotations

import socket


def socket_name(ip: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """The socket address of an IP literal for bind(2) and connect(2); a scope becomes an interface index (ipv6(7)).

    Raises OSError where there is no such interface now.
    """
    ip, percent, scope = ip.partition("%")
    if not percent:
        return ip, port
    try:
        index = int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)
        socket.if_indextoname(index)
    except (OSError, OverflowError):
        raise OSError(f"there is no interface {scope}") from None
    return ip, port, 0, index
