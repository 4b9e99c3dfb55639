"""Child processes: nothing of a command is left, however it ends."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters import process
from proxsmtp_tp.filters.other_groups import OtherGroups
from proxsmtp_tp.filters.verdict import Action
from tests.child_processes import child_processes
from tests.unit.filters.filter_harness import (
    TEXT,
    WAIT_SECONDS,
    Case,
    complete,
    filtering,
    judge,
    jump,
    pass_through,
    start,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.unit.filters.conftest import Run

# The shell sets up its trap before it says so.
IGNORES_TERM = "trap '' TERM; sh -c 'trap \"\" TERM; sleep 1000' & touch {ready}; while :; do sleep 1000; done"


# The end.


async def _nothing(_case: Case) -> None:
    await pass_through()


async def _written(case: Case) -> None:
    case.write(TEXT)
    await pass_through()


async def _stalled(case: Case) -> None:
    case.write(b"x" * 1_000_000)
    case.finish()
    await until(case.alive, "it runs")
    await pass_through()


async def _finished(case: Case) -> None:
    case.write(TEXT)
    case.finish()


STEPS: list[Callable[[Case], Awaitable[None]]] = [_nothing, _written, _stalled, _finished]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["pipe", "file"])
@pytest.mark.parametrize("command", ["sleep 1000", "sleep 1000 & sleep 1000 | cat"])
def test_abort_at_any_stage_leaves_nothing_and_gives_no_verdict(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    kind: str,
    step: Callable[[Case], Awaitable[None]],
) -> None:
    monkeypatch.setattr(process, "LINGER", 1e6)  # that is for those who end by themselves

    async def scenario() -> None:
        async with filtering(command, tmp_path, kind) as filter_:  # type: ignore[arg-type]
            case = start(filter_)
            if not (kind == "file" and step is _stalled):
                await step(case)
            case.abort()
            case.abort()
            case.write(TEXT)
            case.finish()
            await until(lambda: not case.alive(), "its processes are gone")
            assert case.run.read(10) == b""
            case.run.close()
            assert case.owner.verdicts == []

    run(scenario())


def test_abort_between_decision_and_verdict_gives_none(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with filtering("exit 1", tmp_path) as filter_:
            case = complete(filter_)
            await until(lambda: case.run._settled, "it is decided")  # type: ignore[attr-defined]
            told = len(case.owner.verdicts)
            case.abort()
            await pass_through()
            assert len(case.owner.verdicts) == told

    run(scenario())


def test_abort_after_pass_frees_the_message(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with filtering("cat", tmp_path) as filter_:
            case = start(filter_)
            await case.write_in_pieces(TEXT * 100_000)
            case.finish()
            await case.verdict()
            assert case.run.read(3) == TEXT[:3]
            case.abort()
            assert case.run.read(3) == b""

    run(scenario())


def test_sigterm_comes_first_and_end_of_file_does_not(run: Run, tmp_path: Path) -> None:
    """A script's trap removes its files; and it never takes an aborted message for a complete one."""

    async def scenario() -> None:
        ready, log = tmp_path / "ready", tmp_path / "log"
        command = f"trap 'echo term >>{log}; exit' TERM; touch {ready}; sleep 1000 & wait; cat; echo eof >>{log}"
        async with filtering(command, tmp_path) as filter_:
            case = complete(filter_, b"x" * 1_000_000)
            await until(ready.exists, "the trap is set")
            (child,) = filter_._launcher._children
            case.abort()
            assert child.input.open
            await until(lambda: not case.alive(), "it is gone")
            assert log.read_text() == "term\n"

    run(scenario())


@pytest.mark.parametrize("ended", [False, True])
def test_a_script_with_the_trap_of_the_documents_leaves_no_file(run: Run, tmp_path: Path, ended: bool) -> None:
    """docs/filters.md; also while a part of it is at work in a process group of its own."""

    async def scenario() -> None:
        copy, ready = tmp_path / "copy", tmp_path / "ready"
        work = f"timeout 1000 sh -c 'touch {ready}; sleep 1000'" if ended else "true"
        command = f"copy={copy}; trap 'rm -f \"$copy\"' EXIT; trap 'exit 1' TERM; cat >$copy; {work}; cat $copy"
        async with filtering(command, tmp_path) as filter_:
            case = complete(filter_)
            if ended:
                await until(ready.exists, "it works")
                assert copy.read_bytes() == TEXT
                case.abort()
            else:
                assert (await case.verdict()).action is Action.PASS
                case.run.close()
            await until(lambda: not case.alive(), "it is over")
            assert not copy.exists()

    run(scenario())


