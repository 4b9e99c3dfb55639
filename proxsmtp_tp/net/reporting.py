"""What a connection reports: log lines and events. The session gives facts; `telemetry.forms` makes lines of them.

Nothing is formatted for a level that is not logged. `log_limit` limits the lines that one client may cause. Sessions of
`doctor` (`doctor_sessions`) are logged with -d 4 only.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

from proxsmtp_tp.net.measuring import measure, measure_refusal
from proxsmtp_tp.net.tracing import write_traced
from proxsmtp_tp.telemetry import addresses, events, session_lines
from proxsmtp_tp.telemetry.counters import Counter
from proxsmtp_tp.telemetry.event_log import EventLog
from proxsmtp_tp.telemetry.events import Who
from proxsmtp_tp.telemetry.facts import REFUSED, REJECTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.net.context import WorkerContext
    from proxsmtp_tp.session import effects
    from proxsmtp_tp.session.session import Session
    from proxsmtp_tp.telemetry.facts import LimitHit, LimitRefusal, Refusal, SessionEnd, Transaction
    from proxsmtp_tp.telemetry.forms import Line

log = logging.getLogger(__name__)

FAILED: Final = "FILTER-ERROR"
_REFUSED: Final = frozenset({REFUSED, REJECTED})


class Reporter(Protocol):
    """The connection."""

    name: str
    trace_id: str
    client_ip: str
    session: Session

    def complete(self, facts: Transaction) -> None:
        """Add what the session does not know of its transaction."""


class Reporting:
    """Writes the log lines and events of one connection."""

    __slots__ = ("_context", "_owner", "_port", "_quiet", "traced")

    def __init__(self, context: WorkerContext, owner: Reporter, port: int, *, quiet: bool) -> None:
        """`quiet`: lines have the level debug, and there are no events."""
        self._context = context
        self._owner = owner
        self._port = port
        self._quiet = quiet
        self.traced = False
        """All lines are written, at every log level (`tracing.Tracing.follows`)."""

    @property
    def _who(self) -> Who:
        """The session, as lines and events name it. Not kept: an idle session needs less memory without it."""
        owner, context = self._owner, self._context
        return Who(owner.name, owner.trace_id, owner.client_ip, self._port, context.settings.instance, context.worker)

    def log(self, effect: effects.Log) -> None:
        """Write a line whose text the session has made."""
        self.say(effect.level, effect.text, essential=effect.essential)

    def say(self, level: int, text: str, *, essential: bool = False, error: BaseException | None = None) -> None:
        """Write a line of text, with the traceback of `error`."""
        level = logging.DEBUG if self._quiet else level
        if not self._writes(level):
            return
        if not addresses.current().full:
            text = addresses.current().words(text, self._owner.session.envelope)
        self._write(level, self._context.form.text(self._who, level, text), essential=essential, error=error)

    def transaction(self, facts: Transaction) -> None:
        """A transaction has ended."""
        if self._quiet:
            return
        self._owner.complete(facts)
        if self._context.events is not None:
            self._context.events.write(events.transaction(self._who, facts, addresses.current()))
        measure(self._context.metrics, facts)
        if facts.is_message or facts.status in _REFUSED:
            seconds = facts.seconds.reply or 0.0
            self._context.recent.add(self._owner.client_ip, facts.server, facts.reply, facts.size, seconds)
        level = logging.WARNING if facts.status == FAILED else logging.INFO
        if (facts.is_message or facts.status == "REJECTED") and self._writes(level):
            for line in self._context.form.transaction(self._who, facts):
                self._write(level, line, essential=facts.is_message)

    def limit_hit(self, facts: LimitHit) -> None:
        """The client has reached a limit, or is locked. The log line is another effect."""
        if self._context.events is not None and not self._quiet:
            self._context.events.write(events.limit(self._who, facts))

    def limit_refusal(self, facts: LimitRefusal) -> None:
        """A client over a limit was refused: a line of its own in forms that count such lines."""
        if not self._quiet and self._writes(logging.INFO):
            for line in self._context.form.limit_refusal(self._who, facts):
                self._write(logging.INFO, line)

    def refusal(self, facts: Refusal) -> None:
        """The server has refused MAIL, RCPT or DATA."""
        if self._quiet:
            return
        measure_refusal(self._context.metrics, facts)
        if self._writes(logging.INFO):
            self._write(logging.INFO, self._context.form.refusal(self._who, facts))

    def session_end(self, facts: SessionEnd) -> None:
        """The session has ended. If it had no server, an earlier line says why."""
        if facts.server and not self._quiet and self._writes(logging.INFO):
            self._write(logging.INFO, self._context.form.session_end(self._who, facts))

    def _writes(self, level: int) -> bool:
        return self.traced or log.isEnabledFor(level)

    def _write(self, level: int, line: Line, *, essential: bool = False, error: BaseException | None = None) -> None:
        if self.traced:
            write_traced(log, level, line.text, session_lines.attributes(line))
            return
        context = self._context
        if essential or level == logging.DEBUG or context.log_limit.allows(self._owner.client_ip, context.loop.time()):
            if error is not None or not session_lines.taken(level, line):
                log.log(level, "%s", line.text, exc_info=error, extra=session_lines.attributes(line))
        else:
            context.admission.counters.count(context.worker, Counter.LOG_LINES_SUPPRESSED)


def event_log(settings: Settings, lost: Callable[[], None]) -> EventLog | None:
    """The event log of a worker; None: there is none."""
    return None if settings.event_log == "off" else EventLog(settings.event_log, lost)
