"""How much later a mail arrives because of a subject, at a fixed rate, however slow the subject is.

`open_loop` (in C beside this file) sends; the time of a mail is from when it was due to the reply to its text. Each
subject is measured at shares of its own highest rate, and at rates that are the same for all, each time beside the sink
without anything between at the same rate. What a subject adds is the difference of the percentiles.
"""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import percentile
from bench.measuring import RUN_LIMIT, Failure, LoadError, Pace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.subjects import Subject

SHARES = (0.1, 0.8)
"""Shares of the highest rate."""
ALMOST = 0.9
"""A subject is not asked for more than this part of its highest rate where the rate is the same for all."""
SESSIONS = 20
SIZE = 1000
MAILS_FOR_P99 = 100
"""With fewer in a sample, the 99th percentile is the slowest mail, which shows nothing."""
_FEWEST = 20
_START = 0.15
"""Seconds that a run takes more than its mails: sessions are opened and greeted."""


@dataclass(frozen=True, slots=True)
class Times:
    """The times of the mails of one run, in microseconds."""

    p50: float
    p99: float
    highest: float


@dataclass(frozen=True, slots=True)
class LatencySample:
    """One run. `load` is a share of the highest rate ("10 %") or a rate ("200/s")."""

    subject: str
    load: str
    round: int
    rate: float
    """Mails a second that were due."""
    mails: int
    through: Times
    """The times through the subject."""
    direct: Times
    """The times to the sink, at the same rate, just before."""

    @property
    def added_p50(self) -> float:
        """Microseconds that the subject adds in the median."""
        return self.through.p50 - self.direct.p50

    @property
    def added_p99(self) -> float:
        """Microseconds that the subject adds to the 99th percentile."""
        return self.through.p99 - self.direct.p99


def compiled_sender(folder: Path) -> Path:
    """open_loop, compiled into the folder."""
    program = folder / "open_loop"
    source = Path(__file__).with_name("open_loop.c")
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source)]
    subprocess.run(command, check=True)
    return program


def parsed(output: str) -> tuple[float, list[float]]:
    """Seconds of the run, microseconds of each mail. Raises LoadError if there is none."""
    numbers = list(map(float, output.split()))
    if len(numbers) < 2:
        raise LoadError(f"open_loop: no mail in {output!r}")
    return numbers[0], numbers[1:]


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """The sender."""

    program: Path
    sessions: int = SESSIONS

    def send(self, port: int, rate: float, mails: int) -> tuple[float, list[float]]:
        """See `parsed`. Rate 0: as many as it takes. Raises LoadError."""
        command: list[str | Path] = [self.program, str(port), str(self.sessions), f"{rate:.3f}", str(mails), str(SIZE)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=2 * RUN_LIMIT, check=False)
        except subprocess.TimeoutExpired as error:
            raise LoadError("open_loop: no end") from error
        if done.returncode:
            raise LoadError(done.stderr.strip())
        return parsed(done.stdout)

    def times(self, port: int, rate: float, mails: int) -> Times:
        """The times at a rate. Raises LoadError."""
        took = self.send(port, rate, mails)[1]
        return Times(percentile(took, 50), percentile(took, 99), max(took))

    def highest_rate(self, subject: Subject, seconds: float) -> float:
        """The most mails a second that it takes. Raises LoadError."""
        mails = self.sessions
        took = self.send(subject.port, 0, mails)[0]
        mails = max(self.sessions, int(mails / took * seconds))
        return mails / self.send(subject.port, 0, mails)[0]


def rounded(rate: float) -> float:
    """To two digits: a rate that is the same for all is a round number."""
    return float(f"{rate:.1e}")


def rates_of(highest: dict[str, float], common: Sequence[float]) -> dict[str, list[tuple[str, float]]]:
    """By subject, the loads of the latency table and their rates."""
    found = {}
    for name, most in highest.items():
        own = [(f"{share * 100:.0f} %", share * most) for share in SHARES]
        found[name] = own + [(f"{rate:.0f}/s", rate) for rate in common if 0 < rate <= most * ALMOST]
    return found


@dataclass(slots=True)
class Latencies:
    """What was measured: the highest rates by subject, the samples, and what could not be measured."""

    highest: dict[str, float] = field(default_factory=dict)
    samples: list[LatencySample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def estimate(subjects: int, pace: Pace) -> float:
    """Seconds that measuring takes, about."""
    return subjects * (pace.seconds + _START) * (2 + pace.rounds * 2 * 2 * len(SHARES))


def measured(sender: OpenLoop, direct: Subject, subjects: Sequence[Subject], pace: Pace) -> Latencies:
    """Measure in rounds, as `measuring.measured`. `direct` is the sink.

    The rates that are the same for all are shares of the highest rate of the first of the subjects.
    """
    found = Latencies()

    @contextlib.contextmanager
    def failing(subject: Subject, load: str) -> Iterator[None]:
        try:
            yield
        except LoadError as error:
            pace.say(f"{subject.name}: {load}: {error}")
            found.failures.append(Failure(subject.name, load, str(error)))

    for subject in subjects:
        with failing(subject, "latency"):
            found.highest[subject.name] = sender.highest_rate(subject, pace.seconds)
    common = [rounded(share * found.highest.get(subjects[0].name, 0.0)) for share in SHARES]
    rates = rates_of(found.highest, common)
    for number in range(pace.rounds):
        for subject, load, rate in _in_turn(subjects, rates, number):
            mails = max(_FEWEST, int(rate * pace.seconds))
            with failing(subject, f"latency, {load}"):
                without = sender.times(direct.port, rate, mails)
                through = sender.times(subject.port, rate, mails)
                found.samples.append(LatencySample(subject.name, load, number, rate, mails, through, without))
    return found


def _in_turn(
    subjects: Sequence[Subject], rates: dict[str, list[tuple[str, float]]], number: int
) -> Iterator[tuple[Subject, str, float]]:
    """All samples of a round: each load with each of its subjects, beginning with another one in each round."""
    at = number % len(subjects)
    turned = [*subjects[at:], *subjects[:at]]
    loads = dict.fromkeys(load for of_subject in rates.values() for load, _ in of_subject)
    for wanted in loads:
        for subject in turned:
            for load, rate in rates.get(subject.name, ()):
                if load == wanted:
                    yield subject, load, rate
