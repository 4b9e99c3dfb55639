"""Events of locks (EventLog): a client is locked, a lock has ended. The master writes them, as it makes the locks.

The log is opened with the first event, when the daemon has become its user. When locks of the previous daemon are read,
there is no event; for locks that ended while no daemon ran there is none either.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from proxsmtp_tp.net.client_limits import name_of
from proxsmtp_tp.net.limit_decision import show_until
from proxsmtp_tp.telemetry import addresses, events
from proxsmtp_tp.telemetry.event_log import EventLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.service.lock_book import Lock

_LOOK = 1.0
"""Seconds between two tries to write what a reader did not take."""


class LockEvents:
    """Of the master."""

    def __init__(self, settings: Settings, lost: Callable[[], None]) -> None:
        self._where, self._instance = settings.event_log, settings.instance
        self._lost = lost
        self._log: EventLog | None = None
        self._active: dict[str, Lock] = {}
        self._look_at = 0.0

    def configure(self, settings: Settings) -> None:
        """A new configuration is in force."""
        self.close()
        self._where, self._instance = settings.event_log, settings.instance

    def begun(self, lock: Lock, trace: str, value: str) -> None:
        """A client is locked. `trace`: the session; `value`: what the directive of the limit says."""
        more: dict[str, Any] = {"id": trace} | ({"value": value} if value else {})
        if lock.text:
            more["text"] = addresses.current().words(lock.text)
        more |= {"until": show_until(lock.until), "seconds": lock.until - lock.since, "repeated": lock.repeated}
        self._active[lock.client] = lock
        self._write(events.lock(self._instance, name_of(lock.network), lock.reason, **more))

    def active(self, locks: Iterable[Lock], why: str) -> None:
        """`locks` are in force now. Locks that were in force before have ended: by time, or for the reason `why`."""
        now = {lock.client: lock for lock in locks}
        for client, lock in self._active.items():
            if client not in now:
                ended = "time" if lock.until <= time.time() else why
                self._write(events.lock(self._instance, name_of(lock.network), lock.reason, ended))
        self._active = now

    def look(self) -> None:
        """Call it often: once a second, what a reader did not take is written."""
        if self._log is not None and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK
            self._log.look()

    def close(self) -> None:
        """The daemon ends, or writes elsewhere."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def _write(self, event: dict[str, Any]) -> None:
        if self._where == "off":
            return
        if self._log is None:
            self._log = EventLog(self._where, self._lost)
        self._log.write(event)
