"""The lock of one network namespace: only one process at a time changes its rules; others wait.

The lock is on the file LOCK@NAMESPACE, beside the state files. Only root can open it (mode 0600), so that no other
local user can block changes. It exists while something is installed in the namespace. If it does not exist and cannot
be created (a full or read-only /run), the lock is on the namespace itself (/proc/thread-self/ns/net): so a removal
needs to write nothing.

The file contains the inode number of the network namespace, and the PID namespace in which that was seen. So a later
process can find out whether the network namespace still exists: it does if a process of this PID namespace uses it.

Sources: flock(2), namespaces(7) (inode numbers of /proc/PID/ns), proc(5) (/proc/locks, mountinfo).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import struct
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT = 60.0
"""Seconds: an install takes a second or two, and up to 60 where nft lists tens of thousands of rules."""
SO_NETNS_COOKIE = 71  # linux asm-generic/socket.h, Linux 5.14; a cookie is never used twice between two boots
_STEP = 0.05  # seconds between two attempts
_NO_FILE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
_NETWORK, _PIDS = Path("/proc/thread-self/ns/net"), Path("/proc/self/ns/pid")
_PREFIX = "lock@"
_INODE = re.compile(r"net:\[([0-9]+)\]")


def namespace_id() -> str:
    """An identifier of this network namespace that no other one has had since boot."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            return f"{struct.unpack('=Q', sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0]}"
        except OSError:  # before Linux 5.14; an inode number may be reused, but never by two namespaces at once
            return f"i{_NETWORK.stat().st_ino}"


@contextmanager
def acquired(directory: Path, namespace: str, seconds: float) -> Iterator[None]:
    """Take the lock of this network namespace, for `with`. Raises GatewayError after `seconds`, or for an unusable
    directory.
    """
    path = directory / f"{_PREFIX}{namespace}"
    deadline = time.monotonic() + seconds
    while True:
        descriptor = _open(path)
        if _locked(descriptor, path):
            break
        holder = _holder(descriptor)
        os.close(descriptor)
        if time.monotonic() > deadline:
            raise GatewayError(
                f"another install-rules or remove-rules has been running for more than {seconds:.0f} s: {holder}."
                " Try again when it has ended, or end it"
            )
        time.sleep(_STEP)
    try:
        yield
    finally:
        os.close(descriptor)


def delete(directory: Path, namespace: str) -> None:
    """Delete the lock file, and its directory if that is empty: an install made both. The caller may have the lock."""
    with suppress(OSError):
        (directory / f"{_PREFIX}{namespace}").unlink()
    with suppress(OSError):
        directory.rmdir()


def _open(path: Path) -> int:
    """Open the lock file and create it if needed; if that fails, open the namespace itself."""
    directory = path.parent
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        if directory.stat().st_uid != os.geteuid():
            raise GatewayError(f"{directory} belongs to another user: remove it")
        return _open_file(path)
    except FileNotFoundError:
        return _open(path)  # another process removed the directory in between
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise GatewayError(f"{directory} cannot be used: {error.strerror}") from error
        return os.open(_NETWORK, os.O_RDONLY | os.O_CLOEXEC)


def _open_file(path: Path) -> int:
    with suppress(FileNotFoundError):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    seen = {"net": _NETWORK.stat().st_ino, "pid": _PIDS.stat().st_ino}
    with suppress(OSError):  # no space: then the end of the namespace is not noticed, and the state files stay
        os.write(descriptor, json.dumps(seen).encode())
    return descriptor


def _locked(descriptor: int, path: Path) -> bool:
    """Whether this process got the lock, on the file that other processes open, too."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return os.path.samestat(os.fstat(descriptor), _NETWORK.stat())


def _holder(descriptor: int) -> str:
    """The process that holds the lock, as text."""
    found = os.fstat(descriptor)
    inode = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            words = line.split()
            if "->" not in words and words[1] == "FLOCK" and words[5] == inode:
                return f"process {words[4]} ({_command(int(words[4]))})"
    return "a process that cannot be seen from here"


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "not seen from here"
    text = " ".join(word.decode(errors="replace") for word in words if word)
    return "".join(character if character.isprintable() else "?" for character in text)[:200] or "no command"


def gone_namespaces(directory: Path) -> list[str]:
    """The network namespaces with a lock file that no longer exist: no process in this PID namespace uses them."""
    pids = _PIDS.stat().st_ino
    candidates: dict[str, int] = {}
    for path in directory.glob(f"{_PREFIX}*"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            seen = json.loads(path.read_text(encoding="ascii"))
            if seen["pid"] == pids:
                candidates[path.name.removeprefix(_PREFIX)] = int(seen["net"])
    if set(candidates.values()) <= {_NETWORK.stat().st_ino}:
        return []
    used = _used_namespaces()
    return sorted(namespace for namespace, inode in candidates.items() if inode not in used)


def _used_namespaces() -> set[int]:
    """The inode numbers of the network namespaces that a thread runs in, has open, or has mounted."""
    found = {_NETWORK.stat().st_ino}
    for process in Path("/proc").glob("[0-9]*"):
        for link in [*_entries(process, "task/*/ns/net"), *_entries(process, "fd/*")]:
            with suppress(OSError):
                found.update(map(int, _INODE.findall(str(link.readlink()))))
        with suppress(OSError):
            found.update(
                map(int, _INODE.findall((process / "mountinfo").read_text(encoding="utf-8", errors="replace")))
            )
    return found


def _entries(process: Path, pattern: str) -> list[Path]:
    try:
        return list(process.glob(pattern))
    except OSError:  # it ended
        return []
