"""A time limit ends what waits in it, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from proxsmtp_tp.filters.time_limit import time_limit
from tests.unit.filters.filter_harness import run_on

LOOPS = ["asyncio", "uvloop"]


@pytest.mark.parametrize("loop", LOOPS)
def test_in_time(loop: str) -> None:
    async def main() -> str:
        with time_limit(0.02):
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)  # the limit has no effect any more
        return "done"

    assert run_on(loop, main()) == "done"


@pytest.mark.parametrize("loop", LOOPS)
def test_too_late(loop: str) -> None:
    async def main() -> int:
        with pytest.raises(TimeoutError), time_limit(0.01):
            await asyncio.Event().wait()
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert run_on(loop, main()) == 0


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("too_late", [False, True])
def test_somebody_else_cancels(loop: str, too_late: bool) -> None:
    """Also at the moment when the time is up: the task ends, it is not only a time limit."""

    async def limited() -> None:
        with time_limit(0.02 if too_late else 60):
            await asyncio.Event().wait()

    async def main() -> bool:
        task = asyncio.create_task(limited())
        await asyncio.sleep(0)
        if too_late:
            asyncio.get_running_loop().call_later(0.02, task.cancel)
        else:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    assert run_on(loop, main())


def test_one_in_another() -> None:
    async def limited() -> None:
        with time_limit(0.02):
            with time_limit(60):
                await asyncio.Event().wait()
            raise AssertionError

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await limited()

    run_on("asyncio", main())


def test_an_error_stays_what_it_is() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="bad"), time_limit(60):
            raise ValueError("bad")

    run_on("asyncio", main())
