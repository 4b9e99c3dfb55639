"""Checks that the daemon listens where the rules redirect connections, answers, and has the rights that it needs.

A daemon that listens on unix sockets alone is looked at there: it has no port, and no rules bring it connections.
Sources: ss(8) for listeners and their options; proc(5) for limits and capabilities.
"""

from __future__ import annotations

import errno
import re
import resource
import socket
import subprocess
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.config.addresses import InetAddress, UnixAddress
from proxsmtp_tp.gateway import routing, survey
from proxsmtp_tp.gateway.doctor import own_connections, unit
from proxsmtp_tp.gateway.doctor.findings import Finding, Setup, unseen
from proxsmtp_tp.gateway.doctor.fixes import NONE, Fix, fix
from proxsmtp_tp.gateway.plan import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER_SECONDS = 3.0
"""A daemon that works answers a connection within milliseconds. Its status may be asked for after that: up to 5 s."""
_TOOL_SECONDS = 8.0  # less than a step may take
_SPARE = 64  # descriptors of a worker in addition to connections: listeners, logs, event loop, spool
_CAP_NET_RAW = 13
_SERVICE_MANAGER = 1  # the process id of systemd
_ADDRESSES = {4: ("0.0.0.0", "*"), 6: ("[::]", "*")}  # noqa: S104 - output of ss, not an address to bind to


@dataclass(frozen=True, slots=True)
class Listening:
    """One listening socket."""

    address: str
    """As ss writes it: 0.0.0.0, *, [::], 127.0.0.1, /run/proxsmtp.sock."""
    transparent: bool
    pids: tuple[int, ...]
    waits: bool = False
    """No process accepts connections: systemd keeps the socket until the daemon starts again."""

    def takes(self, version: int) -> bool:
        """Whether it accepts connections of an IP version to any address."""
        return self.address in _ADDRESSES[version]


def accepting(setup: Setup) -> list[Listening]:
    """The sockets of the daemon that a process accepts from: on the port, or its unix sockets."""
    return [item for item in _sockets_of(setup) if not item.waits]


def listening(port: int) -> list[Listening]:
    """The sockets that listen on a port, and the processes that accept from them."""
    return [item for item in _sockets(port) if not item.waits]


def _sockets_of(setup: Setup) -> list[Listening]:
    if setup.settings.intercept_port is not None or setup.intercepts:
        return _sockets(setup.plan.options.listen_port)
    return _unix_sockets(setup)


def _sockets(port: int) -> list[Listening]:
    """As `listening`, and the sockets that only systemd has: it keeps copies for the next daemon
    (FileDescriptorStoreMax=).
    """
    found = []
    for line in _ss("-HtlnpeO", "--inet-sockopt", "sport", "=", f":{port}"):
        address = line.split()[3].rpartition(":")[0]
        if address == "*" and "v6only:1" in line:
            address = "[::]"
        found.append(_listening(line, address, transparent=" transparent" in line.partition("inet-sockopt:")[2]))
    return found


def _unix_sockets(setup: Setup) -> list[Listening]:
    """The same for the unix sockets in Listen."""
    paths = {address.path for address in setup.settings.listen if isinstance(address, UnixAddress)}
    return (
        [_listening(line, line.split()[4], transparent=False) for line in _ss("-HxlnpO") if line.split()[4] in paths]
        if paths
        else []
    )


def _ss(*arguments: str) -> list[str]:
    done = subprocess.run(
        ["ss", *arguments], capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=_TOOL_SECONDS
    )
    return done.stdout.splitlines()


def _listening(line: str, address: str, *, transparent: bool) -> Listening:
    pids = tuple(sorted({int(pid) for pid in re.findall(r"pid=(\d+)", line)}))
    own = tuple(pid for pid in pids if pid != _SERVICE_MANAGER)
    return Listening(address, transparent, own, waits=pids == (_SERVICE_MANAGER,))


