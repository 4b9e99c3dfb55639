"""The thread that starts processes: the event loop goes on, and nothing is left of a start that is not needed."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.endings import REPLIES, Ending
from proxsmtp_tp.filters.execution import Execution, Prepared
from proxsmtp_tp.filters.spawner import Start
from proxsmtp_tp.filters.verdict import Action
from tests.child_processes import child_processes
from tests.unit.filters.filter_harness import TEXT, complete, filtering, judge, run_on, until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.unit.filters.conftest import Run


class Gate:
    """Delays the starts of processes until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        real = Prepared.spawn

        def spawn(prepared: Prepared, descriptors: Sequence[int | None]) -> int:
            self.reached.set()
            assert self.open.wait(60)
            return real(prepared, descriptors)

        monkeypatch.setattr(Prepared, "spawn", spawn)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def test_the_loop_goes_on_while_a_program_is_started(run: Run, tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with filtering("cat", tmp_path) as filter_:
            case = complete(filter_, TEXT * 10)
            await until(gate.reached.is_set, "it is being started")
            await asyncio.sleep(0.01)
            assert case.owner.verdicts == []
            gate.open.set()
            assert (await case.verdict()).action is Action.PASS
            assert case.read_all() == TEXT * 10
            case.run.close()

    run(scenario())


@pytest.mark.parametrize("command", ["sleep 1000", "sleep 1000; true"])
def test_a_message_that_is_given_up_meanwhile_leaves_no_process(
    run: Run, tmp_path: Path, gate: Gate, command: str
) -> None:
    async def scenario() -> None:
        async with filtering(command, tmp_path) as filter_:
            case = complete(filter_)
            await until(gate.reached.is_set, "it is being started")
            case.abort()
            assert filter_.running == 1
            gate.open.set()
            await until(lambda: filter_.running == 0, "it is ended")
            assert case.alive() == []
            assert case.owner.verdicts == []

    run(scenario())


def test_the_end_of_the_worker_ends_what_is_being_started_and_starts_no_more(
    run: Run, tmp_path: Path, gate: Gate
) -> None:
    async def scenario() -> None:
        before = child_processes()
        async with filtering("sleep 1000", tmp_path) as filter_:
            cases = [complete(filter_) for _ in range(3)]
            await until(gate.reached.is_set, "the first is being started")
            threading.Timer(0.05, gate.open.set).start()
            filter_.close()
            await until(lambda: filter_.running == 0, "all are over")
            assert [case.alive() for case in cases] == [[], [], []]
            assert child_processes() == before

    run(scenario())


def test_a_bug_in_a_start_costs_one_message(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_prepared: Prepared, _descriptors: Sequence[int | None]) -> int:
        raise ZeroDivisionError("a bug")

    async def scenario() -> None:
        async with filtering("cat", tmp_path) as filter_:
            with monkeypatch.context() as patch:
                patch.setattr(Prepared, "spawn", broken)
                verdict, _ = await judge(filter_, TEXT)
            assert (verdict.reply, verdict.detail) == (REPLIES[Ending.NOT_STARTED], "could not be started: a bug")
            assert (await judge(filter_, TEXT))[0].action is Action.PASS

    run(scenario())


def test_a_loop_that_is_closed_meanwhile_delays_no_other(tmp_path: Path, gate: Gate) -> None:
    loop = asyncio.new_event_loop()
    prepared = Execution("true", {b"PATH": b"/usr/bin"}).prepared({})
    lost = Start(loop, prepared, (None, None, None), lambda: None)
    assert gate.reached.wait(60)
    loop.close()
    gate.open.set()
    lost.cancel()  # waits for it
    os.waitpid(lost.pid, 0)

    async def scenario() -> None:
        async with filtering("cat", tmp_path) as filter_:
            assert (await judge(filter_, TEXT))[0].action is Action.PASS

    run_on("uvloop", scenario())


def test_a_process_that_is_forked_has_a_thread_of_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with filtering("cat", tmp_path) as filter_:
            assert (await judge(filter_, TEXT))[0].action is Action.PASS

    run_on("uvloop", scenario())
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            run_on("uvloop", scenario())
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
