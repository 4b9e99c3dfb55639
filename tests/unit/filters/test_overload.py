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
    """time.monotonic, put forward by the test."""

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


def test_nobody_waits_long_when_the_line_is_never_empty(run_jumping: Run, clock: Clock) -> None:
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


def test_an_empty_line_begins_anew(run_jumping: Run, clock: Clock) -> None:
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
