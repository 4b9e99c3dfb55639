"""What the connection driver expects of a filter, and what a filter expects of the driver.

A new kind of filter is one file in this folder that implements `Filter` and `FilterRun` (the latter best as a
`judging.Judging`), and one row in `filters.table`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from proxsmtp_tp.filters.verdict import Verdict
    from proxsmtp_tp.smtp.envelope import Envelope


@dataclass(frozen=True, slots=True)
class FilterRequest:
    """What is known of a message before its first byte. Addresses are IP literals without brackets or port."""

    connection: str
    """The id that every log line of this connection carries."""
    envelope: Envelope
    client: str
    server: str
    helo: bytes
    remote: bytes = b""
    """XFORWARD ADDR, as the server accepted it; empty where unknown."""
    remote_helo: bytes = b""


class FilterOwner(Protocol):
    """The side that feeds a run. Callbacks come from the event loop, never from inside a call to the run."""

    def filter_verdict(self, verdict: Verdict) -> None:
        """The one and only verdict; may come before the message is complete. After it, `write` is ignored."""


class FilterRun(Protocol):
    """One message being judged. Nothing here blocks, and nothing here raises for what a filter does."""

    def write(self, text: bytes) -> None:
        """Message text: no dot-stuffing, CRLF line ends, any chunking."""

    def finish(self) -> None:
        """The message is complete. Only now does the filter start, and FilterTimeout count the time that it takes."""

    def abort(self) -> None:
        """Nobody wants the verdict any more: end all that judges it, free everything. Idempotent."""

    def read(self, size: int) -> bytes:
        """After PASS: the next bytes (1..size) of the message as the filter left it; b"" at its end."""

    def close(self) -> None:
        """Free what is left (processes, descriptors, files). Idempotent; also right after a verdict."""


class Filter(Protocol):
    """Makes a run for each message. Lives as long as its worker; holds the limits that all runs share."""

    def start(self, request: FilterRequest, owner: FilterOwner) -> FilterRun:
        """Begin to judge a message. Trouble in starting is reported as a TEMPFAIL verdict, not raised."""

    def close(self) -> None:
        """The worker ends: end at once whatever still runs. Nobody waits for a verdict any more."""
