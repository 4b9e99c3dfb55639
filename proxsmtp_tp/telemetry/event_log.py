"""Where events go (EventLog): a file, a unix socket, or the journal. Nothing here waits, so mail does not.

file     one write for each event, appended; opened again when it was moved or removed (log rotation)
socket   a datagram for each event where the socket takes datagrams, otherwise lines in a stream
journal  one datagram with fields (systemd.io/JOURNAL_NATIVE_PROTOCOL)

What a socket does not take at once waits in memory, up to BACKLOG_MAX octets, and is tried again at the next event and
once a second. What does not fit, and what a full disk does not take, is lost and counted.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from proxsmtp_tp.telemetry.events import encoded

if TYPE_CHECKING:
    from collections.abc import Callable

BACKLOG_MAX = 1 << 20
"""Octets in each worker: some 1000 events, in which a program that reads them restarts."""
JOURNAL = "/run/systemd/journal/socket"
MESSAGE_IDS = {
    "message": "5b7c3f0e9d1a4c52a4f20b7f5f6f3c11",
    "limit": "5b7c3f0e9d1a4c52a4f20b7f5f6f3c12",
    "lock": "5b7c3f0e9d1a4c52a4f20b7f5f6f3c13",
    "unlock": "5b7c3f0e9d1a4c52a4f20b7f5f6f3c14",
}
"""Of each kind of event in the journal (sd_journal_print(3), MESSAGE_ID)."""

_FULL = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}


class Target(Protocol):
    """Where encoded events go. Raises nothing."""

    def write(self, data: bytes) -> int:
        """Take one event; the number of events that were lost now."""

    def look(self) -> None:
        """Once a second: what has waited, and whether the file was moved."""

    def close(self) -> int:
        """The end; the number of events that are lost with it."""


class EventLog:
    """Of one worker. `lost` counts events that nobody gets."""

    def __init__(self, where: str, lost: Callable[[], None]) -> None:
        """`where` is the value of EventLog, not `off`."""
        self._lost = lost
        self._encode = journal_fields if where == "journal" else _line
        if where == "journal":
            self._target: Target = SocketTarget(JOURNAL)
        elif where.startswith("unix:"):
            self._target = SocketTarget(where.removeprefix("unix:"))
        else:
            self._target = FileTarget(where)

    def write(self, event: dict[str, Any]) -> None:
        """Write an event, or count it as lost."""
        self._count(self._target.write(self._encode(event)))

    def look(self) -> None:
        """Call it once a second."""
        self._target.look()

    def close(self) -> None:
        """The worker ends."""
        self._count(self._target.close())

    def _count(self, number: int) -> None:
        for _ in range(number):
            self._lost()


class FileTarget:
    """A file to which all workers append."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: int | None = None
        self._torn = False
        """The last event is in the file in part: the disk was full."""

    def write(self, data: bytes) -> int:
        """Target."""
        try:
            if self._file is None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
                self._file = os.open(self._path, flags, 0o640)
            whole = b"\n" + data if self._torn else data
            written = os.write(self._file, whole)
        except OSError:
            return 1
        self._torn = written < len(whole)
        return int(self._torn)

    def look(self) -> None:
        """Open it again if another file, or none, has its name."""
        if self._file is None:
            return
        ours = os.fstat(self._file)
        with suppress(OSError):
            there = os.stat(self._path)  # noqa: PTH116
            if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                return
        self.close()

    def close(self) -> int:
        """Target."""
        if self._file is not None:
            os.close(self._file)
            self._file, self._torn = None, False
        return 0


class SocketTarget:
    """A unix socket: datagrams, or a stream of lines."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._waiting: deque[bytes] = deque()
        self._octets = 0
        self._sent = 0
        """Octets of the first event that a stream has taken already."""

    def write(self, data: bytes) -> int:
        """Target."""
        if self._octets + len(data) > BACKLOG_MAX:
            self.look()
            if self._octets + len(data) > BACKLOG_MAX:
                return 1
        self._waiting.append(data)
        self._octets += len(data)
        self.look()
        return 0

    def look(self) -> None:
        """Send what waits, as much as is taken at once."""
        try:
            while self._waiting:
                if self._socket is None:
                    self._socket = _connected(self._path)
                    self._sent = 0
                data = self._waiting[0]
                while self._sent < len(data):
                    self._sent += self._socket.send(data[self._sent :], socket.MSG_NOSIGNAL)
                self._octets -= len(self._waiting.popleft())
                self._sent = 0
        except OSError as error:
            if error.errno not in _FULL:
                self._disconnect()

    def close(self) -> int:
        """Target."""
        self.look()
        self._disconnect()
        left = len(self._waiting)
        self._waiting.clear()
        self._octets = 0
        return left

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _connected(path: str) -> socket.socket:
    """Raises OSError."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        found = socket.socket(socket.AF_UNIX, kind)
        found.setblocking(False)
        try:
            found.connect(path)
        except OSError as error:
            found.close()
            if error.errno != errno.EPROTOTYPE or kind == socket.SOCK_STREAM:
                raise
        else:
            return found
    raise ConnectionError(path)


def _line(event: dict[str, Any]) -> bytes:
    return encoded(event) + b"\n"


def journal_fields(event: dict[str, Any]) -> bytes:
    """The event in the journal's native protocol: a field a line; no value has a line end."""
    reply = event.get("reply") or {}
    recipients = [to["address"] for to in event.get("to", ())]
    limits = [event["limit"]] if "limit" in event else event.get("limits", ())
    what = event.get("status") or (limits[0]["name"] if limits else event.get("reason", ""))
    words = f"client={event['client']['address']}, {'status' if 'status' in event else event['event']}={what}"
    words += f", id={event['id']}"
    given = [
        ("MESSAGE", words),
        ("MESSAGE_ID", MESSAGE_IDS[event["event"]]),
        ("PRIORITY", "6"),
        ("SYSLOG_FACILITY", "2"),
        ("SYSLOG_IDENTIFIER", "proxsmtp-tp"),
        ("PROXSMTP_EVENT", event["event"]),
        ("PROXSMTP_ID", event["id"]),
        ("PROXSMTP_INSTANCE", event["instance"]),
        ("PROXSMTP_CLIENT", event["client"]["address"]),
        ("PROXSMTP_SERVER", event.get("server", {}).get("address")),
        ("PROXSMTP_FROM", event.get("from")),
        *(("PROXSMTP_TO", recipient) for recipient in recipients),
        ("PROXSMTP_STATUS", event.get("status")),
        ("PROXSMTP_CODE", reply.get("code")),
        *(("PROXSMTP_LIMIT", limit["name"]) for limit in limits),
        ("PROXSMTP_REASON", event.get("reason")),
        ("PROXSMTP_JSON", encoded(event).decode()),
    ]
    return "".join(f"{name}={value}\n" for name, value in given if value is not None).encode()
