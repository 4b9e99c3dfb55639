"""FilterTimeout and FilterProcesses, as messages meet them. The clock is set forward, nothing waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.endings import REPLIES, Ending
from proxsmtp_tp.filters.verdict import Action
from tests.unit.filters.filter_harness import TEXT, complete, filtering, judge, jump, pass_through, start, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.filters.conftest import Run

LIMIT = 100.0


@pytest.mark.parametrize("kind", ["pipe", "file"])
@pytest.mark.parametrize(
    "command", ["cat; sleep 1000", "trap '' TERM; sleep 1000 & sleep 1000", "echo 550 no >&2; sleep 1000"]
)
def test_a_filter_that_does_not_end_is_ended_with_all_its_children(
    run_jumping: Run, tmp_path: Path, kind: str, command: str
) -> None:
    async def scenario() -> None:
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

    run_jumping(scenario())


def test_a_filter_ends_by_itself_after_the_limit_was_reached_by_the_clock_of_the_loop(run: Run, tmp_path: Path) -> None:
    """The same on the real clock of both loops, with the shortest limit that there is."""

    async def scenario() -> None:
        async with filtering("sleep 1000", tmp_path, limit=0.05) as filter_:
            verdict, _ = await judge(filter_, TEXT)
            assert verdict.reply == REPLIES[Ending.TIMED_OUT]

    run(scenario())


def test_a_slow_client_costs_the_filter_nothing(run_jumping: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with filtering("cat", tmp_path, limit=LIMIT) as filter_:
            case = start(filter_)
            for _ in range(3):
                case.write(TEXT)
                jump(LIMIT * 10)
                await pass_through()
            case.finish()
            assert (await case.verdict()).action is Action.PASS
            assert case.read_all() == TEXT * 3
            case.run.close()

    run_jumping(scenario())


def test_a_filter_that_does_not_read_a_complete_message_has_its_limit(run_jumping: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with filtering("sleep 1000", tmp_path, limit=LIMIT) as filter_:
            case = start(filter_)
            case.write(b"x" * 1_000_000)
            case.finish()
            await until(lambda: case.run._child.input.stalled, "the filter does not read")  # type: ignore[attr-defined]
            jump(LIMIT - 1)
            await pass_through()
            assert case.owner.verdicts == []
            jump(1)
            assert (await case.verdict()).reply == REPLIES[Ending.TIMED_OUT]
            case.run.close()

    run_jumping(scenario())


def test_a_filter_that_works_as_it_reads_has_the_limit_once_it_has_the_message(
    run_jumping: Run, tmp_path: Path
) -> None:
    """Each piece that it takes gives it the whole limit; behind the last one the limit is a total."""

    async def scenario() -> None:
        step = tmp_path / "step"
        pause = f"until test -e {step}; do sleep 0.01; done; rm {step}"
        command = f'while :; do test "$(head -c 200000 | wc -c)" -gt 0 || break; {pause}; done; {pause}; echo'
        async with filtering(command, tmp_path, limit=LIMIT) as filter_:
            case = start(filter_)
            case.write(b"x" * 1_000_000)
            case.finish()
            left = case.run._input  # type: ignore[attr-defined]
            for number in range(1, 5):
                await until(lambda n=number: left.left <= 1_000_000 - n * 200_000, "it takes a piece")  # type: ignore[misc]
                await until(lambda: case.run._child.input.stalled, "it does not read on")  # type: ignore[attr-defined]
                jump(LIMIT * 0.9)
                await pass_through()
                assert case.owner.verdicts == []
                step.touch()
                await until(lambda: not step.exists(), "it goes on")
            await until(lambda: not case.run._child.input.stalled and not left.left, "it is given the rest")  # type: ignore[attr-defined]
            jump(LIMIT * 0.5)
            await pass_through()
            assert case.owner.verdicts == []
            jump(LIMIT * 0.5)
            assert (await case.verdict()).reply == REPLIES[Ending.TIMED_OUT]
            case.run.close()

    run_jumping(scenario())


def test_output_does_not_extend_the_limit(run_jumping: Run, tmp_path: Path) -> None:
    """1.10's limit is on inactivity: a byte a minute holds a session for ever."""

    async def scenario() -> None:
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

    run_jumping(scenario())


def test_output_held_open_by_a_background_job_never_passes(run_jumping: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
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

    run_jumping(scenario())


# Waiting in line.


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_above_the_limit_messages_wait_in_order(run: Run, tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
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
            (tmp_path / "gate").touch()
            for case in cases:
                assert (await case.verdict()).action is Action.REJECT
                case.run.close()
            assert (tmp_path / "order").read_bytes() == b"01234"

    run(scenario())


def test_the_wait_in_line_is_bounded_and_leaves_the_filter_its_time(run_jumping: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with filtering("sleep 1000", tmp_path, limit=LIMIT, processes=1) as filter_:
            first = complete(filter_)
            jump(LIMIT * 0.4)
            waiting = complete(filter_)
            jump(LIMIT * 0.5)
            await pass_through()
            third = complete(filter_)
            first.run._clock.stop()  # type: ignore[attr-defined]
            jump(LIMIT * 0.5)
            assert (await waiting.verdict()).reply == REPLIES[Ending.LINE_TIMED_OUT]
            assert filter_.waiting == 1
            jump(LIMIT * 0.4)
            await pass_through()
            first.abort()
            await until(third.alive, "it is its turn")
            jump(LIMIT * 0.9)
            await pass_through()
            assert third.owner.verdicts == []
            jump(LIMIT * 0.1)
            assert (await third.verdict()).reply == REPLIES[Ending.TIMED_OUT]
            for case in (waiting, third):
                case.run.close()

    run_jumping(scenario())


def test_a_message_that_gives_up_leaves_the_queue(run: Run, tmp_path: Path) -> None:
    """Also between the moment a place is given and the moment it is taken."""

    async def scenario() -> None:
        gate = tmp_path / "gate"
        async with filtering(f"until test -e {gate}; do sleep 0.01; done; cat", tmp_path, processes=1) as filter_:
            holder, quitter, second = complete(filter_), complete(filter_), complete(filter_)
            quitter.abort()
            assert filter_.waiting == 1
            late = complete(filter_)
            gate.touch()
            await until(lambda: filter_.waiting == 1, "a place is given to the next", pause=0)  # it is over in no time
            second.abort()
            assert (await late.verdict()).action is Action.PASS
            assert late.read_all() == TEXT
            for case in (holder, late):
                case.run.close()
            assert quitter.owner.verdicts == second.owner.verdicts == []

    run(scenario())


def test_a_line_of_failing_starts_ends(run: Run, tmp_path: Path) -> None:
    """Each failure gives its place to the next, however long the line is."""

    async def scenario() -> None:
        async with filtering("sleep 1000", tmp_path, processes=1) as filter_:
            holder = complete(filter_)
            cases = [complete(filter_, remote=b"nul\0nul") for _ in range(2000)]
            holder.abort()
            for case in cases:
                assert (await case.verdict()).reply == REPLIES[Ending.NOT_STARTED]

    run(scenario())
