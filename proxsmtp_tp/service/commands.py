"""What can be asked at the control socket: one row for each command.

A function gets the daemon and the request, and returns the answer. Values of a request are checked here: the one who
asks is root or the daemon's user, but may be a program with an error.
"""

from __future__ import annotations

from functools import partial
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from proxsmtp_tp.service.control import Command, ControlError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from ipaddress import IPv4Network, IPv6Network

    from proxsmtp_tp.service.log_levels import LogLevels

    Request = Mapping[str, Any]

_LONGEST = 30 * 86400.0
"""Seconds: what is on for longer belongs into the configuration."""


_TRACE = 600.0
"""Seconds that a client is traced if nothing else is said."""


class Daemon(Protocol):
    """What the commands see of the master."""

    @property
    def levels(self) -> LogLevels:
        """How much is logged."""


class _Row(NamedTuple):
    run: Callable[[Daemon, Request], Mapping[str, Any]]
    changes: Callable[[Request], bool]
    """Whether a request changes something, and so is logged."""


def commands_of(daemon: Daemon) -> dict[str, Command]:
    """All commands, by name."""
    return {name: Command(partial(row.run, daemon), row.changes) for name, row in _COMMANDS.items()}


def _log_level(daemon: Daemon, request: Request) -> Mapping[str, Any]:
    """`level` (0 to 4, or "default"), `trace` or `end_trace` (a network; "all"), `seconds`; nothing: only ask.

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
    "log-level": _Row(_log_level, lambda request: len(request) > 1),
}
