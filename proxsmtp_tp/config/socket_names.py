"""Addresses as the kernel takes them. Apart from `addresses`, so that reading a configuration needs no sockets."""

from __future__ import annotations

import socket


def socket_name(ip: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """What bind(2) and connect(2) are given for an IP literal: its scope, an interface, as a number (ipv6(7)).

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
