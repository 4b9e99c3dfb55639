"""Log level and traced clients in one worker, as the master has set them (`telemetry.switches`).

A worker looks once a second whether anything has changed. Sessions that run and those that come are traced alike. Lines
about a traced client are written whatever the level is, with at least the priority of information: a log daemon that
keeps no debug lines keeps these.
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
    """Of one worker."""

    def __init__(self, switches: Switches) -> None:
        self._switches = switches
        self._seen = -1
        self._everybody = False
        self._traced: tuple[Traced, ...] = ()
        self.look()

    def look(self) -> bool:
        """Take what was changed. True: who is traced may have changed."""
        changes = self._switches[Switch.CHANGES]
        now = time.monotonic_ns()
        if changes == self._seen and all(traced.until > now for traced in self._traced):
            return False
        if level := self._switches[Switch.LOG_LEVEL]:
            logging.getLogger().setLevel(level)
        self._everybody = logging.getLogger().isEnabledFor(logging.DEBUG)
        traced = self._switches.traced()
        if traced is not None:  # otherwise it is just being changed: the next look sees it
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
    """A line about a traced client, whatever the level is."""
    record = log.makeRecord(log.name, max(level, logging.INFO), __file__, 0, "%s", (text,), None, extra=extra)
    log.handle(record)
