"""What is on the wire, read by packet(7): on no leg to a server is anything in clear that a client has encrypted.

`check_legs` is promise 11: each MAIL, RCPT or AUTH in clear to the server came in clear from the client.
"""

from __future__ import annotations

import re
import select
import socket
import struct
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

from pyroute2 import netns

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from proxsmtp_tp.lab.network import Host

_ALL = 3
"""ETH_P_ALL."""
_SOL_PACKET, _STATISTICS, _RCVBUFFORCE = 263, 6, 33  # <linux/if_packet.h>, <asm/socket.h>
_OUTGOING = 4
"""PACKET_OUTGOING: loopback shows each packet when it is sent, and again when it comes."""
_TCP, _SYN, _IPV4, _IPV6 = 6, 2, 0x0800, 0x86DD
_BUFFER = 64 << 20
"""Octets of packets that wait to be read: a test may send some megabytes at once."""
_QUIET = 0.3
"""Seconds without a packet after which no more is expected."""
_TLS = re.compile(rb"(?<=\n)\x16\x03[\x00-\x04]")
"""The first record of a handshake, behind a line."""
_RECORDS, _TLS_MAJOR = range(20, 24), 3
"""RFC 8446 section 5.1."""
_SECRET = re.compile(rb"(?im)^(?:MAIL FROM:|RCPT TO:)\s*<[^>\r\n]*>|^AUTH [^\r\n]*")

Commands = Counter[bytes]


@dataclass(frozen=True)
class Stream:
    """What a client has sent on one connection."""

    port: int
    """Of the server."""
    octets: bytes

    @property
    def tls(self) -> bool:
        """Whether TLS begins in it."""
        return _TLS.search(self.octets) is not None

    @property
    def clear(self) -> Commands:
        """MAIL, RCPT and AUTH before TLS begins, or between its records; in capital letters."""
        begin = _TLS.search(self.octets)
        at = begin.start() if begin else len(self.octets)
        clear = self.octets[:at]
        while at < len(self.octets):
            kind, major, length = struct.unpack("!BBxH", self.octets[at : at + 5].ljust(5, b"\0"))
            if kind not in _RECORDS or major != _TLS_MAJOR:
                clear += b"\n" + self.octets[at:]
                break
            at += 5 + length
        return Counter(each.upper() for each in _SECRET.findall(clear))


class Capture:
    """As a context: reads what clients send on an interface. `streams` are all connections that began meanwhile."""

    def __init__(self, interface: str = "lo", host: Host | None = None) -> None:
        kind = (socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL))
        made = netns.create_socket(host.name, *kind) if host else socket.socket(*kind)
        self._socket = cast("socket.socket", made)
        self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _BUFFER)
        self._socket.bind((interface, _ALL))
        self._loopback = interface == "lo"
        self._packets: list[tuple[int, bytes]] = []
        self._end = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._reader.join()
        lost = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))[1]
        self._socket.close()
        assert kind or not lost, f"{lost} packets were not seen"

    def _read(self) -> None:
        while True:
            if select.select([self._socket], [], [], _QUIET)[0]:
                packet, (_, protocol, direction, *_) = self._socket.recvfrom(1 << 17)
                if not (self._loopback and direction == _OUTGOING):
                    self._packets.append((protocol, packet))
            elif self._end.is_set():
                return

    @property
    def streams(self) -> list[Stream]:
        """In the order in which the connections began."""
        begun: dict[bytes, int] = {}
        parts: defaultdict[bytes, dict[int, bytes]] = defaultdict(dict)
        ends: list[tuple[bytes, int]] = []
        for protocol, packet in self._packets:
            if (segment := _segment(protocol, packet)) is None:
                continue
            where, port, sequence, flags, data = segment
            if flags & _SYN and where not in begun:
                begun[where] = sequence + 1
                ends.append((where, port))
            if data and where in begun:
                at = (sequence - begun[where]) % (1 << 32)
                parts[where][at] = max(parts[where].get(at, b""), data, key=len)
        return [Stream(port, _joined(parts[where])) for where, port in ends]


def _segment(protocol: int, packet: bytes) -> tuple[bytes, int, int, int, bytes] | None:
    """Both end points, the port of the receiver, sequence number, flags and data of a TCP segment."""
    if protocol == _IPV4:
        start, end, kind, addresses = (packet[0] & 15) * 4, int.from_bytes(packet[2:4]), packet[9], packet[12:20]
    elif protocol == _IPV6:
        start, end, kind, addresses = 40, 40 + int.from_bytes(packet[4:6]), packet[6], packet[8:40]
    else:
        return None
    if kind != _TCP:
        return None
    port, sequence, offset, flags = struct.unpack_from("!2xHI4xBB", packet, start)
    where = addresses + packet[start : start + 4]
    return where, port, sequence, flags, packet[start + (offset >> 4) * 4 : end or None]


def _joined(parts: dict[int, bytes]) -> bytes:
    """The octets up to the first gap: what is sent again counts once."""
    whole = bytearray()
    for at in sorted(parts):
        if at > len(whole):
            break
        whole += parts[at][len(whole) - at :]
    return bytes(whole)


def check_legs(clients: Iterable[Stream], servers: Iterable[Stream]) -> None:
    """What was in clear to servers was so from clients. AssertionError names what was not."""
    from_clients, to_servers = (sum((each.clear for each in streams), Commands()) for streams in (clients, servers))
    assert not (leaked := to_servers - from_clients), f"in clear to the server, and not from the client: {leaked}"
