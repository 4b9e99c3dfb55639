"""What is measured, for `status` and for Prometheus: counters with labels, and histograms with fixed buckets.

One mapping, made by the master before the first fork and kept over reloads. Each worker writes only its own row, so no
lock is needed; a reader sums all rows. Before the row of a dead worker is given to another, the master adds its values
to a row for dead workers (`keep`), so that no value ever decreases while the daemon runs.

Names, labels and units follow the conventions of Prometheus (https://prometheus.io/docs/practices/naming/). No label is
the address of a client, sender or server: their number has no limit. A new metric is one row in FAMILIES.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from typing import Final, NamedTuple

from proxsmtp_tp.telemetry.tls_outcomes import OUTCOMES

_WORD = 8
_MICROSECONDS: Final = 1e6

BOUNDS: Final = [0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0]
"""Seconds: from a filter that only copies to the five minutes that RFC 5321 gives most replies.
A list: of a tuple, compiled code makes a new object for each number at each use."""

_FIRST: Final = 0.005
"""The first of them: most replies come earlier."""

_SUM: Final = len(BOUNDS) + 1  # the place of the sum


class Family(NamedTuple):
    """One metric. The name is without `proxsmtp_`; a series for each combination of `labels` is at `first` and on."""

    name: str
    help: str
    labels: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    first: int
    histogram: bool = False

    @property
    def words(self) -> int:
        """How many words it has: a histogram one for each bucket, one for the rest, and one for the sum."""
        return len(BOUNDS) + 2 if self.histogram else len(self.values)


FAMILIES: list[Family] = []
"""All metrics that workers write, in the order in which they are shown."""


def _size() -> int:
    return FAMILIES[-1].first + FAMILIES[-1].words if FAMILIES else 0


def _counter(name: str, text: str, label: str, *values: str) -> dict[str, int]:
    """A counter with one label. Returns the index of each series, by the label's value."""
    family = Family(name, text, (label,), tuple((value,) for value in values), _size())
    FAMILIES.append(family)
    return {value: family.first + place for place, value in enumerate(values)}


def _two(name: str, text: str, labels: tuple[str, str], first: tuple[str, ...], second: tuple[str, ...]) -> list[int]:
    """A counter with two labels. Returns the index of the first series of each value of the first label."""
    family = Family(name, text, labels, tuple((one, two) for one in first for two in second), _size())
    FAMILIES.append(family)
    return [family.first + place * len(second) for place in range(len(first))]


def _series(
    name: str, text: str, labels: tuple[str, ...], values: tuple[tuple[str, ...], ...]
) -> dict[tuple[str, ...], int]:
    """A counter with these series only. Returns the index of each, by the values of its labels."""
    family = Family(name, text, labels, values, _size())
    FAMILIES.append(family)
    return {each: family.first + place for place, each in enumerate(values)}


def _single(name: str, text: str) -> int:
    family = Family(name, text, (), ((),), _size())
    FAMILIES.append(family)
    return family.first


def _histogram(name: str, text: str) -> int:
    family = Family(name, text, (), ((),), _size(), histogram=True)
    FAMILIES.append(family)
    return family.first


CONNECTIONS: Final[dict[str, int]] = _counter(
    "connections_total",
    "Connections of clients by what became of them: relayed to a server, or not.",
    "result",
    "accepted",
    "full",
    "share",
    "limit",
    "locked",
    "refused",
    "no_server",
)
"""accepted: connected to a server; full: MaxConnections; share: the client has its share of that; limit: a limit of
the client; locked: it is locked; refused: no client of ours, no destination, a loop; no_server: it was not reached."""

MESSAGES: Final[dict[str, int]] = _counter(
    "messages_total",
    "Messages by their end: the word after status= in the log, and what a filter's refusal was.",
    "status",
    "filtered",
    "relayed",
    "skipped",
    "monitored",
    "bypassed",
    "rejected",
    "deferred",
    "discarded",
    "quarantined",
    "filter_error",
    "refused",
    "interrupted",
)
MESSAGE_REPLIES: Final[dict[str, int]] = _counter(
    "message_replies_total", "Final replies to messages by class; none: the client was gone.", "class",
    "2xx", "4xx", "5xx", "none",
)  # fmt: skip
MESSAGE_BYTES: Final[int] = _single("message_bytes_total", "Octets of messages that clients have sent.")
RECIPIENTS: Final[dict[str, int]] = _counter(
    "recipients_total", "Recipients by the reply to RCPT.", "result", "accepted", "deferred", "refused"
)
SERVER_REFUSALS: Final[dict[str, int]] = _counter(
    "server_refusals_total",
    "Replies 4xx and 5xx of servers to MAIL (sender), RCPT (recipient), DATA (data) and to the message.",
    "why",
    "sender",
    "recipient",
    "data",
    "message",
)
VERDICTS: Final[dict[str, int]] = _counter(
    "filter_verdicts_total",
    "Verdicts of the filter; error: it failed, and the message was refused.",
    "verdict",
    "pass",
    "reject",
    "tempfail",
    "discard",
    "quarantine",
    "error",
)
FILTER_FAILURES: Final[int] = _single(
    "filter_failures_total",
    "Messages that a filter failed to judge, whatever failure= and FilterMode then did with them.",
)
_CLASSES = ("2xx", "3xx", "4xx", "5xx")
CLIENT_REPLIES, SERVER_REPLIES = (
    first - 2
    for first in _two(
        "replies_total",
        "Replies by class; side client: sent to clients, side server: received from servers.",
        ("side", "class"),
        ("client", "server"),
        _CLASSES,
    )
)
"""Add the first digit of the code: the index of its series."""

