"""The restart of a daemon of release 2.0.0, which gives systemd no sockets to keep.

The usual restart would refuse clients until the last transaction has ended: for at most DrainTimeOut. So root
takes copies of its listening sockets (pidfd_getfd(2)) and gives them to systemd in its name
(sd_pid_notify_with_fds(3)). Its workers accept no more clients, and finish what they have begun beside the next daemon.
Their /tmp gets another name, because systemd deletes that of a unit which stops (PrivateTmp=).
Where a step is not possible (a kernel before 5.6, ptrace forbidden by Yama), the restart is as usual.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import subprocess
import time
from array import array
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.net.listening import endpoint_of
from proxsmtp_tp.service.kept_listeners import store_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.net.listening import Endpoint

_NOTIFY_SOCKET = "/run/systemd/notify"
_RUNTIME = "/run/"
"""Sockets for commands are below this directory. Clients connect to other sockets."""
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108  (where systemd makes the unit's own)
_OLD = "-old"
_SYS_PIDFD_GETFD = 438  # the same number on every architecture (asm-generic/unistd.h)
_SERVED_SECONDS = 2.0
"""For clients that were accepted just before: their greeting, and the transaction of most."""
_SYSTEMCTL_SECONDS = 30.0


@contextmanager
def sockets_kept(unit: str) -> Iterator[None]:
    """Restart this running daemon in the block. Does nothing for a daemon that gives systemd its sockets itself."""
    pid = _first_release(unit)
    if not pid or not _let_systemd_keep_sockets(unit, pid):
        yield
        return
    workers = _children(pid)
    # A master that runs would replace the workers that end.
    _signal(pid, signal.SIGSTOP)
    try:
        for worker in workers:
            _signal(worker, signal.SIGUSR1)  # as in a reload: it serves its connections only
        end = time.monotonic() + _SERVED_SECONDS
        while time.monotonic() < end and any(map(_runs, workers)):
            time.sleep(0.05)
        _keep_private_directories(unit)
        yield
    finally:
        _signal(pid, signal.SIGCONT)


def _first_release(unit: str) -> int:
    """The process of a daemon that does not know USR2, with which the unit's ExecStop begins a restart; else 0."""
    shown = _show(unit, "MainPID", "NFileDescriptorStore")
    pid = int(shown.get("MainPID", "0"))
    if not pid or shown.get("NFileDescriptorStore", "0") != "0":
        return 0
    caught = 1 << (signal.SIGUSR2 - 1)
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    masks = [int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:")]
    return pid if masks and not masks[0] & caught else 0


def _let_systemd_keep_sockets(unit: str, pid: int) -> bool:
    with ExitStack() as undo:
        try:
            sockets = _listening_sockets(pid, undo)
            sender = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            # NotifyAccess=main: systemd takes it from the main process, or from root in the name of that.
            name = (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("iII", pid, 0, 0))
            for endpoint, sock in sockets.items():
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [sock.fileno()]))
                text = f"FDSTORE=1\nFDNAME={store_name(endpoint)}".encode()
                sender.sendmsg([text], [rights, name], 0, _NOTIFY_SOCKET)
        except OSError:
            return False
        end = time.monotonic() + _SERVED_SECONDS
        while (kept := int(_show(unit, "NFileDescriptorStore").get("NFileDescriptorStore", "0"))) < len(sockets):
            if time.monotonic() > end:
                break
            time.sleep(0.05)
    return kept > 0


def _listening_sockets(pid: int, undo: ExitStack) -> dict[Endpoint, socket.socket]:
    """Copies of the sockets to which clients connect. Raises OSError."""
    process = os.pidfd_open(pid)
    undo.callback(os.close, process)
    found: dict[Endpoint, socket.socket] = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if str(link.readlink()).startswith("socket:"):
                sock = undo.enter_context(socket.socket(fileno=_copy(process, int(link.name))))
                endpoint = endpoint_of(sock)
                if endpoint is not None and not str(endpoint.address).startswith(_RUNTIME):
                    found.setdefault(endpoint, sock)
    return found


def _copy(process: int, number: int) -> int:
    """pidfd_getfd(2): a copy of a descriptor of another process."""
    libc = ctypes.CDLL(None, use_errno=True)
    copied = int(libc.syscall(_SYS_PIDFD_GETFD, process, number, 0))
    if copied < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return copied


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _runs(pid: int) -> bool:
    """The master is stopped and does not call wait(2): a worker that has ended is a zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _keep_private_directories(unit: str) -> None:
    """With names that tmpfiles.d(5) of systemd removes at the next boot. Their mounts stay."""
    for parent in _TEMPORARY:
        for path in parent.glob(f"systemd-private-*-{unit}-*"):
            if not path.name.endswith(_OLD):
                with suppress(OSError):
                    path.rename(f"{path}{_OLD}")


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _show(unit: str, *properties: str) -> dict[str, str]:
    words = ("systemctl", "show", f"--property={','.join(properties)}", unit)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_SYSTEMCTL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
