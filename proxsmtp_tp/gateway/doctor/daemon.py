"""Checks that the daemon listens where the rules redirect connections, answers, and has what it needs.

Sources: ss(8) for listeners and their options; proc(5) for limits and capabilities.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import socket
import stat
import subprocess
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.config.settings import FilterType
from proxsmtp_tp.gateway import routing, survey
from proxsmtp_tp.gateway.doctor.findings import Finding, Setup
from proxsmtp_tp.gateway.options import user_id
from proxsmtp_tp.gateway.plan import Mode, PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER_SECONDS = 5.0
"""A daemon that works answers a connection within milliseconds."""
_TOOL_SECONDS = 8.0  # less than a step may take
_SPARE = 64  # descriptors of a worker in addition to connections: listeners, logs, event loop, spool
_SPACE = 64 << 20  # bytes: a few messages at the usual limit of 10 to 50 MB
_RESERVE, _RESERVE_PART = (
    64 << 20,
    20,
)  # what filters.spool_space keeps free: bytes; on a small file system, this fraction (1/20) of it
_CAP_NET_RAW = 13
_ADDRESSES = {4: ("0.0.0.0", "*"), 6: ("[::]", "*")}  # noqa: S104 - output of ss, not an address to bind to


@dataclass(frozen=True, slots=True)
class Listening:
    """One listening socket on the intercept port."""

    address: str
    """As ss writes it: 0.0.0.0, *, [::], 127.0.0.1."""
    transparent: bool
    pids: tuple[int, ...]

    def takes(self, version: int) -> bool:
        """Whether it accepts connections of an IP version to any address."""
        return self.address in _ADDRESSES[version]


def listening(port: int) -> list[Listening]:
    """The sockets that listen on a port."""
    done = subprocess.run(
        ["ss", "-HtlnpeO", "--inet-sockopt", "sport", "=", f":{port}"],
        capture_output=True, text=True, check=False, timeout=_TOOL_SECONDS,
    )  # fmt: skip
    found = []
    for line in done.stdout.splitlines():
        address = line.split()[3].rpartition(":")[0]
        if address == "*" and "v6only:1" in line:
            address = "[::]"
        options = line.partition("inet-sockopt:")[2]
        pids = tuple(sorted({int(pid) for pid in re.findall(r"pid=(\d+)", line)}))
        found.append(Listening(address, " transparent" in options, pids))
    return found


def look_at_listeners(setup: Setup) -> Iterator[Finding]:
    """Checks that a process listens on the port, transparently where needed, and answers."""
    options = setup.plan.options
    port, there = options.listen_port, listening(options.listen_port)
    if not there:
        yield Finding("listener", False, f"nobody listens on port {port}", setup.restart)
        return
    for version in (4, 6) if options.interfaces else (4,):
        yield from _listener_of_version(setup, version, there)
    yield _answering(setup, there)


def _listener_of_version(setup: Setup, version: int, there: list[Listening]) -> Iterator[Finding]:
    options = setup.plan.options
    step, port = f"listener, IPv{version}", options.listen_port
    used = any(
        interface.has_address(version) for interface in survey.interfaces() if interface.name in options.interfaces
    )
    if version == 6 and (not used or 6 not in routing.versions()):
        return
    taking = [item for item in there if item.takes(version)]
    only = ", ".join(sorted({item.address for item in there}))
    if not taking and not _listens_on_client_side(setup, version, there):
        text = f"it listens only on {only}, port {port}: IPv{version} mail that the rules turn to it is refused"
        yield Finding(step, False, f"{text}; set Listen: {port} and restart it", setup.restart)
    elif (options.mode is Mode.TPROXY or options.full) and not all(item.transparent for item in taking):
        text = "its socket is not transparent: set RuleMode or TransparentProxy in its configuration, start it as root"
        yield Finding(step, False, text, setup.restart)
    else:
        yield Finding(step, True, f"port {port}" + (", transparent" if any(i.transparent for i in taking) else ""))


def _listens_on_client_side(setup: Setup, version: int, there: list[Listening]) -> bool:
    """Whether there is a listener on each address of the client interfaces: REDIRECT only uses these."""
    if setup.plan.options.mode is not Mode.REDIRECT:
        return False
    needed = [
        address.partition("/")[0]
        for interface in survey.interfaces()
        if interface.name in setup.plan.options.interfaces
        for address in interface.addresses
        if (":" in address) == (version == 6) and not address.startswith("fe80:")
    ]
    bound = {item.address.strip("[]") for item in there}
    return bool(needed) and bound.issuperset(needed)


def _answering(setup: Setup, there: list[Listening]) -> Finding:
    """Connect to it: the daemon refuses a direct connection with a reply; without a reply, it hangs."""
    address = next((item.address for item in there), "*")
    host = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(address, address.strip("[]"))  # noqa: S104
    try:
        with closing(socket.create_connection((host, setup.plan.options.listen_port), ANSWER_SECONDS)) as link:
            first = link.recv(512)
    except OSError as error:
        text = f"it accepts no connection within {ANSWER_SECONDS:.0f} s ({error}): it hangs"
        return Finding("daemon", False, text, setup.restart)
    said = first.decode("ascii", "replace").strip()
    if not re.match(r"\d\d\d[ -]", said):
        return Finding("daemon", False, "what listens there speaks no SMTP: is it another program?", setup.restart)
    return Finding("daemon", True, "it answers")


def look_at_privileges(setup: Setup) -> Iterator[Finding]:
    """Checks the capability for full mode: to bind to clients' addresses, the daemon needs CAP_NET_RAW."""
    pids = sorted({pid for item in listening(setup.plan.options.listen_port) for pid in item.pids})
    if not pids or not setup.plan.options.full:
        return
    lacking = [pid for pid in pids if not _capable(pid)]
    text = f"process {', '.join(map(str, lacking))} lacks CAP_NET_RAW, which TransparentProxy full needs"
    yield Finding("capability", not lacking, text if lacking else "CAP_NET_RAW", setup.restart if lacking else "")


