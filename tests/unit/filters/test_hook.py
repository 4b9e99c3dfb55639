"""The command of an event: once for each, one at a time, bounded in time and number, and nobody waits for it."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from proxsmtp_tp.filters import hook
from proxsmtp_tp.filters.hook import WAITING_MAX, Hook

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def finish(ran: Hook) -> None:
    """As the master: reap until nothing runs."""
    while (pid := ran._pid) is not None:
        ran.step()
        ended, status = os.waitpid(pid, 0)
        assert ran.reaped(ended, status)


def test_each_event_runs_once_in_order_with_its_variables(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = Hook("LockCommand", f'echo "$CLIENT" >> {out}')
    for number in range(3):
        ran.run({"CLIENT": f"192.0.2.{number}"})
    finish(ran)
    assert out.read_text("utf-8") == "192.0.2.0\n192.0.2.1\n192.0.2.2\n"


def test_it_has_no_descriptor_of_ours_and_its_own_session(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = Hook("LockCommand", f"ls -l /proc/self/fd > {out}; ps -o sid= -p $$ >> {out}")
    ran.run({})
    pid = ran._pid
    finish(ran)
    text = out.read_text("utf-8")
    assert text.count("/dev/null") == 2
    assert text.split()[-1] == str(pid)


def test_without_a_command_nothing_runs() -> None:
    ran = Hook("LockCommand", None)
    ran.run({"CLIENT": "192.0.2.7"})
    assert ran._pid is None
    assert ran.due() == float("inf")


def test_one_that_takes_too_long_is_killed_with_what_it_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hook, "TIME_LIMIT", 0.05)
    ran = Hook("LockCommand", "sleep 600 & sleep 600")
    ran.run({})
    assert ran.due() <= time.monotonic() + 0.05
    time.sleep(0.1)
    finish(ran)
    assert "LockCommand: not finished after 0.05 s: killed" in caplog.text


def test_more_events_than_can_wait_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    ran = Hook("LockCommand", "exit 3")
    for _ in range(WAITING_MAX + 6):
        ran.run({})
    assert len(ran._waiting) == WAITING_MAX
    ran._waiting.clear()
    finish(ran)
    assert "exit status 3" in caplog.text
    assert "not run for 5 events" in caplog.text


def test_what_cannot_be_started_is_logged_and_the_next_one_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    ran = Hook("LockCommand", f"touch {tmp_path}/ran")
    ran.run({"CLIENT": "\0"})
    assert "cannot be run" in caplog.text
    ran.run({"CLIENT": "x"})
    finish(ran)
    assert (tmp_path / "ran").exists()


def test_the_child_of_another_process_is_not_ours() -> None:
    assert not Hook("LockCommand", "true").reaped(1, 0)


def test_the_end_of_the_daemon_ends_it() -> None:
    ran = Hook("LockCommand", "sleep 600")
    ran.run({})
    ran.run({})
    ran.close()
    finish(ran)
    assert ran._pid is None
