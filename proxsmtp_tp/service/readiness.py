"""Messages to the service manager: the datagram protocol of sd_notify(3), without its library.

Over a restart the manager keeps the listening sockets (systemd.service(5), FileDescriptorStoreMax=): it gets a copy of
each with `store`, and gives them to the next daemon as sd_listen_fds(3) says.

Nothing here fails: the daemon also runs without a manager, or with one that does not listen. The variables are removed
from the environment, so that a filter cannot send such messages.
"""

from __future__ import annotations

import os
import select
import socket
import time
from array import array
from contextlib import suppress
from typing import Final

LENT: Final = {True: "tls-ca.key", False: "tls-untrusted-ca.key"}
"""The names of keys that the manager passes on, by whether clients trust the CA."""
_FIRST_STORED = 3  # SD_LISTEN_FDS_START


class Notifier:
    """One object in the master. Make it before anything else reads the environment."""

    def __init__(self) -> None:
        path = os.environ.pop("NOTIFY_SOCKET", "")
        pid = os.environ.pop("WATCHDOG_PID", "")
        microseconds = os.environ.pop("WATCHDOG_USEC", "")
        self.stored, self.lent = _stored()
        """The descriptors that the manager has for this process, open and inherited by no other program: kept sockets,
        and, by name, keys of CAs (`LENT`), which `proxsmtp-tp tls-ca lend` has given it."""
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

    @property
    def managed(self) -> bool:
        """Whether there is a manager."""
        return self._socket is not None

    def store(self, name: str, descriptor: int) -> None:
        """Keep a copy of this descriptor. A manager whose unit has no FileDescriptorStoreMax= ignores it."""
        if self._socket is not None:
            with suppress(OSError):
                # Not socket.send_fds: Python 3.11 ignores the address given to it.
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]))
                self._socket.sendmsg([f"FDSTORE=1\nFDNAME={name}".encode()], [rights], 0, self._address)

    def remove(self, name: str) -> None:
        """Keep the descriptors of this name no longer."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def barrier(self, seconds: float) -> bool:
        """Wait until the manager has read all messages of this process; False: it did not (sd_notify_barrier(3))."""
        if self._socket is None:
            return False
        ours, theirs = os.pipe()
        try:
            with suppress(OSError):
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [theirs]))
                self._socket.sendmsg([b"BARRIER=1"], [rights], 0, self._address)
            os.close(theirs)
            waiting = select.poll()
            waiting.register(ours, 0)  # POLLHUP
            return bool(waiting.poll(seconds * 1000))
        finally:
            os.close(ours)

    def close(self) -> None:
        """Close it: a worker sends no messages."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.sendto(text.encode(), self._address)


def _stored() -> tuple[list[int], dict[str, int]]:
    pid, number = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not number.isdecimal():
        return [], {}
    found = list(range(_FIRST_STORED, _FIRST_STORED + int(number)))
    for descriptor in found:
        os.set_inheritable(descriptor, False)
    named = zip(names, found, strict=True) if len(names) == len(found) else ()
    lent = {name: descriptor for name, descriptor in named if name in LENT.values()}
    return [descriptor for descriptor in found if descriptor not in lent.values()], lent
