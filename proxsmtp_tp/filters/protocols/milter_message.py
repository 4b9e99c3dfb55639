"""What a milter is shown of one message, and what it can answer in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from proxsmtp_tp.filters.edits import Edit
from proxsmtp_tp.filters.protocols.milter_options import Stage, Steps
from proxsmtp_tp.filters.protocols.milter_packets import Command
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


class Question(NamedTuple):
    """An event as it is asked: its command, and the bits of `Steps` with which a filter does not want, or does not
    answer it (numbers, because an operation on IntFlag takes a microsecond).
    """

    event: Event
    command: bytes
    not_wanted: int
    silent: int


CONNECT: Final = Question(Event.CONNECT, Command.CONNECT, Steps.NO_CONNECT.value, Steps.SILENT_CONNECT.value)
HELO: Final = Question(Event.HELO, Command.HELO, Steps.NO_HELO.value, Steps.SILENT_HELO.value)
MAIL: Final = Question(Event.MAIL, Command.MAIL, Steps.NO_MAIL.value, Steps.SILENT_MAIL.value)
RCPT: Final = Question(Event.RCPT, Command.RCPT, Steps.NO_RCPT.value, Steps.SILENT_RCPT.value)
DATA: Final = Question(Event.DATA, Command.DATA, Steps.NO_DATA.value, Steps.SILENT_DATA.value)
HEADER: Final = Question(Event.HEADER, Command.HEADER, Steps.NO_HEADERS.value, Steps.SILENT_HEADERS.value)
END_OF_HEADER: Final = Question(
    Event.END_OF_HEADER, Command.END_OF_HEADER, Steps.NO_END_OF_HEADER.value, Steps.SILENT_END_OF_HEADER.value
)
BODY: Final = Question(Event.BODY, Command.BODY, Steps.NO_BODY.value, Steps.SILENT_BODY.value)
END: Final = Question(Event.END, Command.END, 0, 0)

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
    follows the colon without the last line end, of each header field. `macros`: values by name, such as `i` and
    `{client_addr}`.
    """

    client: str
    port: int
    name: bytes
    helo: bytes
    envelope: Envelope
    fields: Iterable[tuple[bytes, bytes]]
    macros: Mapping[bytes, bytes] = field(default_factory=dict)
    made: dict[Stage, bytes] = field(default_factory=dict)
    """What `milter_macros` has made of these macros. The messages of one client on one connection share both."""


ShownMacros = tuple[Mapping[bytes, bytes], dict[Stage, bytes]]
"""`macros` and `made` of a message."""
