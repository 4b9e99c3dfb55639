"""bench.printing and bench.goals: tables, the README, and what the figures must be."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import filters, printing
from bench.goals import Goal, goals
from bench.printing import BEGIN, END, MarksError, readme_text, write_readme
from tests.unit.bench.results import result, samples

TREE = Path(__file__).parents[3]


def test_the_tables() -> None:
    text = printing.whole(result())
    assert (
        "on 2026-11-28, commit `0123456789`: 2 cores of Example 3000, Linux 6.1.0, Python 3.11.2, haproxy 2.6." in text
    )
    assert "| haproxy, TCP mode | - | 1000 ±5 % | - |" in text
    assert "| proxsmtp-tp, pure Python | - | 910 ±1 % | - |" in text
    assert "| proxsmtpd 1.10 | - | failed | - |" in text
    assert "failed: proxsmtpd 1.10: 20: 454 later" in text
    assert "| proxsmtp-tp, pure Python | 45.0 + 15.0 | - | - |" in text
    assert "| proxsmtp-tp, pure Python, `cat`: what judges | 750 + 250 | - | - |" in text
    assert "`sh -c cat` alone, without mail, runs 200 ±0 % times a second." in text


def test_what_is_added_to_a_mail() -> None:
    table = printing.latency_table(result())
    assert "| proxsmtp-tp, pure Python | 912/s | 0.20 ms | 0.70 ms |" in table
    # Of 20 mails, the slowest one would be the 99th percentile.
    assert "| proxsmtpd 1.10 | 31/s | 43.9 ms | - |" in table


def test_tls() -> None:
    table = printing.tls_table(result())
    assert "| haproxy, ssl in, ssl out | 150 ±0 % | 1.25 ms | - | - | - | - |" in table
    assert (
        "| proxsmtp-tp, pure Python, TLS in, TLS out | 80.0 ±0 % | 4.00 ms | 800 ±0 % | 0.10 ms | 55.5 KiB | 39.1 MiB |"
        in table
    )


def test_the_goals() -> None:
    lines = [goal.line() for goal in goals(result())]
    name = "proxsmtp-tp, pure Python / haproxy"
    assert lines == [
        f"CPU time of a message at 20 sessions, {name}: 1.50, at most 1.7: reached",
        f"rate, 20 sessions, {name}: 0.91, at least 0.9: reached",
        "rate, `cat` / bare `sh -c cat`: 0.51, at least 0.9: MISSED",
        "TLS: new sessions / haproxy: 0.53, at least 0.5: reached",
        "TLS: messages on reused sessions / in clear: 0.67, at least 0.8: MISSED",
    ]


def test_the_goals_are_those_of_the_compiled_build_where_it_was_measured() -> None:
    both = result()
    both.samples += samples("proxsmtp-tp, compiled", "20", 990, cpu=50e-6)
    assert "rate, 20 sessions, proxsmtp-tp, compiled / haproxy: 0.99" in "\n".join(goal.line() for goal in goals(both))


@pytest.mark.parametrize(
    ("value", "at_most", "reached"), [(0.5, False, True), (0.49, False, False), (0.5, True, True), (0.51, True, False)]
)
def test_a_goal(value: float, *, at_most: bool, reached: bool) -> None:
    assert Goal("x", value, 0.5, at_most).reached is reached


def test_the_goals_of_filters() -> None:
    found = result()
    rates = {filters.NONE: 1000, filters.PIPE: 90, filters.WORKER: 500, filters.MILTER: 499}
    found.samples = [each for name, rate in rates.items() for each in samples(name, "20", rate, judging=20e-6)]
    text = filters.text(found, "20")
    assert "| no filter | 1000 ±0 % | 75.0 + 25.0 | 15.0 + 5.00 |" in text
    assert "worker, `cat` / no filter: 0.50, at least 0.5: reached" in text
    assert "milter that accepts, in C / no filter: 0.50, at least 0.5: MISSED" in text
    assert "worker, `cat` / pipe, `cat`: 5.56, at least 5: reached" in text


def test_the_readme_is_written_between_the_marks_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nthe rest ±\n", "utf-8")
    write_readme(path, "new")
    assert path.read_text("utf-8") == f"# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nthe rest ±\n"
    write_readme(path, "newer")
    assert path.read_text("utf-8") == f"# Title\n\n{BEGIN}\n\nnewer\n\n{END}\n\nthe rest ±\n"


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_readme_without_the_marks_stays_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(MarksError, match="must stand there once"):
        write_readme(path, "new")
    assert path.read_text() == text


def test_the_readme_of_this_tree_has_the_marks(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text((TREE / "README.md").read_text("utf-8"), "utf-8")
    write_readme(path, readme_text(result()))
    assert "910 ±1 %" in path.read_text("utf-8")
