"""Numbers that the master sets for all workers while they run: log level, traced clients, and others.

One shared mapping, made by the master before the first fork and kept over reloads. Only the master writes. A worker
reads without a lock when it needs a number: an aligned word is read as it was before or after a change.

Times are nanoseconds of CLOCK_MONOTONIC (`time.monotonic_ns`), which all processes of a host share.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from enum import IntEnum, unique
from ipaddress import ip_network
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

_WORD = 8
_WORDS = 64  # more than are used: the memory page exists in any case
_TRACED = struct.Struct("=II")  # CRC-32 and length of the text after it
_TRACED_SIZE = 4096

_DOCTOR = 16
_DOCTOR_MAX = 8
"""The first word of marks, and their number: a connection of doctor is open for some seconds."""
_MARK = (1 << 24) - 1
_PROCESS = 1 << 23  # a process id has at most 22 bits (proc(5), pid_max)

TRACED_MAX = 16
"""Networks that can be traced at once: an administrator looks at one or two clients."""


@unique
class Switch(IntEnum):
    """What can be set; the value is the place of its word. 0 before it is set."""

    CHANGES = 0
    """How often anything was changed: with the same number as before, nothing has changed."""
    LOG_LEVEL = 1
    """Lines of this level (of Python's logging) and above are written."""
    PROBE_UNTIL = 3
    """Until then (nanoseconds) sessions of `doctor` are neither in the log nor counted."""
    BYPASS_UNTIL = 2
    """Until that time mail passes unjudged (`service.bypass`)."""


class Traced(NamedTuple):
    """Sessions of clients in this network are traced until that time."""

    network: IPv4Network | IPv6Network
    until: int


def mark_of_port(port: int) -> int:
    """The mark of a TCP connection of doctor: the port that it connects from."""
    return port


def mark_of_process(pid: int) -> int:
    """The mark of a connection of doctor to a unix socket: its process."""
    return _PROCESS | pid


class Switches:
    """The words, and the networks whose sessions are traced."""

    def __init__(self) -> None:
        view = memoryview(mmap.mmap(-1, _WORDS * _WORD + _TRACED_SIZE))
        self._words = view[: _WORDS * _WORD].cast("Q")
        self._traced = view[_WORDS * _WORD :]
        self.set_traced(())

    def __getitem__(self, switch: Switch) -> int:
        """Its value now."""
        return self._words[switch]

    def set(self, switch: Switch, value: int) -> None:
        """Change a value, 0 to 2^64 - 1. Only the master may call this."""
        self._words[switch] = value
        self._words[Switch.CHANGES] += 1

    def expect_doctor(self, mark: int, until: int) -> None:
        """Until then (nanoseconds) connections with this mark are those of `doctor`. Only the master may call this."""
        oldest = min(range(_DOCTOR, _DOCTOR + _DOCTOR_MAX), key=self._words.__getitem__)
        self._words[oldest] = until & ~_MARK | mark  # one word, so no worker reads half of it
        self._words[Switch.PROBE_UNTIL] = max(until, self._words[Switch.PROBE_UNTIL])

    def is_doctor(self, mark: int, now: int) -> bool:
        """Whether a connection with this mark is one of `doctor`."""
        words = self._words[_DOCTOR : _DOCTOR + _DOCTOR_MAX].tolist()
        return any(word & _MARK == mark and word > now for word in words)

    def set_traced(self, traced: tuple[Traced, ...]) -> None:
        """Trace these, and no others. Only the master may call this. Raises ValueError for more than TRACED_MAX."""
        if len(traced) > TRACED_MAX:
            raise ValueError(f"no more than {TRACED_MAX} networks can be traced at once")
        text = "\n".join(f"{network} {until}" for network, until in traced).encode()
        self._traced[: _TRACED.size + len(text)] = _TRACED.pack(zlib.crc32(text), len(text)) + text
        self._words[Switch.CHANGES] += 1

    def traced(self) -> tuple[Traced, ...] | None:
        """The networks that are traced; None while they are being changed: ask again."""
        check, length = _TRACED.unpack_from(self._traced)
        text = bytes(self._traced[_TRACED.size : _TRACED.size + length])
        if zlib.crc32(text) != check:
            return None
        fields = (line.split() for line in text.decode().splitlines())
        return tuple(Traced(ip_network(network), int(until)) for network, until in fields)
