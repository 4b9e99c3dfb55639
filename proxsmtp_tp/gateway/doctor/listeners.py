"""Checks that the daemon listens where the rules redirect connections, answers, and has the rights that it needs.

Sources: ss(8) for listeners and their options; proc(5) for limits and capabilities.
"""

from __future__ import annotations

import errno
import re
import socket
import subprocess
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.config.addresses import InetAddress
from proxsmtp_tp.gateway import routing, survey
from proxsmtp_tp.gateway.doctor import unit
from proxsmtp_tp.gateway.doctor.findings import Finding, Setup
from proxsmtp_tp.gateway.plan import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER_SECONDS = 5.0
"""A daemon that works answers a connection within milliseconds."""
_TOOL_SECONDS = 8.0  # less than a step may take
_SPARE = 64  # descriptors of a worker in addition to connections: listeners, logs, event loop, spool
_CAP_NET_RAW = 13
_SERVICE_MANAGER = 1  # the process id of systemd
_ADDRESSES = {4: ("0.0.0.0", "*"), 6: ("[::]", "*")}  # noqa: S104 - output of ss, not an address to bind to


@dataclass(frozen=True, slots=True)
class Listening:
    """One listening socket on the intercept port."""

    address: str
    """As ss writes it: 0.0.0.0, *, [::], 127.0.0.1."""
    transparent: bool
    pids: tuple[int, ...]
    waits: bool = False
    """No process accepts connections: systemd keeps the socket until the daemon starts again."""

    def takes(self, version: int) -> bool:
        """Whether it accepts connections of an IP version to any address."""
        return self.address in _ADDRESSES[version]


def listening(port: int) -> list[Listening]:
    """The sockets that listen on a port, and the processes that accept from them."""
    return [item for item in _sockets(port) if not item.waits]


def _sockets(port: int) -> list[Listening]:
    """As `listening`, and the sockets that only systemd has: it keeps copies for the next daemon
    (FileDescriptorStoreMax=).
    """
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
        accepting = tuple(pid for pid in pids if pid != _SERVICE_MANAGER)
        found.append(Listening(address, " transparent" in options, accepting, waits=pids == (_SERVICE_MANAGER,)))
    return found


def look_at_unit(setup: Setup) -> Iterator[Finding]:
    """Checks that the daemon's unit gives it what the configuration needs."""
    if setup.unit is None:
        return
    found = unit.read_unit(setup.unit)
    if not found.loaded:
        yield Finding("unit", False, f"there is no {setup.unit}.service", setup.install_service)
        return
    given = found.properties.get("AmbientCapabilities", "").upper().split()
    lacking = [name for name in setup.needs if name not in given]
    if lacking and found.properties.get("User") not in {"", "root", "0"}:
        text = f"{setup.unit}.service does not give {' '.join(lacking)}, which the configuration needs"
        yield Finding("unit", False, text, setup.install_service)
    elif found.properties.get("NeedDaemonReload") == "yes":
        text = f"{setup.unit}.service has changed on disk since systemd read it"
        yield Finding("unit", False, text, f"systemctl daemon-reload && systemctl restart {setup.unit}")
    else:
        yield Finding("unit", True, f"{setup.unit}.service is {found.state}")


def look_at_listeners(setup: Setup) -> Iterator[Finding]:
    """Checks that a process listens on the port, transparently where needed, and answers."""
    options = setup.plan.options
    there = listening(options.listen_port)
    if not there or (setup.unit is not None and unit.read_unit(setup.unit).starting):
        yield _nobody_listens(setup)
        return
    if setup.intercepts:
        for version in (4, 6) if options.interfaces else (4,):
            yield from _listener_of_version(setup, version, there)
    yield _answering(setup, there)


def _nobody_listens(setup: Setup) -> Finding:
    """The daemon does not run: the reason, if systemd or the log tells it."""
    text, fix = f"no process listens on port {setup.plan.options.listen_port}", setup.start
    kept = _sockets(setup.plan.options.listen_port)  # by systemd, or by a daemon that starts
    if not kept and (problem := _why_not_bound(setup)):
        return Finding("listener", False, f"{text}, and the daemon could not: {problem}")
    if setup.unit is not None:
        found = unit.read_unit(setup.unit)
        if not found.loaded:
            return Finding("listener", False, f"{text}: there is no {setup.unit}.service", setup.install_service)
        text += f": {setup.unit}.service is {found.state}"
        if not found.failing:
            return Finding("listener", False, text, fix)
        fix = ""  # it was started, and ended: once more does not help
    lines = unit.last_lines(setup.unit)
    return Finding("listener", False, text + (f"; its log ends: {' | '.join(lines)}" if lines else ""), fix)


def _why_not_bound(setup: Setup) -> str | None:
    """Why a daemon that starts now could not listen; None: it could, or only root may try."""
    for address in setup.settings.listen:
        if not isinstance(address, InetAddress):
            continue
        try:
            family, kind, _, _, where = socket.getaddrinfo(
                address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with closing(socket.socket(family, kind)) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(where)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EPERM}:
                return f"Listen: {address}: {error.strerror}"
    return None


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
        text = f"it listens only on {only}, port {port}: redirected IPv{version} mail is refused"
        yield Finding(step, False, f"{text}; set Listen: {port} and restart it", setup.restart)
    elif (options.mode is Mode.TPROXY or options.full) and not all(item.transparent for item in taking):
        text = "its socket is not transparent: set RuleMode or TransparentProxy in its configuration, start it as root"
        fix = setup.install_service if setup.unit is not None else setup.restart
        yield Finding(step, False, text, fix)
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
        return Finding(
            "daemon", False, "what listens there does not answer in SMTP: is it another program?", setup.restart
        )
    # 554: this host is not in Clients, and it does not have to be.
    if said.startswith("4") and not (setup.settings.transparent or setup.settings.loopback):
        return Finding("daemon", False, f"it answers, and serves nobody: {said}")
    return Finding("daemon", True, "it answers")


def look_at_privileges(setup: Setup) -> Iterator[Finding]:
    """Checks the capability for full mode: to bind to clients' addresses, the daemon needs CAP_NET_RAW."""
    pids = sorted({pid for item in listening(setup.plan.options.listen_port) for pid in item.pids})
    if not pids or not setup.plan.options.full:
        return
    lacking = [pid for pid in pids if not _capable(pid)]
    text = f"process {', '.join(map(str, lacking))} lacks CAP_NET_RAW, which TransparentProxy full needs"
    fix = setup.install_service if setup.unit is not None else setup.restart
    yield Finding("capability", not lacking, text if lacking else "CAP_NET_RAW", fix if lacking else "")


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
