"""What a milter is shown of one message, and what it can answer in the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.filters.protocols.milter_options import Steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from proxsmtp_tp.filters.edits import Edit
    from proxsmtp_tp.smtp.envelope import Envelope
    from proxsmtp_tp.smtp.replies import Reply


class Event(Enum):
    """The events, as the log names them."""

    OPTIONS = "options"
    CONNECT = "connect"
    HELO = "helo"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    HEADER = "header"
    END_OF_HEADER = "end of header"
    BODY = "body"
    END = "end of message"


NOT_WANTED: Final = {
    Event.CONNECT: Steps.NO_CONNECT,
    Event.HELO: Steps.NO_HELO,
    Event.MAIL: Steps.NO_MAIL,
    Event.RCPT: Steps.NO_RCPT,
    Event.DATA: Steps.NO_DATA,
    Event.HEADER: Steps.NO_HEADERS,
    Event.END_OF_HEADER: Steps.NO_END_OF_HEADER,
    Event.BODY: Steps.NO_BODY,
}
SILENT: Final = {
    Event.CONNECT: Steps.SILENT_CONNECT,
    Event.HELO: Steps.SILENT_HELO,
    Event.MAIL: Steps.SILENT_MAIL,
    Event.RCPT: Steps.SILENT_RCPT,
    Event.DATA: Steps.SILENT_DATA,
    Event.HEADER: Steps.SILENT_HEADERS,
    Event.END_OF_HEADER: Steps.SILENT_END_OF_HEADER,
    Event.BODY: Steps.SILENT_BODY,
}
DATA_SINCE = 4
"""The version that knows DATA."""


class Decision(Enum):
    """What the filter decided."""

    PASS = "pass"  # noqa: S105  (no password)
    REFUSE = "refuse"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to one message. `reply` is for the client if the message is refused; `event` is what was answered.

    `body_replaced`: the body is what `take_body` gave, perhaps nothing.
    """

    decision: Decision
    event: Event
    reply: Reply | None = None
    edits: tuple[Edit, ...] = ()
    body_replaced: bool = False


@dataclass(frozen=True, slots=True)
class MilterMessage:
    """What is shown of a message, except its body.

    `client` is an IP literal, empty for a unix socket; `name` is its host name or `[address]`. `fields`: name, and what
    stands behind the colon without the last line end, of each header field. `macros`: values by name, such as `i` and
    `{client_addr}`.
    """

    client: str
    port: int
    name: bytes
    helo: bytes
    envelope: Envelope
    fields: Iterable[tuple[bytes, bytes]]
    macros: Mapping[bytes, bytes] = field(default_factory=dict)
