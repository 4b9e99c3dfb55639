"""Prints a result: tables in Markdown for the terminal and for the README."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import plan, tls
from bench.figures import Spread
from bench.goals import cpu_of, goals, spread
from bench.latency import MAILS_FOR_P99

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.latency import LatencySample
    from bench.measuring import Sample
    from bench.result import About, Result

BEGIN, END = "<!-- make bench writes from here -->", "<!-- to here -->"
NOTHING = "-"
"""A cell that was not measured."""


class MarksError(Exception):
    """A README without the two marks."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown: the first column is aligned left, the others right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return (
        "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("| --- |", "|---|").replace(" ---: |", "---:|")
    )


def number(value: float) -> str:
    """A number with at least three digits, and no more decimals than these need."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cell(found: Spread | None) -> str:
    """The median, and how far the most different round is from it."""
    return NOTHING if found is None else f"{number(found.median)} ±{found.percent:.0f} %"


def cpu_cell(samples: Sequence[Sample], *, judging: bool = False) -> str:
    """User and system microseconds of a message, the median of each."""
    spent = [each.judging_microseconds if judging else each.microseconds for each in samples]
    if not any(each.user + each.system for each in spent):
        return NOTHING
    medians = [Spread.of([getattr(each, name) for each in spent]).median for name in ("user", "system")]
    return " + ".join(map(number, medians))


def subjects(result: Result, loads: Sequence[str]) -> list[str]:
    """The subjects with one of these loads, in the order of the run."""
    found = [sample.subject for sample in result.samples if sample.load in loads]
    return list(dict.fromkeys(found + [each.subject for each in result.failures if each.load in loads]))


def of_pair(result: Result, subject: str, load: str) -> list[Sample]:
    """The samples of a pair."""
    return [sample for sample in result.samples if (sample.subject, sample.load) == (subject, load)]


def rate_table(result: Result, loads: Sequence[str], first: str, names: Sequence[str] = ()) -> str:
    """Messages a second. `names` of the columns, if they are not those of the loads."""
    failed = {(failure.subject, failure.load) for failure in result.failures}
    rows = [
        [subject, *("failed" if (subject, load) in failed else cell(spread(result, subject, load)) for load in loads)]
        for subject in subjects(result, loads)
    ]
    return table([first, *(names or loads)], rows)


def cpu_table(result: Result, loads: Sequence[str], first: str, names: Sequence[str] = ()) -> str:
    """Microseconds of a message in the subject, and in what judges."""
    rows = []
    for subject in subjects(result, loads):
        samples = [of_pair(result, subject, load) for load in loads]
        rows.append([subject, *map(cpu_cell, samples)])
        rows.append([f"{subject}: what judges", *(cpu_cell(each, judging=True) for each in samples)])
    return table([first, *(names or loads)], [row for row in rows if set(row[1:]) != {NOTHING}])


def _time(microseconds: float) -> str:
    return f"{number(microseconds / 1000)} ms"


def latency_cells(samples: Sequence[LatencySample]) -> list[str]:
    """Added p50 and p99: the medians of the rounds."""
    if not samples:
        return [NOTHING, NOTHING]
    enough = all(sample.mails >= MAILS_FOR_P99 for sample in samples)
    return [
        _time(Spread.of([sample.added_p50 for sample in samples]).median),
        _time(Spread.of([sample.added_p99 for sample in samples]).median) if enough else NOTHING,
    ]


def latency_table(result: Result) -> str:
    """What each subject adds to a mail."""
    loads = list(dict.fromkeys(sample.load for sample in result.latencies))
    head = ["added to a mail", "highest rate"]
    for load in loads:
        head += [f"{load}: p50", "p99"]
    rows = []
    for subject in dict.fromkeys(sample.subject for sample in result.latencies):
        row = [subject, f"{result.highest[subject]:.0f}/s"]
        for load in loads:
            row += latency_cells([each for each in result.latencies if (each.subject, each.load) == (subject, load)])
        rows.append(row)
    return table(head, rows)


def tls_table(result: Result) -> str:
    """Rates, CPU time in milliseconds, memory."""
    memories = {memory.subject: memory for memory in result.memories}
    rows = []
    for subject in subjects(result, [tls.NEW, tls.REUSED]):
        row = [subject]
        for load in (tls.NEW, tls.REUSED):
            spent = spread(result, subject, load, cpu_of)
            row += [cell(spread(result, subject, load)), NOTHING if spent is None else _time(spent.median)]
        memory = memories.get(subject)
        if memory is None:
            rows.append([*row, NOTHING, NOTHING])
        else:
            rows.append([*row, f"{number(memory.session_kib)} KiB", f"{number(memory.base_kib / 1024)} MiB"])
    head = ["one worker or thread", "new sessions a second", "CPU time of each", "messages a second on reused sessions",
            "CPU time of each", "memory of an idle session", "without a session"]  # fmt: skip
    return table(head, rows)


def where(about: About) -> str:
    """A sentence about machine, commit and versions."""
    versions = ", ".join(f"{name} {version}" for name, version in about.versions.items() if name != "proxsmtp-tp")
    changed = " with changes" if about.dirty else ""
    return (
        f"{about.date[:10]}, commit `{about.commit}`{changed}: {about.cores} cores of "
        f"{about.processor}, Linux {about.kernel}, Python {about.python}, {versions}."
    )


def readme_text(result: Result) -> str:
    """The text between the marks."""
    sessions = [f"{name} sessions" if name != "1" else "1 session" for name in plan.SESSIONS]
    loads, names = [*plan.SESSIONS, plan.LARGE, plan.NEW], [*sessions, plan.LARGE, plan.NEW]
    cpu_loads, cpu_names = [plan.MANY, plan.NEW, plan.LARGE], ["1 kB, 20 sessions", "1 kB, a session each", plan.LARGE]
    bare = spread(result, plan.SPAWNING, plan.COMMANDS)
    rounds = result.about.options.get("rounds")
    paragraphs = [
        "`make bench` on " + where(result.about) + " smtp-source and smtp-sink run on the same machine."
        f" Each cell: the median of {rounds} rounds, ± the farthest round.",
        rate_table(result, loads, "messages a second", names),
        f"`sh -c cat` alone, without mail, runs {cell(bare)} times a second." if bare is not None else "",
        cpu_table(result, cpu_loads, "CPU time of a message, user + system, µs", cpu_names),
        latency_table(result) if result.latencies else "",
        tls_table(result) if subjects(result, [tls.NEW]) else "",
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def write_readme(path: Path, text: str) -> None:
    """Replace the text between the marks. Raises MarksError."""
    old = path.read_text("utf-8")
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise MarksError(f"{path}: the lines {BEGIN!r} and {END!r} must stand there once, in this order")
    before, rest = old.split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", "utf-8")


def whole(result: Result) -> str:
    """For the terminal: all of the README, CPU time with each load, what failed, and the goals."""
    parts = [
        readme_text(result),
        cpu_table(result, list(dict.fromkeys(sample.load for sample in result.samples)), "CPU time, µs"),
        "\n".join(f"failed: {each.subject}: {each.load}: {each.reason}" for each in result.failures),
        "\n".join(goal.line() for goal in goals(result)),
    ]
    return "\n\n".join(part for part in parts if part)