def look_at_unit(setup: Setup) -> Iterator[Finding]:
    """Checks that the daemon's unit gives it what the configuration needs."""
    if setup.unit is None:
        return
    found = unit.read_unit(setup.unit)
    if not found.loaded:
        yield Finding("unit", False, f"there is no {setup.unit}.service", fix("no unit", unit=setup.install_service))
        return
    given = found.properties.get("AmbientCapabilities", "").upper().split()
    lacking = [name for name in setup.needs if name not in given]
    if lacking and found.properties.get("User") not in {"", "root", "0"}:
        text = f"{setup.unit}.service does not give {' '.join(lacking)}, which the configuration needs"
        yield Finding("unit", False, text, fix("unit lacks a capability", unit=setup.install_service))
    elif found.properties.get("NeedDaemonReload") == "yes":
        text = f"{setup.unit}.service has changed on disk since systemd read it"
        yield Finding("unit", False, text, fix("unit has changed on disk", restart=setup.restart))
    else:
        yield Finding("unit", True, f"{setup.unit}.service is {found.state}")


def look_at_listeners(setup: Setup) -> Iterator[Finding]:
    """Checks that a process listens on the port, transparently where needed, and answers."""
    options = setup.plan.options
    there = accepting(setup)
    if not there or (setup.unit is not None and unit.read_unit(setup.unit).starting):
        yield _nobody_listens(setup)
        return
    if setup.intercepts:
        for version in (4, 6) if options.interfaces else (4,):
            yield from _listener_of_version(setup, version, there)
    yield _answering(setup, "daemon", there)
    if setup.settings.intercept_port is not None:
        yield from _unix_listeners(setup)


def _unix_listeners(setup: Setup) -> Iterator[Finding]:
    """The unix sockets of a daemon that has a port, too."""
    there = {item.address: item for item in _unix_sockets(setup) if not item.waits}
    for address in setup.settings.listen:
        if isinstance(address, UnixAddress):
            step = f"listener, {address}"
            if address.path in there:
                yield _answering(setup, step, [there[address.path]])
            else:
                yield Finding(step, False, "nobody listens", fix("no listener at a path", restart=setup.restart))


def _nobody_listens(setup: Setup) -> Finding:
    """The daemon does not run: the reason, if systemd or the log tells it."""
    paths = [str(address) for address in setup.settings.listen if isinstance(address, UnixAddress)]
    on_port = setup.settings.intercept_port is not None or setup.intercepts
    where = f"on port {setup.plan.options.listen_port}" if on_port else f"at {', '.join(paths)}"
    text, command = f"no process listens {where}", fix("daemon does not run", start=setup.start)
    if setup.status() is not None:
        command = fix("listens on another port", restart=setup.restart)
        return Finding("listener", False, f"{text}, and the daemon runs: it has read another Listen", command)
    kept = _sockets_of(setup)  # by systemd, or by a daemon that starts
    if not kept and (problem := _why_not_bound(setup)):
        return Finding("listener", False, f"{text}, and the daemon could not: {problem}")
    if setup.unit is not None:
        found = unit.read_unit(setup.unit)
        if not found.loaded:
            return Finding(
                "listener",
                False,
                f"{text}: there is no {setup.unit}.service",
                fix("no unit", unit=setup.install_service),
            )
        text += f": {setup.unit}.service is {found.state}"
        if not found.failing:
            return Finding("listener", False, text, command)
        command = NONE  # it was started, and ended: to start it again does not help
    lines = unit.last_lines(setup.unit)
    return Finding("listener", False, text + (f"; its log ends: {' | '.join(lines)}" if lines else ""), command)


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
        command = fix("listens elsewhere", restart=setup.restart) if _would_take(setup, version) else NONE
        yield Finding(step, False, text + ("" if command else f"; set Listen: {port} and restart it"), command)
    elif (options.mode is Mode.TPROXY or options.full) and not all(item.transparent for item in taking):
        text = "its socket is not transparent: set RuleMode or TransparentProxy in its configuration, start it as root"
        command = fix("listener is not transparent", restart=setup.restart)
        if setup.unit is not None:
            command = fix("unit's listener is not transparent", unit=setup.install_service)
        yield Finding(step, False, text, command)
    else:
        yield Finding(step, True, f"port {port}" + (", transparent" if any(i.transparent for i in taking) else ""))


def _would_take(setup: Setup, version: int) -> bool:
    """Whether a daemon that starts now would listen there on all addresses: the file has changed since the start."""
    anywhere = {"", "0.0.0.0" if version == 4 else "::"}  # noqa: S104 - compared, not bound to
    port = setup.plan.options.listen_port
    return any(
        isinstance(address, InetAddress) and address.port == port and address.host in anywhere
        for address in setup.settings.listen
    )


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


