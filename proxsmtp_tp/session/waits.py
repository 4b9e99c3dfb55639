"""The deadlines, each one object for all sessions: which one holds until a reply comes, or in a phase.

Those of most events have names: no event of a usual message asks a table.
"""

from __future__ import annotations

from typing import Final

from proxsmtp_tp.session import effects
from proxsmtp_tp.session.state import Expect, Phase, Wait

_OF_WAIT: Final = {wait: effects.Deadline(wait) for wait in Wait}
COMMAND: Final = _OF_WAIT[Wait.COMMAND]
FINAL: Final = _OF_WAIT[Wait.FINAL]
GREETING: Final = _OF_WAIT[Wait.GREETING]
NOTHING: Final = _OF_WAIT[Wait.NOTHING]
QUIT: Final = _OF_WAIT[Wait.QUIT]
READING: Final = _OF_WAIT[Wait.READING]
REPLY: Final = _OF_WAIT[Wait.REPLY]
SENDING: Final = _OF_WAIT[Wait.SENDING]
START: Final = _OF_WAIT[Wait.START]
TEXT: Final = _OF_WAIT[Wait.TEXT]

OF_PHASE: Final = {
    Phase.GREETING: NOTHING,  # connecting has its own limit (ConnectTimeOut)
    Phase.AUTH: COMMAND,
    Phase.SETTLING: _OF_WAIT[Wait.VERDICT],
    Phase.SKIPPING: TEXT,
    Phase.STARTING_TLS: _OF_WAIT[Wait.HANDSHAKE],
    Phase.ENCRYPTING: _OF_WAIT[Wait.HANDSHAKE],
    Phase.PASSING: _OF_WAIT[Wait.PASSING],
    Phase.ENDED: NOTHING,
}
"""For all phases but COMMAND and DATA."""

_DATA: Final = Expect.DATA
_GREETING: Final = Expect.GREETING
_MESSAGE: Final = Expect.MESSAGE
_OUR_DATA: Final = Expect.OUR_DATA


def of_reply(expect: Expect) -> effects.Deadline:
    """While this reply is outstanding."""
    if expect is _DATA or expect is _OUR_DATA:
        return START
    if expect is _MESSAGE:
        return FINAL
    return GREETING if expect is _GREETING else REPLY
