"""A line for places that is never empty: the newest message is next, and none waits long."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters import limit as limits
from proxsmtp_tp.filters.limit import NEVER_EMPTY, OVERLOAD_WAIT, ProcessLimit
from proxsmtp_tp.filters.queueing import NoPlaceError, place
from tests.unit.filters.filter_harness import jump, pass_through

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.unit.filters.conftest import Run


class Clock:
    """time.monotonic, set forward by the test."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(limits, "time", found)
    return found


def test_the_newest_is_next_when_the_line_is_never_empty(run_jumping: Run, clock: Clock) -> None:
    async def main() -> list[str]:
        limit, served = ProcessLimit(1), []
        assert limit.enter(lambda: None)
        for name in ("first", "second", "third", "fourth"):
            assert not limit.enter(lambda name=name: served.append(name))  # type: ignore[misc]
        limit.leave()
        await pass_through()
        assert served == ["first"]
        clock.now += NEVER_EMPTY + 1
        limit.leave()
        limit.leave()
        await pass_through()
        return served

    assert run_jumping(main()) == ["first", "fourth", "third"]


def test_each_message_waits_a_limited_time_when_the_queue_is_never_empty(run_jumping: Run, clock: Clock) -> None:
    async def main() -> None:
        limit = ProcessLimit(1, wait=60)
        assert limit.enter(lambda: None)
        assert limit.wait(30) == 60
        assert not limit.enter(lambda: None)
        clock.now += NEVER_EMPTY + 1
        assert limit.overloaded
        assert limit.wait(30) == OVERLOAD_WAIT
        with pytest.raises(NoPlaceError):
            await _later(_held(limit))
        limit.leave()  # the one that waited has it
        await pass_through()
        assert not limit.overloaded
        assert limit.wait(30) == 60

    run_jumping(main())


async def _held(limit: ProcessLimit) -> None:
    async with place(limit, "", 30):
        raise AssertionError("it has a place")


async def _later(entering: Coroutine[None, None, None]) -> None:
    task = asyncio.ensure_future(entering)
    await pass_through()
    jump(OVERLOAD_WAIT + 0.1)
    await task


def test_a_wait_that_is_shorter_stays(run_jumping: Run, clock: Clock) -> None:
    async def main() -> None:
        limit = ProcessLimit(1)
        assert limit.enter(lambda: None)
        assert not limit.enter(lambda: None)
        clock.now += NEVER_EMPTY + 1
        assert (limit.wait(OVERLOAD_WAIT / 2), limit.wait(60)) == (OVERLOAD_WAIT / 2, OVERLOAD_WAIT)

    run_jumping(main())


def test_a_message_that_gave_up_does_not_wait_any_more(run_jumping: Run) -> None:
    """Without a place: it is not left in the line, where it would take one."""

    async def main() -> None:
        limit = ProcessLimit(1)
        assert limit.enter(lambda: None, "192.0.2.1")
        with pytest.raises(NoPlaceError):
            await _later(_held(limit))
        assert limit.waiting == 0
        limit.leave("192.0.2.1")
        await pass_through()
        assert limit.taken == 0

    run_jumping(main())


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_place_that_is_granted_while_the_client_leaves_is_free_again(run_jumping: Run, at: int) -> None:
    """Before and after the event loop has told the waiting coroutine."""

    async def main() -> None:
        limit = ProcessLimit(1)
        assert limit.enter(lambda: None)
        task = asyncio.ensure_future(_entered(limit))
        await pass_through()
        limit.leave()
        await pass_through(at)
        task.cancel()
        await asyncio.wait([task])
        await pass_through()
        assert (limit.taken, limit.waiting) == (0, 0)

    run_jumping(main())


async def _entered(limit: ProcessLimit) -> None:
    async with place(limit, "", 30):
        await asyncio.sleep(100)


def test_an_empty_line_begins_again(run_jumping: Run, clock: Clock) -> None:
    async def main() -> None:
        limit = ProcessLimit(1)
        assert limit.enter(lambda: None)
        for _ in range(3):
            assert not limit.enter(lambda: None)
            clock.now += NEVER_EMPTY - 1
            assert not limit.overloaded
            limit.leave()
            await pass_through()

    run_jumping(main())
