"""What the figures of `make bench` must be, and whether they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import plan, tls
from bench.figures import Spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.measuring import Sample
    from bench.result import Result


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of two figures of one run, each the median of the rounds."""

    name: str
    value: float
    limit: float
    at_most: bool = False

    @property
    def reached(self) -> bool:
        """Whether the ratio is as wanted."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def line(self) -> str:
        """A line for people."""
        bound = "at most" if self.at_most else "at least"
        return f"{self.name}: {self.value:.2f}, {bound} {self.limit:g}: {'reached' if self.reached else 'MISSED'}"


def spread(
    result: Result, subject: str, load: str, of: Callable[[Sample], float] = lambda sample: sample.rate
) -> Spread | None:
    """The spread of one figure of a pair over the rounds; None if it was not measured, or failed in a round."""
    if any((failure.subject, failure.load) == (subject, load) for failure in result.failures):
        return None
    values = [of(sample) for sample in result.samples if (sample.subject, sample.load) == (subject, load)]
    return Spread.of(values) if values else None


def cpu_of(sample: Sample) -> float:
    """Microseconds of a message, user and system together."""
    return sample.microseconds.user + sample.microseconds.system


def best_build(result: Result) -> str:
    """The build that packages install, if it was measured."""
    names = {sample.subject for sample in result.samples}
    return plan.COMPILED if plan.COMPILED in names else plan.PURE


def goals(result: Result) -> list[Goal]:
    """All goals whose figures were measured."""
    best = best_build(result)
    found: list[Goal] = []

    def add(name: str, above: Spread | None, below: Spread | None, limit: float, *, at_most: bool = False) -> None:
        if above is not None and below is not None and below.median:
            found.append(Goal(name, above.median / below.median, limit, at_most))

    cpu = [spread(result, subject, plan.MANY, cpu_of) for subject in (best, plan.HAPROXY)]
    add(f"CPU time of a message at 20 sessions, {best} / haproxy", cpu[0], cpu[1], 1.7, at_most=True)
    for load in (*plan.SESSIONS, plan.LARGE):
        what = load if load == plan.LARGE else f"{load} sessions"
        rates = [spread(result, subject, load) for subject in (best, plan.HAPROXY)]
        add(f"rate, {what}, {best} / haproxy", rates[0], rates[1], 0.95 if load == plan.LARGE else 0.9)
    bare = spread(result, plan.SPAWNING, plan.COMMANDS)
    add("rate, `cat` / bare `sh -c cat`", spread(result, plan.filtered(best, plan.CAT), plan.MANY), bare, 0.9)
    own = spread(result, best, plan.MANY)
    for what in (plan.WORKER, plan.MILTER):
        add(f"rate, {what} / no filter", spread(result, plan.filtered(best, what), plan.MANY), own, 0.5)
    encrypted, clear = (f"{best}, {how}" for how in (tls.TLS, tls.CLEAR))
    rates = [spread(result, subject, tls.NEW) for subject in (encrypted, tls.HAPROXY_TLS)]
    add("TLS: new sessions / haproxy", rates[0], rates[1], 0.5)
    rates = [spread(result, subject, tls.REUSED) for subject in (encrypted, clear)]
    add("TLS: messages on reused sessions / in clear", rates[0], rates[1], 0.8)
    return found
