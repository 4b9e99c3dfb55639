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
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from proxsmtp_tp.config.settings import LogAddresses, LogFormat
from proxsmtp_tp.service import journal
from proxsmtp_tp.telemetry import addresses, events, session_lines
from proxsmtp_tp.telemetry.pseudonyms import Pseudonyms

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TextIO

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.telemetry.forms import Line

NOTICE = 25
LEVELS = (logging.ERROR, logging.WARNING, NOTICE, logging.INFO, logging.DEBUG)
"""Levels by the number of -d."""


class OneLine(logging.Formatter):
    """The message, and the traceback if there is one, as one printable line of bounded length."""

    def format(self, record: logging.LogRecord) -> str:
        """Escape what does not print, show addresses as LogAddresses says, cut what is too long."""
        # Most lines have no traceback: their text is the message.
        text = super().format(record) if record.exc_info or record.stack_info else record.getMessage()
        if not getattr(record, "addresses_shown", False):
            text = addresses.current().words(text)
        return session_lines.one_line(text)

    def line(self, _level: int, line: Line) -> str:
        """The same of a line about a session, whose addresses are shown as they must be."""
        return session_lines.one_line(line.text)


class JsonLine(OneLine):
    """One JSON object (LogFormat json). Lines that are not about a session have level, pid, time and text."""

    def format(self, record: logging.LogRecord) -> str:
        """The object, with `text` for a line in words."""
        fields = getattr(record, "fields", None)
        if fields is None or record.exc_info:
            fields = {"v": events.VERSION, "event": "text", "time": events.now(), **(fields or {})}
            fields["text"] = super().format(record).strip() or fields.get("text", "")
        return _object(fields, record.levelno)

    def line(self, level: int, line: Line) -> str:
        """The object."""
        return _object(line.fields or {}, level)


def _object(fields: dict[str, Any], level: int) -> str:
    return events.encoded({**fields, "level": _level_name(level), "pid": os.getpid()}).decode()


@runtime_checkable
class TakesLines(Protocol):
    """A handler that takes lines about sessions itself."""

    def take(self, level: int, line: Line) -> bool:
        """Write it. False: it was not written."""


class StreamHandler(logging.StreamHandler["TextIO"]):
    """Standard error, one write for each line; the journal gets the priority before it (sd-daemon(3))."""

    def __init__(self, name: str, stream: TextIO | None = None) -> None:
        super().__init__(stream or sys.stderr)
        self._descriptor = _descriptor(self.stream)
        self._journal = _is_journal(self._descriptor)
        self._native = journal.Journal()
        self._behind = False
        """An earlier line could not be written yet."""
        self._name = name

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line. In the journal the postfix form has the name of a daemon, if the journal takes it at once."""
        if self._journal and isinstance(self.formatter, PostfixLine):
            name, text = f"{self._name}/{daemon_of(record)}", super().format(record)
            if self._native.send(name, priority(record.levelno), text):
                return
        self._behind = False
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (of logging.Handler)
        """The line waits in the stream, and is written before the next one."""
        self._behind = True
        super().handleError(record)

    def take(self, level: int, line: Line) -> bool:
        """Write a line about a session, as `emit` writes a record. False: it was not written."""
        form = self.formatter
        if self._descriptor is None or self._behind or not isinstance(form, OneLine):
            return False
        text = form.line(level, line)
        if self._journal:
            if isinstance(form, PostfixLine) and self._native.send(
                f"{self._name}/{line.daemon}", priority(level), text
            ):
                return True
            text = f"<{priority(level)}>{text}"
        elif not isinstance(form, JsonLine):
            text = f"{tag(self._name, form, line.daemon)}: {text}"
        return session_lines.put(self._descriptor, text)

    def close(self) -> None:
        """The process writes elsewhere."""
        self._native.close()
        super().close()

    def format(self, record: logging.LogRecord) -> str:
        """The line with its prefix."""
        text = super().format(record)
        if self._journal:
            return f"<{priority(record.levelno)}>{text}"
        if isinstance(self.formatter, JsonLine):
            return text
        return f"{tag(self._name, self.formatter, daemon_of(record))}: {text}"


class PostfixLine(OneLine):
    """A line after the tag `NAME/smtpd[PID]` (LogFormat postfix)."""


def tag(name: str, form: logging.Formatter | None, daemon: str) -> str:
    """The beginning of a line: the name; in the postfix form also the daemon and the process id."""
    return f"{name}/{daemon}[{os.getpid()}]" if isinstance(form, PostfixLine) else name


def daemon_of(record: logging.LogRecord) -> str:
    """The daemon in the tag of the postfix form. For lines that are not about a session it is a name that Postfix does
    not use.
    """
    return getattr(record, "daemon", "proxy")


def use(settings: Settings, keys: Path | None) -> None:
    """From now on this process writes lines and addresses as `settings` say.

    `keys`: the file for pseudonyms; None: it must not be made yet, and there are no pseudonyms.
    """
    forms = {LogFormat.PROXSMTPD: OneLine, LogFormat.POSTFIX: PostfixLine, LogFormat.JSON: JsonLine}
    shown: dict[LogAddresses, Callable[[str], str] | None] = {
        LogAddresses.FULL: None,
        LogAddresses.DOMAIN: addresses.domain,
        LogAddresses.KEYED: addresses.none if keys is None else Pseudonyms(keys).shown,
        LogAddresses.NONE: addresses.none,
    }
    addresses.use(addresses.Addresses(shown[settings.log_addresses]))
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, OneLine):
            handler.setFormatter(forms[settings.log_format]("%(message)s"))


def _level_name(level: int) -> str:
    for bound, name in zip(LEVELS, ("error", "warning", "notice", "information"), strict=False):
        if level >= bound:
            return name
    return "debug"


def set_up(handler: logging.Handler, level: int) -> None:
    """Send all log lines up to `level` (of -d) to this handler, and close all earlier handlers."""
    handler.setFormatter(OneLine("%(message)s"))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        with suppress(OSError):
            old.close()
    root.addHandler(handler)
    if isinstance(handler, TakesLines):
        session_lines.use(handler, handler.take)
    root.setLevel(LEVELS[level])
    logging.captureWarnings(capture=True)
    logging.addLevelName(NOTICE, "NOTICE")
    # No line names source file, thread or process, so they need not be looked up (Logging HOWTO, "Optimization").
    logging._srcfile = None  # noqa: SLF001
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.raiseExceptions = False  # if a line cannot be written, no traceback is written instead
    _leave_out_what_no_line_shows()


def _leave_out_what_no_line_shows() -> None:
    """Records have no process, thread and place in the source: a getpid(2) and a walk over the stack for each line
    (Python's Logging HOWTO, "Optimization").
    """
    logging.logProcesses = logging.logThreads = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001  (the name in the HOWTO)


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


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):  # it is in memory, or closed
        return None


def _is_journal(descriptor: int | None) -> bool:
    """Whether this is the stream that the service manager connected to the journal (systemd.exec(5))."""
    if descriptor is None:
        return False
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
