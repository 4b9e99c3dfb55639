"""Child processes: what they report, in which order, and many at once."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.endings import REPLIES, Ending
from proxsmtp_tp.filters.execution import Execution, Prepared
from proxsmtp_tp.filters.process import Child, ExitStatus
from proxsmtp_tp.filters.verdict import Action
from tests.unit.filters.filter_harness import (
    TEXT,
    complete,
    filtering,
    judge,
    start,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.filters.command import CommandFilter
    from tests.unit.filters.conftest import Run


def test_a_child_reaped_by_other_code_has_no_exit_status_and_passes_nothing(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        gate = tmp_path / "gate"
        async with filtering(f"cat; until test -e {gate}; do sleep 0.01; done", tmp_path) as filter_:
            case = complete(filter_)
            (child,) = filter_._launcher._children
            await until(lambda: child._pid, "it runs")
            gate.touch()
            reap(child._pid)
            verdict = await case.verdict()
            assert verdict.reply == REPLIES[Ending.STATUS_LOST]

    run(scenario())


def reap(pid: int) -> None:
    """As a library with a SIGCHLD handler would."""
    os.waitpid(pid, 0)


def test_exit_statuses_count_also_where_the_starter_ignored_them(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with filtering("cat; exit 3", tmp_path) as filter_:
            assert (await judge(filter_, TEXT))[0].detail == "exit status 3"

    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        run(scenario())
    finally:
        signal.signal(signal.SIGCHLD, before)


# Many.


@pytest.mark.parametrize("processes", [1, 7, 64])
def test_each_of_many_gets_its_own_verdict(run_uvloop: Run, tmp_path: Path, processes: int) -> None:
    """1.10 lets one session reap another's child: refused mail passes."""
    count = 200 if processes == 64 else 40

    async def one(filter_: CommandFilter, number: int) -> None:
        case = start(filter_)
        case.write(b"%d\n" % number)
        case.finish()
        verdict = await case.verdict()
        if number % 3 == 0:
            assert verdict.action is Action.PASS
            assert case.read_all() == b"message %d\n" % number
        else:
            assert verdict.reply is not None
            assert verdict.reply.wire == b"%d message %d\r\n" % (500 + number % 100, number)
            assert verdict.detail == f"exit status {number % 120 + 1}"
        case.run.close()

    async def scenario() -> None:
        command = (
            "read -r n; test $((n % 3)) -ne 0 || { echo message $n; exit 0; };"
            " echo $((500 + n % 100)) message $n >&2; exit $((n % 120 + 1))"
        )
        async with filtering(command, tmp_path, processes=processes) as filter_:
            await asyncio.gather(*[one(filter_, number) for number in range(count)])

    run_uvloop(scenario())


# The parts.


def prepared(command: str) -> Prepared:
    return Execution(command, os.environb).prepared({})


class Listener:
    """A ChildOwner that remembers."""

    def __init__(self) -> None:
        self.output = self.errors = b""
        self.closed = False
        self.status: ExitStatus | None = None
        self.freed = False

    def child_not_started(self, error: Exception) -> None:
        raise error

    def child_output(self, data: bytes) -> None:
        self.output += data

    def child_output_closed(self) -> None:
        self.closed = True

    def child_errors(self, data: bytes) -> None:
        self.errors += data

    def child_input_taken(self) -> None:
        pass

    def child_exited(self, status: ExitStatus) -> None:
        self.status = status

    def failed(self, error: Exception) -> None:
        raise error  # the event loop reports it

    def free(self) -> None:
        assert not self.freed
        self.freed = True


def test_a_child_reports_all_events_in_order(run: Run) -> None:
    async def scenario() -> None:
        owner = Listener()
        child = Child(prepared("cat; echo error >&2; exit 3"), owner, piped=True, freed=owner.free)
        child.input.write(b"in")
        child.input.complete()
        assert not child.input.open
        await until(lambda: owner.freed, "it ends by itself")
        assert owner.status is not None
        assert (owner.output, owner.errors, owner.closed) == (b"in", b"error\n", True)
        assert (owner.status.code, owner.status.signal) == (3, None)
        child.end()
        child.kill()
        child.release()
        child.input.write(b"more")

    run(scenario())


def test_errors_of_the_leader_are_taken_at_its_exit_though_others_go_on_writing(run: Run) -> None:
    """The drain is bounded: the end of such a stream never comes."""

    async def scenario() -> None:
        owner = Listener()
        child = Child(prepared("yes >&2 & exit 4"), owner, piped=False, freed=owner.free)
        await until(lambda: owner.status is not None, "the leader's exit is seen")
        child.kill()
        await until(lambda: owner.freed, "all is over")

    run(scenario())


@pytest.mark.parametrize("kind", ["pipe", "file"])
@pytest.mark.parametrize("command", ["cat", "exit 1", "sleep 1000"])
def test_a_message_leaves_nothing_for_the_garbage_collector(
    run_uvloop: Run, tmp_path: Path, kind: str, command: str
) -> None:
    """With a circle of objects for each message, the collector would look through all objects of a worker often."""

    async def scenario() -> None:
        async with filtering(command, tmp_path, kind) as filter_:  # type: ignore[arg-type]
            for counted in (False, True):
                gc.collect()
                gc.disable()
                for _ in range(3):
                    case = complete(filter_)
                    if command != "sleep 1000":
                        await case.verdict()
                    case.run.close()
                    del case
                    await until(lambda: filter_.running == 0, "it has ended")
                gc.set_debug(gc.DEBUG_SAVEALL if counted else 0)
                gc.collect()
        left = [each for each in gc.garbage if str(type(each).__module__).startswith("proxsmtp_tp.")]
        assert left == []

    try:
        run_uvloop(scenario())
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
