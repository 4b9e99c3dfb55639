"""Messages to the service manager: the datagram protocol of sd_notify(3), without its library.

Nothing here fails: without a manager, or with one that does not listen, the daemon runs all the same. The
variables are removed from the environment, so that a filter cannot send such messages.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress


class Notifier:
    """One for the life of the master. Made before anything else reads the environment."""

    def __init__(self) -> None:
        path = os.environ.pop("NOTIFY_SOCKET", "")
        pid = os.environ.pop("WATCHDOG_PID", "")
        microseconds = os.environ.pop("WATCHDOG_USEC", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._socket: socket.socket | None = None
        self.watchdog: float | None = None
        """Seconds within which `alive` must be called again; None: there is no watchdog."""
        if path.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)  # a manager that hangs must not block the daemon
            if microseconds.isdecimal() and int(microseconds) and pid in {"", str(os.getpid())}:
                self.watchdog = int(microseconds) / 1e6

    def ready(self, status: str) -> None:
        """The start or the reload is complete."""
        self._send(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it (systemd.service(5), Type=notify-reload)."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The daemon stops."""
        self._send("STOPPING=1\nSTATUS=Waiting for running transactions")

    def status(self, text: str) -> None:
        """Show this in `systemctl status`."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Tell the watchdog that the daemon runs."""
        if self.watchdog is not None:
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """Close it: a worker sends no messages."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.sendto(text.encode(), self._address)
