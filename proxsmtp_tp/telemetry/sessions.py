"""The sessions that run now, in memory that all workers share: for `status`, `sessions` and metrics.

One mapping, made by the master before the first fork and kept over reloads. A session is a row. A worker takes rows in
chunks, under a lock, and writes its rows without one. Any process reads them:

state    one word: phase, and since when. It is written at once, so it is never torn. 0: the row is free.
text     id, client, server and envelope, with a checksum: a text that is being changed is read again
wanted   one word, written by the master: the session that must end

The rows of a dead worker are freed by the master. Times are milliseconds of CLOCK_MONOTONIC, which all processes of a
host share.
"""

from __future__ import annotations

import mmap
import struct
import time
import zlib
from collections import Counter
from enum import IntEnum, unique
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from proxsmtp_tp.telemetry.record_lock import RecordLock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CHUNK: Final = 64
"""Rows that a worker takes at a time, so that it needs the lock for one session in 64 at most."""
_TEXT: Final = 416
"""Octets of a row's text, with its checksum and length. The longest have both addresses cut (ADDRESS_MAX)."""
_HEAD: Final = struct.Struct("=IH")
_PHASE_BITS: Final = 8
_NEW: Final = "\0\0" + "0\0" + "0\0"  # no server, no message, no recipient (`_packed`)
_NO_TLS: Final = "\0\0\0"
_ATTEMPTS = 5  # a text is changed in a microsecond, and not again in the same second

RULE_MAX = 100
"""Octets of the Tls line of a passed connection. No envelope is shown of it."""
ADDRESS_MAX = 110
"""Octets that are shown of sender, recipient and HELO name: two thirds of an 80-column line; longer ones are rare."""

ROWS_MAX = 3 * (1 << 18)
"""1.5 times as many sessions as MaxConnections allows (half of fs.nr_open): each worker has a chunk that it has not
filled. Only pages that were used take memory."""


@unique
class SessionPhase(IntEnum):
    """What a session does or waits for. `status` and `sessions` show the name in lower case."""

    CONNECTING = 1
    """We connect to the server."""
    GREETING = 2
    """The server's greeting."""
    COMMAND = 3
    """The client's next command."""
    REPLY = 4
    """The server's reply to a command."""
    DATA = 5
    """The client's message."""
    WAITING = 6
    """A place for the filter: FilterProcesses others run."""
    FILTER = 7
    """The filter's verdict."""
    SENDING = 8
    """The server takes the message."""
    FINAL = 9
    """The server's reply to the message."""
    READING = 10
    """The client to read its replies."""
    CLOSING = 11
    """The other side to close the connection."""
    TLS = 12
    """The TLS handshake of either side."""
    PASSING = 13
    """TLS of the client with the server is passed on, not judged."""


NO_ROW: Final = -1

_CONNECTING: Final = int(SessionPhase.CONNECTING)


class Shown(NamedTuple):
    """What is shown of a session, without its phase. Addresses may contain characters that are not printable: the code
    that prints them must escape these."""

    id: str
    client: str
    server: str
    helo: bytes
    messages: int
    sender: bytes | None
    recipients: int
    recipient: bytes
    """The first of them."""
    opened: int
    """When the client connected."""
    client_tls: str = ""
    """`TlsLeg.short`; empty: the leg is in clear. `server_tls` likewise."""
    server_tls: str = ""
    passed_by: str = ""
    """The Tls line by which the client's TLS passes, not judged; empty: it does not."""


