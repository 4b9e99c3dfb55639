"""The status of the running daemon: a unix socket that answers each connection with one JSON object.

Nothing is read from a client, and the master does not wait for it. Only root and the daemon's user may connect.

The socket is NAME.sock in the runtime folder. A daemon that is started as root and becomes User could not remove it
from there, so its socket is in a folder of its own, NAME.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.service.unix_listener import UnixListener, read_answer

if TYPE_CHECKING:
    import pwd
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

_FOLDER = "proxsmtp-tp"
_SOCKET = "socket"  # in a folder of the instance's own
_CONTROL = "control"
_METRICS = "metrics"
_MODE = 0o600
_BATCH = 16  # answers at a time, so that the master's other work goes on
# An answer is one send: net.core.wmem_default is 212992 bytes, and 512 workers with 100 bytes each are a
# quarter.
_ANSWER_MAX = 1 << 18


class StatusSocket(UnixListener):
    """The daemon's side of the socket. If no folder can be written, there is no status; mail does not depend on it."""

    def __init__(self, instance: str, user: pwd.struct_passwd | None = None) -> None:
        """As root, if the daemon becomes `user`: make a folder that belongs to this user."""
        super().__init__()
        self._instance = instance
        folder = _own_folder()
        self.path = folder / f"{instance}.sock"
        try:
            folder.mkdir(mode=0o755, exist_ok=True)
            if user is not None:
                _remove_dead(self.path)  # of a daemon that became no other user
                self.path = folder / instance / _SOCKET
                _give_folder(self.path.parent, user)
        except OSError as error:
            self._say_why_not(error)

    def open(self) -> None:
        """Open the socket. Call it after privileges were dropped, so that the daemon can remove it at its end."""
        try:
            if not _remove_dead(self.path):
                raise OSError(f"the instance {self._instance} runs already; give this one another Instance")
            self.listen(self.path, _MODE, _BATCH)
        except OSError as error:
            self._say_why_not(error)

    def file(self, kind: str) -> Path | None:
        """The path for another file of this instance; None while the socket, and so the name, is not ours."""
        if self.fileno() is None:
            return None
        own_folder = self.path.name == _SOCKET
        return self.path.with_name(kind if own_folder else f"{self._instance}.{kind}")

    def control(self) -> Path | None:
        """The path of the control socket; None while the status socket, and so the name, is not ours."""
        return control_path(self.path) if self.fileno() is not None else None

    def metrics(self) -> Path | None:
        """The path of the metrics socket, as `control`."""
        return metrics_path(self.path) if self.fileno() is not None else None

    def answer(self, report: Callable[[], dict[str, Any]]) -> None:
        """Answer the waiting clients."""
        for _ in range(_BATCH):
            if not self.answer_next(lambda: json.dumps(report()).encode() + b"\n"):
                return

    def _say_why_not(self, error: OSError) -> None:
        log.info("no status at %s: %s", self.path, error.strerror or error)


def _give_folder(folder: Path, user: pwd.struct_passwd) -> None:
    """Make a folder for the user. Other users can see that the socket exists, and cannot connect to it."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o711)
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(opened, 0o711)  # less than the umask may have left
        os.fchown(opened, user.pw_uid, user.pw_gid)
    finally:
        os.close(opened)


def _remove_dead(path: Path) -> bool:
    """Remove the socket of a daemon that was killed. False: a running daemon listens on it."""
    with suppress(FileNotFoundError):
        if path.is_socket():
            if read_status(path) is not None:
                return False
            path.unlink()
    return True


def control_path(status: Path) -> Path:
    """The control socket of the daemon that has this status socket."""
    return status.with_name(_CONTROL if status.name == _SOCKET else f"{status.stem}.{_CONTROL}")


def metrics_path(status: Path) -> Path:
    """The metrics socket of the daemon that has this status socket."""
    return status.with_name(_METRICS if status.name == _SOCKET else f"{status.stem}.{_METRICS}")


def instance_of(path: Path) -> str:
    """The instance whose socket this is."""
    return path.parent.name if path.name == _SOCKET else path.stem


def read_status(path: Path) -> dict[str, Any] | None:
    """The answer of the daemon behind this socket; None if no daemon is there. Raises PermissionError."""
    try:
        answer = json.loads(read_answer(path, most=_ANSWER_MAX))
    except PermissionError:
        raise
    except (OSError, ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def find_sockets() -> Iterator[Path]:
    """The sockets of all instances that run or did run, in each folder where a daemon of this host or user may be."""
    for folder in dict.fromkeys((_own_folder(), Path("/run", _FOLDER), Path("/run/proxsmtp"))):
        with suppress(OSError):
            yield from sorted((*folder.glob("*.sock"), *folder.glob(f"*/{_SOCKET}")), key=instance_of)


def _own_folder() -> Path:
    """What the service manager made for us (systemd.exec(5), RuntimeDirectory), or the usual place."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    base = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "/run")
    return Path(base, _FOLDER)
