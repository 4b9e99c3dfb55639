"""How much is logged, and whose sessions are traced: changed while the daemon runs, for the master and all workers.

level    -d of the command line, or else LogLevel, which a reload changes; the command log-level overrides both, for a
         time or until the daemon ends
traces   sessions of clients in a network, for a time (postconf(5), debug_peer_list)

A change takes effect in the master at once, in a worker within a second (`net.tracing`).
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.service.logging import LEVELS
from proxsmtp_tp.telemetry.switches import Switch, Traced

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from proxsmtp_tp.telemetry.switches import Switches

_SECOND = 1_000_000_000


class LogLevels:
    """The levels and traces in the master. Levels are those of -d; `given` is -d, or None without it."""

    def __init__(self, switches: Switches, given: int | None, configured: int) -> None:
        self._switches = switches
        self._given = given
        self._configured = configured
        self._commanded: int | None = None
        self._commanded_until = float("inf")
        self._traced: tuple[Traced, ...] = ()
        self._apply()

    @property
    def level(self) -> int:
        """The level that is in force."""
        chosen = (self._commanded, self._given, self._configured)
        return next(level for level in chosen if level is not None)

    def configure(self, configured: int) -> None:
        """LogLevel after a reload."""
        self._configured = configured
        self._apply()

    def command(self, level: int | None, seconds: float | None) -> None:
        """Log at this level from now on, for some seconds or (None) until the daemon ends; None: as configured."""
        self._commanded = level
        self._commanded_until = float("inf") if seconds is None or level is None else time.monotonic() + seconds
        self._apply()

    def trace(self, network: IPv4Network | IPv6Network, seconds: float) -> None:
        """Trace the sessions of these clients for some seconds. Raises ValueError if too many networks are traced."""
        until = time.monotonic_ns() + int(seconds * _SECOND)
        self._trace((*(traced for traced in self._traced if traced.network != network), Traced(network, until)))

    def end_trace(self, network: IPv4Network | IPv6Network | None) -> int:
        """End the trace of a network; None: all traces. Returns how many ended."""
        kept = tuple(traced for traced in self._traced if network not in {None, traced.network})
        ended = len(self._traced) - len(kept)
        self._trace(kept)
        return ended

    def expect_doctor(self, mark: int, seconds: float) -> None:
        """For this time, connections of `doctor` with this mark are not logged."""
        self._switches.expect_doctor(mark, time.monotonic_ns() + int(seconds * 1e9))

    def expect_probe(self, seconds: float) -> None:
        """For this time, sessions of `doctor --probe` are not logged."""
        self._switches.set(Switch.PROBE_UNTIL, time.monotonic_ns() + int(seconds * 1e9))

    def due(self) -> float:
        """When `step` must be called next, on the monotonic clock."""
        return min(self._commanded_until, *(traced.until / _SECOND for traced in self._traced), float("inf"))

    def step(self) -> None:
        """End what is due."""
        if time.monotonic() >= self._commanded_until:
            self.command(None, None)
        now = time.monotonic_ns()
        if any(traced.until <= now for traced in self._traced):
            self._trace(tuple(traced for traced in self._traced if traced.until > now))

    def report(self) -> dict[str, Any]:
        """What `status` and `log-level` show. `left`: seconds, None without an end."""
        now, ends = time.monotonic(), self._commanded_until
        source = "-d" if self._given is not None else "LogLevel"
        return {
            "level": self.level,
            "source": source if self._commanded is None else "log-level",
            "left": None if ends == float("inf") else max(0, round(ends - now)),
            "default": self._configured if self._given is None else self._given,
            "traced": [
                {"network": str(network), "left": max(0, round(until / _SECOND - now))}
                for network, until in self._traced
            ],
        }

    def _trace(self, traced: tuple[Traced, ...]) -> None:
        self._switches.set_traced(traced)
        self._traced = traced

    def _apply(self) -> None:
        number = LEVELS[self.level]
        logging.getLogger().setLevel(number)
        self._switches.set(Switch.LOG_LEVEL, number)
