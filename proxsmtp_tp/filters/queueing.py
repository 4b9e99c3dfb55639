"""A place of a ProcessLimit for as long as a coroutine needs it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.callbacks import callback

if TYPE_CHECKING:
    from proxsmtp_tp.filters.interface import PlaceOwner
    from proxsmtp_tp.filters.limit import ProcessLimit


class NoPlaceError(Exception):
    """No place became free in time."""


class place:  # noqa: N801  (used like a function)
    """An asynchronous context: hold a place; wait for it for so many seconds at most. `owner` is told of it.

    Raises NoPlaceError.
    """

    def __init__(self, limit: ProcessLimit, client: str, seconds: float, owner: PlaceOwner | None = None) -> None:
        self._limit = limit
        self._client = client
        self._seconds = seconds
        self._owner = owner
        self._free: asyncio.Future[None] | None = None
        """Done when there is a place. None: nobody waits for it."""

    async def __aenter__(self) -> None:
        if not self._limit.enter(self._granted, self._client):
            await self._waited()
        if self._owner is not None:
            try:
                self._owner.filter_started()
            except BaseException:
                self._limit.leave(self._client)
                raise

    async def __aexit__(self, *_error: object) -> None:
        self._limit.leave(self._client)

    async def _waited(self) -> None:
        free = self._free = asyncio.get_running_loop().create_future()
        try:
            if self._owner is not None:
                self._owner.filter_waits()
            async with asyncio.timeout(self._limit.wait(self._seconds)):
                await free
        except BaseException as error:
            self._limit.forget(self._granted, self._client)
            if free.done() and not free.cancelled():  # it was granted at the same moment
                self._limit.leave(self._client)
            free.cancel()
            if isinstance(error, TimeoutError):
                raise NoPlaceError from None
            raise

    @callback
    def _granted(self) -> None:
        if self._free is None or self._free.done():  # nobody waits for it any more
            self._limit.leave(self._client)
        else:
            self._free.set_result(None)

    def failed(self, error: Exception) -> None:
        """CallbackOwner: the coroutine ends with the error."""
        if self._free is not None and not self._free.done():
            self._free.set_exception(error)
