"""FilterTimeout and FilterProcesses, as messages meet them. The clock is put forward, nothing waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.endings import REPLIES, Ending
from proxsmtp_tp.filters.verdict import Action
from tests.unit.filters.court import filtering, judge, jump, pass_through, start, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.filters.conftest import Run

TEXT = b"Subject: hello\r\n\r\nGood morning.\r\n"
LIMIT = 100.0


@pytest.mark.parametrize("kind", ["pipe", "file"])
@pytest.mark.parametrize(
    "command", ["cat; sleep 1000", "trap '' TERM; sleep 1000 & sleep 1000", "echo 550 no >&2; sleep 1000"]
)
def test_a_filter_that_does_not_end_is_ended_with_all_its_children(
    run_jumping: Run, tmp_path: Path, kind: str, command: str
) -> None:
    async def scene() -> None:
        async with filtering(command, tmp_path, kind, limit=LIMIT) as filter_:  # type: ignore[arg-type]
            case = start(filter_)
            case.write(TEXT)
            case.finish()
            await until(case.alive, "it runs")
            jump(LIMIT - 1)
            await pass_through()
            assert case.owner.verdicts == []
            jump(1)
            verdict = await case.verdict()
            assert verdict.reply == REPLIES[Ending.TIMED_OUT]
            jump(LIMIT)
            await until(lambda: not case.alive(), "all are gone")
            case.run.close()

    run_jumping(scene())


def test_a_filter_ends_by_itself_after_the_limit_was_reached_by_the_clock_of_the_loop(run: Run, tmp_path: Path) -> None:
    """The same on the real clock of both loops, with the shortest limit that there is."""

    async def scene() -> None:
        async with filtering("sleep 1000", tmp_path, limit=0.05) as filter_:
            verdict, _ = await judge(filter_, TEXT)
            assert verdict.reply == REPLIES[Ending.TIMED_OUT]

    run(scene())


def test_a_slow_client_costs_the_filter_nothing(run_jumping: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        async with filtering("cat", tmp_path, limit=LIMIT) as filter_:
            case = start(filter_)
            for _ in range(3):
                before = case.run._output.size  # type: ignore[attr-defined]
                case.write(TEXT)
                await until(lambda b=before: case.run._output.size > b, "the filter takes it")  # type: ignore[attr-defined,misc]
                jump(LIMIT * 10)
                await pass_through()
            case.finish()
            assert (await case.verdict()).action is Action.PASS
            assert case.read_all() == TEXT * 3
            case.run.close()

    run_jumping(scene())


def test_a_filter_that_stops_reading_is_waited_for_before_the_message_is_complete(
    run_jumping: Run, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with filtering("sleep 1000", tmp_path, limit=LIMIT) as filter_:
            case = start(filter_)
            case.write(b"x" * 1_000_000)
            await until(lambda: case.owner.paused, "the filter does not read")
            jump(LIMIT)
            assert (await case.verdict()).reply == REPLIES[Ending.TIMED_OUT]
            assert case.owner.flow == ["pause", "resume"]
            case.run.close()

    run_jumping(scene())


def test_the_limit_is_a_total_of_all_waits(run_jumping: Run, tmp_path: Path) -> None:
    """Waits for input to be taken, and the wait for the verdict, add up; what lies between does not count."""

    async def scene() -> None:
        gate, end = tmp_path / "gate", tmp_path / "end"
        command = f"until test -e {gate}; do sleep 0.01; done; cat; until test -e {end}; do sleep 0.01; done"
        async with filtering(command, tmp_path, limit=LIMIT) as filter_:
            case = start(filter_)
            case.write(b"x" * 1_000_000)
            await until(lambda: case.owner.paused, "the filter does not read")
            jump(LIMIT * 0.6)
            gate.touch()
            await until(lambda: case.run._output.size == 1_000_000, "the filter reads")  # type: ignore[attr-defined]
            jump(LIMIT * 10)
            case.finish()
            await pass_through()
            assert case.owner.verdicts == []
            jump(LIMIT * 0.5)
            assert (await case.verdict()).reply == REPLIES[Ending.TIMED_OUT]
            case.run.close()

    run_jumping(scene())


def test_output_does_not_buy_time(run_jumping: Run, tmp_path: Path) -> None:
    """1.10's limit is on inactivity: a byte a minute holds a session for ever."""

    async def scene() -> None:
        step = tmp_path / "step"
        command = f"cat; while :; do until test -e {step}; do sleep 0.01; done; rm {step}; echo drip; done"
        async with filtering(command, tmp_path, limit=LIMIT) as filter_:
            case = start(filter_)
            case.write(TEXT)
            case.finish()
            for _ in range(3):
                before = case.run._output.size  # type: ignore[attr-defined]
                step.touch()
                await until(lambda b=before: case.run._output.size > b, "it drips")  # type: ignore[attr-defined,misc]
                assert case.owner.verdicts == []
                jump(LIMIT * 0.4)
            assert (await case.verdict()).reply == REPLIES[Ending.TIMED_OUT]
            case.run.close()

    run_jumping(scene())