class SessionTable:
    """The rows of all workers."""

    def __init__(self, rows: int = ROWS_MAX) -> None:
        chunks = rows // _CHUNK
        sizes = (8, chunks * 2, rows * 8, rows * 8, rows * _TEXT)
        starts = [sum(sizes[:index]) for index in range(len(sizes) + 1)]
        starts = [(start + 7) & ~7 for start in starts]
        view = memoryview(mmap.mmap(-1, starts[-1]))
        self._used = view[starts[0] : starts[1]].cast("Q")  # chunks that are or were used
        self._owners = view[starts[1] : starts[1] + chunks * 2].cast("H")  # worker + 1; 0 is free
        self.states = view[starts[2] : starts[3]].cast("Q")
        self.wanted = view[starts[3] : starts[4]].cast("Q")
        self._texts = view[starts[4] :]
        self._chunks = chunks
        self._lock = RecordLock()

    # For a worker.

    def of(self, worker: int) -> WorkerSessions:
        """The rows of one worker."""
        return WorkerSessions(self, worker)

    def take_chunk(self, worker: int) -> Sequence[int]:
        """Rows for the worker; none if the table is full."""
        with self._lock:
            owners = self._owners[: self._used[0]].tolist()
            chunk = owners.index(0) if 0 in owners else len(owners)
            if chunk == self._chunks:
                return ()
            self._owners[chunk] = worker + 1
            self._used[0] = max(self._used[0], chunk + 1)
        return range((chunk + 1) * _CHUNK - 1, chunk * _CHUNK - 1, -1)

    def write(self, row: int, shown: Shown) -> None:
        """Change the text of a row. Only its worker may call this."""
        self.write_text(row, _packed(shown))

    def write_text(self, row: int, text: bytes) -> None:
        """The same, packed."""
        start = row * _TEXT
        self._texts[start : start + _HEAD.size + len(text)] = _HEAD.pack(zlib.crc32(text), len(text)) + text

    # For the master.

    def clear(self, worker: int) -> None:
        """The worker is dead, and its sessions with it."""
        with self._lock:
            for chunk, owner in enumerate(self._owners[: self._used[0]].tolist()):
                if owner == worker + 1:
                    rows = slice(chunk * _CHUNK, (chunk + 1) * _CHUNK)
                    self.states[rows] = self.wanted[rows] = memoryview(bytes(_CHUNK * 8)).cast("Q")
                    self._owners[chunk] = 0
            while self._used[0] and not self._owners[self._used[0] - 1]:
                self._used[0] -= 1

    def kill(self, identifier: str) -> bool:
        """Ask the worker of this session to end it. False: there is no session with this id."""
        for row, _, shown in self._rows():
            if shown.id == identifier:
                self.wanted[row] = key_of(identifier)
                return True
        return False

    # For any reader.

    def phases(self) -> tuple[dict[SessionPhase, int], float]:
        """How many sessions are in each phase, and seconds that the oldest one has waited for the filter."""
        states = self._states()
        counted = Counter(state & 0xFF for state in states if state)
        waiting = [state >> _PHASE_BITS for state in states if state & 0xFF == SessionPhase.WAITING]
        oldest = (time.monotonic() * 1000 - min(waiting)) / 1000 if waiting else 0.0
        return {phase: counted[phase] for phase in SessionPhase}, max(0.0, oldest)

    def listed(self, most: int) -> list[dict[str, Any]]:
        """The sessions, those that are the longest in their phase first, `most` at most. Times in seconds."""
        now = int(time.monotonic() * 1000)
        states = sorted((state >> _PHASE_BITS, row, state) for row, state in enumerate(self._states()) if state)
        read = ((row, state, self._read(row)) for _, row, state in states)
        rows = islice(((row, state, shown) for row, state, shown in read if shown is not None), most)
        return [
            {
                "id": shown.id,
                "client": shown.client,
                "server": shown.server,
                "phase": SessionPhase(state & 0xFF).name.lower(),
                "phase_seconds": max(0, now - (state >> _PHASE_BITS)) / 1000,
                "seconds": max(0, now - shown.opened) / 1000,
                "helo": _text(shown.helo),
                "messages": shown.messages,
                "from": None if shown.sender is None else _text(shown.sender),
                "recipients": shown.recipients,
                "to": _text(shown.recipient),
                "client_tls": shown.client_tls or None,
                "server_tls": shown.server_tls or None,
                "passed_by": shown.passed_by or None,
            }
            for _, state, shown in rows
        ]

    def _states(self) -> list[int]:
        return self.states[: self._used[0] * _CHUNK].tolist()

    def _rows(self) -> Iterator[tuple[int, int, Shown]]:
        for row, state in enumerate(self._states()):
            if state and (shown := self._read(row)) is not None:
                yield row, state, shown

    def _read(self, row: int) -> Shown | None:
        start = row * _TEXT
        for _ in range(_ATTEMPTS):
            check, length = _HEAD.unpack_from(self._texts, start)
            text = bytes(self._texts[start + _HEAD.size : start + _HEAD.size + min(length, _TEXT - _HEAD.size)])
            if zlib.crc32(text) == check and length:
                return _unpacked(text)
        return None


