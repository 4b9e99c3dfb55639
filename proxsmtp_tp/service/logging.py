"""Where log lines go, and their form: one line of printable text, whatever a peer sent.

foreground   standard error; `proxsmtpd: text` as 1.10 writes it, or `<priority>text` for the journal
daemon       syslog(3), facility mail, `proxsmtpd[pid]: text`, over /dev/log, never blocking (see `syslog`)

Levels are those of `proxsmtpd -d`: 0 errors, 1 warnings, 2 notices, 3 information, 4 everything.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from proxsmtp_tp.config.reader import printable

if TYPE_CHECKING:
    from typing import TextIO

NOTICE = 25
LEVELS = (logging.ERROR, logging.WARNING, NOTICE, logging.INFO, logging.DEBUG)
"""Levels by the number of -d."""

# write(2) and send(2) of up to PIPE_BUF bytes are not mixed with the lines of other workers (pipe(7)).
_LINE_MAX = 4096 - 96  # less the priority, time and name before it


class OneLine(logging.Formatter):
    """The message, and the traceback if there is one, as one printable line of bounded length."""

    def format(self, record: logging.LogRecord) -> str:
        """Escape what does not print; cut what is too long."""
        text = printable(super().format(record))
        data = text.encode()
        return text if len(data) <= _LINE_MAX else data[: _LINE_MAX - 3].decode(errors="ignore") + "..."


class StreamHandler(logging.StreamHandler["TextIO"]):
    """Standard error, one write for each line; the journal gets the priority before it (sd-daemon(3))."""

    def __init__(self, name: str, stream: TextIO | None = None) -> None:
        super().__init__(stream or sys.stderr)
        self._journal = _is_journal(self.stream)
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        """The line with its prefix."""
        text = super().format(record)
        return f"<{priority(record.levelno)}>{text}" if self._journal else f"{self._name}: {text}"


def set_up(handler: logging.Handler, level: int) -> None:
    """Send all log lines there, from `level` (of -d) on; every handler before it is closed."""
    handler.setFormatter(OneLine("%(message)s"))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        with suppress(OSError):
            old.close()
    root.addHandler(handler)
    root.setLevel(LEVELS[level])
    logging.captureWarnings(capture=True)
    logging.addLevelName(NOTICE, "NOTICE")
    logging.raiseExceptions = False  # a log that cannot be written must not write tracebacks instead


def priority(level: int) -> int:
    """The number of syslog(3) for a level of Python's logging."""
    for bound, number in (
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (NOTICE, 5),
        (logging.INFO, 6),
    ):
        if level >= bound:
            return number
    return 7


def _is_journal(stream: TextIO) -> bool:
    """Whether the stream is the one that the service manager connected to the journal (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
