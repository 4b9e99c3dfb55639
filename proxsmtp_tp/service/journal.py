"""Sends a line to the journal with a name of its own (systemd.io/JOURNAL_NATIVE_PROTOCOL), without blocking.

What a unit writes to standard error has the name of the unit. Lines of LogFormat postfix need the name of a daemon of
Postfix (`proxsmtpd/smtpd`): pflogsumm reads it in what `journalctl` and rsyslog make of the line.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from proxsmtp_tp.telemetry.event_log import JOURNAL

_FACILITY_MAIL = 2


class Journal:
    """Of one process. Connected with the first line."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._pid = 0

    def send(self, name: str, priority: int, text: str) -> bool:
        """Send one line. False: the journal does not take it now, and nothing was sent."""
        fields = (
            ("MESSAGE", text),
            ("PRIORITY", priority),
            ("SYSLOG_FACILITY", _FACILITY_MAIL),
            ("SYSLOG_IDENTIFIER", name),
            ("SYSLOG_PID", os.getpid()),
        )
        data = "".join(f"{field}={value}\n" for field, value in fields).encode("utf-8", "replace")
        try:
            if self._socket is None or self._pid != os.getpid():
                self.close()
                self._socket, self._pid = self._connected(), os.getpid()
            self._socket.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False
        return True

    def close(self) -> None:
        """The next line connects again."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
            self._socket = None

    @staticmethod
    def _connected() -> socket.socket:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            found.setblocking(False)
            found.connect(JOURNAL)
        except OSError:
            found.close()
            raise
        return found
