"""Counters and durations of a message and of its filter (`telemetry.metrics`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxsmtp_tp.telemetry import metrics

if TYPE_CHECKING:
    from proxsmtp_tp.telemetry.facts import Refusal, Transaction
    from proxsmtp_tp.telemetry.metrics import WorkerMetrics

_STATUS: Final = {
    "FILTERED": metrics.MESSAGES["filtered"],
    "RELAYED": metrics.MESSAGES["relayed"],
    "SKIPPED": metrics.MESSAGES["skipped"],
    "MONITORED": metrics.MESSAGES["monitored"],
    "BYPASSED": metrics.MESSAGES["bypassed"],
    "FILTER-ERROR": metrics.MESSAGES["filter_error"],
    "REFUSED": metrics.MESSAGES["refused"],
    "INTERRUPTED": metrics.MESSAGES["interrupted"],
}
_BY_VERDICT: Final = {
    "reject": metrics.MESSAGES["rejected"],
    "tempfail": metrics.MESSAGES["deferred"],
    "discard": metrics.MESSAGES["discarded"],
    "quarantine": metrics.MESSAGES["quarantined"],
}
"""Where the status is the filter's own text."""
_FAILED: Final = metrics.MESSAGES["filter_error"]
_REPLY: Final = {
    b"2": metrics.MESSAGE_REPLIES["2xx"],
    b"4": metrics.MESSAGE_REPLIES["4xx"],
    b"5": metrics.MESSAGE_REPLIES["5xx"],
}
_NO_REPLY: Final = metrics.MESSAGE_REPLIES["none"]
_REFUSALS: Final = {
    "MAIL": metrics.SERVER_REFUSALS["sender"],
    "RCPT": metrics.SERVER_REFUSALS["recipient"],
    "DATA": metrics.SERVER_REFUSALS["data"],
}
_MESSAGE_REFUSED: Final = metrics.SERVER_REFUSALS["message"]
_ACCEPTED: Final = metrics.RECIPIENTS["accepted"]
_DEFERRED: Final = metrics.RECIPIENTS["deferred"]
_REFUSED: Final = metrics.RECIPIENTS["refused"]


def measure(measured: WorkerMetrics, facts: Transaction) -> None:
    """A transaction has ended. The client has not got its reply yet: no message is answered that is not counted."""
    words = measured.words
    if facts.recipients:
        words[_ACCEPTED] += len(facts.recipients)
    for _, code in facts.refused:
        words[_REFUSED if code >= 500 else _DEFERRED] += 1
    if facts.refused_more:
        words[_REFUSED] += facts.refused_more
    if not facts.is_message:
        return
    verdict, seconds = facts.verdict, facts.seconds
    status = _STATUS.get(facts.status) or _BY_VERDICT.get(verdict, _FAILED)
    words[status] += 1
    words[_REPLY.get(facts.reply[:1], _NO_REPLY)] += 1
    words[metrics.MESSAGE_BYTES] += facts.size
    if verdict:
        words[metrics.VERDICTS["error" if status == _FAILED and verdict != "pass" else verdict]] += 1
    if facts.filter_failed:
        words[metrics.FILTER_FAILURES] += 1
    if facts.origin == "server" and facts.reply[:1] in {b"4", b"5"}:
        words[_MESSAGE_REFUSED] += 1
    if seconds.server is not None:
        measured.observe(metrics.SERVER_FINAL, seconds.server)
    if seconds.reply is not None:
        measured.observe(metrics.DOT_TO_REPLY, seconds.reply)


def measure_refusal(measured: WorkerMetrics, facts: Refusal) -> None:
    """The server has refused MAIL, RCPT or DATA."""
    measured.count(_REFUSALS[facts.command])


def count_turned_away(measured: WorkerMetrics, *, full: bool) -> None:
    """A client gets 421 in place of a greeting: MaxConnections is reached (`full`), or the client's share of it."""
    measured.count(metrics.CONNECTIONS["full" if full else "share"])
    measured.count(metrics.CLOSED["full"])
    measured.count(metrics.CLIENT_REPLIES + 4)


def count_crash(measured: WorkerMetrics) -> None:
    """A client gets 421 because of an internal error."""
    measured.count(metrics.CLOSED["internal_error"])
    measured.count(metrics.CLIENT_REPLIES + 4)


class FilterTimes:
    """Measures how long a message waits for places of its filters, and how long the filters run: two sums, which are
    together the time from its end to the verdict. Of a message that no filter has judged, nothing is measured.
    """

    __slots__ = ("_complete", "_measured", "_ran", "_since", "_started", "_waited", "_waiting")

    def __init__(self, measured: WorkerMetrics) -> None:
        self._measured = measured
        self._since = self._waited = self._ran = 0.0
        self._waiting = self._started = self._complete = False

    def begin(self) -> None:
        """A message begins that a filter is to judge."""
        self._complete = False

    def take_waited(self, now: float) -> float | None:
        """How long the message has waited until now; None: it was not complete, or this was asked before."""
        if not self._complete:
            return None
        self._complete = False
        return self._waited + (now - self._since if self._waiting else 0.0)

    def complete(self, now: float) -> None:
        """The message is complete: it waits for a free filter."""
        self._since, self._waited, self._ran = now, 0.0, 0.0
        self._waiting, self._started, self._complete = True, False, True

    def waits(self, now: float) -> None:
        """The message waits for a place, perhaps of a further filter."""
        self._add(now)
        self._waiting = True

    def started(self, now: float) -> None:
        """A filter has started, perhaps a further one."""
        self._add(now)
        self._waiting, self._started = False, True

    def verdict(self, now: float) -> None:
        """There is a verdict, perhaps without a filter run."""
        self._add(now)
        self._waiting = False
        if self._started:
            self._measured.observe(metrics.FILTER, self._ran)
        self._observe_wait()

    def left(self, now: float) -> None:
        """The verdict is not needed any more. Only how long the message waited is known. Idempotent."""
        self._add(now)
        self._waiting = False
        self._observe_wait()

    def _add(self, now: float) -> None:
        """Add the time since the last call to one of the sums."""
        seconds, self._since = now - self._since, now
        if self._waiting:
            self._waited += seconds
        else:
            self._ran += seconds

    def _observe_wait(self) -> None:
        if self._started:
            self._started = False
            self._measured.observe(metrics.FILTER_WAIT, self._waited)
