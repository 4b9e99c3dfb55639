"""The decorator of callbacks. Which methods have it: `filter_harness.CheckingLoop`, in every test of a filter."""

from __future__ import annotations

import asyncio

import pytest

from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.filters.clock import Clock
from proxsmtp_tp.filters.scanner_connection import ScannerConnection
from tests.unit.filters.filter_harness import check_callback


class Run:
    """Has a callback."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.given: list[object] = []

    @callback
    def called(self, *given: object, error: BaseException | None = None) -> None:
        """Raises what it is given."""
        self.given += given
        if error is not None:
            raise error

    def failed(self, error: Exception) -> None:
        """CallbackOwner."""
        self.errors.append(error)


def test_an_error_goes_to_its_object() -> None:
    run, bug = Run(), ZeroDivisionError("a bug")
    run.called(1, error=bug)
    run.called(2)
    assert run.errors == [bug]
    assert run.given == [1, 2]
    assert run.called == run.called  # a granted place is found by its callback


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_what_is_no_error_ends_the_process_or_task(error: type[BaseException]) -> None:
    run = Run()
    with pytest.raises(error):
        run.called(error=error())
    assert not run.errors


@pytest.mark.parametrize("name", [name for name in vars(ScannerConnection) if hasattr(asyncio.Protocol, name)])
def test_transports_call_only_callbacks(name: str) -> None:
    if not name.startswith("__"):
        check_callback(getattr(ScannerConnection, name))


def test_what_is_checked() -> None:
    with pytest.raises(AssertionError, match="is no `callback`"):
        check_callback(Clock.start)
