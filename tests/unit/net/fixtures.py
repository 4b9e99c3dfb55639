"""Runs tests that are coroutines; fixtures of the tests that run the proxy (see proxy_harness.py)."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from tests.tls.capture import Stream, check_legs
from tests.unit.net.proxy_harness import WAIT_SECONDS, Mx, ProxyHarness, descriptors, running_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from pathlib import Path

    from proxsmtp_tp.config.addresses import Address
    from tests.unit.net.proxy_harness import StartProxy

    Fork = Callable[[Callable[[], None]], int]


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop. What a callback raises, which a loop only logs, fails the test; so does a descriptor left."""
    uvloop.new_event_loop().close()  # what libuv opens once in a process (its signal pipe) is no leak
    trouble: list[dict[str, Any]] = []
    before = descriptors()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _loop, context: trouble.append(context))
        runner.run(_bounded(main))
    assert not trouble, trouble
    left = set(descriptors().items()) - set(before.items())
    assert not left, left


async def _bounded(main: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(3 * WAIT_SECONDS):
        await main


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutines; leave other tests to pytest."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(autouse=True)
def fast_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines of tests are fractions of a second: look at them that often."""
    monkeypatch.setattr("proxsmtp_tp.net.proxy.TICK", 0.02)


@pytest.fixture
def fork() -> Iterator[Fork]:
    """Fork a process that runs a function; the test reaps it, and what is left is killed."""
    children: list[int] = []

    def start(work: Callable[[], None]) -> int:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
        return pid

    yield start
    for pid in children:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.fixture
def start_proxy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> StartProxy:
    """Starts a proxy; see `StartProxy`."""
    caplog.set_level(logging.INFO)
    temp_directory = tmp_path / "temp"
    temp_directory.mkdir()

    @asynccontextmanager
    async def open_it(
        mx: Mx | Address | None, *listen: Address, workers: int = 1, **directives: Any
    ) -> AsyncIterator[ProxyHarness]:
        async with running_proxy(mx, listen, temp_directory, workers, directives) as harness:
            yield harness
        if isinstance(mx, Mx) and harness.settings.tls:
            check_legs(*([Stream(0, bytes(octets)) for octets in leg] for leg in _on_the_wire(harness, mx)))
        errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert harness.errors_expected or not errors, errors

    return open_it


def _on_the_wire(harness: ProxyHarness, mx: Mx) -> tuple[list[bytearray], list[bytearray]]:
    """What clients have said without TLS, and what came to servers."""
    return [client.said for client in harness.clients], [server.wire for server in mx.peers]
