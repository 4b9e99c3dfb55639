"""Logs refused connections once a second: how many, and which clients have the most connections.

One line for each of them would fill the log. Refusals because of MaxConnections are counted in shared memory, one word
for each worker; the first worker that looks in a new second logs the sum. Refusals of clients that have their share of
MaxConnections are counted and logged by each worker for itself.

A warning is logged when 80 % of MaxConnections are in use, and again only after the number was below 70 %.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxsmtp_tp.net.admission import Admission

log = logging.getLogger(__name__)

NAMED = 5
"""Clients in a line: an administrator blocks one or two."""
CLIENTS_MAX = 1000
"""Clients whose refusals one worker counts by name in a second; of further ones only the sum is logged."""


class Floods:
    """The refused connections of one worker."""

    def __init__(self, admission: Admission, worker: int) -> None:
        self._admission = admission
        self._worker = worker
        self._clients: Counter[str] = Counter()
        self._others = 0

    def full(self) -> None:
        """A client was refused: MaxConnections are in use."""
        self._admission.refused.count(self._worker)

    def too_many(self, client: str) -> None:
        """This client was refused: it has as many connections as it may have."""
        if client in self._clients or len(self._clients) < CLIENTS_MAX:
            self._clients[client] += 1
        else:
            self._others += 1

    def look(self, *, at_end: bool = False) -> None:
        """Once a second, and at the end of the worker: log what happened since the last call."""
        number, high = self._admission.look_for_floods(int(time.monotonic()) + at_end)
        limit = self._admission.limit
        if number:
            clients = named(self._admission.clients_with_most(NAMED))
            log.error(
                "more than MaxConnections (%d): %d connections refused; clients with most: %s", limit, number, clients
            )
        if high:
            clients = named(self._admission.clients_with_most(NAMED))
            log.warning("80 %% of MaxConnections (%d) are in use; clients with most: %s", limit, clients)
        if self._clients:
            number = self._clients.total() + self._others
            clients = named(self._clients.most_common(NAMED))
            log.warning(
                "%d connections of clients that have their share of MaxConnections refused: %s", number, clients
            )
            self._clients.clear()
            self._others = 0


def named(clients: list[tuple[str, int]]) -> str:
    """Clients with their numbers, for a log line."""
    return ", ".join(f"{client} {number}" for client, number in clients) or "none"
