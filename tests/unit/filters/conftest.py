"""What the tests of filters share: each is run on the loop of the daemon, or on both."""

from __future__ import annotations

import gc
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest

from tests.unit.filters.filter_harness import run_on

if TYPE_CHECKING:
    from collections.abc import Coroutine

_T = TypeVar("_T")


class Run(Protocol):
    def __call__(self, main: Coroutine[Any, Any, _T]) -> _T: ...


@pytest.fixture(scope="module", autouse=True)
def _no_garbage() -> None:
    """Tests count descriptors: those that earlier tests left to the collector are closed before."""
    gc.collect()


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine: on uvloop, then on asyncio."""
    return partial(run_on, request.param)


@pytest.fixture
def run_uvloop() -> Run:
    """Run a coroutine on uvloop."""
    return partial(run_on, "uvloop")


@pytest.fixture
def run_jumping() -> Run:
    """Run a coroutine on a loop whose clock the test puts forward."""
    return partial(run_on, "jumping")
