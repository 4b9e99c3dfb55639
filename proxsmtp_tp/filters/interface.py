"""The interface between a filter and the connection driver.

A new filter type is one file in this folder that implements `Filter` and `FilterRun` (a subclass of `judging.Judging`),
and one row in `filters.table`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.smtp.login import NO_LOGIN, Login
from proxsmtp_tp.tls.facts import NO_TLS, Legs

if TYPE_CHECKING:
    from proxsmtp_tp.filters.verdict import Verdict


@dataclass(frozen=True, slots=True)
class FilterRequest:
    """What is known about a message before its first byte. Addresses are IP literals without brackets or port."""

    connection: str
    """The name at the beginning of every log line of this connection."""
    envelope: Envelope
    client: str
    server: str
    helo: bytes
    remote: bytes = b""
    """XFORWARD ADDR that the server has accepted; empty if there was none."""
    remote_helo: bytes = b""
    trace_id: str = ""
    """The id of the session (`telemetry.trace_id`)."""
    client_port: int = 0
    """0: not known."""
    server_port: int = 0
    """The port that the client wanted; 0: not known."""
    authenticated: bool = False
    """The server has accepted AUTH (235)."""
    local: str = ""
    """Our own address, to which the client is connected; empty for a unix socket."""
    login: Login = NO_LOGIN
    """Of that AUTH: the mechanism, and the name if it was sent in clear."""
    tls: Legs = NO_TLS

    @property
    def client_address(self) -> str:
        """`client` without the interface of a link-local address (`fe80::1%eth0`): no other host knows it, and
        inet_pton(3) of libmilter, rspamd and spamd takes none.
        """
        return self.client.partition("%")[0]

    @property
    def server_address(self) -> str:
        """`server` in the same form."""
        return self.server.partition("%")[0]


class PlaceOwner(Protocol):
    """Learns when a message waits for a place and when it has one, for status and metrics. Each filter of a chain calls
    it."""

    def filter_waits(self) -> None:
        """The message waits for a place (FilterProcesses, `max=`) from now on."""

    def filter_started(self) -> None:
        """The filter has a place, and is started now."""


class FilterOwner(PlaceOwner, Protocol):
    """The user of a run. Callbacks come from the event loop, never from inside a call to the run. Only those of
    PlaceOwner may come within `finish`.
    """

    def filter_verdict(self, verdict: Verdict) -> None:
        """The verdict, exactly once; it may come before the message is complete. After it, `write` is ignored."""

    def filter_failed(self, error: Exception) -> None:
        """A bug: no verdict will come. The owner ends the run, and its connection. May come from inside a call."""


class FilterRun(Protocol):
    """The filtering of one message. No method blocks, and no error of a filter is raised.

    An error in a callback of the event loop goes to `filter_failed` (see `callbacks`).
    """

    def write(self, text: bytes) -> None:
        """Take message text: no dot-stuffing, CRLF line ends, in chunks of any size."""

    def finish(self) -> None:
        """The message is complete. Only now the filter starts, and FilterTimeout begins."""

    def abort(self) -> None:
        """The verdict is not needed any more: end the filter and free everything. Idempotent."""

    def read(self, size: int) -> bytes:
        """After PASS: the next bytes (1..size) of the judged message; b"" at its end."""

    def close(self) -> None:
        """Free processes, descriptors and files. Idempotent; allowed directly after a verdict."""


class Filter(Protocol):
    """Makes a run for each message. One object for each worker; it holds the limits that all runs share."""

    def start(self, request: FilterRequest, owner: FilterOwner) -> FilterRun:
        """Begin to judge a message. If the filter cannot start, the verdict is TEMPFAIL; nothing is raised."""

    def close(self) -> None:
        """The worker ends: end all runs at once. No verdict is needed any more."""
