"""Checks TempDirectory as the daemon sees it: in its mount namespace, as its user.

`daemon_access` looks there. Where no daemon runs, it looks in this process's namespace as the daemon's user. That is
only a guess, because a daemon's unit may show it other files.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.gateway.doctor.findings import Finding, Setup, unseen
from proxsmtp_tp.gateway.doctor.fixes import NONE, Fix, fix
from proxsmtp_tp.gateway.doctor.listeners import accepting
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.options import user_id
from proxsmtp_tp.gateway.plan import PlanError
from proxsmtp_tp.gateway.python import module_command

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TOOL_SECONDS = 8.0  # less than a step may take
_SPACE = 64 << 20  # bytes: a few messages at the usual limit of 10 to 50 MB
_RESERVE, _RESERVE_PART = (
    64 << 20,
    20,
)  # what filters.spool_space keeps free: bytes; on a small file system, this fraction (1/20) of it
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # of the shell and of systemd, without PATH
_FULL = {errno.ENOSPC, errno.EDQUOT}
_PRIVATE = ("/tmp/", "/var/tmp/")  # noqa: S108 (each instance has its own, systemd.exec(5), PrivateTmp)


def look_at_temp_directory(setup: Setup) -> Iterator[Finding]:
    """Checks that the daemon can write there, that only the daemon may, and that there is free space."""
    path, step = Path(setup.settings.temp_directory), "temp directory"
    pid, hidden = process_of(setup), is_hidden(setup)
    if pid is None and hidden:
        yield unseen(step, f"the daemon does not run, and {setup.unit}.service does not show it the whole host")
        return
    seen = look(setup, pid)["temp"]
    if "error" in seen:
        yield _unusable(setup, path, seen)
        return
    own = _is_private(path, seen)
    shared = stat.S_IMODE(seen["mode"]) & 0o002 and not own
    if shared and not seen["mode"] & stat.S_ISVTX:
        text = f"{path} is open to everybody: other users could replace messages"
        yield Finding(step, False, text, _make(setup, path))
    elif (short := _short_of_space(seen["total"], seen["free"], path, setup.settings.spool_limit)) is not None:
        yield Finding(step, False, short)
    else:
        remark = " (shared: a TempDirectory of its own is better)" if shared else " (the daemon's own)" if own else ""
        yield Finding(step, True, f"{path}{remark}")


def _unusable(setup: Setup, path: Path, seen: dict[str, Any]) -> Finding:
    """Why the daemon cannot write there, and the fix."""
    step, number = "temp directory", seen["error"]
    owner = setup.settings.user or "root"
    if number == errno.ENOTDIR:
        return Finding(step, False, f"{path} is no directory")
    if number in _FULL:
        return Finding(step, False, f"{path}: {os.strerror(number)}: messages get 452")
    if number == errno.EROFS and not _read_only_here(path):
        text = f"{path} is read-only for the daemon, by its unit (ProtectSystem): messages get 451"
        return Finding(step, False, text, fix("unit's directory is read-only", unit=setup.install_service))
    if number == errno.EROFS:
        return Finding(step, False, f"{path} is on a read-only disk: messages get 451", _writable_again(path))
    if number == errno.ENOENT:
        hidden = path.is_dir() and is_hidden(setup)
        text = f"{path}: {'its unit hides it from the daemon' if hidden else 'No such file or directory'}"
        return Finding(step, False, text, _make(setup, path))
    if number in {errno.EACCES, errno.EPERM}:
        where = "a directory above it is closed to" if seen["step"] == "look" else "it is not writable for"
        return Finding(step, False, f"{path}: {where} {owner}", NONE if seen["step"] == "look" else _make(setup, path))
    return Finding(step, False, f"{path}: {os.strerror(number)}")


def _make(setup: Setup, path: Path) -> Fix:
    """The command that makes the directory, or corrects its owner and mode."""
    if setup.unit is not None and f"{path}/".startswith(_PRIVATE):
        # The daemon makes it at its start, in the /tmp that only it sees.
        return fix("private directory", restart=setup.restart)
    owner, name = setup.settings.user or "root", str(path)
    if setup.unit is None:
        return fix("directory", owner=owner, path=name)
    return fix("unit's directory", owner=owner, path=name, unit=setup.install_service, restart=setup.restart)


def _read_only_here(path: Path) -> bool:
    with suppress(OSError):
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    return False


def _writable_again(path: Path) -> Fix:
    place = next(folder for folder in (path, *path.parents) if folder.is_mount())
    return fix("disk is read-only", mount=str(place))


def _is_private(path: Path, seen: dict[str, Any]) -> bool:
    """Whether the daemon has another directory of this name than the host."""
    with suppress(OSError):
        info = path.stat()
        return (info.st_dev, info.st_ino) != (seen["device"], seen["inode"])
    return True


def _short_of_space(total: int, free: int, path: Path, spool_limit: int) -> str | None:
    """Why messages would get 452, or None: the daemon keeps a reserve free and refuses messages that would use it."""
    reserve = min(_RESERVE, total // _RESERVE_PART)
    if free < reserve + _SPACE:
        return f"{path} has less than {reserve + _SPACE >> 20} MB left, and the last {reserve >> 20} MB stay free"
    if spool_limit > total - reserve:
        return f"{path}: its file system has {total >> 20} MB, less than SpoolLimit ({spool_limit >> 20} MB)"
    return None


def look_at_bypass(setup: Setup) -> Iterator[Finding]:
    """Checks that the filter is not bypassed."""
    if bypass := (setup.status() or {}).get("bypass"):
        text = f"mail passes unjudged for another {bypass['left']} s: {bypass['reason']}"
        yield Finding("bypass", False, text, fix("bypass", bypass=setup.command("bypass")))


def process_of(setup: Setup) -> int | None:
    """A process of the daemon: of those that listen, the first. None: it does not run."""
    found = [pid for item in accepting(setup) for pid in item.pids]
    return found[0] if found else None


def is_hidden(setup: Setup) -> bool:
    """Whether the daemon's unit shows it other files than the host has."""
    return setup.unit is not None


