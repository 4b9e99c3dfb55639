"""What the daemon can reach in the file system: a program, which `daemon_view` runs.

It enters the mount namespace of the daemon's process and becomes its user (setns(2), systemd.exec(5): ProtectSystem,
ProtectHome, PrivateTmp, ReadWritePaths), and then tries what the daemon will do: write in TempDirectory, run commands
of filters, connect to sockets of filters. It leaves nothing there.

Input: {"pid" (or null: this process's own view), "uid", "gid", "groups", "temp" (path), "path" (of the environment),
"folder" (the working directory), "commands" and "sockets" (lists)}.
Output: {"temp": {...}, "commands": [{...}], "sockets": [{...}]}, see `temp_directory`, `program` and `scanner`.
"""

from __future__ import annotations

import ctypes
import errno
import grp
import json
import os
import pwd
import re
import shlex
import socket
import stat
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

CLONE_NEWNS = 0x20000  # linux/sched.h
_SHELL_WORDS = frozenset(("exec", "cd", "if", "test", "[", ":", "true", "set", ".", "for", "while", "case", "{", "("))
_INTERPRETER = re.compile(r"(?:python|perl|ruby|php|sh|bash|dash|ksh|zsh|node|lua)[0-9.]*")
_INLINE = frozenset(("-c", "-m", "-e", "-E", "-r"))  # the program is not a file
_HEAD = 256  # octets in which the kernel looks for `#!` (execve(2), BINPRM_BUF_SIZE)
_BLOCK = 4096
_ANSWER_SECONDS = 5.0


def main() -> int:
    """Answer the question on standard input."""
    job = json.load(sys.stdin)
    enter(job)
    heads = _Heads(job)
    advice = [_groups_to_join(path, job) for path in job["sockets"]]
    become(job)
    answer = {
        "temp": temp_directory(job["temp"]),
        "commands": [program(command, job["path"], heads.text) for command in job["commands"]],
        "sockets": [scanner(path, groups) for path, groups in zip(job["sockets"], advice, strict=True)],
    }
    json.dump(answer, sys.stdout)
    return 0


def enter(job: dict[str, Any]) -> None:
    """The daemon's mount namespace and working directory. Raises OSError."""
    if job["pid"] is not None:
        _enter(job["pid"])
    with suppress(OSError):
        os.chdir(job["folder"])


def become(job: dict[str, Any]) -> None:
    """The daemon's user and groups, for good. Only root can."""
    if os.geteuid() == 0:
        os.setgroups(job["groups"])
        os.setresgid(job["gid"], job["gid"], job["gid"])
        os.setresuid(job["uid"], job["uid"], job["uid"])


def _enter(pid: int) -> None:
    """The mount namespace of a process; its root becomes ours. Raises OSError."""
    descriptor = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    if not os.path.samestat(os.fstat(descriptor), Path("/proc/self/ns/mnt").stat()) and libc.setns(
        descriptor, CLONE_NEWNS
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def temp_directory(path: str) -> dict[str, Any]:
    """Write a file without a name there. `error` (errno), `step` (look, write), and `mode`, `device`, `inode`, `free`
    and `total` in bytes as far as they are known.
    """
    found: dict[str, Any] = {"step": "look"}
    try:
        info = Path(path).stat()
        found |= {"mode": info.st_mode, "device": info.st_dev, "inode": info.st_ino}
        if not stat.S_ISDIR(info.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "")
        disk = os.statvfs(path)
        found |= {"free": disk.f_bavail * disk.f_frsize, "total": disk.f_blocks * disk.f_frsize, "step": "write"}
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(_BLOCK))
            file.flush()
    except OSError as error:
        found["error"] = error.errno
    return found


class _Heads:
    """The first octets of a program, read as root: a script that its user may run, but not read, fails."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._heads: dict[str, bytes] = {}
        for word in (word for command in job["commands"] for word in (_words(command) or [])[:2]):
            path = _find(word, job["path"])
            if path is not None:
                with suppress(OSError), Path(path).open("rb") as file:
                    self._heads[path] = file.read(_HEAD)

    def text(self, path: str) -> bytes:
        """Empty for a file that is not known."""
        return self._heads.get(path, b"")


def _words(command: str) -> list[str] | None:
    """The words from the program on; None: the command is more than a list of words."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    while words and ("=" in words[0].partition("/")[0] or words[0] == "exec"):
        del words[0]
    return words


