"""Addresses as the configuration file writes them (proxsmtpd.conf(5), ADDRESSES).

As in proxsmtpd 1.10: `10025`, `192.0.2.1`, `192.0.2.1:25`, `mail.example`, `mail.example:25`,
`/run/x`. Also accepted, because 1.10 has no IPv6: `[2001:db8::1]` and `[2001:db8::1]:25`. Nothing is
resolved here: names are looked up for each connection, so a changed record needs no restart.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

_LABEL = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
)  # RFC 1035 section 2.3.4, and `_` as resolvers take it
_PORT = re.compile(r"[0-9]{1,5}")
_INTERFACE = re.compile(r"[^\s\0/:]{1,15}")  # as the kernel's dev_valid_name(); IFNAMSIZ counts a NUL
_HOST_MAX = 253  # RFC 1035 section 2.3.4: 255 octets on the wire
_PATH_MAX = 107  # unix(7): sun_path has 108 bytes, the last one for the NUL


@dataclass(frozen=True, slots=True)
class InetAddress:
    """`host` is a name, an IPv4 literal or an IPv6 literal without brackets, perhaps with a scope after %.

    The port is 1..65535.

    An empty host means that only a port was given: every local address (Listen), or the client's own
    address (OutAddress, loopback mode).
    """

    host: str
    port: int

    @property
    def port_only(self) -> bool:
        """Only a port was given."""
        return not self.host

    def __str__(self) -> str:
        """As the configuration file writes it."""
        if not self.host:
            return str(self.port)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system."""

    path: str

    def __str__(self) -> str:
        """As the configuration file writes it."""
        return self.path


Address = InetAddress | UnixAddress


def parse_address(text: str, default_port: int) -> Address:
    """Read one address; `default_port` is used if the text has no port. Raises ValueError with the fix."""
    if _PORT.fullmatch(text):
        return InetAddress("", parse_port(text))
    if text.startswith("["):
        return _parse_bracketed(text, default_port)
    if "/" in text:
        return _parse_path(text)
    host, colon, port = text.partition(":")
    if ":" in port:
        raise ValueError(f"write an IPv6 address in brackets: [{text}] or [{text}]:{default_port}")
    if not host:
        raise ValueError(f"no host before the port in {text!r}: write only the port, or host:port")
    return InetAddress(_checked_host(host), _parse_port_behind(port) if colon else default_port)


def parse_port(text: str) -> int:
    """Read a TCP port. Raises ValueError."""
    if not _PORT.fullmatch(text) or not 0 < int(text) < 65536:
        raise ValueError(f"{text!r} is no port: write a number from 1 to 65535")
    return int(text)


def _parse_port_behind(text: str) -> int:
    """The port after an address and a colon. 1.10 accepts white space and a plus sign before its digits."""
    return parse_port(text.lstrip(" \t").removeprefix("+"))


def _parse_bracketed(text: str, default_port: int) -> InetAddress:
    literal, bracket, rest = text[1:].partition("]")
    if not bracket or (rest and not rest.startswith(":")):
        raise ValueError(f"{text!r} is no address: write [IPv6 address]:port")
    try:
        address = IPv6Address(literal)
    except ValueError:
        raise ValueError(f"{literal!r} is no IPv6 address") from None
    if address.scope_id and not _INTERFACE.fullmatch(address.scope_id):
        raise ValueError(f"{address.scope_id!r} is no interface: write its name after the %, without blanks")
    host = str(address)
    return InetAddress(host, _parse_port_behind(rest[1:]) if rest else default_port)


def _parse_path(text: str) -> UnixAddress:
    # As 1.10: anything with a slash and no colon is a path.
    if ":" in text:
        raise ValueError(f"{text!r} is no address: write a path without a colon, or ip:port without a slash")
    if len(text.encode("utf-8", "surrogateescape")) > _PATH_MAX:
        raise ValueError(f"the socket path is longer than {_PATH_MAX} bytes, the limit of the kernel")
    return UnixAddress(text)


def _checked_host(host: str) -> str:
    if re.fullmatch(r"[0-9.]+", host):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise ValueError(f"{host!r} is no IPv4 address") from None
    name = host.removesuffix(".")
    if len(name) > _HOST_MAX or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(f"{host!r} is no host name, address or path")
    return host


PROBE_CLIENTS = {4: "198.18.254.10", 6: "2001:2:0:fe03::2"}
"""The temporary client of `doctor --probe`, in networks for tests of devices (RFC 2544, RFC 5180)."""
PROBE_HOST = {4: "198.18.254.5", 6: "2001:2:0:fe02::1"}
"""This host's addresses while a probe runs, from which it sends its own mails (RuleLocal)."""


def not_mapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """The same network. ValueError: it is IPv4 within IPv6 (RFC 4291 section 2.5.5.2), as no client or server is."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        raise ValueError(f"'{network}' is IPv4 within IPv6: write {mapped}/{network.prefixlen - 96}")
    return network


@lru_cache(4096)
def client_of_address(ip: str) -> str:
    """The client that a connection from this address belongs to: the address (IPv4), or its /64 (IPv6, RFC 6177).

    One subscriber has a whole /64. "" for programs of this host (loopback, unix sockets): no limit of a client applies.
    """
    if not ip:
        return ""
    address = ipaddress.ip_address(ip.partition("%")[0])
    if address.is_loopback:
        return ""
    return str(ipaddress.ip_network((address, 64), strict=False).network_address) if address.version == 6 else ip
