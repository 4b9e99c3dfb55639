"""Time that is given anew, and places that are given in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.clock import Clock
from proxsmtp_tp.filters.limit import ProcessLimit
from tests.unit.filters.filter_harness import jump, pass_through

if TYPE_CHECKING:
    from tests.unit.filters.conftest import Run


def test_a_clock_gives_its_limit_from_each_start(run_jumping: Run) -> None:
    async def scenario() -> None:
        spent: list[bool] = []
        clock = Clock(asyncio.get_running_loop(), 100, lambda: spent.append(True))
        jump(1000)  # stopped: nothing counts
        for _ in range(3):
            clock.start()
            jump(99)
            await pass_through()
        assert not spent
        jump(1)
        await pass_through()
        assert spent == [True]

    run_jumping(scenario())


def test_a_stopped_clock_calls_nothing(run_jumping: Run) -> None:
    async def scenario() -> None:
        spent: list[bool] = []
        clock = Clock(asyncio.get_running_loop(), 10, lambda: spent.append(True))
        clock.start()
        clock.stop()
        clock.stop()
        jump(11)
        await pass_through()
        assert not spent

    run_jumping(scenario())


def test_places_are_given_in_order_and_never_more_than_there_are(run: Run) -> None:
    async def scenario() -> None:
        limit = ProcessLimit(2)
        granted: list[int] = []
        waiting = [lambda number=number: granted.append(number) for number in range(4)]
        assert limit.enter(lambda: None)
        assert limit.enter(lambda: None)
        assert [limit.enter(each) for each in waiting] == [False] * 4
        limit.forget(waiting[1])
        limit.leave()
        assert granted == []  # told from the event loop
        assert (limit.taken, limit.waiting) == (2, 2)
        await pass_through()
        assert granted == [0]
        limit.leave()
        limit.leave()
        await pass_through()
        assert (granted, limit.taken, limit.waiting) == ([0, 2, 3], 2, 0)
        limit.leave()
        limit.leave()
        assert limit.enter(lambda: None)

    run(scenario())


def test_no_place_at_all_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="0 processes"):
        ProcessLimit(0)
