"""Addresses of clients and servers as they are typed: types for argparse."""

from __future__ import annotations

import argparse
from ipaddress import ip_address

from proxsmtp_tp.config.addresses import InetAddress, parse_address


def ip(text: str) -> str:
    """An IP address, in its usual form."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address") from None


def server_and_port(text: str) -> tuple[str, int]:
    """ADDRESS[:PORT], both IPv4 and IPv6, with or without brackets; without a port it is 25."""
    try:
        address = parse_address(f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text, 25)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not isinstance(address, InetAddress):
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address")
    return ip(address.host), address.port