class WorkerSessions:
    """The rows of one worker, for that worker."""

    def __init__(self, table: SessionTable, worker: int) -> None:
        self.table = table
        self._worker = worker
        self._free: list[int] = []

    def begin(self, identifier: str, client: str, now: float) -> SessionRow | None:
        """A session begins, with no server and no envelope yet; `now` in seconds. None: the table is full."""
        begun = SessionRow(self, identifier, client, now)
        return begun if begun.shown else None

    def take(self, text: str) -> int:
        """A row with this text; NO_ROW: the table is full."""
        if not self._free:
            self._free += self.table.take_chunk(self._worker)
        if not self._free:
            return NO_ROW
        row = self._free.pop()
        self.table.write_text(row, text.encode())
        self.table.wanted[row] = 0
        return row

    def give_back(self, row: int) -> None:
        """The session of this row has ended."""
        self.table.states[row] = 0
        self._free.append(row)


class SessionRow:
    """One session, for its worker. If the table has no free row, nothing is shown."""

    __slots__ = ("_identifier", "_row", "_rows", "changed")

    def __init__(self, rows: WorkerSessions, identifier: str, client: str, now: float) -> None:
        """A session begins, with no server and no envelope yet; `now` in seconds."""
        self._rows = rows
        self._identifier = identifier
        self._row = rows.take(f"{identifier}\0{client}{_NEW}{int(now * 1000)}{_NO_TLS}\0\0\1\0")
        self.changed = False
        """The phase has changed since `show`, and so may have what is shown."""
        self.enter(_CONNECTING, now)

    @property
    def shown(self) -> bool:
        """Whether there is a row."""
        return self._row != NO_ROW

    def enter(self, phase: int, now: float) -> None:
        """The session is in this phase from now on (seconds)."""
        if self._row != NO_ROW:
            self._rows.table.states[self._row] = int(now * 1000) << _PHASE_BITS | phase
            self.changed = True

    def show(self, shown: Shown) -> None:
        """Change what is shown."""
        self.changed = False
        if self._row != NO_ROW:
            self._rows.table.write(self._row, shown)

    @property
    def must_end(self) -> bool:
        """Whether the master wants this session to end."""
        wanted = self._rows.table.wanted[self._row] if self._row != NO_ROW else 0
        return wanted != 0 and wanted == key_of(self._identifier)

    def end(self) -> None:
        """The session has ended. Idempotent."""
        row, self._row = self._row, NO_ROW
        if row != NO_ROW:
            self._rows.give_back(row)


def key_of(identifier: str) -> int:
    """A number, never 0, that no later session in the same row has."""
    return zlib.crc32(identifier.encode()) | 1 << 32


def _packed(shown: Shown) -> bytes:
    """Fields with a NUL between them, which no address has: NUL in a command line is refused."""
    sender = b"\1" if shown.sender is None else shown.sender[:ADDRESS_MAX]
    numbers = f"{shown.id}\0{shown.client}\0{shown.server}\0{shown.messages}\0{shown.recipients}\0{shown.opened}\0"
    numbers += f"{shown.client_tls}\0{shown.server_tls}\0{shown.passed_by[:RULE_MAX]}\0"
    rest = b"\0".join((shown.helo[: ADDRESS_MAX // 3], sender, shown.recipient[:ADDRESS_MAX]))
    return (numbers.encode() + rest)[: _TEXT - _HEAD.size]


def _unpacked(text: bytes) -> Shown | None:
    fields = text.split(b"\0", 11)
    if len(fields) != 12:
        return None
    identifier, client, server = (field.decode() for field in fields[:3])
    messages, recipients, opened = (int(field) for field in fields[3:6])
    client_tls, server_tls, passed_by = (field.decode() for field in fields[6:9])
    helo, sender, recipient = fields[9:]
    whole = None if sender == b"\1" else sender
    tls = client_tls, server_tls, passed_by
    return Shown(identifier, client, server, helo, messages, whole, recipients, recipient, opened, *tls)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
