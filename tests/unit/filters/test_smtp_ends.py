"""FilterType smtp: the client leaves, the worker ends, or TempDirectory fails."""

from __future__ import annotations

import errno
import gc
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters import endings
from proxsmtp_tp.filters.endings import Ending
from proxsmtp_tp.filters.scanner_connection import QUIT_GRACE
from proxsmtp_tp.filters.spool import MEMORY_LIMIT, Spool
from tests.unit.filters.filter_harness import jump, pass_through, until
from tests.unit.filters.scanner_harness import END, STEPS, begin, complete, judged, lead, scanning
from tests.unit.net.proxy_harness import Mx

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.filters.conftest import Run


@pytest.mark.parametrize("step", STEPS)
def test_abort_at_any_step(run: Run, tmp_path: Path, step: str) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = begin(filter_)
            peer = await lead(case, mx, step)
            case.abort()
            case.abort()
            rest = await peer.rest()
            assert END not in rest
            assert b"QUIT" not in rest
            case.run.close()
            assert case.owner.verdicts == []

    run(scenario())


@pytest.mark.parametrize("turns", range(6))
def test_abort_while_the_connection_is_made(run: Run, tmp_path: Path, turns: int) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = complete(filter_)
            await pass_through(turns)
            case.abort()
            await until(lambda: filter_.running == 0, "it is given up")
            assert case.owner.verdicts == []
            gc.collect()  # a socket object that nobody closed is a warning, and so an error

    run(scenario())


def test_abort_after_the_verdict_still_sends_quit(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = begin(filter_)
            peer = await lead(case, mx, "the message")
            await peer.say("250 clean")
            await case.verdict()
            case.run.close()
            assert await peer.text(b"QUIT\r\n")
            assert filter_.running == 1
            await peer.say("221 bye")
            assert await peer.rest() == b""

    run(scenario())


def test_a_scanner_that_does_not_answer_quit_is_closed_after_a_time(run_jumping: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = begin(filter_)
            peer = await lead(case, mx, "the message")
            await peer.say("250 clean")
            await judged(case)
            assert await peer.text(b"QUIT\r\n")
            jump(QUIT_GRACE)
            await until(lambda: filter_.running == 0, "we hang up")

    run_jumping(scenario())


def test_the_end_of_the_worker_closes_everything(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            cases = [complete(filter_) for _ in STEPS]
            peers = [await lead(case, mx, step) for case, step in zip(cases[:1], STEPS, strict=False)]
            leaving = complete(filter_)
            del leaving
            filter_.close()
            filter_.close()
            await until(lambda: filter_.running == 0, "all are closed")
            for peer in peers:
                await peer.rest()

    run(scenario())


# TempDirectory.


def test_a_missing_directory_is_no_verdict(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path / "missing") as filter_:
            case = begin(filter_)
            case.write(b"x" * (MEMORY_LIMIT + 1))
            verdict, _ = await judged(case)
            assert verdict.reply == endings.REPLIES[Ending.SPOOL_MISSING]
            assert filter_.running == 0

    run(scenario())


def test_a_message_that_can_not_be_read_back(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = begin(filter_)
            peer = await lead(case, mx, "the message")
            monkeypatch.setattr(Spool, "complete", full)
            await peer.say("250 clean")
            assert (await judged(case))[0].reply == endings.REPLIES[Ending.DISK_FULL]
            peer.close()

    run(scenario())