def look(setup: Setup, pid: int | None, commands: Sequence[str] = (), sockets: Sequence[str] = ()) -> dict[str, Any]:
    """What `daemon_access` finds. Raises GatewayError."""
    job = job_of(setup, pid) | {"commands": list(commands), "sockets": list(sockets)}
    found: dict[str, Any] = run_as_daemon("proxsmtp_tp.gateway.doctor.daemon_access", job, TOOL_SECONDS)
    return found


def job_of(setup: Setup, pid: int | None) -> dict[str, Any]:
    """What a program must know to see what the daemon sees. Raises GatewayError."""
    return {
        "pid": pid,
        **(_user_of(pid) if pid is not None else _user_wanted(setup)),
        "temp": setup.settings.temp_directory,
        "path": _environment(pid).get("PATH", _PATH),
        "folder": str(Path(f"/proc/{pid}/cwd").readlink()) if pid is not None else str(Path.cwd()),
    }


def run_as_daemon(module: str, job: dict[str, Any], seconds: float) -> Any:
    """The answer of a program of ours, which first takes the user and namespaces that the job names. Raises
    GatewayError and SubprocessError."""
    done = subprocess.run(
        module_command(module), input=json.dumps(job), capture_output=True, text=True, check=False, timeout=seconds
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise GatewayError(f"the files that the daemon sees cannot be examined: {reason}")
    return json.loads(done.stdout)


def _user_of(pid: int) -> dict[str, Any]:
    """The user and groups that a process has (proc(5), status)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    found = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return {"uid": int(found["Uid"][1]), "gid": int(found["Gid"][1]), "groups": [int(n) for n in found["Groups"]]}


def _user_wanted(setup: Setup) -> dict[str, Any]:
    """The user and groups that the daemon would have. Raises GatewayError."""
    user = setup.settings.user
    if not user:
        return {"uid": os.geteuid(), "gid": os.getegid(), "groups": os.getgroups()}
    try:
        uid = user_id(user)
    except PlanError as error:
        raise GatewayError(str(error)) from error
    with suppress(KeyError):
        entry = pwd.getpwuid(uid)
        return {"uid": uid, "gid": entry.pw_gid, "groups": os.getgrouplist(entry.pw_name, entry.pw_gid)}
    return {"uid": uid, "gid": uid, "groups": []}


def _environment(pid: int | None) -> dict[str, str]:
    """The environment that a process was started with."""
    with suppress(OSError):
        text = Path(f"/proc/{pid or 'self'}/environ").read_bytes().decode("utf-8", "surrogateescape")
        return dict(entry.partition("=")[::2] for entry in text.split("\0") if entry)
    return {}
