"""Callbacks of the event loop: an error in one is a bug, and ends what it was for, at once.

An event loop only logs what a callback raises, and goes on: a message would wait for a verdict that never comes. So
each method that the event loop calls for one message has the decorator `callback`; a test checks it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable


class CallbackOwner(Protocol):
    """An object with callbacks."""

    def failed(self, error: Exception) -> None:
        """A callback has raised `error`."""


_Owner = TypeVar("_Owner", bound=CallbackOwner)
_Given = ParamSpec("_Given")


def callback(method: Callable[Concatenate[_Owner, _Given], None]) -> Callable[Concatenate[_Owner, _Given], None]:
    """The event loop calls this method: what it raises goes to `failed` of its object."""

    def called(self: _Owner, /, *given: _Given.args, **named: _Given.kwargs) -> None:
        try:
            method(self, *given, **named)
        except Exception as error:  # noqa: BLE001  (a bug must cost one connection, not the worker)
            self.failed(error)

    functools.update_wrapper(called, method)
    return called