def _capable(pid: int) -> bool:
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
        return bool(found and int(found[1], 16) >> _CAP_NET_RAW & 1)
    return True  # the process has ended


def look_at_descriptors(setup: Setup) -> Iterator[Finding]:
    """Checks for two descriptors for each connection: in the worst case one worker has all connections."""
    needed = 2 * setup.settings.max_connections + _SPARE
    pids = sorted({pid for item in listening(setup.plan.options.listen_port) for pid in item.pids})
    limits = {pid: found for pid in pids if (found := _descriptor_limits(pid)) is not None}
    short = [pid for pid, (soft, _) in limits.items() if soft < needed]
    text = f"MaxConnections needs {needed}, process {', '.join(map(str, short))} may open fewer"
    if any(limits[pid][1] < needed for pid in short):
        commands = [f"prlimit --pid {pid} --nofile={needed}:{needed}" for pid in short]
        yield Finding(
            "descriptors", False, f"{text}; for good: LimitNOFILE={needed} in its unit", " && ".join(commands)
        )
    elif short:
        yield Finding("descriptors", False, text, setup.restart)  # the daemon raises its soft limit when it starts
    elif pids:
        yield Finding("descriptors", True, f"enough for {setup.settings.max_connections} connections")


def _descriptor_limits(pid: int) -> tuple[float, float] | None:
    """Soft and hard limit of open files; None if the process has ended."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
        if found := re.search(r"^Max open files\s+(\S+)\s+(\S+)", text, re.MULTILINE):
            soft, hard = (float("inf") if word == "unlimited" else int(word) for word in found.groups())
            return soft, hard
    return None


def look_at_temp_directory(setup: Setup) -> Iterator[Finding]:
    """Checks that the directory exists, that only the daemon may write there, and that it has free space."""
    path, step = Path(setup.settings.temp_directory), "temp directory"
    owner = setup.settings.user or "root"
    make = f"install -d -m 0700 -o {shlex.quote(owner)} {shlex.quote(str(path))}"
    seen = _as_the_daemon_sees(setup, path)
    try:
        info = seen.stat()
        uid, groups = _daemon_ids(setup)
    except (OSError, PlanError) as error:
        yield Finding(step, False, f"{path}: {getattr(error, 'strerror', None) or error}", make)
        return
    own = not seen.samefile(path) if path.exists() else True
    shared = stat.S_IMODE(info.st_mode) & 0o002 and not own
    if not stat.S_ISDIR(info.st_mode):
        yield Finding(step, False, f"{path} is no directory")
    elif not _may_write(info, uid, groups):
        yield Finding(step, False, f"{path} is not writable for {owner}", make)
    elif shared and not info.st_mode & stat.S_ISVTX:
        yield Finding(step, False, f"{path} is open to everybody: messages could be exchanged", make)
    elif (short := _short_of_space(seen, path, setup.settings.spool_limit)) is not None:
        yield Finding(step, False, short)
    else:
        remark = " (shared: a TempDirectory of its own is better)" if shared else " (the daemon's own)" if own else ""
        yield Finding(step, True, f"{path}{remark}")


def _short_of_space(seen: Path, path: Path, spool_limit: int) -> str | None:
    """Why messages would get 452, or None: the daemon keeps a reserve free and refuses messages that would use it."""
    disk = shutil.disk_usage(seen)
    reserve = min(_RESERVE, disk.total // _RESERVE_PART)
    if disk.free < reserve + _SPACE:
        return f"{path} has less than {reserve + _SPACE >> 20} MB left, and the last {reserve >> 20} MB stay free"
    if spool_limit > disk.total - reserve:
        return f"{path}: its file system has {disk.total >> 20} MB, less than SpoolLimit ({spool_limit >> 20} MB)"
    return None


def _as_the_daemon_sees(setup: Setup, path: Path) -> Path:
    """The path in the daemon's mount namespace: with PrivateTmp it has its own /tmp (systemd.exec(5))."""
    pids = (pid for item in listening(setup.plan.options.listen_port) for pid in item.pids)
    inside = Path(f"/proc/{next(pids, 'self')}/root", *path.parts[1:])
    return inside if inside.exists() else path


