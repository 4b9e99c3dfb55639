"""The commands of the control socket: one row for each.

A function gets the daemon and the request, and returns the answer. Values of a request are checked here: only root and
the daemon's user can send one, but their program may have an error.
"""

from __future__ import annotations

from functools import partial
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from proxsmtp_tp.config.reader import printable
from proxsmtp_tp.net.tls_rejections import client_of
from proxsmtp_tp.service import limit_commands
from proxsmtp_tp.service.bypass import LONGEST, REASON_MAX
from proxsmtp_tp.service.control import Command, ControlError
from proxsmtp_tp.service.top_report import top_report
from proxsmtp_tp.telemetry.switches import mark_of_port, mark_of_process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from ipaddress import IPv4Network, IPv6Network

    from proxsmtp_tp.net.admission import Admission
    from proxsmtp_tp.service.bypass import Bypass
    from proxsmtp_tp.service.in_force import InForce
    from proxsmtp_tp.service.locks import Locks
    from proxsmtp_tp.service.log_levels import LogLevels
    from proxsmtp_tp.telemetry.sessions import SessionTable

    Request = Mapping[str, Any]

_LONGEST = 30 * 86400.0
"""Seconds: a setting for a longer time belongs in the configuration."""


SESSIONS_MAX = 2000
"""Sessions in one answer, which then has half a megabyte and takes the master a few hundredths of a second."""

_MARKS = {"port": mark_of_port, "pid": mark_of_process}
_DOCTOR_LONGEST = 60.0
"""Seconds that one connection of doctor may be open: a step takes ten."""

_TRACE = 600.0
"""Seconds that a client is traced, unless the request says how long."""


class Daemon(Protocol):
    """The part of the master that the commands use."""

    @property
    def levels(self) -> LogLevels:
        """The log level and the traces."""

    @property
    def sessions(self) -> SessionTable:
        """The sessions of all workers."""

    @property
    def bypass(self) -> Bypass:
        """The bypass of the filter."""

    def try_filter(self, name: str, timeout: float) -> None:
        """Begin a trial of a filter. Raises ControlError."""

    @property
    def filtered(self) -> bool:
        """Whether a filter is configured that judges messages."""

    @property
    def in_force(self) -> InForce:
        """The configuration that is in force."""

    @property
    def stopping(self) -> bool:
        """The daemon ends."""

    def want_reload(self) -> None:
        """Read the configuration again."""

    def report(self) -> dict[str, Any]:
        """What `status` shows."""

    @property
    def admission(self) -> Admission:
        """The table of all workers."""

    @property
    def locks(self) -> Locks:
        """Locks, and the table of clients."""


class _Row(NamedTuple):
    run: Callable[[Daemon, Request], Mapping[str, Any]]
    changes: Callable[[Request], bool]
    """Whether a request changes something, and so is logged."""


def commands_of(daemon: Daemon) -> dict[str, Command]:
    """All commands, by name."""
    return {name: Command(partial(row.run, daemon), row.changes) for name, row in _COMMANDS.items()}


def _log_level(daemon: Daemon, request: Request) -> Mapping[str, Any]:
    """`level` (0 to 4, or "default"), `trace` or `end_trace` (a network; "all"), `seconds`; nothing: only show.

    Without `seconds` a level has no end, and a trace ends after ten minutes.
    """
    levels, seconds = daemon.levels, _seconds(request)
    level, trace, end = (request.get(name) for name in ("level", "trace", "end_trace"))
    if level is not None:
        if level != "default" and (type(level) is not int or not 0 <= level <= 4):
            raise ControlError(f"{level!r} is no level: write 0 to 4, or default")
        levels.command(None if level == "default" else level, seconds)
    if trace is not None:
        try:
            levels.trace(_network(trace), seconds or _TRACE)
        except ValueError as error:
            raise ControlError(f"{error}: end one of them first") from None
    if end is not None and not levels.end_trace(None if end == "all" else _network(end)):
        raise ControlError(f"{end}: nobody is traced there")
    return levels.report()


def _probe(daemon: Daemon, request: Request) -> Mapping[str, Any]:
    """`seconds`: how long the sessions of `doctor --probe` are not logged, as information or worse. With `port` or
    `pid`: those of `doctor` from this port of this host, or of this process by a unix socket.
    """
    seconds = _seconds(request) or 0.0
    marks = [mark(_number(request, name)) for name, mark in _MARKS.items() if name in request]
    for mark in marks:
        daemon.levels.expect_doctor(mark, min(seconds, _DOCTOR_LONGEST))
    if not marks:
        daemon.levels.expect_probe(seconds)
    return {"seconds": seconds}


def _number(request: Request, name: str) -> int:
    number = request[name]
    if type(number) is not int or not 0 < number < (65536 if name == "port" else 1 << 22):
        raise ControlError(f"{number!r} is no {name}")
    return number


