"""TCP segments that no socket would send, sent on a link of a test network byte for byte (packet(7)).

Sources: RFC 791, RFC 8200, RFC 9293 section 3.1 for the headers, RFC 1071 for the checksum.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.gateway.network import inside, run

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tests.gateway.network import Network

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
_ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
_WINDOW = 65535
_ETH_P_ALL = 3  # linux/if_ether.h
_TTL = 64


def _checksum(data: bytes) -> int:
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total: int = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(source: tuple[str, int], target: tuple[str, int], flags: int, sequence: int, acknowledged: int = 0) -> bytes:
    """An IP packet with a TCP segment without data. The IP version is that of `source`."""
    version = 6 if ":" in source[0] else 4
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    ends = socket.inet_pton(family, source[0]) + socket.inet_pton(family, target[0])
    header = struct.pack(
        "!HHIIBBHHH", source[1], target[1], sequence, acknowledged, 5 << 4, flags, _WINDOW, 0, 0
    )  # fmt: skip
    pseudo = ends + struct.pack("!IHBB", len(header), 0, 0, socket.IPPROTO_TCP)
    segment = header[:16] + struct.pack("!H", _checksum(pseudo + header)) + header[18:]
    if version == 6:
        return struct.pack("!IHBB", 6 << 28, len(segment), socket.IPPROTO_TCP, _TTL) + ends + segment
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0, _TTL, socket.IPPROTO_TCP, 0) + ends
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + segment


def with_ip_options(whole: bytes) -> bytes:
    """The IPv4 packet with four octets of options that mean nothing (RFC 791 section 3.1)."""
    head, rest = whole[:20], whole[20:]
    return _ipv4(bytes([head[0] + 1]) + head[1:] + b"\1\1\1\0", rest, 0)


def with_destination_options(whole: bytes) -> bytes:
    """The IPv6 packet with two extension headers (RFC 8200 section 4.6) that are padding alone."""
    padding = b"\1\4\0\0\0\0"
    headers = bytes([60, 0]) + padding + bytes([whole[6], 0]) + padding
    return _ipv6(whole, 60, headers + whole[40:])


def fragments(whole: bytes) -> list[bytes]:
    """The packet in two parts: the first ends behind the first eight octets of TCP's header, before its flags."""
    if whole[0] >> 4 == 6:
        following, payload = whole[6], whole[40:]
        cut = len(payload) - 12
        parts = (1, payload[:cut]), (cut, payload[cut:])  # the offset, in octets, and that more follow (1)
        return [_ipv6(whole, 44, struct.pack("!BBHI", following, 0, field, 1) + part) for field, part in parts]
    size = (whole[0] & 15) * 4
    head, payload = whole[:size], whole[size:]
    return [_ipv4(head, payload[:8], 0x2000), _ipv4(head, payload[8:], 1)]


def _ipv4(head: bytes, payload: bytes, fragment: int) -> bytes:
    """With the lengths, the checksum, and the field of flags and fragment offset anew."""
    head = head[:2] + struct.pack("!HHH", len(head) + len(payload), 1, fragment) + head[8:10] + b"\0\0" + head[12:]
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + payload


def _ipv6(whole: bytes, following: int, payload: bytes) -> bytes:
    return whole[:4] + struct.pack("!HB", len(payload), following) + whole[7:40] + payload


@dataclass(frozen=True)
class Segment:
    """A TCP segment that was seen."""

    source: tuple[str, int]
    target: tuple[str, int]
    flags: int
    sequence: int


def parse(data: bytes) -> Segment | None:
    """What an IP packet holds; None for what is no TCP."""
    version = data[0] >> 4
    if version == 4 and data[9] == socket.IPPROTO_TCP:
        family, ends, segment = socket.AF_INET, (data[12:16], data[16:20]), data[(data[0] & 15) * 4 :]
    elif version == 6 and data[6] == socket.IPPROTO_TCP:
        family, ends, segment = socket.AF_INET6, (data[8:24], data[24:40]), data[40:]
    else:
        return None
    near, far, sequence = struct.unpack("!HHI", segment[:8])
    source, target = (socket.inet_ntop(family, end) for end in ends)
    return Segment((source, near), (target, far), segment[13], sequence)


PACKET_CLIENT = {4: "192.0.2.99", 6: "2001:db8:1::99"}
"""Clients that only exist in packets: no kernel answers in their name."""
_ports = itertools.count(40000)  # never one twice: nobody ends these connections


class Wire:
    """The client's end of its link to the gateway, read and written past the kernel's own TCP and IP."""

    def __init__(self, net: Network) -> None:
        (own,) = json.loads(run(net.client, "ip", "-j", "link", "show", "eth0"))
        (far,) = json.loads(run(net.gateway, "ip", "-j", "link", "show", "lan0"))
        for address in PACKET_CLIENT.values():
            run(net.gateway, "ip", "neigh", "replace", address, "lladdr", own["address"], "dev", "lan0")
        self._head = bytes.fromhex((far["address"] + own["address"]).replace(":", ""))
        self._sock = listening(net.client, "eth0")

    def send(self, data: bytes) -> None:
        """One IP packet to the gateway."""
        self._sock.send(self._head + _ETHERTYPE[data[0] >> 4] + data)

    def connect(self, *targets: str, port: int = 25, flags: int = SYN, seconds: float = 1.5) -> dict[str, str]:
        """Try a handshake with each: "connected", "refused" (a reset came) or "silent".

        It ends with the time, or when each has answered.
        """
        found = dict.fromkeys(targets, "silent")
        sources = {(PACKET_CLIENT[6 if ":" in target else 4], next(_ports)): target for target in targets}
        for source, target in sources.items():
            self.send(packet(source, (target, port), flags, 1000))
        for answer in seen(self._sock, seconds):
            target = sources.get(answer.target, "")
            if not target or found[target] != "silent":
                continue
            found[target] = "refused" if answer.flags & RST else "connected"
            if answer.flags & SYN:
                self.send(packet(answer.target, (target, port), ACK, 1001, answer.sequence + 1 & 0xFFFFFFFF))
            if "silent" not in found.values():
                break
        return found

    def seen(self, seconds: float) -> Iterator[Segment]:
        """What has come from the gateway, and comes within that time."""
        return seen(self._sock, seconds)

    def close(self) -> None:
        """No more packets."""
        self._sock.close()


def listening(name: str, device: str) -> socket.socket:
    """A packet socket on an interface of a namespace."""

    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        sock.bind((device, 0))
        return sock

    return inside(name, opened)


def seen_from(sock: socket.socket, sources: Collection[str], seconds: float) -> Iterator[bytes]:
    """All packets from these addresses that come in by an interface within that time, fragments as well."""
    for data in _packets(sock, seconds):
        ends = (socket.AF_INET, data[12:16]) if data[0] >> 4 == 4 else (socket.AF_INET6, data[8:24])
        if socket.inet_ntop(*ends) in sources:
            yield data


def seen(sock: socket.socket, seconds: float) -> Iterator[Segment]:
    """The TCP segments that come in by an interface within that time."""
    return (segment for data in _packets(sock, seconds) if (segment := parse(data)) is not None)


def _packets(sock: socket.socket, seconds: float) -> Iterator[bytes]:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            frame, about = sock.recvfrom(65536)
        except TimeoutError:
            return
        incoming = about[2] != socket.PACKET_OUTGOING
        if incoming and frame[12:14] in _ETHERTYPE.values():
            yield frame[14:]