def test_output_held_open_by_a_background_job_never_passes(run_jumping: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        async with filtering("sleep 1000 & cat", tmp_path, limit=LIMIT) as filter_:
            case = start(filter_)
            case.write(TEXT)
            case.finish()
            await until(lambda: case.run._status is not None, "the leader exits")  # type: ignore[attr-defined]
            await pass_through()
            assert case.owner.verdicts == []
            jump(LIMIT)
            assert (await case.verdict()).reply == REPLIES[Ending.OUTPUT_HELD]
            case.run.close()
            jump(LIMIT)
            await until(lambda: not case.alive(), "the job is ended")

    run_jumping(scene())


# Waiting in line.


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_past_the_limit_messages_wait_in_order(run: Run, tmp_path: Path, kind: str) -> None:
    async def scene() -> None:
        message = "${EMAIL:-/dev/stdin}"
        command = f"cd {tmp_path}; cat {message} >>order; until test -e gate; do sleep 0.01; done; exit 1"
        async with filtering(command, tmp_path, kind, processes=1) as filter_:  # type: ignore[arg-type]
            cases = [start(filter_) for _ in range(5)]
            for number, case in enumerate(cases):
                case.write(b"%d" % number)
                case.finish()
            await until((tmp_path / "order").exists, "the first runs")
            assert (filter_.running, filter_.waiting) == (1, 4)
            await pass_through()
            assert [case.owner.paused for case in cases] == [False] + [kind == "pipe"] * 4
            (tmp_path / "gate").touch()
            for case in cases:
                assert (await case.verdict()).action is Action.REJECT
                case.run.close()
            assert (tmp_path / "order").read_bytes() == b"01234"

    run(scene())


def test_a_message_keeps_what_came_while_it_waited(run: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        gate = tmp_path / "gate"
        async with filtering(f"until test -e {gate}; do sleep 0.01; done; cat", tmp_path, processes=1) as filter_:
            first, second = start(filter_), start(filter_)
            second.write(TEXT)
            second.write(TEXT)
            gate.touch()
            first.finish()
            await first.verdict()
            first.run.close()
            await until(lambda: not second.owner.paused, "it is its turn")
            second.write(b"more")
            second.finish()
            assert (await second.verdict()).action is Action.PASS
            assert second.read_all() == TEXT * 2 + b"more"
            second.run.close()

    run(scene())


def test_the_wait_in_line_is_bounded_and_leaves_the_filter_its_time(run_jumping: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        async with filtering("sleep 1000", tmp_path, limit=LIMIT, processes=1) as filter_:
            first = start(filter_)
            first.write(TEXT)  # not finished: no clock runs
            waiting = start(filter_)
            jump(LIMIT)
            verdict = await waiting.verdict()
            assert verdict.reply == REPLIES[Ending.LINE_TIMED_OUT]
            assert filter_.waiting == 0
            third = start(filter_)
            jump(LIMIT * 0.9)
            first.abort()
            await until(third.alive, "it is its turn")
            third.finish()
            await pass_through()
            jump(LIMIT * 0.9)
            await pass_through()
            assert third.owner.verdicts == []
            jump(LIMIT * 0.1)
            assert (await third.verdict()).reply == REPLIES[Ending.TIMED_OUT]
            for case in (waiting, third):
                case.run.close()

    run_jumping(scene())


def test_who_gives_up_in_line_gives_way(run: Run, tmp_path: Path) -> None:
    """Also between the moment a place is given and the moment it is taken."""

    async def scene() -> None:
        async with filtering("cat", tmp_path, processes=1) as filter_:
            holder, quitter, patient = start(filter_), start(filter_), start(filter_)
            quitter.abort()
            assert filter_.waiting == 1
            late = start(filter_)
            holder.finish()
            await until(lambda: filter_.waiting == 1, "a place is given to the next")
            patient.abort()
            late.write(TEXT)
            late.finish()
            assert (await late.verdict()).action is Action.PASS
            assert late.read_all() == TEXT
            for case in (holder, late):
                case.run.close()
            assert quitter.owner.verdicts == patient.owner.verdicts == []

    run(scene())


def test_a_line_of_failing_starts_ends(run: Run, tmp_path: Path) -> None:
    """Each failure gives its place to the next, however long the line is."""

    async def scene() -> None:
        async with filtering("cat", tmp_path, processes=1) as filter_:
            holder = start(filter_)
            cases = [start(filter_, remote=b"nul\0nul") for _ in range(2000)]
            holder.abort()
            for case in cases:
                assert (await case.verdict()).reply == REPLIES[Ending.NOT_STARTED]

    run(scene())
