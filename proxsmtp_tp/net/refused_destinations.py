"""Original destinations that are not dialled, whatever the firewall's rules say.

A client chooses the destination of its packets freely. Some addresses are no server's, and some mean this host to
connect(2), though not to the routing table: `::` and 0.0.0.0 are its loopback, ::ffff:127.0.0.1 is 127.0.0.1. If they
were relayed, a mail server that trusts this host would take any client for this host.

Sources: RFC 6890 and the IANA special-purpose address registries; RFC 4291 sections 2.5 to 2.7; for IPv4 addresses
inside of IPv6 ones RFC 6052 section 2.2 (NAT64), RFC 3056 (6to4), RFC 4380 section 4 (Teredo), RFC 5214 section 6.1
(ISATAP), RFC 2765 section 2.1 (IPv4-translated).
"""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

from proxsmtp_tp.net.own_addresses import ends_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FRESH = 1.0
"""Seconds for which an answer holds: an address that this host gets is dialled for so long at most."""
KNOWN_MAX = 1024
"""Answers that are kept; then all are forgotten. A client may ask for any number of addresses."""

_SPECIAL_4 = (
    (IPv4Network("0.0.0.0/8"), "an unspecified address"),
    (IPv4Network("127.0.0.0/8"), "a loopback address"),
    (IPv4Network("224.0.0.0/4"), "a multicast address"),
    (IPv4Network("255.255.255.255/32"), "a broadcast address"),
    (IPv4Network("240.0.0.0/4"), "a reserved address"),
)
_SPECIAL_6 = (
    (IPv6Network("::/128"), "the unspecified address"),
    (IPv6Network("::1/128"), "the loopback address"),
    (IPv6Network("::ffff:0:0/96"), "an IPv4-mapped address in an IPv6 packet"),
    (IPv6Network("::ffff:0:0:0/96"), "an IPv4-translated address"),
    (IPv6Network("::/96"), "an IPv4-compatible address"),
    (IPv6Network("ff00::/8"), "a multicast address"),
    (IPv6Network("fe80::/10"), "a link-local address, of a link that is not known"),
)  # fmt: skip
_NAT64 = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")  # RFC 8215: any of the forms of RFC 6052
_6TO4 = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")
_ISATAP = (bytes.fromhex("00005efe"), bytes.fromhex("02005efe"))
# RFC 6052 section 2.2: where the IPv4 address stands, by length of the prefix; zeros follow it, and octet 8 is no part.
_NAT64_FORMS = {48: (6, 7, 9, 10), 56: (7, 9, 10, 11), 64: (9, 10, 11, 12), 96: (12, 13, 14, 15)}


def why_refused(ip: str) -> str | None:
    """What kind of address this is, if it cannot be a server's; None: it may be a server's."""
    address = ip_address(ip)
    if isinstance(address, IPv6Address):
        return _special(address, _SPECIAL_6) or _own(address) or _inside(address)
    return _special(address, _SPECIAL_4) or _own(address)


class RecentAnswers:
    """`why_refused` for one worker, which asks the kernel once in FRESH seconds about one address.

    A question takes ten system calls and more, and most mail goes to few servers.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, str | None]] = {}

    def why_refused(self, ip: str, ask: Callable[[str], str | None] | None = None) -> str | None:
        """What kind of address this is, if it cannot be a server's; None: it may be a server's. `ask` answers where the
        answer is not known; without it `why_refused` does.
        """
        now = time.monotonic()
        known = self._known.get(ip)
        if known is not None and now < known[0]:
            return known[1]
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        answer = why_refused(ip) if ask is None else ask(ip)
        self._known[ip] = now + FRESH, answer
        return answer


def _special(
    address: IPv4Address | IPv6Address,
    table: tuple[tuple[IPv4Network, str], ...] | tuple[tuple[IPv6Network, str], ...],
) -> str | None:
    return next((what for network, what in table if address in network), None)


def _own(address: IPv4Address | IPv6Address) -> str | None:
    return "an address of this host" if ends_here(address) else None


def _inside(address: IPv6Address) -> str | None:
    """Whether an IPv6 address leads to an IPv4 address of this host: then what it is."""
    for inner in embedded(address):
        what = _special(inner, _SPECIAL_4[:2]) or _own(inner)
        if what:
            return f"a way to {inner}, {what}"
    return None


def embedded(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 address may stand for."""
    octets = address.packed
    if address in _NAT64:
        yield IPv4Address(octets[12:])
    elif address in _NAT64_LOCAL:
        yield _nat64(octets)
    elif address in _6TO4:
        yield IPv4Address(octets[2:6])
    elif address in _TEREDO:
        yield IPv4Address(octets[4:8])  # its server
        yield IPv4Address(bytes(octet ^ 0xFF for octet in octets[12:]))  # its host, obfuscated
    if octets[8:12] in _ISATAP:
        yield IPv4Address(octets[12:])


def _nat64(octets: bytes) -> IPv4Address:
    """Take the shortest prefix after which the suffix is zeros: with a longer one the address would be all zeros."""
    for places in _NAT64_FORMS.values():
        if not any(octets[places[-1] + 1 :]):
            break
    return IPv4Address(bytes(octets[place] for place in places))
