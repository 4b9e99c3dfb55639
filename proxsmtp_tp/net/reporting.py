"""What a connection reports: log lines. The session gives facts, the form is decided here.

Nothing is formatted for a level that is not logged. How many lines one client may cause: `log_limit`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from proxsmtp_tp.net.tracing import write_traced
from proxsmtp_tp.telemetry import log_lines

if TYPE_CHECKING:
    from proxsmtp_tp.net.context import WorkerContext
    from proxsmtp_tp.session import effects
    from proxsmtp_tp.telemetry.facts import Refusal, SessionEnd, Transaction

log = logging.getLogger(__name__)

TEXT_MAX = 3600
"""Characters of a line without its name and id: `service.logging` cuts at 4000 octets, and the id must stay."""


class Reporter(Protocol):
    """The connection."""

    name: str
    trace_id: str
    client_ip: str


class Reporting:
    """Of one connection."""

    __slots__ = ("_context", "_owner", "traced")

    def __init__(self, context: WorkerContext, owner: Reporter) -> None:
        self._context = context
        self._owner = owner
        self.traced = False
        """All lines are written, whatever the log level is (`tracing.Tracing.follows`)."""

    def log(self, effect: effects.Log) -> None:
        """A line that the session has worded."""
        self._write(effect.level, effect.text, essential=effect.essential)

    def say(self, level: int, text: str) -> None:
        """A line that the connection has worded."""
        self._write(level, text)

    def transaction(self, facts: Transaction) -> None:
        """A transaction has ended."""
        failed = facts.status == "FILTER-ERROR"
        level = logging.WARNING if failed else logging.INFO
        if (facts.is_message or facts.status == "REJECTED") and self._writes(level):
            line = log_lines.transaction(self._owner.client_ip, facts)
            self._write(level, line, essential=facts.is_message)

    def refusal(self, facts: Refusal) -> None:
        """The server has refused MAIL, RCPT or DATA."""
        if self._writes(logging.INFO):
            self._write(logging.INFO, log_lines.refusal(self._owner.client_ip, facts))

    def session_end(self, facts: SessionEnd) -> None:
        """The session has ended. One that had no server has a line that says why."""
        if facts.server and self._writes(logging.INFO):
            self._write(logging.INFO, log_lines.session_end(self._owner.client_ip, facts))

    def _writes(self, level: int) -> bool:
        return self.traced or log.isEnabledFor(level)

    def _write(self, level: int, text: str, *, essential: bool = False) -> None:
        owner, context = self._owner, self._context
        if self.traced:
            write_traced(log, level, f"{owner.name}: {bounded(text)}, id={owner.trace_id}")
            return
        if not log.isEnabledFor(level):
            return
        if essential or level == logging.DEBUG or context.log_limit.allows(owner.client_ip, context.loop.time()):
            log.log(level, "%s: %s, id=%s", owner.name, bounded(text), owner.trace_id)


def bounded(text: str) -> str:
    """Cut a line that is too long. Values are short enough (`quoting.LIMIT`), so no line of the session is cut."""
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX] + "..."
