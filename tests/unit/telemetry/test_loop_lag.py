"""The largest lag of event loops: of the last minute or two, of all workers that live."""

from __future__ import annotations

import os

import pytest

from proxsmtp_tp.telemetry.loop_lag import LoopLag


def test_the_largest_of_all_workers_for_a_minute() -> None:
    now = [1000.0]
    lag = LoopLag(3, lambda: now[0])
    assert lag.largest() == 0
    lag.late(0, 0.25)
    lag.late(0, 0.1)
    lag.late(2, -0.5)
    assert lag.largest() == pytest.approx(0.25)
    lag.late(2, 1.5)
    now[0] += 60
    lag.late(0, 0.01)
    assert lag.largest() == pytest.approx(1.5), "the minute before counts, too"
    now[0] += 60
    assert lag.largest() == pytest.approx(0.01)
    now[0] += 600
    assert lag.largest() == 0
    lag.late(1, 1e9)
    assert lag.largest() == pytest.approx(4294.967295), "as much as fits"
    lag.clear(1)
    assert lag.largest() == 0


def test_processes_share_it() -> None:
    lag = LoopLag(2)
    child = os.fork()
    if child == 0:
        lag.late(1, 0.5)
        os._exit(0)
    os.waitpid(child, 0)
    assert lag.largest() == pytest.approx(0.5)