def test_a_filter_that_ignores_sigterm_is_killed_with_its_children(run_jumping: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        ready = tmp_path / "ready"
        async with filtering(IGNORES_TERM.format(ready=ready), tmp_path) as filter_:
            case = complete(filter_)
            await until(ready.exists, "the traps are set")
            await until(lambda: len(case.alive()) >= 3, "its children run")
            case.abort()
            await pass_through()
            assert len(case.alive()) >= 3
            assert filter_.running == 1  # a place is taken until it is reaped
            jump(process.KILL_GRACE)
            await until(lambda: not case.alive(), "they are killed")

    run_jumping(scenario())


# Each says so when what it started in a process group of its own runs.
GROUPS = [
    "timeout 1000 sh -c 'touch {ready}; sleep 1000'",
    "bash -c 'set -m; (touch {ready}; sleep 1000)'",
    "perl -e 'setpgrp; open F, q(>{ready}); sleep 1000'",
    "timeout 1000 timeout 1000 sh -c 'touch {ready}; sleep 1000'",
    "(sleep 1000 & sleep 1000) & timeout 1000 sh -c 'sleep 1000 & touch {ready}; wait'",
]


@pytest.mark.parametrize("command", GROUPS)
def test_what_has_a_process_group_of_its_own_is_ended_too(run: Run, tmp_path: Path, command: str) -> None:
    """timeout(1) makes one for its command."""

    async def scenario() -> None:
        ready = tmp_path / "ready"
        async with filtering(command.format(ready=ready), tmp_path) as filter_:
            case = complete(filter_)
            await until(ready.exists, "it runs")
            case.abort()
            await until(lambda: not case.alive(), "all are gone")

    run(scenario())


def test_a_group_of_its_own_that_ignores_sigterm_is_killed_though_its_parent_is_gone(
    run_jumping: Run, tmp_path: Path
) -> None:
    async def scenario() -> None:
        ready = tmp_path / "ready"
        command = f"perl -e '$SIG{{TERM}} = q(IGNORE); setpgrp; open F, q(>{ready}); sleep 1000'; true"
        async with filtering(command, tmp_path) as filter_:
            case = complete(filter_)
            await until(ready.exists, "it ignores the signal")
            case.abort()
            await until(lambda: len(case.alive()) == 1, "the shell is gone")
            jump(process.KILL_GRACE)
            await until(lambda: not case.alive(), "it is killed")

    run_jumping(scenario())


def test_what_called_setsid_is_not_ended(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        ready = tmp_path / "ready"
        command = f"setsid sh -c 'exec timeout 1000 sh -c \": >{ready}; exec sleep 1000\"' & wait"
        async with filtering(command, tmp_path, limit=WAIT_SECONDS * 100) as filter_:
            case = complete(filter_)
            await until(ready.exists, "it runs")
            await until(lambda: len(case.alive()) == 3, "the shell, timeout and sleep")  # not seen while they execute
            filter_.close()
            await until(lambda: filter_.running == 0, "the command is ended")
            await until(lambda: len(case.alive()) == 2, "the shell is gone, and nobody else")
            for pid in case.alive():
                os.kill(pid, signal.SIGKILL)

    run(scenario())


def test_other_process_groups_are_looked_for_only_to_end_them(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(OtherGroups, "look", lambda others: looks.append(others._leader))

    async def scenario() -> None:
        async with filtering("cat", tmp_path) as filter_:
            for _ in range(3):
                await judge(filter_, TEXT)
            assert looks == []
            complete(filter_).abort()
            await until(lambda: len(looks) == 1, "it is ended as soon as it runs")

    run(scenario())


def test_a_later_process_of_the_same_number_gets_no_signal(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    command = ["perl", "-e", f"if (fork) {{ wait }} else {{ setpgrp; open F, q(>{ready}); sleep 1000 }}"]
    with subprocess.Popen(command, start_new_session=True) as leader:
        while not ready.exists():
            time.sleep(0.005)
        others = OtherGroups(leader.pid)
        others.look()
        ((number, known),) = others._known.items()
        others._known[number] = known._replace(born=known.born - 1)
        others.signal(signal.SIGKILL)
        os.kill(number, 0)
        assert leader.poll() is None
        others._known[number] = known
        others.signal(signal.SIGKILL)
        assert leader.wait(60) == 0


def test_the_search_for_processes_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = tmp_path / "ready"
    chain = f"touch {ready}; sleep 1000"
    for _ in range(8):
        chain = f"timeout 1000 sh -c {shlex.quote(chain)}"
    with subprocess.Popen(["sh", "-c", f"{chain}; true"], start_new_session=True) as leader:
        while not ready.exists():
            time.sleep(0.005)
        some, all_ = OtherGroups(leader.pid), OtherGroups(leader.pid)
        with monkeypatch.context() as patch:
            patch.setattr("proxsmtp_tp.filters.other_groups.MOST", 4)
            some.look()
        assert len(some._known) == 3
        all_.look()
        assert len(all_._known) > 8
        all_.signal(signal.SIGKILL)
        assert leader.wait(60) == 0


def test_close_kills_at_once_whatever_runs_or_is_being_ended(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        ready = tmp_path / "ready"
        async with filtering(IGNORES_TERM.format(ready=ready), tmp_path) as filter_:
            running, ending = complete(filter_), complete(filter_)
            await until(ready.exists, "the traps are set")
            ending.abort()
            filter_.close()
            await until(lambda: not running.alive() and not ending.alive(), "all are killed")
            assert running.owner.verdicts == []

    run(scenario())


@pytest.mark.parametrize("command", ["sleep 1000 & exit 1", "sleep 1000 >/dev/null & cat"])
def test_a_process_that_keeps_the_pipes_after_the_verdict_is_ended(
    run_jumping: Run, tmp_path: Path, command: str
) -> None:
    async def scenario() -> None:
        async with filtering(command, tmp_path) as filter_:
            case = complete(filter_)
            await case.verdict()
            (child,) = filter_._launcher._children
            case.run.close()
            assert child._pid in child_processes()  # a zombie: its number must not be anybody else's yet
            jump(process.LINGER)
            await until(lambda: not case.alive(), "it is ended")

    run_jumping(scenario())


def test_a_background_job_that_closed_the_pipes_is_not_ended(run: Run, tmp_path: Path) -> None:
    """1.10's habit: scripts report or learn in the background."""

    async def scenario() -> None:
        async with filtering("sleep 1000 >/dev/null 2>&1 & cat", tmp_path) as filter_:
            case = complete(filter_)
            assert (await case.verdict()).action is Action.PASS
            case.run.close()
            await until(lambda: filter_.running == 0, "the leader is reaped")
            (job,) = case.alive()
            os.kill(job, signal.SIGKILL)

    run(scenario())
