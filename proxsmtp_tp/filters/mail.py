"""The message as one filter of a chain gets it: as the filters before it have edited it.

Nothing is copied: a `Mail` is a list of pieces of stored texts (the client's message, a changed header, a new body).
It can be read from any place, by several readers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from proxsmtp_tp.filters.fields import Header, HeaderOpenError, HeaderTooLargeError, parse_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHUNK = 64 * 1024
"""Octets that are read at a time."""

HEADER_LIMIT = 1 << 20
"""Octets of a header that is read as fields: the limit of Exim (header_maxsize). Real ones have some kilobytes; Postfix
cuts each field at 100 kB. To read so many takes some milliseconds, and they are in memory while filters judge."""


def joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same octets in fewer pieces: most messages become one, and each write(2) wakes the process that reads it."""
    held = b""
    for piece in pieces:
        held = held + piece if held else piece
        if len(held) >= CHUNK // 2:
            yield held
            held = b""
    if held:
        yield held


class Text(Protocol):
    """Stored octets, such as a `spool.Spool` after `complete`."""

    size: int

    def at(self, start: int, size: int) -> bytes:
        """The octets from `start` on: exactly `size`, or fewer at the end of the text. Raises OSError if they are
        lost."""

    def close(self) -> None:
        """Free the space. Idempotent."""


class Octets:
    """A text in memory that no SpoolLimit counts: an edited header."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.size = len(octets)

    def at(self, start: int, size: int) -> bytes:
        """Text."""
        return self._octets[start : start + size]

    def close(self) -> None:
        """Text."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text."""

    text: Text
    start: int
    size: int


class Mail:
    """A message: CRLF line ends, no dot-stuffing. Immutable; the texts belong to the chain, which closes them."""

    def __init__(self, pieces: tuple[Piece, ...], header: Header | None = None) -> None:
        self.pieces = pieces
        self.size = sum(piece.size for piece in pieces)
        self._header = header

    @classmethod
    def of(cls, text: Text) -> Mail:
        """A message that is stored as one text."""
        return cls((Piece(text, 0, text.size),))

    @property
    def header(self) -> Header:
        """The header fields. Raises HeaderTooLargeError, and OSError if the message is lost."""
        if self._header is None:
            self._header = self._read_header()
        return self._header

    def _read_header(self) -> Header:
        size = 16 * 1024
        while True:
            text = self.at(0, size)
            try:
                return parse_header(text, whole=len(text) == self.size)
            except HeaderOpenError:
                if size >= HEADER_LIMIT:
                    raise HeaderTooLargeError(f"the header has more than {HEADER_LIMIT} octets") from None
                size *= 4

    @property
    def body_start(self) -> int:
        """Where the body begins: after the blank line."""
        return self.header.size

    @property
    def body_size(self) -> int:
        """Octets of the body."""
        return self.size - self.body_start

    def at(self, start: int, size: int) -> bytes:
        """The octets from `start` on: exactly `size`, or fewer at the end of the message. OSError if they are lost."""
        parts = []
        for piece in self.pieces:
            if not size:
                break
            if start >= piece.size:
                start -= piece.size
                continue
            part = piece.text.at(piece.start + start, min(size, piece.size - start))
            parts.append(part)
            size -= len(part)
            start = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """The octets from `start` to the end, in pieces of at most CHUNK octets."""
        while chunk := self.at(start, CHUNK):
            yield chunk
            start += len(chunk)

    def body_pieces(self) -> tuple[Piece, ...]:
        """The pieces after the header."""
        return self.cut(self.body_start)

    def cut(self, start: int) -> tuple[Piece, ...]:
        """The pieces from this octet on."""
        pieces = []
        for piece in self.pieces:
            if start < piece.size:
                pieces.append(Piece(piece.text, piece.start + start, piece.size - start))
            start = max(0, start - piece.size)
        return tuple(pieces)


class Reader:
    """Reads a message once, from its beginning; it is what a run reads in place of its own copy (`spool.Spool`)."""

    def __init__(self, mail: Mail) -> None:
        self.mail = mail
        self.size = mail.size
        self._at = 0

    @property
    def left(self) -> int:
        """Octets that have not been read yet."""
        return self.size - self._at

    def read(self, size: int) -> bytes:
        """The next octets, at most `size`; b"" at the end. OSError if they are lost."""
        data = self.mail.at(self._at, size)
        self._at += len(data)
        return data

    def complete(self) -> None:
        """Read from the beginning."""
        self._at = 0

    def write(self, _data: bytes) -> None:
        """Never: the message is complete."""
        raise RuntimeError("the message of a chain is complete before a filter gets it")

    def close(self) -> None:
        """Nothing to free: the chain has the texts."""
        self._at = self.size