def _find(word: str, path: str) -> str | None:
    """The file that execvp(3) runs for a word."""
    if "/" in word:
        return word
    places = (os.path.join(folder or ".", word) for folder in path.split(":"))  # noqa: PTH118 (as execvp does it)
    return next((place for place in places if os.access(place, os.X_OK) and not os.path.isdir(place)), None)  # noqa: PTH112


def program(command: str, path: str, head: Any) -> dict[str, Any]:
    """Whether the first program of a shell command can be run. `file`, and `problem` with `kind` if it cannot."""
    words = _words(command)
    if not words or words[0] in _SHELL_WORDS:
        return {"file": "a line of shell"}
    file = _find(words[0], path)
    if file is None:
        return {"file": words[0], "kind": "missing", "problem": f"{words[0]} is not installed (PATH is {path})"}
    problem = _of_file(file) or _of_first_line(file, path, head(file)) or _of_script(words)
    return {"file": file} | (problem or {})


def _of_file(file: str) -> dict[str, Any] | None:
    try:
        info = Path(file).stat()
    except OSError as error:
        return {"kind": "missing", "problem": f"{file}: {error.strerror}"}
    if not stat.S_ISREG(info.st_mode):
        return {"kind": "missing", "problem": f"{file} is no file"}
    if os.access(file, os.X_OK):
        return None
    if os.statvfs(file).f_flag & os.ST_NOEXEC:
        return {"kind": "noexec", "problem": f"{file} is on a file system that is mounted noexec"}
    return {"kind": "mode", "problem": f"{file} cannot be run"}


def _of_first_line(file: str, path: str, head: bytes) -> dict[str, Any] | None:
    if not head.startswith(b"#!"):
        return None
    if not os.access(file, os.R_OK):
        return {"kind": "mode", "problem": f"{file} is a script, and cannot be read"}
    line = head[2:].split(b"\n", 1)[0]
    if line.endswith(b"\r"):
        return {"kind": "returns", "problem": f"{file} has carriage returns at the ends of its lines"}
    words = line.decode("utf-8", "backslashreplace").split()
    if not words or _of_file(words[0]) is not None:
        return {"kind": "interpreter", "problem": f"{file}: its interpreter {' '.join(words[:1])} cannot be run"}
    named = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if os.path.basename(words[0]) == "env" and named and _find(named[0], path) is None:  # noqa: PTH119
        return {"kind": "interpreter", "problem": f"{file}: its interpreter {named[0]} is not installed"}
    return None


def _of_script(words: list[str]) -> dict[str, Any] | None:
    """`python3 SCRIPT`: an interpreter whose script is missing ends like a filter that refuses."""
    if not _INTERPRETER.fullmatch(os.path.basename(words[0])) or _INLINE & set(words[1:]):  # noqa: PTH119
        return None
    script = next((word for word in words[1:] if not word.startswith("-")), None)
    if script is None or os.access(script, os.R_OK):
        return None
    why = "cannot be read" if Path(script).exists() else "does not exist"
    return {"kind": "mode" if why == "cannot be read" else "missing", "problem": f"{script} {why}", "file": script}


def scanner(path: str, groups: list[str]) -> dict[str, Any]:
    """Connect to a socket; `problem` if that fails, with `groups` that the user must join where only that is wrong."""
    try:
        with closing(socket.socket(socket.AF_UNIX)) as link:
            link.settimeout(_ANSWER_SECONDS)
            link.connect(path)
    except OSError as error:
        denied = error.errno in {errno.EACCES, errno.EPERM}
        known = {"denied": denied, "groups": groups if denied else [], "user": _own_name()}
        return {"problem": error.strerror or str(error)} | known
    return {}


def _own_name() -> str:
    with suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_name
    return ""


def _groups_to_join(path: str, job: dict[str, Any]) -> list[str]:
    """The groups that would open the socket and all directories above it to the user; empty: groups do not help.

    A connection needs write permission for the socket, and search permission for the directories (unix(7)).
    """
    found = []
    with suppress(OSError, RuntimeError):
        end = Path(path).resolve(strict=True)
        for place in (*reversed(end.parents), end):
            info, bit = place.stat(), 0o2 if place == end else 0o1
            if info.st_uid == job["uid"] or info.st_gid in {job["gid"], *job["groups"]}:
                shift = 6 if info.st_uid == job["uid"] else 3
                if not info.st_mode >> shift & bit:
                    return []
            elif not info.st_mode & bit:
                if not info.st_mode >> 3 & bit or info.st_gid == 0:
                    return []
                found.append(info.st_gid)
        return sorted({grp.getgrgid(gid).gr_name for gid in found})
    return []


if __name__ == "__main__":
    sys.exit(main())
