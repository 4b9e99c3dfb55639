"""Run a command that can change nothing on this host: `python -m proxsmtp_tp.lab.isolate COMMAND [ARGUMENT...]`.

The command gets a network, a mount and a process namespace of its own (network_namespaces(7),
mount_namespaces(7), pid_namespaces(7)): no link but loopback, an empty /run (named network namespaces, locks
and state files live there), its own /proc. As an ordinary user it also gets a user namespace where it is root
(user_namespaces(7)).

Guarantees: the namespaces of the caller are not changed. No process that the command started lives longer than the
command, also after a kill -9 of this process: the kernel ends a process namespace with its first process, and the other
namespaces end with their last process. Signals reach the command once, from a terminal or from kill(1). Signals that
the caller ignores (nohup(1)) are ignored by the command, too.

Exit status: the command's own; 128 + N when signal N ended it; 126 or 127 when it could not be started (as
sh(1)); 1 when namespaces cannot be made, with the reason; 2 for usage.

Three processes: the supervisor (this one), the first process of the namespace, which reaps what is orphaned
there, and the command. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import shlex
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# linux/sched.h and linux/mount.h: the os module has them only from Python 3.12 on, or not at all.
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x0002_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x4000, 0x4_0000
PR_SET_PDEATHSIG = 1
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
SI_KERNEL = 0x80

ROOT_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin")
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
WATCHED = (*FORWARDED, signal.SIGCHLD)
# Signals that this interpreter ignores; the command starts with the defaults.
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)

_libc = ctypes.CDLL(None, use_errno=True)


def run_isolated(command: list[str], typed: list[str]) -> int:
    """Run `command` isolated and return its exit status. `typed` is what the user typed: errors show it after sudo.

    This process itself moves into the new namespaces: call it last, from a process of one thread.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where the caller ignored it, no exit status would reach us
    sys.stdout.flush()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    supervisor_lives, keep_open = os.pipe()
    user, group = os.geteuid(), os.getegid()
    try:
        _unshare(user, group)
        init = os.fork()
        if init == 0:
            os.close(keep_open)
            os._exit(_first_process(command, mask, supervisor_lives, lambda error: _why_not(error, user, typed)))
    except OSError as error:
        print(_why_not(error, user, typed), file=sys.stderr)
        return 1
    os.close(supervisor_lives)
    return _attend(init, is_init=False)


def main(arguments: list[str]) -> int:
    """Run `arguments` isolated and return the exit status."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print("usage: python -m proxsmtp_tp.lab.isolate COMMAND [ARGUMENT...]", file=sys.stderr)
        return 2
    return run_isolated(arguments, [sys.executable, "-m", "proxsmtp_tp.lab.isolate", *arguments])


def _unshare(user: int, group: int) -> None:
    """Move into new namespaces. An ordinary user becomes root of a user namespace with one user in it."""
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET
    if user != 0:
        flags |= CLONE_NEWUSER
    if _libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if user != 0:
        # The kernel wants setgroups(2) given up before an unprivileged writer may map a group.
        Path("/proc/self/setgroups").write_text("deny", "ascii")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1\n", "ascii")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1\n", "ascii")


def _why_not(error: OSError, user: int, typed: list[str]) -> str:
    """Why the kernel refused, and what to type."""
    number = error.errno or 0
    reason = f"{error.filename or error.strerror}: {os.strerror(number)}"
    if user == 0:
        return f"This system refuses new namespaces ({reason}). In a container: start it with --privileged."
    fixes = {
        "user.max_user_namespaces=10000": number == errno.ENOSPC,
        "kernel.unprivileged_userns_clone=1": number != errno.ENOSPC,
        "kernel.apparmor_restrict_unprivileged_userns=0": number != errno.ENOSPC,
    }
    lines = [
        f"This system does not let an ordinary user make namespaces ({reason}). Type:",
        f"    sudo {shlex.join(typed)}",
    ]
    for setting, helps in fixes.items():
        name = setting.partition("=")[0].replace(".", "/", 1)
        if helps and Path("/proc/sys", name).exists():
            lines += ["or let everybody make them, and try again:", f"    sudo sysctl {setting}"]
    return "\n".join(lines)


def _first_process(
    arguments: list[str],
    mask: set[int | signal.Signals],
    supervisor_lives: int,
    why_not: Callable[[OSError], str],
) -> int:
    """Process 1 of the namespace: set it up, start the command, reap; return the command's exit status."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if select.select([supervisor_lives], [], [], 0)[0]:
        return 1  # the supervisor died before the line above
    try:
        _set_up()
    except OSError as error:
        print(why_not(error), file=sys.stderr)
        return 1
    try:
        command = os.posix_spawnp(arguments[0], arguments, _environment(), setsigmask=mask, setsigdef=IGNORED_BY_PYTHON)
    except OSError as error:
        print(f"isolate: {arguments[0]}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126
    return _attend(command, is_init=True)


def _environment() -> dict[str, str]:
    """Our environment, with root's directories in PATH: the PATH of an ordinary user has no nft."""
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    path += [place for place in ROOT_PATH if place not in path]
    return {**os.environ, "PATH": os.pathsep.join(path)}


def _set_up() -> None:
    """Private mounts, an own /proc, an empty /run, loopback up. Raises OSError that names the step."""
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for directory in ("/run/netns", "/run/lock"):
        Path(directory).mkdir(mode=0o755)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH22x", b"lo", 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(control, SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [value.encode() if value else None for value in (source, target, kind, data)]
    if _libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3]) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")


def _attend(child: int, *, is_init: bool) -> int:
    """Pass signals on to `child` and reap until it ends; return its exit status.

    `is_init`: we are process 1, which gets every orphaned process. A signal that the terminal sent (SI_KERNEL) has
    reached the whole process group already; to pass it on would be to send it twice.
    """
    while True:
        info = signal.sigwaitinfo(WATCHED)
        if info.si_signo != signal.SIGCHLD:
            if info.si_code != SI_KERNEL:
                os.kill(child, info.si_signo)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1 if is_init else child, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
