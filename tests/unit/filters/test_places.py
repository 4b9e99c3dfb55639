"""FilterProcesses over all workers, and between clients."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from typing import TYPE_CHECKING

from proxsmtp_tp.filters import places
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.net.admission import Admission
from tests.unit.filters.filter_harness import pass_through, until

if TYPE_CHECKING:
    import pytest

    from tests.unit.filters.conftest import Run

A, B, C, D = "192.0.2.1", "192.0.2.2", "2001:db8::1", "192.0.2.4"


class Requests:
    """Messages of clients that want a place; who got one, in order."""

    def __init__(self) -> None:
        self.got: list[str] = []

    def come(self, limit: ProcessLimit, client: str) -> None:
        if limit.enter(partial(self._granted, client), client):
            self._granted(client)

    def _granted(self, client: str) -> None:
        self.got.append(client)


def test_a_client_may_have_all_places_while_no_other_client_waits(run: Run) -> None:
    async def scenario() -> None:
        limit, requests = ProcessLimit(4), Requests()
        for _ in range(10):
            requests.come(limit, A)
        assert (limit.taken, limit.waiting) == (4, 6)

    run(scenario())


def test_who_has_fewest_is_next_and_then_who_was_served_least_recently(run: Run) -> None:
    async def scenario() -> None:
        limit, requests = ProcessLimit(2), Requests()
        for client in [A] * 64 + [B] * 3 + [C]:
            requests.come(limit, client)
        assert requests.got == [A, A]
        for done, then in [(A, B), (A, C), (B, A), (C, B), (A, A), (B, B), (A, A), (B, A)]:
            limit.leave(done)
            await pass_through()
            assert requests.got[-1] == then
        assert len(requests.got) == 10

    run(scenario())


def test_a_subscriber_is_one_client_however_many_addresses_it_has(run: Run) -> None:
    async def scenario() -> None:
        limit, requests = ProcessLimit(2), Requests()
        for number in range(5):
            requests.come(limit, f"2001:db8:1:1::{number}")
        requests.come(limit, "2001:db8:1:2::1")
        limit.leave("2001:db8:1:1::0")
        await pass_through()
        assert requests.got[2:] == ["2001:db8:1:2::1"]

    run(scenario())


def test_the_limit_is_one_for_all_workers_and_so_is_the_line(run: Run) -> None:
    async def scenario() -> None:
        table, requests = Admission(10, 3), Requests()
        limits = [ProcessLimit(3, table.places(worker)) for worker in range(3)]
        for _ in range(5):
            requests.come(limits[0], A)
        requests.come(limits[1], B)
        requests.come(limits[2], C)
        assert requests.got == [A, A, A]
        for worker, done, then in [(0, A, B), (0, A, C), (1, B, A)]:
            before = len(requests.got)
            limits[worker].leave(done)
            await until(lambda n=before: len(requests.got) > n, "the next has its place")  # type: ignore[misc]
            assert requests.got[-1] == then
        assert [limit.taken for limit in limits] == [2, 0, 1]
        for limit in limits:
            limit.close()

    run(scenario())


def test_a_worker_that_hangs_or_is_dead_delays_no_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that only hangs keeps its places, since its processes run; those of a dead one are free."""
    monkeypatch.setattr(places, "STALE", 0.5)

    async def scenario() -> None:
        table, requests, gone = Admission(10, 2), Requests(), Requests()
        hangs, lives = ProcessLimit(2, table.places(0)), ProcessLimit(2, table.places(1))
        gone.come(hangs, A)
        requests.come(lives, A)
        gone.come(hangs, B)  # waits, and is shown
        assert hangs._timer is not None
        asyncio.get_running_loop().remove_reader(hangs._places.wakeup or 0)
        hangs._timer.cancel()
        requests.come(lives, C)
        lives.leave(A)
        await until(lambda: len(requests.got) == 2, "nobody waits for who hangs")
        requests.come(lives, D)
        table.clear(0)
        await until(lambda: len(requests.got) == 3, "the place of the dead worker is free")
        lives.close()

    run(scenario())


def test_a_dead_worker_frees_its_own_places_only(run: Run) -> None:
    async def scenario() -> None:
        table, requests = Admission(10, 2), Requests()
        dead, lives = ProcessLimit(4, table.places(0)), ProcessLimit(4, table.places(1))
        for limit, client in ((lives, A), (dead, B), (dead, C), (lives, D)):
            requests.come(limit, client)
        assert table.places(1).taken() == 4
        table.clear(0)
        assert table.places(1).taken() == 2
        assert sorted(table.places(1).in_use().values()) == [1, 1]
        for client in (A, D):
            lives.leave(client)
        assert table.places(1).taken() == 0
        await pass_through()
        lives.close()

    run(scenario())


def test_a_worker_is_woken_for_its_place(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for its timer, which is for a wake-up that is lost."""
    monkeypatch.setattr("proxsmtp_tp.filters.limit.LOOK", 3600.0)

    async def scenario() -> None:
        table, requests = Admission(10, 2), Requests()
        first, second = (ProcessLimit(1, table.places(worker)) for worker in range(2))
        requests.come(first, A)
        requests.come(second, B)
        assert requests.got == [A]
        first.leave(A)
        await until(lambda: requests.got == [A, B], "the other worker is woken")
        first.close()
        second.close()

    run(scenario())


def test_real_workers_together_never_have_more_than_there_are() -> None:
    """Four of them with 25 messages each that come at once; a pipe keeps the order of what they do."""
    table = Admission(10, 4)
    read, write = os.pipe()
    children = [os.fork() or _work(table, worker, write) for worker in range(4)]
    os.close(write)
    with os.fdopen(read, "rb") as told:
        lines = told.read().split()
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    inside = 0
    for line in lines:
        inside += 1 if line == b"in" else -1
        assert 0 <= inside <= 2
    assert lines.count(b"in") == 4 * 25
    assert table.places(0).taken() == 0


def _work(table: Admission, worker: int, write: int) -> int:
    """A worker's life."""

    async def scenario() -> None:
        limit = ProcessLimit(2, table.places(worker))
        client = f"192.0.2.{worker}"
        done: list[bool] = []

        def granted() -> None:
            os.write(write, b"in ")
            asyncio.get_running_loop().call_later(0.002, leave)

        def leave() -> None:
            os.write(write, b"out ")
            done.append(True)
            limit.leave(client)

        for _ in range(25):
            if limit.enter(partial(granted), client):
                granted()
        await until(lambda: len(done) == 25, "all have had their turn")

    code = 1
    try:
        signal.alarm(60)
        asyncio.run(scenario())
        code = 0
    finally:
        os._exit(code)
