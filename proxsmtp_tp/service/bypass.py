"""The bypass: for a time that an administrator sets, mail passes without the filter.

The end is a time of the wall clock. It is stored in the state directory with the reason, so a bypass continues after a
restart of the daemon or of the host. The workers read the end in shared memory (`telemetry.switches`) as a time of the
monotonic clock, so setting the clock does not make a running bypass longer.

The log has a warning at the beginning, at the end, and when a daemon starts during a bypass.
"""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.service.state_directory import replace_file
from proxsmtp_tp.telemetry.counters import Counter
from proxsmtp_tp.telemetry.switches import Switch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from proxsmtp_tp.telemetry.counters import Counters
    from proxsmtp_tp.telemetry.switches import Switches

log = logging.getLogger(__name__)

BYPASS_FILE = "bypass.json"
LONGEST = 7 * 86400.0
"""Seconds. To run without a filter for longer, remove FilterCommand."""
REASON_MAX = 200
"""Characters: one line of `status`."""
_SECOND = 1_000_000_000


def describe(report: Mapping[str, Any]) -> str:
    """One line for people about `Bypass.report`."""
    left = int(report["left"])
    shown = f"{left} s" if left < 120 else f"{left // 60} min" if left < 7200 else f"{left // 3600} h"
    until = f"mail passes unjudged for another {shown}, until {_local(report['until'])}"
    return f"BYPASS: {until}: {report['reason']} ({report['messages']} messages so far)"


def _local(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


class Bypass:
    """The bypass in the master. `kept` is the file in the state directory."""

    def __init__(self, switches: Switches, counters: Counters, kept: Path) -> None:
        self._switches = switches
        self._counters = counters
        self._kept = kept
        self._until = 0.0
        self._end = 0.0
        self._reason = ""
        self._before = 0
        self._restore()

    @property
    def active(self) -> bool:
        """Whether mail passes unjudged now."""
        return bool(self._until)

    def begin(self, seconds: float, reason: str) -> bool:
        """Begin a bypass, or change end and reason of a running one. False: a restart will end it."""
        if not self.active:
            self._before = self._passed()
        self._start(seconds, time.time() + seconds, reason)
        log.warning("bypass: mail passes unjudged until %s: %s", _local(self._end), reason)
        return self._keep()

    def end(self, why: str = "as asked") -> int:
        """End it; returns how many messages passed unjudged."""
        passed = self._passed() - self._before
        if self.active:
            log.warning("bypass: ended %s: %d messages passed unjudged; mail is judged again", why, passed)
        self._until = self._end = 0.0
        self._reason = ""
        self._switches.set(Switch.BYPASS_UNTIL, 0)
        self._keep()
        return passed

    def due(self) -> float:
        """When `step` must be called next, on the monotonic clock."""
        return self._until or float("inf")

    def step(self) -> None:
        """End a bypass that is due."""
        if self.active and time.monotonic() >= self._until:
            self.end("at its time")

    def report(self) -> dict[str, Any] | None:
        """What `status` and `bypass` show; None: there is none. `left` is in seconds, `until` in seconds since 1970."""
        if not self.active:
            return None
        left = max(0, round(self._until - time.monotonic()))
        passed = self._passed() - self._before
        return {"left": left, "until": round(self._end), "reason": self._reason, "messages": passed}

    def _start(self, seconds: float, end: float, reason: str) -> None:
        self._until = time.monotonic() + seconds
        self._end = end
        self._reason = reason
        self._switches.set(Switch.BYPASS_UNTIL, int(self._until * _SECOND))

    def _passed(self) -> int:
        return self._counters.totals()[Counter.BYPASSED]

    def _keep(self) -> bool:
        kept = {"until": self._end, "reason": self._reason} if self.active else {}
        try:
            if kept:
                replace_file(self._kept, json.dumps(kept).encode())
            else:
                self._kept.unlink(missing_ok=True)
        except OSError as error:
            log.warning("bypass: not kept over a restart: %s: %s", self._kept, error.strerror or error)
            return False
        return True

    def _restore(self) -> None:
        """Continue the bypass of the last daemon. If the file cannot be read, mail is judged."""
        try:
            kept = json.loads(self._kept.read_bytes())
            end, reason = float(kept["until"]), str(kept["reason"])[:REASON_MAX]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("bypass: %s is not used: %s", self._kept, error)
            return
        left = min(end - time.time(), LONGEST)
        if left > 0:
            self._start(left, end, reason)
            log.warning("bypass: goes on until %s: mail passes unjudged: %s", _local(self._end), reason)
        else:
            log.warning("bypass: ended while the daemon was down: mail is judged again")
            self._keep()
