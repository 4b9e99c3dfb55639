"""What the running daemon does now: a unix socket that answers each connection with one JSON object.

Nothing is read from whoever connects, and nothing is waited for: a client of it cannot hold the master. The
socket is NAME.sock in the runtime folder; only root and the daemon's user may connect.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

_FOLDER = "proxsmtp-tp"
_MODE = 0o600
_BATCH = 16  # answers at a time, so that the master gets on with its work
# An answer is one send: net.core.wmem_default is 212992 bytes, and 512 workers with 100 bytes each are a
# quarter.
_ANSWER_MAX = 1 << 18
_PATIENCE = 5.0  # seconds; the master answers between two of its own steps, which are short


class StatusSocket:
    """The daemon's side. Without a folder that may be written to there is no status; mail does not depend on it."""

    def __init__(self, instance: str) -> None:
        self.path = _own_folder() / f"{instance}.sock"
        self._socket: socket.socket | None = None
        try:
            self._socket = self._open()
        except OSError as error:
            log.info("no status at %s: %s", self.path, error.strerror or error)

    def give_to(self, uid: int, gid: int) -> None:
        """Let the user that the daemon becomes connect, too."""
        if self._socket is not None:
            with suppress(OSError):  # then only root may ask
                os.chown(self.path, uid, gid, follow_symlinks=False)

    def fileno(self) -> int | None:
        """To wait on; None without a socket."""
        return self._socket.fileno() if self._socket is not None else None

    def answer(self, report: Callable[[], dict[str, Any]]) -> None:
        """Answer those who wait."""
        for _ in range(_BATCH):
            if self._socket is None:
                return
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, suppress(OSError):
                client.setblocking(False)
                client.send(json.dumps(report()).encode() + b"\n")

    def close(self, remove: bool = False) -> None:
        """Close; `remove` is for the master at its end."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            if remove:
                with suppress(OSError):  # a folder of root's: a dead socket is taken over by the next start
                    self.path.unlink()

    def _open(self) -> socket.socket:
        self.path.parent.mkdir(mode=0o755, exist_ok=True)
        if self.path.is_socket() and read_status(self.path) is not None:
            raise OSError(f"the instance {self.path.stem} runs already; give this one another Instance")
        with suppress(FileNotFoundError):
            if self.path.is_socket():
                self.path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            os.fchmod(listener.fileno(), _MODE)  # the file that bind makes has it from its first moment
            listener.bind(str(self.path))
            listener.listen(_BATCH)
        except OSError:
            listener.close()
            raise
        return listener


def read_status(path: Path) -> dict[str, Any] | None:
    """What the daemon behind this socket says; None if nobody is there. Raises PermissionError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_PATIENCE)
        try:
            client.connect(str(path))
            data = b""
            while (more := client.recv(1 << 16)) and len(data) <= _ANSWER_MAX:
                data += more
        except PermissionError:
            raise
        except OSError:
            return None
    try:
        answer = json.loads(data)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def find_sockets() -> Iterator[Path]:
    """The sockets of all instances that run or did run, wherever a daemon of this machine or user puts them."""
    for folder in dict.fromkeys((_own_folder(), Path("/run", _FOLDER), Path("/run/proxsmtp"))):
        with suppress(OSError):
            yield from sorted(folder.glob("*.sock"))


def _own_folder() -> Path:
    """What the service manager made for us (systemd.exec(5), RuntimeDirectory), or the usual place."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    base = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "/run")
    return Path(base, _FOLDER)
