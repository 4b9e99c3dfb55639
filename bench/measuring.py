"""Measures: one load through many subjects in turn, in several rounds. What else the machine does hits all of them.

A pair is a subject and a load. Each pair first gets as few messages as tell how many it takes in the time of a sample
(caches fill meanwhile). Then, in each round, each load is run through all its subjects one after the other, in each
round beginning with another one. A pair that fails is not tried again.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from bench.processes import Cpu
from bench.subjects import Subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PROBE = 20
"""Messages of the first look at a pair, if its load needs no more."""
PROBE_SECONDS = 0.25
"""A second look takes about so long: the first one is mostly the start of the load."""
MOST_MESSAGES = 60_000
RUN_LIMIT = 60.0
"""Seconds of one run of a load; what takes longer has failed."""
ALL = "all"
"""In place of the subject, for a failure that is not one of a subject."""
LATE = 3.0
"""Rounds end when they take so many times as long as planned: figures of such a busy machine show nothing."""
_OVERHEAD = 1.15
"""A sample takes about so much more than its time: waits for the end of the load, starts."""


class LoadError(Exception):
    """A message was refused, or it took too long. The text says which."""


class Load(Protocol):
    """A way to send messages. A name is a column of a table."""

    @property
    def name(self) -> str:
        """In tables and in the result."""

    def fitting(self, messages: int) -> int:
        """About so many, as a run can have them."""

    def run(self, subject: Subject, messages: int) -> float:
        """Seconds until all of them have left the subject. Raises LoadError."""


@dataclass(frozen=True, slots=True)
class SmtpSource:
    """smtp-source of Postfix. `keep`: one session for several messages (-d); else each message has a session."""

    name: str
    sessions: int
    size: int = 1000
    keep: bool = True

    def fitting(self, messages: int) -> int:
        """At least two a session that is kept: with one, mostly greetings would be measured."""
        return max(self.sessions * 2, min(messages, MOST_MESSAGES))

    def run(self, subject: Subject, messages: int) -> float:
        """See Load. The end is when the queue of the subject is empty again, if it has one."""
        numbers = ["-s", str(self.sessions), "-m", str(messages), "-l", str(self.size)]
        envelope = ["-f", "a@example.org", "-t", "b@example.org", f"127.0.0.1:{subject.port}"]
        command = ["smtp-source", *(["-d"] if self.keep else []), *numbers, *envelope]
        return timed(command, subject)


def timed(command: Sequence[str], subject: Subject) -> float:
    """Seconds of a command that sends, and of emptying the subject's queue. Raises LoadError."""
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT, check=False)
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"{command[0]}: not done after {RUN_LIMIT:g} s") from error
    if done.returncode:
        raise LoadError(f"{command[0]}: {done.stderr.strip()[-200:] or f'exit status {done.returncode}'}")
    while subject.waiting():
        if time.monotonic() > began + RUN_LIMIT:
            raise LoadError(f"messages are still queued after {RUN_LIMIT:g} s")
        time.sleep(0.02)
    return time.monotonic() - began


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of a load through a subject. CPU time is in seconds, of all messages together."""

    subject: str
    load: str
    round: int
    messages: int
    seconds: float
    cpu: Cpu
    """Of the subject."""
    judging: Cpu
    """Of its scanners, and of the commands that it executes."""

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def microseconds(self) -> Cpu:
        """CPU time of a message."""
        return Cpu(self.cpu.user / self.messages * 1e6, self.cpu.system / self.messages * 1e6)

    @property
    def judging_microseconds(self) -> Cpu:
        """CPU time of what judges a message."""
        return Cpu(self.judging.user / self.messages * 1e6, self.judging.system / self.messages * 1e6)


@dataclass(frozen=True, slots=True)
class Pair:
    """A subject and a load. `messages` of a sample: 0 until that is known."""

    subject: Subject
    load: Load
    messages: int = 0
    expected: float = 0.0
    """Seconds of a sample; 0 until that is known."""

    @property
    def key(self) -> tuple[str, str]:
        """Names of both."""
        return self.subject.name, self.load.name


@dataclass(frozen=True, slots=True)
class Failure:
    """A pair that could not be measured, and why."""

    subject: str
    load: str
    reason: str


@dataclass(frozen=True, slots=True)
class Pace:
    """How often and how long to measure; and the function that is told each step."""

    rounds: int
    seconds: float
    """Of a sample."""
    say: Callable[[str], None]


def estimate(pairs: Sequence[Pair], pace: Pace) -> float:
    """Seconds that measuring takes, about."""
    return len(pairs) * (pace.rounds * pace.seconds * _OVERHEAD + 2 * PROBE_SECONDS + pace.seconds / 2)


def sample(pair: Pair, number: int) -> Sample:
    """Measure one run. Raises LoadError."""
    before = pair.subject.spent()
    seconds = pair.load.run(pair.subject, pair.messages)
    after = pair.subject.spent()
    return Sample(*pair.key, number, pair.messages, seconds, after[0] - before[0], after[1] - before[1])


def calibrated(pair: Pair, seconds: float) -> Pair:
    """With as many messages as it takes in so many seconds. Raises LoadError."""
    messages = pair.load.fitting(PROBE)
    took = pair.load.run(pair.subject, messages)
    if took < PROBE_SECONDS < seconds:
        messages = pair.load.fitting(int(messages / took * PROBE_SECONDS))
        took = pair.load.run(pair.subject, messages)
    wanted = pair.load.fitting(int(messages / took * seconds))
    return replace(pair, messages=wanted, expected=wanted / messages * took)


def rotated(items: Sequence[Pair], number: int) -> list[Pair]:
    """Beginning with another one in each round."""
    at = number % len(items) if items else 0
    return [*items[at:], *items[:at]]


def by_load(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """In their order."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(pair.load.name, []).append(pair)
    return found


def in_turn(pairs: Sequence[Pair], rounds: int) -> Iterator[tuple[int, Pair]]:
    """All samples of a run: the rounds, in each of them the loads, with each of them the subjects."""
    for number in range(rounds):
        for of_load in by_load(pairs).values():
            for pair in rotated(of_load, number):
                yield number, pair


@dataclass(slots=True)
class Measured:
    """All samples, and what could not be measured."""

    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def measured(pairs: Sequence[Pair], pace: Pace) -> Measured:
    """In rounds. When the samples take LATE times as long as they should, no further one begins."""
    found = Measured()
    ready: list[Pair] = []

    @contextlib.contextmanager
    def failing(pair: Pair) -> Iterator[None]:
        try:
            yield
        except LoadError as error:
            pace.say(f"{pair.subject.name}: {pair.load.name}: {error}")
            found.failures.append(Failure(*pair.key, str(error)))

    for pair in pairs:
        with failing(pair):
            ready.append(calibrated(pair, pace.seconds))
    expected = pace.rounds * sum(pair.expected for pair in ready)
    pace.say(f"{len(ready)} samples in each of {pace.rounds} rounds: {expected:.0f} s")
    until = time.monotonic() + LATE * expected
    for number, pair in in_turn(ready, pace.rounds):
        if time.monotonic() > until:
            found.failures.append(Failure(ALL, f"round {number + 1}", "the machine is too busy: not done in time"))
            pace.say(found.failures[-1].reason)
            break
        if not any((failure.subject, failure.load) == pair.key for failure in found.failures):
            with failing(pair):
                found.samples.append(sample(pair, number))
    return found
