"""The first message of a TLS client, read before any TLS engine gets it (RFC 8446 sections 4.1.2 and 5.1).

It may come in any segmentation, and over several records: a key share of X25519MLKEM768 alone has more octets than one
TCP segment. Everything is in clear. Only what decides about the connection is read; the TLS engine, or the server,
judges the rest.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT: Final = 1 << 16
"""Octets of all records of a ClientHello. A hello with post-quantum key shares, ECH and a pre-shared key has 3 KiB;
all parts together can have twice this (RFC 8446 section 4.1.2), which no client sends."""

_HANDSHAKE: Final = 22
_RECORD_MAX: Final = 1 << 14  # octets of a fragment: RFC 8446 section 5.1
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0  # RFC 6066 section 3
_ALPN: Final = 16  # RFC 7301 section 3.1
_SUPPORTED_VERSIONS: Final = 43  # RFC 8446 section 4.2.1
_ECH: Final = 0xFE0D  # RFC 9849 section 5
_NAME: Final = re.compile(
    rb"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"
)


class NotTlsError(Exception):
    """What the client sent is no ClientHello. `reason`: one printable line, nothing of it from the client."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a ClientHello says of the connection.

    `server_name` is in lower case, without a final dot. It is "" if there is none, or an IP address, which is no name
    (RFC 6066 section 3). `versions`: the values of supported_versions without GREASE (RFC 8701), or the legacy version
    alone; 0x0303 is TLS 1.2. `octets`: everything that was fed, for the engine or the relay.
    """

    server_name: str
    alpn: tuple[bytes, ...]
    versions: tuple[int, ...]
    ech: bool
    octets: bytes

    @property
    def reliable_name(self) -> str:
        """The server name; "" with ECH, where the name in clear may be a cover (RFC 9849 section 4)."""
        return "" if self.ech else self.server_name


class ClientHelloReader:
    """Reads one ClientHello. After it is returned, or after an error, nothing more may be fed."""

    __slots__ = ("_message", "_next", "_octets")

    def __init__(self) -> None:
        self._octets = bytearray()
        self._next = 0
        """Where the next record begins."""
        self._message = bytearray()
        """The handshake message, from the fragments of the records before `_next`."""

    def feed(self, data: bytes) -> ClientHello | None:
        """Take octets of the client. None: more are needed. Raises NotTlsError."""
        self._octets += data
        while (fragment := self._fragment()) is not None:
            self._message += fragment
            if (body := self._body()) is not None:
                return _hello(body, bytes(self._octets))
        return None

    def _fragment(self) -> bytes | None:
        """The fragment of the next record, if it is complete."""
        header = bytes(self._octets[self._next : self._next + 5])
        _check_header(header)
        if len(header) < 5:
            return None
        end = self._next + 5 + int.from_bytes(header[3:], "big")
        if end > LIMIT:
            raise NotTlsError(f"the ClientHello has more than {LIMIT} octets")
        if len(self._octets) < end:
            return None
        start, self._next = self._next + 5, end
        return bytes(self._octets[start:end])

    def _body(self) -> bytes | None:
        """What the handshake message has after its header, if it is complete."""
        message = self._message
        if message[0] != _CLIENT_HELLO:
            raise NotTlsError("the first handshake message is no ClientHello")
        if len(message) < 4:
            return None
        end = 4 + int.from_bytes(message[1:4], "big")
        if end > LIMIT:
            raise NotTlsError(f"the ClientHello has more than {LIMIT} octets")
        if len(message) > end:
            raise NotTlsError("octets behind the ClientHello in its record")
        return bytes(message[4:]) if len(message) == end else None


def _check_header(header: bytes) -> None:
    """Refuse a record header, or the beginning of one, as soon as an octet is wrong."""
    if header[:1] not in {b"", b"\x16"}:
        raise NotTlsError("the first octet is not that of a TLS handshake record")
    if header[1:2] not in {b"", b"\x03"}:
        raise NotTlsError("the record is of no version of TLS")
    if len(header) == 5 and not 0 < int.from_bytes(header[3:], "big") <= _RECORD_MAX:
        raise NotTlsError(f"the record has no octets, or more than {_RECORD_MAX}")


class _Octets:
    """Reads a structure from its beginning. Raises NotTlsError where it ends too early."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        if len(self._data) - self._at < count:
            raise NotTlsError("a part of the ClientHello is longer than the whole")
        self._at += count
        return self._data[self._at - count : self._at]

    def vector(self, size: int) -> bytes:
        """A vector with a length of `size` octets (RFC 8446 section 3.4)."""
        return self.take(int.from_bytes(self.take(size), "big"))


def _hello(body: bytes, octets: bytes) -> ClientHello:
    parts = _Octets(body)
    (legacy_version,) = struct.unpack("!H", parts.take(2))
    parts.take(32)  # random
    if len(parts.vector(1)) > 32:
        raise NotTlsError("the session id has more than 32 octets")
    suites = parts.vector(2)
    if not suites or len(suites) % 2:
        raise NotTlsError("the list of cipher suites is empty, or not of pairs of octets")
    if not parts.vector(1):
        raise NotTlsError("the list of compression methods is empty")
    found = dict(_extensions(parts.vector(2)) if parts else ())
    if parts:
        raise NotTlsError("octets behind the extensions of the ClientHello")
    return ClientHello(
        _server_name(found[_SERVER_NAME]) if _SERVER_NAME in found else "",
        _alpn(found[_ALPN]) if _ALPN in found else (),
        _versions(found[_SUPPORTED_VERSIONS]) if _SUPPORTED_VERSIONS in found else (legacy_version,),
        _ECH in found,
        octets,
    )


def _extensions(data: bytes) -> Iterator[tuple[int, bytes]]:
    parts = _Octets(data)
    seen = set()
    while parts:
        number = int.from_bytes(parts.take(2), "big")
        if number in seen:
            raise NotTlsError("an extension is there twice")  # RFC 8446 section 4.2
        seen.add(number)
        yield number, parts.vector(2)


def _server_name(data: bytes) -> str:
    outer = _Octets(data)
    names = _Octets(outer.vector(2))
    kind, name = names.take(1), names.vector(2)
    if outer or names or kind != b"\0":
        raise NotTlsError("the server name is not one host name")
    try:
        ip_address(name.decode("ascii", "replace").removesuffix("."))
    except ValueError:
        if len(name) > 255 or not _NAME.fullmatch(name):
            raise NotTlsError("the server name is no host name") from None
        return name.decode("ascii").lower().removesuffix(".")
    return ""


def _alpn(data: bytes) -> tuple[bytes, ...]:
    outer = _Octets(data)
    names = _Octets(outer.vector(2))
    found = []
    while names:
        found.append(names.vector(1))
    if outer or not found or not all(found):
        raise NotTlsError("the list of protocols (ALPN) is empty, or has an empty name")
    return tuple(found)


def _versions(data: bytes) -> tuple[int, ...]:
    outer = _Octets(data)
    listed = outer.vector(1)
    if outer or not listed or len(listed) % 2:
        raise NotTlsError("the list of versions is empty, or not of pairs of octets")
    values = struct.unpack(f"!{len(listed) // 2}H", listed)
    return tuple(value for value in values if value & 0x0F0F != 0x0A0A or value >> 8 != value & 0xFF)