def _daemon_ids(setup: Setup) -> tuple[int, set[int]]:
    user = setup.settings.user
    if not user:
        return os.geteuid(), set(os.getgroups()) | {os.getegid()}
    uid = user_id(user)
    with suppress(KeyError):
        entry = pwd.getpwuid(uid)
        return uid, {entry.pw_gid, *os.getgrouplist(entry.pw_name, entry.pw_gid)}
    return uid, set()


def _may_write(info: os.stat_result, uid: int, groups: set[int]) -> bool:
    bits = stat.S_IMODE(info.st_mode)
    if uid == 0:
        return True
    if info.st_uid == uid:
        return bits & 0o300 == 0o300
    if info.st_gid in groups:
        return bits & 0o030 == 0o030
    return bits & 0o003 == 0o003


def look_at_filter(setup: Setup) -> Iterator[Finding]:
    """Checks that the daemon's user can run the filter command."""
    settings = setup.settings
    if not settings.filter_command or settings.filter_type is FilterType.REJECT:
        return
    if settings.filter_type is FilterType.SMTP:
        yield _scanner(setup)
        return
    try:
        first = next(word for word in shlex.split(settings.filter_command) if "=" not in word.partition("/")[0])
    except (ValueError, StopIteration):
        yield Finding("filter", True, "a line of shell")
        return
    if "/" not in first:
        found = shutil.which(first) is not None or first in {"exec", "cd", "if", "test", ":", "true", "set", "."}
        yield Finding("filter", found, first if found else f"{first} is not installed", "")
        return
    try:
        info = Path(first).stat()
        uid, groups = _daemon_ids(setup)
    except (OSError, PlanError) as error:
        yield Finding("filter", False, f"{first}: {getattr(error, 'strerror', None) or error}")
        return
    runnable = _may_run(info, uid, groups)
    text = f"{first} cannot be run by {settings.user or 'the daemon'}"
    yield Finding(
        "filter", runnable, first if runnable else text, "" if runnable else f"chmod a+rx {shlex.quote(first)}"
    )


def _may_run(info: os.stat_result, uid: int, groups: set[int]) -> bool:
    bits = stat.S_IMODE(info.st_mode)
    if not stat.S_ISREG(info.st_mode) or not bits & 0o111:
        return False
    if uid == 0:
        return True
    which = 0o100 if info.st_uid == uid else 0o010 if info.st_gid in groups else 0o001
    return bool(bits & which)


def _scanner(setup: Setup) -> Finding:
    try:
        address = setup.settings.filter_address
        target = getattr(address, "path", None)
        if target is not None:
            with closing(socket.socket(socket.AF_UNIX)) as link:
                link.settimeout(ANSWER_SECONDS)
                link.connect(target)
        else:
            with closing(socket.create_connection((address.host, address.port), ANSWER_SECONDS)):  # type: ignore[union-attr]
                pass
    except (OSError, ValueError) as error:
        return Finding("filter", False, f"the scanner at {setup.settings.filter_command} does not answer: {error}")
    return Finding("filter", True, f"{address} answers")
