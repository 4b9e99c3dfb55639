"""The tables of the dialogue: phases, waits, and which replies may answer what.

Every reply of the server is matched to the command at the head of the queue. EXPECTED says which first digits
can answer it (RFC 5321 section 4.3.2); anything else means that the two sides are out of step, and the connection
ends with 421 rather than with a reply given to the wrong command. 421 may answer anything and is no row here.
"""

from __future__ import annotations

from enum import Enum


class _Name(Enum):
    """Members are looked up in tables for every event: their identity is the hash, not Enum's own, in Python."""

    __hash__ = object.__hash__


class Phase(_Name):
    """What the client's side of the dialogue is at."""

    GREETING = "the server has not greeted yet"
    COMMAND = "the client may send commands"
    AUTH = "the client's next line continues AUTH"
    DATA = "the client sends a message"
    SETTLING = "the message is complete, its final reply is not: the client's bytes wait"
    SKIPPING = "the client sends a BDAT chunk that nobody wants"
    ENDED = "nothing is read or written any more"


class Sink(_Name):
    """Where the text of a message goes while it arrives."""

    FILTER = "to the filter"
    STREAM = "to the server, as it comes"
    DISCARD = "nowhere: its final reply is known already"


class Wait(_Name):
    """What is waited for: names the deadline (the driver knows its seconds)."""

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
    NOTHING = "nothing"


class Reason(_Name):
    """Why a connection winds down."""

    RELOAD = "other workers have taken over"
    STOP = "the daemon ends"
    AGE = "the connection has lasted long enough"


class Expect(_Name):
    """What a reply of the server answers."""

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
    OTHER = "another command"
    MESSAGE = "the end of data"
    # Commands of our own: the client never sees their replies as such.
    OUR_DATA = "our DATA"
    OUR_RSET = "our RSET"
    OUR_NOOP = "our NOOP"
    OUR_XCLIENT = "our XCLIENT"
    OUR_EHLO = "our second EHLO"
    # A reply that we gave ourselves, waiting for those before it.
    LOCAL = "nobody: it is our own reply"


_USUAL = frozenset({2, 4, 5})

EXPECTED: dict[Expect, frozenset[int]] = {
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
    Expect.OTHER: _USUAL,
    Expect.MESSAGE: _USUAL,
    Expect.OUR_DATA: frozenset({3, 4, 5}),
    Expect.OUR_RSET: _USUAL,
    Expect.OUR_NOOP: _USUAL,
    Expect.OUR_XCLIENT: _USUAL,
    Expect.OUR_EHLO: _USUAL,
}

LAST_LINE_DECIDES = frozenset({Expect.GREETING, Expect.MESSAGE})
"""Replies that are read tolerantly. To misread the reply to the end of data doubles the message; a greeting that begins
with 220- and ends with 521 refuses, and nothing else can be on its way yet."""

GROUPED = frozenset({Expect.MAIL, Expect.RCPT, Expect.RSET, Expect.OUR_RSET})
"""Commands after which another may be sent before their reply (RFC 2920 section 3.1)."""
