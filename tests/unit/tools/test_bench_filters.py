"""bench.filters and bench.flat_memory: the goals and the table; the CPU time of a process with all that it starts."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

from bench import filters
from bench.filter_subjects import cpu_seconds

if TYPE_CHECKING:
    import pytest


def _figures(rate: float) -> dict[str, float]:
    return {"messages_per_second": rate, "daemon_cpu_us": 500.0, "scanner_cpu_us": 20.0}


def test_the_goals(capsys: pytest.CaptureFixture[str]) -> None:
    best = {
        name: _figures(rate)
        for name, rate in (
            (filters.NONE, 1000.0),
            (filters.PIPE, 90.0),
            (filters.WORKER, 500.0),
            (filters.MILTER, 499.0),
        )
    }
    filters.show(best)
    shown = capsys.readouterr().out
    assert "| no filter | 1000 | 500 us | 20 us |" in shown
    assert "worker / no filter: 0.50, at least 0.5: reached" in shown
    assert "milter / no filter: 0.50, at least 0.5: MISSED" in shown
    assert "worker / pipe: 5.56, at least 5: reached" in shown


def test_the_cheapest_round_counts() -> None:
    found = filters.Figures([100.0, 300.0, 200.0], [30.0, 20.0, 10.0], [1.0, 30.0, 2.0]).best()
    assert found == {"messages_per_second": 300.0, "daemon_cpu_us": 10, "scanner_cpu_us": 2}


def test_cpu_time_of_children_that_run_and_that_have_ended() -> None:
    burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
    with subprocess.Popen(["sh", "-c", f"sh -c '{burn}; exit'; read x"], stdin=subprocess.PIPE) as process:
        end = time.monotonic() + 60
        while cpu_seconds(process.pid) < 0.05:
            assert time.monotonic() < end
            time.sleep(0.05)
        process.kill()
