"""Counters and durations of a message and of its filter (`telemetry.metrics`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.telemetry import metrics

if TYPE_CHECKING:
    from proxsmtp_tp.telemetry.facts import Refusal, Transaction
    from proxsmtp_tp.telemetry.metrics import WorkerMetrics

_STATUS = {
    "FILTERED": "filtered",
    "RELAYED": "relayed",
    "SKIPPED": "skipped",
    "MONITORED": "monitored",
    "BYPASSED": "bypassed",
    "FILTER-ERROR": "filter_error",
    "REFUSED": "refused",
    "INTERRUPTED": "interrupted",
}
_REFUSED = {"MAIL": "sender", "RCPT": "recipient", "DATA": "data"}
_BY_VERDICT = {"reject": "rejected", "tempfail": "deferred", "discard": "discarded", "quarantine": "quarantined"}
"""Where the status is the filter's own text."""


def measure(measured: WorkerMetrics, facts: Transaction) -> None:
    """A transaction has ended. The client has not got its reply yet: no message is answered that is not counted."""
    words = measured.words
    if facts.recipients:
        words[metrics.RECIPIENTS["accepted"]] += len(facts.recipients)
    for _, code in facts.refused:
        words[metrics.RECIPIENTS["refused" if code >= 500 else "deferred"]] += 1
    if facts.refused_more:
        words[metrics.RECIPIENTS["refused"]] += facts.refused_more
    if not facts.is_message:
        return
    status = _STATUS.get(facts.status) or _BY_VERDICT.get(facts.verdict, "filter_error")
    words[metrics.MESSAGES[status]] += 1
    words[metrics.MESSAGE_REPLIES[_CLASS.get(facts.reply[:1], "none")]] += 1
    words[metrics.MESSAGE_BYTES] += facts.size
    if facts.verdict:
        words[metrics.VERDICTS["error" if status == "filter_error" else facts.verdict]] += 1
    if facts.origin == "server" and facts.reply[:1] in {b"4", b"5"}:
        words[metrics.SERVER_REFUSALS["message"]] += 1
    if facts.seconds.server is not None:
        measured.observe(metrics.SERVER_FINAL, facts.seconds.server)
    if facts.seconds.reply is not None:
        measured.observe(metrics.DOT_TO_REPLY, facts.seconds.reply)


def measure_refusal(measured: WorkerMetrics, facts: Refusal) -> None:
    """The server has refused MAIL, RCPT or DATA."""
    measured.count(metrics.SERVER_REFUSALS[_REFUSED[facts.command]])


def count_all(measured: WorkerMetrics, indices: list[int]) -> None:
    """Count what a session has measured (`session.measuring`), and empty its list."""
    words = measured.words
    for index in indices:
        words[index] += 1
    indices.clear()


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
    """Measures how long a message waits for its filter, and how long the filter runs."""

    __slots__ = ("_complete", "_measured", "_started")

    def __init__(self, measured: WorkerMetrics) -> None:
        self._measured = measured
        self._complete = self._started = 0.0

    def complete(self, now: float) -> None:
        """The message is complete: it waits for a free filter."""
        self._complete, self._started = now, 0.0

    def started(self, now: float) -> None:
        """The filter has started."""
        self._started = now
        self._measured.observe(metrics.FILTER_WAIT, now - self._complete)

    def verdict(self, now: float) -> None:
        """There is a verdict, perhaps without a filter run."""
        if self._started:
            self._measured.observe(metrics.FILTER, now - self._started)


_CLASS = {b"2": "2xx", b"4": "4xx", b"5": "5xx"}