CLOSED: Final[dict[str, int]] = _counter(
    "closed_total",
    "Connections that were closed with 421, by reason.",
    "reason",
    "server",
    "no_server",
    "server_lost",
    "server_timed_out",
    "server_out_of_step",
    "server_tls",
    "client_timed_out",
    "client_errors",
    "filter_timed_out",
    "message_timed_out",
    "session_too_long",
    "full",
    "limit",
    "refused",
    "stopping",
    "administrator",
    "internal_error",
    "other",
)
"""server: the server said 421 itself; server_tls: its TLS is not what UpstreamTls demands."""

TLS = _series(
    "tls_total",
    "Outcomes of TLS; level: what UpstreamTls demanded of the server's leg, in force for this session.",
    ("side", "action", "level", "reason"),
    OUTCOMES,
)

FILTER_WAIT: Final[int] = _histogram("filter_wait_seconds", "Time that messages waited for a place for the filter.")
FILTER: Final[int] = _histogram("filter_seconds", "Time from the start of the filter to its verdict.")
SERVER_CONNECT: Final[int] = _histogram(
    "server_connect_seconds", "Time to connect to servers, of connections that were made."
)
SERVER_FINAL: Final[int] = _histogram(
    "server_final_seconds", "Time from the end of data to the server's reply to the message."
)
DOT_TO_REPLY: Final[int] = _histogram(
    "dot_to_reply_seconds", "Time from the client's end of data to the reply to the message."
)

SIZE: Final[int] = _size()
"""Words of a row."""


class Metrics:
    """A row for each of `workers` rows of the admission table, and one for workers that are dead."""

    def __init__(self, workers: int) -> None:
        self._words = memoryview(mmap.mmap(-1, (workers + 1) * SIZE * _WORD)).cast("Q")
        self._used = 0  # rows that were ever used: the master knows, since it keeps them
        self._dead = workers

    def of(self, worker: int) -> WorkerMetrics:
        """The row of one worker."""
        return WorkerMetrics(self._words[worker * SIZE : (worker + 1) * SIZE])

    def begin(self, worker: int) -> None:
        """The master, before it forks a worker: this row is used from now on."""
        self._used = max(self._used, worker + 1)

    def keep(self, worker: int) -> None:
        """The master: the worker of this row is dead. Keep its values in the sum, and set the row to 0."""
        row, dead = self.of(worker).words, self.of(self._dead).words
        for place, value in enumerate(row.tolist()):
            if value:
                dead[place] += value
                row[place] = 0

    def totals(self) -> list[int]:
        """The sum of all workers, dead and alive, by index. For the master."""
        sums = self.of(self._dead).words.tolist()
        for worker in range(self._used):
            row = self.of(worker).words.tolist()
            if any(row):
                sums = [one + two for one, two in zip(sums, row, strict=True)]
        return sums


class WorkerMetrics:
    """The row of one worker. Only that worker writes it."""

    __slots__ = ("words",)

    def __init__(self, words: memoryview) -> None:
        self.words = words

    def count(self, index: int, amount: int = 1) -> None:
        """Add to a counter."""
        self.words[index] += amount

    def observe(self, histogram: int, seconds: float) -> None:
        """One more duration. Bucket and sum (in microseconds) are two words: a reader may see only the first."""
        words = self.words
        words[histogram + (bisect_left(BOUNDS, seconds) if seconds > _FIRST else 0)] += 1
        if seconds > 0:
            words[histogram + _SUM] += int(seconds * _MICROSECONDS)


def unread_row() -> WorkerMetrics:
    """For sessions that are not counted: a row that nobody reads."""
    return WorkerMetrics(memoryview(bytearray(SIZE * _WORD)).cast("Q"))


def by_name(totals: list[int]) -> dict[str, dict[str, int]]:
    """Counters for `status`: by family, the value of each series by its labels, joined by a blank."""
    return {
        family.name: {" ".join(labels): totals[family.first + place] for place, labels in enumerate(family.values)}
        for family in FAMILIES
        if not family.histogram
    }


def seconds_of(totals: list[int], histogram: int) -> tuple[list[int], float]:
    """How many durations were in each bucket (the last one: longer than all bounds), and their sum in seconds."""
    end = histogram + len(BOUNDS) + 1
    return totals[histogram:end], totals[end] / _MICROSECONDS
