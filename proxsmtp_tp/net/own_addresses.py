"""Whether packets to an address end on this host, asked of the kernel each time: addresses come and go.

A process without privileges and without netlink (the unit allows AF_INET, AF_INET6 and AF_UNIX only) cannot find it out
by one question. So there are five questions, and one yes is enough:

- The address that the kernel would send from: its own, where the packet would not leave this host (`ip route get`).
  EACCES: an IPv4 broadcast address of an interface (ip(7)).
- bind(2): addresses of type local, broadcast and multicast in table local, also those of an AnyIP route
  (`ip route add local 192.0.2.0/24 dev lo`) with another source address; IPv6 addresses on any interface. It says
  nothing if net.ipv4.ip_nonlocal_bind is on; a bind to an unused address shows that.
- SIOCGIFCONF (netdevice(7)): IPv4 addresses on any interface, also those of a VRF, whose local routes are in the VRF's
  own table.
- A route by way of lo: IPv6 AnyIP (`ip -6 route add local 2001:db8::/64 dev lo`), whose source address is another one.
- A path MTU that only lo has (IPV6_MTU, ipv6(7)): IPv6 AnyIP by way of another interface, as packets to any address of
  type local go by lo. Not seen where lo's MTU has been lowered.
"""

from __future__ import annotations

import array
import errno
import fcntl
import ipaddress
import socket
import struct
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PORT = 25  # of the question only: a datagram socket sends nothing when it connects
_NOBODY = {4: "240.0.0.1", 6: "2001:db8::"}  # reserved (RFC 1112 section 4), for documentation (RFC 3849)
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_IPV6_MTU = 24  # linux/in6.h
_LINK_MTU = 65535  # Linux: no link has more (ETH_MAX_MTU), lo has 65536
_SIOCGIFCONF = 0x8912  # linux/sockios.h
_IFREQ = struct.calcsize("16s24s" if struct.calcsize("P") == 8 else "16s16s")  # struct ifreq: a name, and a union
_ADDRESS_AT = 20  # in struct ifreq: after the name, and family and port of struct sockaddr_in


def ends_here(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether a packet to this address is for this host: one of its addresses, or a broadcast address of its links."""
    if _sent_from_itself(address) or _binds(str(address), address.version):
        return True
    if address.version == 4:
        return address.packed in _interface_addresses()
    return _routed_by_lo(str(address)) or _has_the_mtu_of_lo(str(address))


def _sent_from_itself(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    with closing(socket.socket(_FAMILY[address.version], socket.SOCK_DGRAM)) as sock:
        try:
            sock.connect((str(address), _PORT))
        except OSError as error:
            return error.errno == errno.EACCES and address.version == 4
        own: str = sock.getsockname()[0]
    return ipaddress.ip_address(own.partition("%")[0]) == address


def _binds(address: str, version: int) -> bool:
    return _can_bind(address, version) and not _can_bind(_NOBODY[version], version)


def _can_bind(address: str, version: int) -> bool:
    with closing(socket.socket(_FAMILY[version], socket.SOCK_DGRAM)) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True


def _interface_addresses() -> Iterator[bytes]:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        # Without a buffer it returns the needed size; two more, in case an address is added in the meantime.
        (size,) = struct.unpack_from("i", fcntl.ioctl(sock, _SIOCGIFCONF, struct.pack("iP", 0, 0)))
        buffer = array.array("B", bytes(size + 2 * _IFREQ))
        answer = fcntl.ioctl(sock, _SIOCGIFCONF, struct.pack("iP", len(buffer), buffer.buffer_info()[0]))
    (used,) = struct.unpack_from("i", answer)
    found = buffer.tobytes()
    return (found[start + _ADDRESS_AT : start + _ADDRESS_AT + 4] for start in range(0, used, _IFREQ))


def _routed_by_lo(address: str) -> bool:
    with closing(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")  # without privileges since Linux 5.7
            sock.connect((address, _PORT))
        except OSError:
            return False
    return True


def _has_the_mtu_of_lo(address: str) -> bool:
    with closing(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as sock:
        try:
            sock.connect((address, _PORT))
            return sock.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU) > _LINK_MTU
        except OSError:
            return False
