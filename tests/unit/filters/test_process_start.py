"""Child processes: what a command gets when it starts, and what happens if it cannot be started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.endings import REPLIES, Ending
from proxsmtp_tp.filters.verdict import Action
from tests.unit.filters.filter_harness import (
    TEXT,
    filtering,
    judge,
    start,
    until,
)

if TYPE_CHECKING:
    from tests.unit.filters.conftest import Run

GLIBC_SIGNALS = 0b11 << 31  # 32 and 33, which glibc's posix_spawn itself ignores and hides from programs


# The start.


def test_signals_session_and_descriptors(run: Run, tmp_path: Path) -> None:
    """No descriptor of ours, default handlers, nothing blocked, a session of its own."""

    async def scenario() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        inherited = os.open("/dev/null", os.O_RDONLY)
        os.set_inheritable(inherited, True)
        # No pipe, whose ends the shell has for a moment; and its status read by itself: dash blocks all signals for a
        # moment when it starts a program.
        command = (
            "cat >/dev/null; ls /proc/$$/fd; cut -d' ' -f1,5,6 /proc/$$/stat;"
            " while read -r key value; do case $key in Sig[BI]*) echo $value ;; esac; done </proc/$$/status"
        )
        try:
            async with filtering(command, tmp_path) as filter_:
                _, out = await judge(filter_, TEXT)
        finally:
            os.close(inherited)
            signal.signal(signal.SIGUSR1, before)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        *descriptors, numbers, blocked, ignored = out.decode().splitlines()
        assert descriptors == ["0", "1", "2"]
        assert int(blocked, 16) == 0
        assert int(ignored, 16) & ~GLIBC_SIGNALS == 0
        pid, group, session = numbers.split()
        assert pid == group == session

    run(scenario())


def test_working_directory_and_umask_are_the_daemons(run_uvloop: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        before = os.umask(0o027)
        try:
            async with filtering("cat >/dev/null; pwd -P; umask", tmp_path) as filter_:
                _, out = await judge(filter_, TEXT)
        finally:
            os.umask(before)
        assert out.decode().split() == [here, "0027"]

    here = str(Path.cwd().resolve())
    run_uvloop(scenario())


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_pipes_do_not_get_descriptors_0_to_2(tmp_path: Path, kind: str) -> None:
    """A daemon started with its standard descriptors closed must not mix them up with the filter's."""
    script = """
import asyncio, os, pathlib, sys
sys.path.insert(0, os.getcwd())
from tests.unit.filters.filter_harness import filtering, judge, run_on
async def scenario():
    os.close(0); os.close(1)  # now, so that the next pipe gets them, not the loop
    async with filtering("cat; echo end >&2", pathlib.Path(sys.argv[1]), sys.argv[2]) as filter_:
        verdict, out = await judge(filter_, b"text")
        assert (verdict.detail, out) == ("passed: end", b"text"), verdict
run_on("asyncio", scenario())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), kind], stderr=subprocess.PIPE, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_what_can_not_be_started_is_a_temporary_failure(run: Run, tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with filtering("cat", tmp_path, kind) as filter_:  # type: ignore[arg-type]
            for remote in (b"x" * 200_000, b"nul\0nul"):  # one string has at most 128 KiB: execve(2)
                verdict, _ = await judge(filter_, TEXT, remote=remote)
                assert verdict.reply == REPLIES[Ending.NOT_STARTED]
            assert (await judge(filter_, TEXT))[0].action is (Action.PASS)

    run(scenario())


@pytest.mark.parametrize("call", ["os.pidfd_open", "proxsmtp_tp.filters.execution.posix_spawn", "os.pipe"])
def test_a_system_without_resources_is_a_temporary_failure(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_args: object, **_more: object) -> None:
        raise OSError(24, "Too many open files")

    async def scenario() -> None:
        async with filtering("cat", tmp_path) as filter_:
            await judge(filter_, TEXT)
            with monkeypatch.context() as patch:
                patch.setattr(call, refuse)
                case = start(filter_)
                case.write(TEXT)
                case.finish()
                verdict = await case.verdict()
            assert verdict.reply == REPLIES[Ending.NOT_STARTED]
            assert "Too many open files" in verdict.detail
            await until(lambda: not case.alive(), "its processes are gone")

    run(scenario())
