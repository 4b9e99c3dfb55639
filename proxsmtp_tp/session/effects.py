"""What the driver is asked to do, in this order, without awaiting anything in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxsmtp_tp.session.state import Wait
    from proxsmtp_tp.smtp.envelope import Envelope
    from proxsmtp_tp.telemetry.counters import Counter


@dataclass(slots=True)
class SendClient:
    """Write to the client."""

    data: bytes


@dataclass(slots=True)
class SendServer:
    """Write to the server."""

    data: bytes


@dataclass(slots=True)
class CloseClient:
    """Close the client's connection once what was written has left; with `reset`, at once and by RST."""

    reset: bool = False


@dataclass(slots=True)
class CloseServer:
    """Close the server's connection; with `abort` at once, so that nothing still buffered reaches it."""

    abort: bool = False


@dataclass(slots=True)
class StartFilter:
    """Begin to judge a message."""

    envelope: Envelope
    helo: bytes
    remote: bytes = b""
    remote_helo: bytes = b""


@dataclass(slots=True)
class FilterData:
    """Message text for the filter: no dot-stuffing, CRLF line ends."""

    text: bytes


@dataclass(slots=True)
class FilterFinish:
    """The message is complete: the verdict is awaited."""


@dataclass(slots=True)
class FilterAbort:
    """Nobody wants the verdict, or the judged message, any more."""


@dataclass(slots=True)
class ReadMessage:
    """Feed the judged message as MessageChunk events, as fast as the server takes it, then MessageEnd."""


@dataclass(slots=True)
class Deadline:
    """From now on the session waits for this: arm its deadline anew."""

    wait: Wait


@dataclass(slots=True)
class MessageClock:
    """Start, or stop, the total limit on one message."""

    running: bool


@dataclass(slots=True)
class Count:
    """One more of these."""

    counter: Counter


@dataclass(slots=True)
class Log:
    """One line for the log; `level` as in the logging module. An `essential` one is written however many there are."""

    level: int
    text: str
    essential: bool = False


Effect = (
    SendClient
    | SendServer
    | CloseClient
    | CloseServer
    | StartFilter
    | FilterData
    | FilterFinish
    | FilterAbort
    | ReadMessage
    | Deadline
    | MessageClock
    | Count
    | Log
)
