"""A place of a ProcessLimit for as long as a coroutine needs it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.callbacks import callback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxsmtp_tp.filters.interface import PlaceOwner
    from proxsmtp_tp.filters.limit import ProcessLimit


class NoPlaceError(Exception):
    """No place became free in time."""


@asynccontextmanager
async def place(
    limit: ProcessLimit, client: str, seconds: float, owner: PlaceOwner | None = None
) -> AsyncIterator[None]:
    """Hold a place; wait for it for so many seconds at most. `owner` is told of it. Raises NoPlaceError."""
    await _Waiter(limit, client).entered(seconds, owner)
    try:
        if owner is not None:
            owner.filter_started()
        yield
    finally:
        limit.leave(client)


class _Waiter:
    """Waits for one place."""

    def __init__(self, limit: ProcessLimit, client: str) -> None:
        self._limit = limit
        self._client = client
        self._free: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def entered(self, seconds: float, owner: PlaceOwner | None) -> None:
        """Have a place. Raises NoPlaceError."""
        if self._limit.enter(self._granted, self._client):
            return
        try:
            if owner is not None:
                owner.filter_waits()
            async with asyncio.timeout(self._limit.wait(seconds)):
                await self._free
        except BaseException as error:
            self._limit.forget(self._granted, self._client)
            if self._free.done() and not self._free.cancelled():  # it was granted at the same moment
                self._limit.leave(self._client)
            self._free.cancel()
            if isinstance(error, TimeoutError):
                raise NoPlaceError from None
            raise

    @callback
    def _granted(self) -> None:
        if self._free.done():  # nobody waits for it any more
            self._limit.leave(self._client)
        else:
            self._free.set_result(None)

    def failed(self, error: Exception) -> None:
        """CallbackOwner: the coroutine ends with the error."""
        if not self._free.done():
            self._free.set_exception(error)
