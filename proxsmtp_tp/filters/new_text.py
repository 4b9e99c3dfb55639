"""A text that a filter returns, as it comes: CRLF line ends, stored, in limited space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from proxsmtp_tp.filters.protocols.errors import ProtocolError
from proxsmtp_tp.filters.spool import Spool
from proxsmtp_tp.smtp.data import Normalizer

if TYPE_CHECKING:
    from types import TracebackType

    from proxsmtp_tp.filters.spool_space import SpoolSpace

FACTOR = 4
ALLOWANCE = 64 << 20
"""A filter may return FACTOR times the octets of the message (no transfer encoding makes text larger than that), and
this many octets more (footers, reports, attachments). A filter that returns more has a fault, and must not fill
TempDirectory."""


def size_limit(size: int) -> int:
    """Octets that a filter may return for a message of `size` octets."""
    return size * FACTOR + ALLOWANCE


class NewText:
    """A context: the text is freed at its end, unless it was `kept`. `without`: octets that are left out everywhere."""

    def __init__(self, space: SpoolSpace, limit: int, without: bytes = b"") -> None:
        self.spool = Spool(space)
        self._limit = limit
        self._without = without
        self._held = b""
        self._line_ends = Normalizer()
        self._kept = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None or not self._kept:
            self.spool.close()

    def write(self, text: bytes) -> None:
        """Take octets. Raises ProtocolError over the limit, OSError if they cannot be stored."""
        if text:
            self._store(self._line_ends.feed(text))

    def finish(self) -> None:
        """The text is complete: it can be read."""
        self._store(self._line_ends.finish())
        rest, self._held = self._held, b""
        if rest:
            self.spool.write(rest)
        self.spool.complete()

    def keep(self) -> Spool:
        """The text, which the caller closes from now on."""
        self._kept = True
        return self.spool

    def _store(self, text: bytes) -> None:
        if not text:
            return
        if self._without:
            text = (self._held + text).replace(self._without, b"")
            keep = min(len(self._without) - 1, len(text))
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        if self.spool.size + len(text) > self._limit:
            raise ProtocolError(f"it returns more than {self._limit} octets")
        self.spool.write(text)
