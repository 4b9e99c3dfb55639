"""The shared table: the limit is exact whoever runs, stops or dies at whatever moment."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.config.addresses import client_of_address
from proxsmtp_tp.net.admission import WORKERS_MAX, Admission

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.net.fixtures import Fork

WAIT_SECONDS = 60.0
MX = ("198.51.100.25", 25)


def test_the_limit_is_exact() -> None:
    table = Admission(3, 2)
    assert [table.try_enter(worker) for worker in (0, 1, 0, 1, 0)] == [True, True, True, False, False]
    assert table.counts() == [2, 1]
    table.leave(1)
    assert table.try_enter(0)
    assert not table.try_enter(1)


def test_only_a_client_that_entered_can_leave() -> None:
    table = Admission(3, 2)
    table.try_enter(0)
    with pytest.raises(ValueError, match="worker 1"):
        table.leave(1)
    assert table.counts() == [1, 0]


def test_a_new_limit_counts_at_once_and_ends_no_connection() -> None:
    table = Admission(2, 1)
    assert table.try_enter(0)
    assert table.try_enter(0)
    table.set_limit(1)
    assert table.limit == 1
    assert table.counts() == [2]
    table.leave(0)
    assert not table.try_enter(0)
    table.leave(0)
    assert table.try_enter(0)


def test_old_and_new_workers_count_together() -> None:
    table = Admission(2, 1)
    table.begin(WORKERS_MAX - 1)
    assert table.try_enter(0)
    assert table.try_enter(WORKERS_MAX - 1)
    assert not table.try_enter(0)


def test_a_dead_worker_gives_its_places_back() -> None:
    table = Admission(2, 2)
    assert table.try_enter(0)
    assert table.try_enter(1)
    table.add_upstream(0, ("192.0.2.1", 40000), MX)
    table.add_upstream(1, ("192.0.2.1", 40001), MX)
    table.clear(0)
    assert table.counts() == [0, 1]
    assert not table.is_upstream(("192.0.2.1", 40000), MX)
    assert table.is_upstream(("192.0.2.1", 40001), MX)
    assert table.try_enter(1)
    assert not table.try_enter(1)


def test_busier_is_measured_among_those_who_accept() -> None:
    table = Admission(9, 3)
    assert not table.busier_than_others(0)
    table.try_enter(0)
    assert table.busier_than_others(0)
    table.try_enter(1)
    assert table.busier_than_others(0)
    table.end_accepting(2)
    assert not table.busier_than_others(0)
    table.begin(2)
    assert table.busier_than_others(0)
    table.clear(2)
    assert not table.busier_than_others(0)


def test_the_limit_is_exact_among_processes(fork: Fork) -> None:
    """Four processes go in and out as fast as they can. Inside, each looks: never more than the limit."""
    workers, limit = 4, 3
    table = Admission(limit, workers)
    entered = [Admission(1 << 30, 1) for _ in range(workers)]  # counts the successes of each

    def work(worker: int) -> Callable[[], None]:
        def body() -> None:
            for _ in range(4000):
                if table.try_enter(worker):
                    assert sum(table.counts()) <= limit
                    entered[worker].try_enter(0)
                    table.leave(worker)

        return body

    children = [fork(work(worker)) for worker in range(workers)]
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * workers
    assert table.counts() == [0] * workers
    assert all(count.counts()[0] > 0 for count in entered)


def test_all_places_are_found_by_any_client(fork: Fork) -> None:
    """Nobody leaves: exactly the limit is inside at the end, not one fewer."""
    table = Admission(1000, 4)

    def work(worker: int) -> None:
        for _ in range(400):
            table.try_enter(worker)

    children = [fork(partial(work, worker)) for worker in range(4)]
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert sum(table.counts()) == 1000


def test_a_worker_killed_while_it_has_the_lock(fork: Fork) -> None:
    table = Admission(2, 2)
    holds, told = os.pipe()

    def body() -> None:
        table.try_enter(0)
        with table._lock:
            os.write(told, b"!")
            time.sleep(WAIT_SECONDS)

    pid = fork(body)
    assert os.read(holds, 1) == b"!"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    table.clear(0)
    assert table.try_enter(1)
    assert table.try_enter(1)
    os.close(holds)
    os.close(told)


def test_killed_at_any_moment_nothing_remains(fork: Fork) -> None:
    table = Admission(50, 2)
    going, told = os.pipe()

    def body() -> None:
        os.write(told, b"!")
        while True:
            table.try_enter(0)
            handle = table.add_upstream(0, ("192.0.2.9", 1 + os.getpid() % 1000), MX)
            table.is_upstream(("192.0.2.9", 2), MX)
            if handle % 2:
                table.forget(0, handle)
                table.leave(0)

    for _ in range(20):
        pid = fork(body)
        assert os.read(going, 1) == b"!"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        table.clear(0)
        assert table.counts() == [0, 0]
        assert not table.is_upstream(("192.0.2.9", 1 + pid % 1000), MX)
    assert [table.try_enter(1) for _ in range(51)] == [True] * 50 + [False]
    os.close(going)
    os.close(told)


def test_a_connection_of_ours_is_known_to_every_process(fork: Fork) -> None:
    table = Admission(9, 2)
    done, told = os.pipe()

    def body() -> None:
        table.add_upstream(0, ("2001:db8::1", 40000), MX)
        os.write(told, b"!")
        time.sleep(WAIT_SECONDS)

    fork(body)
    assert os.read(done, 1) == b"!"
    assert table.is_upstream(("2001:db8::1", 40000), MX)
    assert not table.is_upstream(("2001:db8::1", 40001), MX)
    assert not table.is_upstream(("2001:db8::2", 40000), MX)
    os.close(done)
    os.close(told)


@pytest.mark.parametrize(
    ("added", "asked"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:DB8:0::1"),
        ("fe80::1%lo", "fe80::1"),
    ],
)
def test_one_address_in_its_forms(added: str, asked: str) -> None:
    table = Admission(9, 1)
    handle = table.add_upstream(0, (added, 25), MX)
    assert table.is_upstream((asked, 25), MX)
    table.forget(0, handle)
    assert not table.is_upstream((asked, 25), MX)


@pytest.mark.parametrize(
    ("ip", "port"), [("", 25), ("example", 25), ("192.0.2.1", 0), ("192.0.2.1", 65536), ("::g", 1)]
)
def test_what_is_no_end_point(ip: str, port: int) -> None:
    table = Admission(9, 1)
    with pytest.raises(ValueError, match="is no"):
        table.add_upstream(0, (ip, port), MX)
    with pytest.raises(ValueError, match="is no"):
        table.is_upstream((ip, port), MX)


def test_a_connection_goes_once_and_by_its_owner() -> None:
    table = Admission(9, 2)
    handle = table.add_upstream(0, ("192.0.2.1", 25), MX)
    with pytest.raises(ValueError, match="worker 1"):
        table.forget(1, handle)
    table.forget(0, handle)
    with pytest.raises(ValueError, match="worker 0"):
        table.forget(0, handle)


def test_other_programs_make_no_third() -> None:
    """The end of one row and the beginning of the next must not be taken for a connection."""
    table = Admission(9, 1)
    theirs = ("2001:db8::9", 25)
    first = table.add_upstream(0, ("2001:db8::1", 0xABCD), theirs)
    second = table.add_upstream(0, ("2001:db8::2", 25), theirs)
    assert second == first + 1
    assert not table.is_upstream(("db8::1:abcd", 0x2001), ("db8::9:19", 0x2001))
    assert table.is_upstream(("2001:db8::2", 25), theirs)


def test_a_connection_is_both_its_ends() -> None:
    """A client may have a port that one of ours has, on the same address: that is no connection of ours."""
    table = Admission(9, 1)
    table.add_upstream(0, ("192.0.2.1", 40000), MX)
    assert table.is_upstream(("192.0.2.1", 40000), MX)
    for other in (("198.51.100.25", 26), ("198.51.100.26", 25), ("192.0.2.1", 40000)):
        assert not table.is_upstream(("192.0.2.1", 40000), other)


# A mapped address is the same place as its IPv4 address, by another name: left to the test of forms.
ADDRESSES = st.ip_addresses().map(str).filter(lambda ip: not ip.startswith("::ffff:"))
PLACES = st.tuples(ADDRESSES, st.integers(1, 65535))


@given(st.lists(PLACES, max_size=200), st.sets(st.integers(0, 199)), PLACES)
def test_what_was_added_and_not_removed_is_there(
    places: list[tuple[str, int]], removed: set[int], other: tuple[str, int]
) -> None:
    table = Admission(999, 1)
    handles = [table.add_upstream(0, (ip, port), MX) for ip, port in places]
    for index in removed & set(range(len(places))):
        table.forget(0, handles[index])
    left = {place for index, place in enumerate(places) if index not in removed}
    assert len(set(handles)) == len(handles)
    for place in {*places, other}:
        assert table.is_upstream(place, MX) == (place in left)


def test_places_are_used_again() -> None:
    table = Admission(999, 1)
    for port in range(1, 3001):
        table.forget(0, table.add_upstream(0, ("192.0.2.1", port), MX))
    assert table.add_upstream(0, ("192.0.2.1", 1), MX) < 64


def test_a_client_is_no_upstream_connection() -> None:
    """Clients and our own connections are in one table, and are not taken for one another."""
    table = Admission(9, 2)
    client = table.add_client(0, ("192.0.2.1", 40000), MX)
    ours = table.add_upstream(1, ("192.0.2.1", 40001), MX)
    assert table.is_client(("192.0.2.1", 40000), MX)
    assert not table.is_upstream(("192.0.2.1", 40000), MX)
    assert table.is_upstream(("192.0.2.1", 40001), MX)
    assert not table.is_client(("192.0.2.1", 40001), MX)
    table.forget(0, client)
    table.forget(1, ours)
    assert not table.is_client(("192.0.2.1", 40000), MX)
    assert not table.is_upstream(("192.0.2.1", 40001), MX)


# The share of a client.


def fill(table: Admission, clients: list[str]) -> list[str]:
    """Clients come again and again, in turn, until nobody gets in any more: who got in."""
    inside: list[str] = []
    while True:
        came = [client for client in clients if table.try_enter(0, client) and table.add_share(0, client) >= 0]
        if not came:
            return inside
        inside += came


def test_one_client_alone_leaves_a_fifth() -> None:
    table = Admission(1000, 1)
    assert len(fill(table, ["192.0.2.1"])) == 800
    assert not table.full
    assert table.try_enter(0, "192.0.2.2")


def test_each_that_comes_later_finds_a_place() -> None:
    table = Admission(1000, 1)
    got = [len(fill(table, [f"192.0.2.{number}"])) for number in range(1, 5)]
    assert got == sorted(got, reverse=True)
    assert got[0] == 800
    assert got[-1] > 0
    assert not table.full


def test_clients_that_come_together_have_equal_shares() -> None:
    table = Admission(900, 2)
    inside = fill(table, ["192.0.2.1", "2001:db8:1::"])
    assert inside.count("192.0.2.1") == inside.count("2001:db8:1::") == 400


def test_this_host_has_no_share_but_all() -> None:
    table = Admission(64, 1)
    assert sum(table.try_enter(0, "") for _ in range(100)) == 64
    assert table.full


def test_few_connections_are_for_any_client() -> None:
    for most in (1, 2, 3, 4):
        assert len(fill(Admission(most, 1), ["192.0.2.1"])) == most


def test_what_ends_counts_no_more_also_with_a_dead_worker() -> None:
    table = Admission(10, 2)
    handles = []
    for row in (0, 1) * 4:
        assert table.try_enter(row, "192.0.2.1")
        handles.append(table.add_share(row, "192.0.2.1"))
    assert not table.try_enter(0, "192.0.2.1")
    table.forget(0, handles[0])
    table.leave(0, "192.0.2.1")
    assert table.try_enter(0, "192.0.2.1")
    table.add_share(0, "192.0.2.1")
    assert not table.try_enter(0, "192.0.2.1")
    table.clear(1)
    assert table.try_enter(0, "192.0.2.1")


def test_a_client_that_left_has_its_share_again() -> None:
    table = Admission(10, 1)
    for _ in range(3):
        assert len(fill(table, ["192.0.2.1"])) == 8
        for _ in range(8):
            table.leave(0, "192.0.2.1")


def test_a_share_is_exact_among_processes(fork: Fork) -> None:
    """Four workers let one client in, as fast as they can: together no more than its share."""
    table = Admission(1000, 4)

    def work(worker: int) -> None:
        for _ in range(400):
            if table.try_enter(worker, "192.0.2.1"):
                table.add_share(worker, "192.0.2.1")

    children = [fork(partial(work, worker)) for worker in range(4)]
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert sum(table.counts()) == 800
    assert table.try_enter(0, "192.0.2.2")


def test_a_worker_killed_before_it_reported_its_connection() -> None:
    table = Admission(10, 2)
    for _ in range(8):
        assert table.try_enter(0, "192.0.2.1")
    assert not table.try_enter(1, "192.0.2.1")
    table.clear(0)
    assert len(fill(table, ["192.0.2.1"])) == 8


def test_who_has_its_share_costs_little_however_many_connections_there_are() -> None:
    """It may come again and again; of 80000 connections, to count its own would take 50 ms each time."""
    table = Admission(100_000, 1)
    for _ in range(80_000):
        assert table.try_enter(0, "192.0.2.1")
        table.add_share(0, "192.0.2.1")
    tried = []
    for _ in range(20):
        start = time.thread_time()
        assert not table.try_enter(0, "192.0.2.1")
        tried.append(time.thread_time() - start)
    assert min(tried) < 0.005


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("127.0.0.1", ""),
        ("::1", ""),
        ("", ""),
    ],
)
def test_who_a_client_is(address: str, client: str) -> None:
    assert client_of_address(address) == client
