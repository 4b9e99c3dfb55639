"""The metrics socket: each connection gets all metrics as text (`telemetry.exposition`) and is closed.

Nothing is read from a client, and the master never waits. The daemon's group may connect (mode 0660), so that a reader
without privileges can serve the text to Prometheus: the text has numbers only, and no address.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proxsmtp_tp.service.unix_listener import UnixListener, read_answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

_MODE = 0o660
_WAITING = 16  # connections in the queue


class MetricsSocket(UnixListener):
    """The daemon's side of the socket. `path` None: there is no folder for the socket, so it is not made."""

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        if path is None:
            return
        try:
            self.replace(path, _MODE, _WAITING)  # the status socket is ours, so this name is, too
        except OSError as error:
            log.info("no metrics at %s: %s", path, error.strerror or error)

    def answer(self, text: Callable[[], str]) -> None:
        """Answer one waiting client with 20 KiB: an empty send buffer has space for ten times as much."""
        self.answer_next(lambda: text().encode())


def read_metrics(path: Path) -> str:
    """The text of the daemon behind this socket. Raises OSError where no daemon answers."""
    if text := read_answer(path).decode():
        return text
    raise ConnectionError("the daemon gave no answer")
