"""Log level and traced clients in one worker, as the master has set them (`telemetry.switches`).

A worker checks once a second whether anything has changed. Running and new sessions are traced alike. Lines about a
traced client are written at every log level, and at least with the priority of information, because many log daemons
drop debug lines.
"""

from __future__ import annotations

import logging
import time
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from proxsmtp_tp.telemetry.switches import Switch

if TYPE_CHECKING:
    from proxsmtp_tp.telemetry.switches import Switches, Traced


class Tracing:
    """The log level and the traced clients of one worker."""

    def __init__(self, switches: Switches) -> None:
        self._switches = switches
        self._seen = -1
        self._everybody = False
        self._traced: tuple[Traced, ...] = ()
        self.look()

    def look(self) -> bool:
        """Take over what has changed. True: the set of traced clients may have changed."""
        changes = self._switches[Switch.CHANGES]
        now = time.monotonic_ns()
        if changes == self._seen and all(traced.until > now for traced in self._traced):
            return False
        if level := self._switches[Switch.LOG_LEVEL]:
            logging.getLogger().setLevel(level)
        self._everybody = logging.getLogger().isEnabledFor(logging.DEBUG)
        traced = self._switches.traced()
        if traced is not None:  # None: the master is changing it; the next call sees the change
            self._traced = tuple(each for each in traced if each.until > now)
            self._seen = changes
        return True

    def follows(self, client: str) -> bool:
        """Whether sessions of this client (IP address; "" for a unix socket) are traced on command."""
        if not self._traced or not client:
            return False
        address = ip_address(client.partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in traced.network for traced in self._traced)

    def wants(self, client: str) -> bool:
        """Whether the dialogue of this client is logged: it is traced, or the log level is 4."""
        return self._everybody or self.follows(client)


def write_traced(log: logging.Logger, level: int, text: str, extra: dict[str, object] | None = None) -> None:
    """Write a line about a traced client, at every log level."""
    record = log.makeRecord(log.name, max(level, logging.INFO), __file__, 0, "%s", (text,), None, extra=extra)
    log.handle(record)
