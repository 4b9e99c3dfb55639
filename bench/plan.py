"""What `make bench` measures: the subjects, and the loads that each of them gets."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.measuring import Load, Pair, SmtpSource, timed
from bench.processes import Cpu
from bench.scanners import accepting_milter
from bench.subjects import (
    BENCH,
    LONG_WAIT,
    Build,
    Form,
    Setting,
    Subject,
    bare_relay,
    haproxy,
    original,
    ours,
    postfix,
    sink,
    worker_line,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

DIRECT = "nothing between"
HAPROXY = "haproxy, TCP mode"
RELAY = "a bare uvloop relay"
ORIGINAL = "proxsmtpd 1.10"
POSTFIX = "Postfix, which queues"
SPAWNING = "`sh -c cat` alone, no mail"
PURE, COMPILED = "proxsmtp-tp, pure Python", "proxsmtp-tp, compiled"
CAT, WORKER, MILTER = "`cat`", "`cat` as a worker", "a milter"
"""Appended to the name of a build, or of the original."""

CAT_LINE = "FilterCommand: cat\n"

MANY, LARGE, NEW, COMMANDS = "20", "10 MB messages", "new sessions", "commands"
_KEPT = [SmtpSource(str(sessions), sessions) for sessions in (1, 20, 100, 400, 2000)]
"""Named by the number of sessions."""
_RELAY_LOADS = [*_KEPT, SmtpSource(LARGE, 4, size=10_000_000), SmtpSource(NEW, 20, keep=False)]
SESSIONS = [load.name for load in _KEPT]


@dataclass(frozen=True, slots=True)
class Spawning:
    """The command of a filter alone. See measuring.Load."""

    name: str = COMMANDS

    def fitting(self, messages: int) -> int:
        """At least one for each core."""
        return max(messages, os.cpu_count() or 1)

    def run(self, subject: Subject, messages: int) -> float:
        """Seconds until so many commands have ended."""
        return timed([sys.executable, str(BENCH / "spawning.py"), str(messages)], subject)


class Spawner(Subject):
    """No subject: what is measured are processes of the load."""

    __slots__ = ()

    def spent(self) -> tuple[Cpu, Cpu]:
        """All commands that have ended are those of the load."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Cpu(), Cpu(used.ru_utime, used.ru_stime)


def filtered(build: str, what: str) -> str:
    """The name of a subject with a filter."""
    return f"{build}, {what}"


@contextlib.contextmanager
def subjects(folder: Path, builds: Sequence[Build]) -> Iterator[dict[str, Subject]]:
    """All subjects, running, by name. The last of the builds is the one that runs with filters."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(sink(folder))]
        at = Setting(folder, found[0].port)
        milter = stack.enter_context(accepting_milter(folder, "C"))
        found += [
            stack.enter_context(haproxy(at, HAPROXY)),
            stack.enter_context(bare_relay(at, RELAY)),
            *(stack.enter_context(ours(at, build, Form(build.name))) for build in builds),
        ]
        best = builds[-1]
        forms = (
            Form(filtered(best.name, MILTER), f"Filter: m milter {milter.sockets[0]} {LONG_WAIT}\n", milter.pid),
            Form(filtered(best.name, WORKER), worker_line()),
            Form(filtered(best.name, CAT), CAT_LINE),
        )
        found += [stack.enter_context(ours(at, best, form)) for form in forms]
        found.append(stack.enter_context(original(at, ORIGINAL)))
        found.append(stack.enter_context(original(at, filtered(ORIGINAL, CAT), CAT_LINE)))
        found += stack.enter_context(postfix(folder / "postfix", at.to, {POSTFIX: None}))
        found.append(Spawner(SPAWNING, 0, 0))
        yield {subject.name: subject for subject in found}


def loads(subject: str) -> list[Load]:
    """The loads of a subject. Slow ones get loads that they can do in a few seconds: proxsmtpd 1.10 lets few
    connections wait (listen(2)), and the others try again after seconds.
    """
    if subject == SPAWNING:
        return [Spawning()]
    if subject == POSTFIX:
        return [*_KEPT[1:3]]
    if subject.startswith(ORIGINAL):
        return [*_KEPT[: 3 if subject == ORIGINAL else 2]]
    if subject.endswith((CAT, WORKER, MILTER)):
        return [*_KEPT[:4]]
    return [*_RELAY_LOADS]


def pairs(found: dict[str, Subject]) -> list[Pair]:
    """All pairs."""
    return [Pair(subject, load) for subject in found.values() for load in loads(subject.name)]


def for_latency(found: dict[str, Subject]) -> list[Subject]:
    """Subjects that answer when the server has the mail; first the one whose rates all others get.

    The original with `cat` is too slow for these samples; the bare relay is like haproxy.
    """
    left_out = (DIRECT, RELAY, POSTFIX, SPAWNING, filtered(ORIGINAL, CAT))
    late = [subject for name, subject in found.items() if name not in left_out]
    own = COMPILED if COMPILED in found else PURE
    return sorted(late, key=lambda subject: subject.name != own)