def _sessions(daemon: Daemon, request: Request) -> Mapping[str, Any]:
    """`most`: how many are listed, SESSIONS_MAX unless given. `total` of them run. `tls_rejected`: the client has
    rejected our certificate, for one server at least (TlsRejected).
    """
    most = request.get("most", SESSIONS_MAX)
    if type(most) is not int or most < 0:
        raise ControlError(f"{most!r} is no number of sessions")
    phases, _ = daemon.sessions.phases()
    listed = daemon.sessions.listed(min(most, SESSIONS_MAX))
    rejected = {entry.client for entry, _ in daemon.admission.tls_rejections.entries()}
    for each in listed if rejected else ():
        each["tls_rejected"] = client_of(each["client"].rpartition(":")[0].strip("[]")) in rejected
    return {"total": sum(phases.values()), "sessions": listed}


def _top(daemon: Daemon, request: Request) -> Mapping[str, Any]:
    return top_report(daemon.admission, daemon.report(), request)


def _kill_session(daemon: Daemon, request: Request) -> Mapping[str, Any]:
    """`id`: the session that is to end."""
    identifier = str(request.get("id", ""))
    if not daemon.sessions.kill(identifier):
        raise ControlError(f"no session {identifier} runs: `proxsmtp-tp sessions` lists them")
    return {"id": identifier}


def _try_filter(daemon: Daemon, request: Request) -> Mapping[str, Any]:
    """`socket`: the name of the socket at which the command waits; `seconds`: FilterTimeout."""
    if daemon.stopping:
        raise ControlError("the daemon stops")
    daemon.try_filter(str(request.get("socket", "")), _seconds(request) or 0.0)
    return {}


def _bypass(daemon: Daemon, request: Request) -> Mapping[str, Any]:
    """`seconds` and `reason`: begin. `end`: end. Nothing: only show. The answer has the report of the bypass, or None.

    `passed`, after an end: messages that passed unjudged. `kept`, after a beginning: it continues after a restart.
    """
    bypass, seconds, reason = daemon.bypass, _seconds(request), request.get("reason")
    if request.get("end"):
        if not bypass.active:
            raise ControlError("the filter is not bypassed")
        return {"bypass": None, "passed": bypass.end()}
    if seconds is None:
        return {"bypass": bypass.report()}
    if seconds > LONGEST:
        raise ControlError("a bypass lasts at most 7 days: remove FilterCommand instead")
    if not isinstance(reason, str) or not reason.strip() or len(reason) > REASON_MAX:
        raise ControlError(f"say why in --reason, in at most {REASON_MAX} characters")
    if not daemon.filtered:
        raise ControlError("no filter judges mail here (FilterCommand, FilterType): there is nothing to bypass")
    kept = bypass.begin(seconds, printable(reason.strip()))
    return {"bypass": bypass.report(), "kept": kept}


def _reload(daemon: Daemon, _: Request) -> Mapping[str, Any]:
    """Answer at once: the number of the reload that will read the file. `configuration` says how it ended."""
    if daemon.stopping:
        raise ControlError("the daemon stops: it reads no configuration any more")
    daemon.want_reload()
    return {"number": daemon.in_force.reloads + 1}


def _configuration(daemon: Daemon, _: Request) -> Mapping[str, Any]:
    return daemon.in_force.report()


def _seconds(request: Request) -> float | None:
    seconds = request.get("seconds")
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= _LONGEST:
        raise ControlError(f"{seconds!r} is no time: write seconds, more than 0 and at most {_LONGEST:.0f} (30 days)")
    return float(seconds)


def _network(text: Any) -> IPv4Network | IPv6Network:
    try:
        return ip_network(str(text))
    except ValueError:
        raise ControlError(
            f"{text!r} is no network: write an IP address, or a network such as 192.0.2.0/24 or 2001:db8::/64"
        ) from None


_COMMANDS: dict[str, _Row] = {
    "configuration": _Row(_configuration, lambda _request: False),
    "reload": _Row(_reload, lambda _request: True),
    "limits": _Row(limit_commands.limits, lambda request: bool(request.get("reset"))),
    "locks": _Row(limit_commands.locks, lambda request: "add" in request or "remove" in request),
    "explain": _Row(limit_commands.explain, lambda _request: False),
    "log-level": _Row(_log_level, lambda request: len(request) > 1),
    "probe": _Row(_probe, lambda request: not _MARKS.keys() & request.keys()),  # doctor leaves no line
    "try-filter": _Row(_try_filter, lambda _request: True),
    "bypass": _Row(_bypass, lambda request: len(request) > 1),
    "sessions": _Row(_sessions, lambda _request: False),
    "top": _Row(_top, lambda _request: False),
    "kill-session": _Row(_kill_session, lambda _request: True),
}
