"""The tables of the dialogue: phases, deadlines, and which replies may answer which command.

Every reply of the server is matched to the command at the head of the queue. EXPECTED says which first digits can
answer it (RFC 5321 section 4.3.2). Any other reply means that the two sides are out of step: the connection ends with
421, so that no reply is given to the wrong command. 421 itself may answer any command and is not in the table.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class _Name(Enum):
    """An Enum that is hashed by identity: members are looked up for every event, and Enum's own hash is slow.

    Modules that handle every event give the members that they compare names of their own (`_ENDED: Final =
    Phase.ENDED`): Python 3.11 takes four times as long for a member of an Enum as for a name of the module, and for a
    compiled module such a name is a constant.
    """

    __hash__ = object.__hash__


class Phase(_Name):
    """The phase of the dialogue with the client."""

    GREETING = "the server has not greeted yet"
    COMMAND = "the client may send commands"
    AUTH = "the client's next line continues AUTH"
    DATA = "the client sends a message"
    SETTLING = "the message is complete and waits for its final reply; the client's bytes wait"
    SKIPPING = "the client sends a BDAT chunk that is discarded"
    STARTING_TLS = "the client has its 220 to STARTTLS: it begins TLS, or TLS begins on both sides"
    ENCRYPTING = "TLS begins with the server only; the client's lines wait"
    PASSING = "TLS of the client's own with the server is passed on unread"
    ENDED = "nothing more is read or written"


class Sink(_Name):
    """Where the text of a message goes as it arrives."""

    FILTER = "to the filter"
    STREAM = "to the server, as it arrives"
    DISCARD = "nowhere: its final reply is already known"


class Wait(_Name):
    """What the session waits for. It selects the deadline (the driver knows the seconds)."""

    GREETING = "the server's greeting"
    REPLY = "the server's reply"
    START = "the server's reply to DATA"
    FINAL = "the server's reply to the message"
    COMMAND = "the client's next command"
    QUIT = "the client to leave"
    TEXT = "the client's next bytes of the message"
    VERDICT = "the filter's verdict"
    SENDING = "the server to take the message"
    READING = "the client to read its replies"
    HANDSHAKE = "the TLS handshake"
    PASSING = "the next octets of a passed TLS connection"
    NOTHING = "nothing"


class Reason(_Name):
    """Why a connection must end."""

    RELOAD = "other workers have taken over"
    STOP = "the daemon ends"
    AGE = "the connection has lasted longer than SessionTimeOut"


class Expect(_Name):
    """The command that a reply answers."""

    GREETING = "the connection"
    EHLO = "EHLO"
    HELO = "HELO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    RSET = "RSET"
    QUIT = "QUIT"
    AUTH = "AUTH"
    XFORWARD = "XFORWARD"
    STARTTLS = "STARTTLS"
    OTHER = "another command"
    MESSAGE = "the end of data"
    # Commands of our own: their replies are not passed on to the client.
    OUR_DATA = "our DATA"
    OUR_RSET = "our RSET"
    OUR_NOOP = "our NOOP"
    OUR_XCLIENT = "our XCLIENT"
    OUR_EHLO = "our second EHLO"
    OUR_XFORWARD = "our XFORWARD"
    OUR_STARTTLS = "our STARTTLS"
    OUR_EHLO_IN_TLS = "our EHLO within TLS"
    OUR_XCLIENT_IN_TLS = "our XCLIENT within TLS"
    OUR_RESTART = "our RSET before a changed envelope"
    OUR_XFORWARD_AGAIN = "the client's XFORWARD again"
    OUR_MAIL = "our MAIL"
    OUR_RCPT = "our RCPT"
    # A reply of our own that waits for the replies before it.
    LOCAL = "nothing: it is our own reply"


_USUAL: Final = frozenset({2, 4, 5})

EXPECTED: Final[dict[Expect, frozenset[int]]] = {
    Expect.GREETING: _USUAL,
    Expect.EHLO: _USUAL,
    Expect.HELO: _USUAL,
    Expect.MAIL: _USUAL,
    Expect.RCPT: _USUAL,
    Expect.DATA: frozenset({3, 4, 5}),
    Expect.RSET: _USUAL,
    Expect.QUIT: _USUAL,
    Expect.AUTH: frozenset({2, 3, 4, 5}),
    Expect.XFORWARD: _USUAL,
    Expect.STARTTLS: _USUAL,
    Expect.OTHER: _USUAL,
    Expect.MESSAGE: _USUAL,
    Expect.OUR_DATA: frozenset({3, 4, 5}),
    Expect.OUR_RSET: _USUAL,
    Expect.OUR_NOOP: _USUAL,
    Expect.OUR_XCLIENT: _USUAL,
    Expect.OUR_EHLO: _USUAL,
    Expect.OUR_STARTTLS: _USUAL,
    Expect.OUR_EHLO_IN_TLS: _USUAL,
    Expect.OUR_XCLIENT_IN_TLS: _USUAL,
    Expect.OUR_RESTART: _USUAL,
    Expect.OUR_XFORWARD: _USUAL,
    Expect.OUR_XFORWARD_AGAIN: _USUAL,
    Expect.OUR_MAIL: _USUAL,
    Expect.OUR_RCPT: _USUAL,
}

_GREETING: Final = Expect.GREETING
_MESSAGE: Final = Expect.MESSAGE


def last_line_decides(expect: Expect) -> bool:
    """Whether the reply is read tolerantly: its last line decides. To misread the final reply to a message would
    duplicate the message; a greeting that begins with 220- and ends with 521 is a refusal.
    """
    return expect is _MESSAGE or expect is _GREETING


GROUPED: Final = frozenset({Expect.MAIL, Expect.RCPT, Expect.RSET, Expect.OUR_RSET}) | frozenset(
    {Expect.OUR_XFORWARD, Expect.OUR_RESTART, Expect.OUR_XFORWARD_AGAIN, Expect.OUR_MAIL, Expect.OUR_RCPT}
)
"""Commands after which another may be sent without waiting for the reply (RFC 2920 section 3.1; XFORWARD_README)."""
