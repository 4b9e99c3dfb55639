"""A place of a ProcessLimit for as long as a coroutine needs it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxsmtp_tp.filters.limit import ProcessLimit


class NoPlaceError(Exception):
    """No place became free in time."""


@asynccontextmanager
async def place(limit: ProcessLimit, client: str, seconds: float) -> AsyncIterator[None]:
    """Hold a place; wait for it for so many seconds at most. Raises NoPlaceError."""
    await _entered(limit, client, seconds)
    try:
        yield
    finally:
        limit.leave(client)


async def _entered(limit: ProcessLimit, client: str, seconds: float) -> None:
    free: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def granted() -> None:
        if free.done():  # nobody waits for it any more
            limit.leave(client)
        else:
            free.set_result(None)

    if limit.enter(granted, client):
        return
    try:
        async with asyncio.timeout(seconds):
            await free
    except BaseException as error:
        limit.forget(granted, client)
        if free.done() and not free.cancelled():  # it was granted at the same moment
            limit.leave(client)
        free.cancel()
        if isinstance(error, TimeoutError):
            raise NoPlaceError from None
        raise
