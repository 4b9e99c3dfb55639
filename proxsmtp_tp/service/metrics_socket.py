"""The metrics socket: each connection gets all metrics as text (`telemetry.exposition`) and is closed.

Nothing is read from a client, and the master waits for nobody. The daemon's group may connect (mode 0660), so that a
reader without privileges can serve the text to Prometheus: it holds numbers only, no address of anybody.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

_MODE = 0o660
_WAITING = 16  # connections in the queue
SECONDS = 5.0
"""For the answer: the master makes it between two of its own steps, which are short."""


class MetricsSocket:
    """The daemon's side. `path` None: there is no folder for it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        if path is None:
            return
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.unlink(missing_ok=True)  # of a daemon that was killed: the status socket is ours, so this name is, too
            listener.setblocking(False)
            os.fchmod(listener.fileno(), _MODE)  # the file that bind makes has it from its first moment
            before = os.umask(0o007)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            listener.listen(_WAITING)
        except OSError as error:
            listener.close()
            log.info("no metrics at %s: %s", path, error.strerror or error)
        else:
            self._socket = listener

    def fileno(self) -> int | None:
        """To wait on; None without a socket."""
        return self._socket.fileno() if self._socket is not None else None

    def answer(self, text: Callable[[], str]) -> None:
        """Answer one of those who wait."""
        if self._socket is None:
            return
        with suppress(OSError):
            client, _ = self._socket.accept()
            with client:
                client.setblocking(False)
                client.send(text().encode())  # 20 KiB: an empty send buffer has space for ten times as much

    def close(self, remove: bool = False) -> None:
        """Close; `remove` is for the master at its end."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            if remove and self._path is not None:
                with suppress(OSError):  # the folder is gone: nothing stays
                    self._path.unlink()


def read_metrics(path: Path) -> str:
    """The text of the daemon behind this socket. Raises OSError where no daemon answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(SECONDS)
        client.connect(str(path))
        pieces = []
        while more := client.recv(1 << 16):
            pieces.append(more)
    text = b"".join(pieces).decode()
    if not text:
        raise ConnectionError("the daemon gave no answer")
    return text
