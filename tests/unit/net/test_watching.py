"""Servers that could not be reached: tried until they are back. The rules' part: gateway/test_unreachable.py."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, closing, suppress
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.settings import ConnectFailure, Settings, TransparentProxy
from proxsmtp_tp.net import dialling, refusals, watching
from proxsmtp_tp.net.admission import Admission
from proxsmtp_tp.net.original_destination import Endpoint
from proxsmtp_tp.net.refusals import Refusals
from proxsmtp_tp.net.watching import Watch
from tests.unit.net.proxy_harness import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

RULED = Settings(transparent_proxy=TransparentProxy.CLIENT, rule_interface=("eth0",), user="proxsmtp-tp")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOONEST", "LATEST", "AGAIN"):
        monkeypatch.setattr(watching, name, 0.02)
    monkeypatch.setattr(refusals, "AGAIN", 0.02)


@pytest.fixture(params=["127.0.0.1", "::1"])
def named(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """Who gets the datagrams to a server that is down: its port is taken, and nobody listens."""
    kind = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(kind, socket.SOCK_DGRAM) as sock:
        sock.bind((request.param, 0))
        sock.setblocking(False)
        yield sock


@asynccontextmanager
async def started() -> AsyncIterator[Watch]:
    watch = Watch(Refusals(RULED), Admission(10, 1), 0, 5)
    yield watch
    watch.close()
    await until(lambda: not watch._tasks, "all tasks have ended")


def server(named: socket.socket) -> Endpoint:
    return Endpoint(*named.getsockname()[:2])


def count(named: socket.socket) -> int:
    found = 0
    with suppress(BlockingIOError):
        while True:
            named.recv(1)
            found += 1
    return found


async def hear(named: socket.socket, least: int) -> None:
    heard = [0]

    def enough() -> bool:
        heard[0] += count(named)
        return heard[0] >= least

    await until(enough, "named again and again")


async def test_a_server_is_refused_until_it_is_back(named: socket.socket) -> None:
    async with started() as watch:
        watch.failed(server(named), None)
        await hear(named, 5)
        with closing(socket.create_server(tuple(server(named)), family=named.family)) as listener:
            await until(lambda: not watch._tasks, "it is back")
            listener.setblocking(False)
            link, came_from = listener.accept()
            link.settimeout(5)
            assert link.recv(1) == b"", "it was told something"
            link.close()
            count(named)
            await asyncio.sleep(0.2)
            assert count(named) == 0
            assert not watch._admission.is_upstream(Endpoint(*came_from[:2]), server(named)), "left in the table"


async def test_our_own_connection_is_known_as_ours(named: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that leads back to us is recognised by the table of all workers."""
    async with started() as watch:
        known: list[bool] = []
        dial = dialling.dial

        async def looked_at(targets, *, source, time_out, started):  # type: ignore[no-untyped-def]
            def both(sock: socket.socket, target: Endpoint | str) -> None:
                started(sock, target)
                known.append(watch._admission.is_upstream(Endpoint(*sock.getsockname()[:2]), server(named)))

            return await dial(targets, source=source, time_out=time_out, started=both)

        monkeypatch.setattr(dialling, "dial", looked_at)
        with closing(socket.create_server(tuple(server(named)), family=named.family)):
            watch.failed(server(named), None)
            await until(lambda: not watch._tasks, "it is there")
        assert known == [True]


async def test_it_ends(named: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """After LONGEST; when a client's own connection finds it; when the worker ends."""
    async with started() as watch:
        monkeypatch.setattr(watching, "LONGEST", 0.05)
        watch.failed(server(named), None)
        await until(lambda: not watch._tasks, "long enough")
        monkeypatch.undo()
        watch.failed(server(named), None)
        watch.reached(server(named), "192.0.2.1")
        assert watch._tasks
        watch.reached(server(named), None)
        assert not watch._tasks
        watch.close()
        count(named)
        watch.failed(server(named), None)
        assert not watch._tasks
        assert count(named) == 1  # its client is gone: the next one need not come


async def test_no_more_than_so_many(named: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are refused for ten seconds, as each is; one that fails again is watched once."""
    async with started() as watch:
        monkeypatch.setattr(watching, "SERVERS", 2)
        for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"):
            watch.failed(Endpoint("198.51.100.25", 25), client)
        assert [client for _, client in watch._tasks] == ["192.0.2.1", "192.0.2.2"]
        watch.failed(server(named), None)
        assert count(named) == 1


@pytest.mark.parametrize("failure", [ConnectFailure.RESET, ConnectFailure.REPLY])
async def test_nothing_is_tried_where_no_rule_listens(named: socket.socket, failure: ConnectFailure) -> None:
    settings = Settings(
        transparent_proxy=TransparentProxy.CLIENT, rule_interface=("eth0",), user="x", connect_failure=failure
    )
    watch = Watch(Refusals(settings), Admission(10, 1), 0, 5)
    watch.failed(server(named), None)
    assert not watch._tasks
