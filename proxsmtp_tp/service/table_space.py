"""Warns when clients find no space in the table of clients (ClientTableSize): their limits are not checked.

The workers count these connections (`Counter.CLIENTS_UNTRACKED`). The first one is logged within seconds, further ones
once an hour with their number: a full table does not fill the log.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from proxsmtp_tp.telemetry.counters import Counter

if TYPE_CHECKING:
    from proxsmtp_tp.net.admission import Admission

log = logging.getLogger(__name__)

HOUR = 3600.0
"""Seconds between two warnings: an administrator changes the directive at the next occasion, which needs a restart."""


class TableSpace:
    """In the master; `look` is called every few seconds."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._counted = self._told = 0
        self._tell_at = 0.0
        self._grew_at: float | None = None

    def look(self) -> None:
        """Log the connections without space since the last warning, if an hour has passed since then."""
        counted = self._admission.counters.totals()[Counter.CLIENTS_UNTRACKED]
        now = time.monotonic()
        if counted > self._counted:
            self._counted, self._grew_at = counted, now
        if counted > self._told and now >= self._tell_at:
            number, size = counted - self._told, self._admission.clients.size
            log.warning(
                "no space in the table of clients (ClientTableSize %d): %d connections without limits", size, number
            )
            self._told, self._tell_at = counted, now + HOUR

    def report(self) -> dict[str, int | None]:
        """`untracked`: connections of clients without space; `untracked_before`: seconds since the latest one, or
        None.
        """
        before = None if self._grew_at is None else round(time.monotonic() - self._grew_at)
        return {"untracked": self._counted, "untracked_before": before}