def _answering(setup: Setup, step: str, there: list[Listening]) -> Finding:
    """Connect to it: the daemon refuses a direct connection with a reply; without a reply, it hangs."""
    try:
        with closing(_connection(setup, there[0].address)) as link:
            first = link.recv(512)
    except PermissionError as error:
        return unseen(step, f"{there[0].address}: {error.strerror}")
    except OSError as error:
        if isinstance(error, TimeoutError) and _waits_for_its_server(setup):
            return unseen(step, f"no greeting within {ANSWER_SECONDS:.0f} s: it waits for the server behind it")
        text = f"it accepts no connection within {ANSWER_SECONDS:.0f} s ({error}): it hangs"
        return Finding(step, False, text, _end_and_start(setup, there))
    said = first.decode("ascii", "replace").strip()
    if not re.match(r"\d\d\d[ -]", said):
        others = ", ".join(f"process {pid}" for item in there for pid in item.pids)
        text = f"what listens there does not answer in SMTP: is it another program ({others})? End it, start the daemon"
        return Finding(step, False, text)
    # 554: this host is not in Clients, and it does not have to be.
    if said.startswith("4") and not (setup.settings.transparent or setup.settings.loopback):
        return Finding(step, False, f"it answers, and serves nobody: {said}")
    return Finding(step, True, "it answers")


def _waits_for_its_server(setup: Setup) -> bool:
    """Whether that is why a daemon does not greet, which works otherwise: it greets with its server's words.

    Of its workers, see `load`.
    """
    one_server = not (setup.settings.transparent or setup.settings.loopback)
    return one_server and setup.status() is not None


def _connection(setup: Setup, address: str) -> socket.socket:
    """Raises OSError."""
    if address.startswith("/"):
        return own_connections.connect(setup, address, ANSWER_SECONDS)
    host = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(address, address.strip("[]"))  # noqa: S104
    return own_connections.connect(setup, (host, setup.plan.options.listen_port), ANSWER_SECONDS)


def _end_and_start(setup: Setup, there: list[Listening]) -> Fix:
    """The fix for a daemon that ignores TERM; systemd kills such a daemon itself."""
    if setup.unit is not None:
        return fix("daemon hangs, unit", name=setup.unit, restart=setup.restart)
    pids = sorted({str(pid) for item in there for pid in item.pids})
    return fix("daemon hangs, by hand", pids=pids, start=setup.start)


def look_at_privileges(setup: Setup) -> Iterator[Finding]:
    """Checks the capability for full mode: to bind to clients' addresses, the daemon needs CAP_NET_RAW."""
    pids = sorted({pid for item in accepting(setup) for pid in item.pids})
    if not pids or not setup.plan.options.full:
        return
    lacking = [pid for pid in pids if not _capable(pid)]
    text = f"process {', '.join(map(str, lacking))} lacks CAP_NET_RAW, which TransparentProxy full needs"
    if not lacking:
        yield Finding("capability", True, "CAP_NET_RAW")
    elif setup.unit is not None:
        command = fix("unit's daemon lacks CAP_NET_RAW", unit=setup.install_service)
        yield Finding("capability", False, text, command)
    else:
        yield Finding("capability", False, text, fix("daemon lacks CAP_NET_RAW", restart=setup.restart))


def _capable(pid: int) -> bool:
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
        return bool(found and int(found[1], 16) >> _CAP_NET_RAW & 1)
    return True  # the process has ended


def look_at_descriptors(setup: Setup) -> Iterator[Finding]:
    """Checks for two descriptors for each connection: in the worst case one worker has all connections."""
    needed = 2 * setup.settings.max_connections + _SPARE
    pids = sorted({pid for item in accepting(setup) for pid in item.pids})
    limits = {pid: found for pid in pids if (found := _descriptor_limits(pid)) is not None}
    short = [pid for pid, (soft, _) in limits.items() if soft < needed]
    text = f"MaxConnections needs {needed}, process {', '.join(map(str, short))} may open fewer"
    if any(limits[pid][1] < needed for pid in short):
        # A daemon that this shell starts gets the shell's limit; to raise that of a process needs CAP_SYS_RESOURCE.
        by_hand = setup.unit is None and resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= needed
        more = "" if by_hand else f"; set LimitNOFILE={needed} in its unit, and restart it"
        command = fix("few descriptors", restart=setup.restart) if by_hand else NONE
        yield Finding("descriptors", False, text + more, command)
    elif short:
        # The daemon raises its soft limit when it starts.
        yield Finding("descriptors", False, text, fix("few descriptors", restart=setup.restart))
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
