"""Sends lines to the log daemon over /dev/log, as syslog(3) does, but without blocking; stores them while it is slow.

/dev/log is a datagram socket, or a stream where each line ends with a NUL (syslog(3) tries one after the other).
A line that cannot be sent at once waits in memory, up to BACKLOG_MAX octets. Lines that do not fit
are counted, and a line with their number is sent in their place later. A daemon that ends waits FLUSH_SECONDS for the
rest.

In a worker the event loop sends waiting lines (`attach`); the master does so between two steps (`due`, `retry`).
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from proxsmtp_tp.service.logging import OneLine, PostfixLine, daemon_of, priority

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from proxsmtp_tp.telemetry.forms import Line

ADDRESS = "/dev/log"
BACKLOG_MAX = 1 << 20
"""Octets in each process: some 5000 lines, or ten seconds of a busy worker. In this time a log daemon restarts."""
FLUSH_SECONDS = 2.0
"""Seconds at the end of a process: a log daemon that takes one line in a millisecond takes 2000 lines."""
RETRY_MIN = 0.005
"""Seconds: a queue of ten lines (net.unix.max_dgram_qlen) refilled so often carries 2000 lines a second."""
RETRY_MAX = 1.0
"""Seconds: the longest time until the first line is sent to a log daemon that works again."""

_FACILITY_MAIL = 2 << 3  # syslog(3), LOG_MAIL
_FOREVER = float("inf")
_FULL = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}


class SyslogHandler(logging.Handler):
    """See the module. Lines have the form of RFC 3164.

    Not logging.handlers.SysLogHandler: that one blocks the event loop for as long as the log daemon is stuck.
    """

    def __init__(self, name: str, address: str = ADDRESS) -> None:
        super().__init__()
        self._name = name
        self._address = address
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _FOREVER
        self._lines: deque[bytes] = deque()
        self._octets = 0
        self._sent = 0
        """Octets of the first line that a stream has taken already."""
        self._lost = 0
        self._second, self._stamp = -1, ""
        """The latest time of a line, and how it is written."""
        self._pause = RETRY_MIN
        self.due = _FOREVER
        """When `retry` is to be called, on the monotonic clock."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send, or keep."""
        self._take(self._line(record.created, record.levelno, self.format(record), self._tag(daemon_of(record))))

    def take(self, level: int, line: Line) -> bool:
        """A line about a session, as `emit` takes a record. False: it was not taken."""
        form = self.formatter
        if not isinstance(form, OneLine) or self.lock is None:
            return False
        with self.lock:
            self._take(self._line(time.time(), level, form.line(level, line), self._tag(line.daemon)))
        return True

    def _take(self, line: bytes) -> None:
        if self._octets + len(line) > BACKLOG_MAX:
            self._lost += 1
            if time.monotonic() < self.due:
                return
        else:
            self._count_lost()
            self._keep(line)
        self._send()

    def retry(self) -> None:
        """Send the stored lines. It may be called too early."""
        self.acquire()
        try:
            self._send()
        finally:
            self.release()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on this loop calls `retry`."""
        self._loop = loop

    def start_anew(self) -> None:
        """In a process that was just forked: forget the stored lines, which the other process sends, and its socket."""
        self._lines.clear()
        self._octets = self._lost = 0
        self.due = _FOREVER
        self.close_socket()

    def close(self) -> None:
        """Send the rest, for a limited time, and close the socket."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop = self._timer = None
        end = time.monotonic() + FLUSH_SECONDS
        self.retry()
        while self.due < _FOREVER and self._socket is not None and time.monotonic() < end:
            time.sleep(RETRY_MIN)
            self.retry()
        self.close_socket()
        super().close()

    def close_socket(self) -> None:
        """The next line opens a new socket, and the first stored line is sent from its beginning."""
        self._sent = 0
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tag(self, daemon: str) -> str:
        return f"{self._name}/{daemon}" if isinstance(self.formatter, PostfixLine) else self._name

    def _line(self, created: float, level: int, text: str, tag: str) -> bytes:
        if int(created) != self._second:  # once a second: it takes as long as all the rest
            self._second = int(created)
            self._stamp = time.strftime("%b %e %H:%M:%S", time.localtime(created))
        head = f"<{_FACILITY_MAIL | priority(level)}>{self._stamp} {tag}[{os.getpid()}]: "
        return (head + text).encode("utf-8", "backslashreplace")

    def _keep(self, line: bytes) -> None:
        self._lines.append(line)
        self._octets += len(line)

    def _count_lost(self) -> None:
        """Add a line with the number of lost lines in their place."""
        if self._lost:
            text = f"{self._lost} log lines are lost: the log daemon did not take them in time"
            self._lost = 0
            self._keep(self._line(time.time(), logging.ERROR, text, self._name))

    def _send(self) -> None:
        before, reconnected = len(self._lines), False
        while self._lines:
            try:
                self._send_first()
            except OSError as error:
                if error.errno in _FULL:
                    break
                if error.errno == errno.EMSGSIZE:  # no daemon takes more in one datagram
                    self._drop_first()
                    self._lost += 1
                    continue
                self.close_socket()
                if reconnected:
                    break
                reconnected = True  # the log daemon was restarted: the old socket is useless
            if not self._lines:
                self._count_lost()
        self._plan(progress=len(self._lines) < before)

    def _send_first(self) -> None:
        """Raises OSError; EAGAIN where the log daemon is slow."""
        if self._socket is None:
            self._socket = connect(self._address)
        stream = self._socket.type == socket.SOCK_STREAM
        line = self._lines[0] + b"\0" if stream else self._lines[0]
        while self._sent < len(line):
            self._sent += self._socket.send(line[self._sent :])
        self._drop_first()

    def _drop_first(self) -> None:
        self._octets -= len(self._lines.popleft())
        self._sent = 0

    def _plan(self, *, progress: bool) -> None:
        """Set the time of the next try: soon after lines were sent; later each time while none can be sent."""
        if not self._lines and self.due == _FOREVER:
            return
        now = time.monotonic()
        if not self._lines:
            self.due, self._pause = _FOREVER, RETRY_MIN
        elif progress or self.due == _FOREVER:
            self._pause = RETRY_MIN
            self.due = now + self._pause
        elif self.due <= now:
            self._pause = min(RETRY_MAX, self._pause * 2)
            self.due = now + self._pause
        if self._loop is not None and self.due < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            with suppress(RuntimeError):  # the loop has ended: `close` sends the rest
                self._timer = self._loop.call_later(self.due - now, self._on_timer)
                self._timer_at = self.due

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, _FOREVER
        self.retry()


def connect(address: str = ADDRESS) -> socket.socket:
    """A socket to the log daemon, non-blocking. Raises OSError."""
    try:
        return _connect(address, socket.SOCK_DGRAM)
    except OSError as error:
        if error.errno != errno.EPROTOTYPE:
            raise
    return _connect(address, socket.SOCK_STREAM)


def _connect(address: str, kind: socket.SocketKind) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, kind)
    try:
        found.setblocking(False)
        found.connect(address)
    except OSError:
        found.close()
        raise
    return found


def in_use() -> Iterator[SyslogHandler]:
    """The handler of this process, if it logs to the log daemon."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, SyslogHandler):
            yield handler


def problem(address: str = ADDRESS) -> str | None:
    """A warning at the start of the daemon if no log daemon listens; None: one does."""
    try:
        connect(address).close()
    except BlockingIOError:
        return None
    except OSError as error:
        kept = f"up to {BACKLOG_MAX >> 20} MiB of lines for each process are kept until it comes"
        return f"no log daemon listens on {address} ({error.strerror}): {kept}"
    return None
