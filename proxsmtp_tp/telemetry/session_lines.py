"""Lines about sessions on a short way to the log: no record and no formatter of `logging`, one write.

The handler of the process takes them itself (`use`; `service.logging`). A line goes through logging, as all rare lines
do, where the root logger has other handlers too (in tests), and where the handler does not take it. One write for each
line, before the client's reply: after a crash the log has each message that was answered, and workers that share a
file or pipe do not mix their lines (pipe(7), PIPE_BUF).
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.telemetry.forms import Line

    Taker = Callable[[int, Line], bool]

LINE_MAX: Final = 4096 - 96
"""Octets of a line: write(2) and send(2) of up to PIPE_BUF are not mixed with the lines of other workers (pipe(7)).
Less the priority, time and name before it."""

_CONTROLS: Final = bytes([*range(32), 127])
"""The octets of ASCII that do not print."""

_ROOT: Final = logging.getLogger()
_handler: logging.Handler | None = None
_taker: Taker | None = None


def use(handler: logging.Handler, taker: Taker) -> None:
    """`taker` gets lines, each with its level, while `handler` is the only one. False: logging must write this line."""
    global _handler, _taker
    _handler, _taker = handler, taker


def taken(level: int, line: Line) -> bool:
    """Write a line of a level that is logged. False: it must go through logging, with `attributes`."""
    handlers = _ROOT.handlers
    return _taker is not None and len(handlers) == 1 and handlers[0] is _handler and _taker(level, line)


def one_line(text: str) -> str:
    """The text in one line: other characters than printable ones are escaped, and what is too long is cut."""
    # Of a usual line this takes a third of the time of `isprintable`.
    fine = text.isascii() and len(text.encode().translate(None, _CONTROLS)) == len(text)
    if not fine and not text.isprintable():
        text = "".join([char if char.isprintable() else ascii(char)[1:-1] for char in text])
    if len(text) <= LINE_MAX // 4:  # UTF-8 has at most four octets for a character
        return text
    data = text.encode()
    return text if len(data) <= LINE_MAX else data[: LINE_MAX - 3].decode("utf-8", "ignore") + "..."


def put(descriptor: int, line: str) -> bool:
    """Write a whole line and its end, with one write(2) unless the disk is full. False: nothing was written."""
    data = line.encode() + b"\n"
    written = 0
    try:
        while written < len(data):
            written += os.write(descriptor, data[written:] if written else data)
    except OSError:
        return written > 0
    return True


def attributes(line: Line) -> dict[str, object]:
    """What a record has beside the text."""
    return {"daemon": line.daemon, "fields": line.fields, "addresses_shown": True}
