"""What can happen to a connection. The driver makes these; the session consumes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxsmtp_tp.filters.verdict import Verdict
    from proxsmtp_tp.session.state import Reason, Wait


@dataclass(slots=True)
class Connected:
    """The upstream connection stands; `server` is the server's IP address, for filters and log lines."""

    server: str


@dataclass(slots=True)
class ConnectFailed:
    """No address of the server could be reached; `reason` is for the log and, shortened, for the client."""

    reason: str


@dataclass(slots=True)
class ClientData:
    """Bytes from the client, in any chunks."""

    data: bytes


@dataclass(slots=True)
class ClientFull:
    """The client does not read what it is sent: the driver keeps it. Or, where `full` is False, it reads again."""

    full: bool


@dataclass(slots=True)
class ServerData:
    """Bytes from the server, in any chunks."""

    data: bytes


@dataclass(slots=True)
class ClientClosed:
    """The client sends no more. `half`: it may still listen (FIN); otherwise the connection is gone (RST)."""

    half: bool


@dataclass(slots=True)
class ServerClosed:
    """The server sends no more; nothing is sent to it either from here on."""


@dataclass(slots=True)
class FilterVerdict:
    """The filter's one answer to the message that StartFilter began."""

    verdict: Verdict


@dataclass(slots=True)
class MessageChunk:
    """The next bytes of the message that passed, asked for by ReadMessage."""

    data: bytes


@dataclass(slots=True)
class MessageEnd:
    """The message that passed has been read to its end."""


@dataclass(slots=True)
class MessageUnreadable:
    """The message that passed can not be read back (the disk failed): `reason` is for the log."""

    reason: str


@dataclass(slots=True)
class Continue:
    """Go on with what the last `feed` left (`Session.more`): other connections have had their turn."""


@dataclass(slots=True)
class DeadlinePassed:
    """The step that the session waits for took too long."""

    wait: Wait


@dataclass(slots=True)
class MessageTimedOut:
    """The message took longer from its first byte to its end than MessageTimeOut allows."""


@dataclass(slots=True)
class KeepAlive:
    """KeepAlives seconds have passed: a server that waits for a message may need to hear from us."""


@dataclass(slots=True)
class WindDown:
    """End after the running transaction; after a reload, of a client that has had none yet, after its first."""

    reason: Reason


@dataclass(slots=True)
class Shutdown:
    """End now: the time to drain is over."""


Event = (
    Connected
    | ConnectFailed
    | ClientData
    | ServerData
    | ClientClosed
    | ClientFull
    | ServerClosed
    | FilterVerdict
    | MessageChunk
    | MessageEnd
    | MessageUnreadable
    | Continue
    | DeadlinePassed
    | MessageTimedOut
    | KeepAlive
    | WindDown
    | Shutdown
)
