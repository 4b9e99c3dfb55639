"""Checks the records of a connection that is passed without being decrypted (RFC 8446 section 5.1).

Both peers could agree to speak plain SMTP after 220, past the filter. So each direction must be TLS records for its
whole life: the first one a ClientHello, or the answer to it. More than that is not visible: what is inside the records
is encrypted.
"""

from __future__ import annotations

from typing import Final

from proxsmtp_tp.tls.facts import Side

_CHANGE_CIPHER_SPEC: Final = 20
_ALERT: Final = 21
_HANDSHAKE: Final = 22
_APPLICATION_DATA: Final = 23
_TYPES: Final = frozenset({_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION_DATA})
"""Not heartbeat (24): RFC 6520 is not used in mail, and OpenSSL has removed it."""
_MINORS: Final = frozenset(range(5))
"""SSL 3.0 to TLS 1.3. Which one a record has must be ignored (RFC 8446 section 5.1); no peer writes others."""
_FRAGMENT_MAX: Final = (1 << 14) + 2048  # RFC 5246 section 6.2.3; TLS 1.3 has 1 << 14 and 256
_FIRST_TYPES: Final = {Side.CLIENT: frozenset({_HANDSHAKE}), Side.SERVER: frozenset({_HANDSHAKE, _ALERT})}
_FIRST_MESSAGE: Final = {Side.CLIENT: 1, Side.SERVER: 2}
"""ClientHello, ServerHello (which HelloRetryRequest is, too)."""


class RecordError(Exception):
    """What a peer sent is no TLS. `reason`: one printable line, nothing of it from the peer."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class RecordChecker:
    """One direction of a connection; `side` sends the records. After an error nothing more may be fed.

    `records` are complete ones, `octets` is everything that was fed.
    """

    __slots__ = ("_first", "_header", "_left", "_side", "octets", "records")

    def __init__(self, side: Side) -> None:
        self._side = side
        self._header = b""
        """The header of the record that is being read, as far as it came."""
        self._left = 0
        """Octets that its fragment still lacks."""
        self._first = True
        """No octet of the first fragment has come."""
        self.records = 0
        self.octets = 0

    def feed(self, data: bytes) -> None:
        """Take octets of the peer, in any segmentation. Raises RecordError."""
        self.octets += len(data)
        at = 0
        while at < len(data):
            at = (self._read_header if len(self._header) < 5 else self._read_fragment)(data, at)

    def _read_header(self, data: bytes, at: int) -> int:
        more = data[at : at + 5 - len(self._header)]
        self._header += more
        if self._header[0] not in _TYPES:
            raise RecordError(f"there is no TLS record of type {self._header[0]}")
        if self._first and self._header[0] not in _FIRST_TYPES[self._side]:
            raise RecordError(f"the first record of the {self._side.value} is of type {self._header[0]}")
        _check(self._header)
        if len(self._header) == 5:
            self._left = int.from_bytes(self._header[3:], "big")
        return at + len(more)

    def _read_fragment(self, data: bytes, at: int) -> int:
        if self._first:
            self._first = False
            if self._header[0] == _HANDSHAKE and data[at] != _FIRST_MESSAGE[self._side]:
                raise RecordError(f"the first message of the {self._side.value} is of type {data[at]}")
        taken = min(self._left, len(data) - at)
        self._left -= taken
        if not self._left:
            self.records += 1
            self._header = b""
        return at + taken


def _check(header: bytes) -> None:
    """Refuse a record header, or the beginning of one, as soon as its version or length is wrong."""
    if (len(header) > 1 and header[1] != 3) or (len(header) > 2 and header[2] not in _MINORS):
        raise RecordError("a record is of no version of TLS")
    if len(header) == 5 and not 0 < int.from_bytes(header[3:], "big") <= _FRAGMENT_MAX:
        raise RecordError(f"a record has no octets, or more than {_FRAGMENT_MAX}")
