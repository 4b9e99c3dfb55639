"""Milter packets: uint32 length in network order (it counts the code), one octet of code, payload.

The codes are those of libmilter's mfdef.h. Strings in a payload end with NUL.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

from proxsmtp_tp.filters.protocols.errors import ProtocolError

SENT_LIMIT = 65_535
"""Octets of payload that we send in a packet: libmilter closes the connection on more (MILTER_MAX_DATA_SIZE)."""
RECEIVED_LIMIT = 65_535 + 1_024
"""Octets of payload that we take in a packet, except REPLBODY: libmilter's limit, and an allowance for what counts
differently in other implementations."""

_LENGTH = struct.Struct(">I")


class Command:
    """Codes of what we send."""

    ABORT: ClassVar[bytes] = b"A"
    BODY: ClassVar[bytes] = b"B"
    CONNECT: ClassVar[bytes] = b"C"
    MACRO: ClassVar[bytes] = b"D"
    END: ClassVar[bytes] = b"E"
    HELO: ClassVar[bytes] = b"H"
    HEADER: ClassVar[bytes] = b"L"
    MAIL: ClassVar[bytes] = b"M"
    END_OF_HEADER: ClassVar[bytes] = b"N"
    OPTIONS: ClassVar[bytes] = b"O"
    QUIT: ClassVar[bytes] = b"Q"
    RCPT: ClassVar[bytes] = b"R"
    DATA: ClassVar[bytes] = b"T"


class Answer:
    """Codes of what a filter sends."""

    ADD_RECIPIENT: ClassVar[bytes] = b"+"
    DELETE_RECIPIENT: ClassVar[bytes] = b"-"
    ADD_RECIPIENT_PARAMETERS: ClassVar[bytes] = b"2"
    SHUTDOWN: ClassVar[bytes] = b"4"
    ACCEPT: ClassVar[bytes] = b"a"
    REPLACE_BODY: ClassVar[bytes] = b"b"
    CONTINUE: ClassVar[bytes] = b"c"
    DISCARD: ClassVar[bytes] = b"d"
    CHANGE_SENDER: ClassVar[bytes] = b"e"
    CONNECTION_FAILED: ClassVar[bytes] = b"f"
    ADD_HEADER: ClassVar[bytes] = b"h"
    INSERT_HEADER: ClassVar[bytes] = b"i"
    SET_MACROS: ClassVar[bytes] = b"l"
    CHANGE_HEADER: ClassVar[bytes] = b"m"
    OPTIONS: ClassVar[bytes] = b"O"
    PROGRESS: ClassVar[bytes] = b"p"
    QUARANTINE: ClassVar[bytes] = b"q"
    REJECT: ClassVar[bytes] = b"r"
    SKIP: ClassVar[bytes] = b"s"
    TEMPFAIL: ClassVar[bytes] = b"t"
    REPLY: ClassVar[bytes] = b"y"


def packet(code: bytes, payload: bytes = b"") -> bytes:
    """A packet to send. The caller keeps `payload` within SENT_LIMIT."""
    return _LENGTH.pack(1 + len(payload)) + code + payload


def strings(*texts: bytes) -> bytes:
    """Texts as the protocol's strings. NUL in a text is shown as a space: it would end the string."""
    joined = b"\0".join((*texts, b""))
    if joined.count(b"\0") == len(texts):
        return joined
    return b"".join(text.replace(b"\0", b" ") + b"\0" for text in texts)


def split_strings(payload: bytes) -> list[bytes]:
    """The strings of a payload. Raises ProtocolError if the last one has no end."""
    if not payload:
        return []
    if not payload.endswith(b"\0"):
        raise ProtocolError("a string without its end (NUL)")
    return payload[:-1].split(b"\0")


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet from the filter, or a piece of a REPLBODY packet: the packet is complete with its `last` piece."""

    code: bytes
    payload: bytes
    last: bool = True


class PacketReader:
    """Splits a filter's byte stream into packets, in limited memory.

    REPLBODY comes in pieces as they arrive: rspamd sends the whole body as one packet. The caller limits their sum.
    """

    __slots__ = ("_body_left", "_buffer")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body_left = 0
        """Octets of the current REPLBODY packet that have not come yet."""

    def __len__(self) -> int:
        """Octets that were fed and not returned yet."""
        return len(self._buffer)

    @property
    def between_packets(self) -> bool:
        """Whether the stream could end here."""
        return not self._buffer and not self._body_left

    def feed(self, data: bytes) -> None:
        """Take what the filter sent, in chunks of any size."""
        self._buffer += data

    def next(self) -> Packet | None:
        """The next packet or piece; None if more bytes are needed. Raises ProtocolError."""
        if self._body_left:
            return self._body_piece()
        if len(self._buffer) < _LENGTH.size + 1:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if not length:
            raise ProtocolError("a packet without a code")
        code = bytes(self._buffer[_LENGTH.size : _LENGTH.size + 1])
        start, end = _LENGTH.size + 1, _LENGTH.size + length
        if code == Answer.REPLACE_BODY and length > 1:
            del self._buffer[:start]
            self._body_left = length - 1
            return self._body_piece()
        if length - 1 > RECEIVED_LIMIT:
            raise ProtocolError(f"a packet of {length} octets")
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[start:end])
        del self._buffer[:end]
        return Packet(code, payload)

    def _body_piece(self) -> Packet | None:
        piece = bytes(self._buffer[: self._body_left])
        if not piece:
            return None
        del self._buffer[: len(piece)]
        self._body_left -= len(piece)
        return Packet(Answer.REPLACE_BODY, piece, last=not self._body_left)
