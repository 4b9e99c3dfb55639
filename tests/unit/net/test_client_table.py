"""The table of clients in shared memory: of fixed size, exact over processes, and nothing leaks when one is killed."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.config.rates import AtOnce, RateLimit
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.net.admission import Admission
from proxsmtp_tp.net.client_limits import WorkerLimits
from proxsmtp_tp.net.client_table import REQUESTS_MAX, ClientTable, LockRequest, Word

if TYPE_CHECKING:
    from tests.unit.net.fixtures import Fork

WORKERS = 4


def key(number: int) -> bytes:
    """A /64 of documentation addresses."""
    return b"\x20\x01\x0d\xb8" + number.to_bytes(4) + bytes(8)


def table(size: int = 64, workers: int = WORKERS) -> ClientTable:
    made = ClientTable(size, workers)
    for worker in range(workers):
        made.begin(worker)
    return made


def come(made: ClientTable, worker: int, client: bytes) -> int | None:
    """A client connects: its slot, or None."""
    entered = made.enter(worker, client)
    return entered[0] if entered is not None else None


def used(made: ClientTable, client: bytes, word: int, value: int) -> int:
    """Set a word of a client that is made for it."""
    with made.changing(client):
        slot = made.add(client)
        assert slot is not None
        made.set(slot, word, value)
    return slot


def test_a_client_has_one_slot_at_all_workers() -> None:
    made = table()
    slot = come(made, 0, key(1))
    assert slot is not None
    assert come(made, 1, key(1)) == slot
    assert come(made, 1, key(2)) != slot
    assert made.connections(slot) == 2
    made.leave(0, slot)
    assert made.connections(slot) == 1
    assert made.find(key(1)) == slot
    assert made.find(key(3)) is None
    assert made.entries() == 2


def test_a_full_bucket_tracks_no_other_client_and_keeps_connected_ones() -> None:
    made = table(8)
    slots = [come(made, 0, key(number)) for number in range(8)]
    assert None not in slots
    assert come(made, 0, key(8)) is None
    assert [made.find(key(number)) for number in range(8)] == slots
    gone = slots[3]
    assert gone is not None
    made.leave(0, gone)
    assert come(made, 0, key(8)) == gone
    assert made.find(key(3)) is None
    assert made.state(gone)[Word.SEEN + 1 :] == [0] * 13
    assert (made.entries(), made.evictions()) == (8, 1)


def test_the_next_client_of_a_slot_has_not_the_servers_of_the_one_before() -> None:
    made = table(8)
    slots = [come(made, 0, key(number)) for number in range(8)]
    gone = slots[3]
    assert gone is not None
    made.set_servers(gone, [7] * len(made.servers(gone)[0]), [9] * len(made.servers(gone)[1]))
    made.leave(0, gone)
    assert come(made, 0, key(8)) == gone
    assert not any(map(any, made.servers(gone)))


def test_a_locked_client_is_not_forgotten_until_its_lock_ends() -> None:
    made = table(8)
    for number in range(7):
        come(made, 0, key(number))
    locked = used(made, key(7), Word.LOCKED_UNTIL, int(time.time()) + 60)
    assert come(made, 0, key(8)) is None
    made.set(locked, Word.LOCKED_UNTIL, int(time.time()) - 1)
    assert come(made, 0, key(8)) == locked


def test_who_has_used_nothing_is_forgotten_first_then_who_was_seen_longest_ago() -> None:
    made = table(8)
    future = time.monotonic_ns() + 10**12
    slots = [used(made, key(number), Word.MESSAGES, 0 if number == 5 else future) for number in range(8)]
    for number, slot in enumerate(slots):
        made.set(slot, Word.SEEN, 1000 - number if number != 2 else 1)
    assert come(made, 0, key(8)) == slots[5]
    assert come(made, 0, key(9)) == slots[2]


def test_a_killed_worker_frees_the_places_of_its_clients(fork: Fork) -> None:
    """As the master does it: the row of the dead worker is cleared, those of others stay."""
    admission = Admission(100, 2)
    made = admission.clients
    ready, tell = os.pipe()

    def work() -> None:
        for number in range(50):
            come(made, 1, key(number % 5))
        os.write(tell, b".")
        time.sleep(600)

    kept = come(made, 0, key(0))
    assert kept is not None
    pid = fork(work)
    os.read(ready, 1)
    assert made.connections(kept) == 11
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    admission.clear(1)
    assert made.connections(kept) == 1
    assert [made.connections(made.find(key(number)) or 0) for number in range(1, 5)] == [0] * 4


def test_a_worker_that_is_killed_at_any_moment_leaves_no_lock(fork: Fork) -> None:
    made = table()

    def work() -> None:
        while True:
            slot = come(made, 1, key(1))
            if slot is not None:
                made.leave(1, slot)

    for pause in (0.0, 0.003, 0.011):
        pid = fork(work)
        time.sleep(0.02 + pause)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        made.clear(1)
        slot = come(made, 0, key(1))
        assert slot is not None
        assert made.connections(slot) == 1
        made.leave(0, slot)


def test_racing_workers_let_through_no_more_than_the_limit(fork: Fork) -> None:
    """Four workers, one client, as fast as they can: the limit allows three more; the lock, none."""
    settings = Settings(client_messages=RateLimit(200, 86400, 200))
    made = table()
    out, into = os.pipe()

    def work(worker: int) -> None:
        limits = WorkerLimits(settings, made, worker, lambda _: None).enter("192.0.2.7")
        passed = sum(limits.message() is None for _ in range(2000))
        os.write(into, passed.to_bytes(4))

    for worker in range(WORKERS):
        fork(lambda worker=worker: work(worker))  # type: ignore[misc]
    passed = [int.from_bytes(os.read(out, 4)) for _ in range(WORKERS)]
    assert sum(passed) == 200


def test_no_more_connections_at_once_than_the_limit_however_workers_race(
    fork: Fork,
) -> None:
    """Each connection is counted with the number of others in one step, so exactly so many are served."""
    settings = Settings(client_connections=AtOnce(7))
    made = table()
    out, into = os.pipe()

    def work(worker: int) -> None:
        limits = WorkerLimits(settings, made, worker, lambda _: None)
        kept = [one for one in (limits.enter("192.0.2.7") for _ in range(300)) if one.connection("") is None]
        os.write(into, len(kept).to_bytes(4))
        time.sleep(600)

    for worker in range(WORKERS):
        fork(lambda worker=worker: work(worker))  # type: ignore[misc]
    assert sum(int.from_bytes(os.read(out, 4)) for _ in range(WORKERS)) == 7


def test_memory_is_constant_for_any_clients() -> None:
    made = table(4096)

    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def arrive(first: int, number: int) -> None:
        for client in range(first, first + number):
            slot = come(made, client % WORKERS, key(client))
            if slot is not None:
                made.leave(client % WORKERS, slot)

    arrive(0, 20_000)
    before = resident()
    arrive(20_000, 60_000)
    assert made.entries() == made.size == 4096
    assert resident() - before < 1 << 20


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.booleans()), max_size=200))
def test_connections_are_exact(steps: list[tuple[int, int, bool]]) -> None:
    """Whatever clients come and go: what the table says of a client is what is open."""
    made = table(16)
    open_: dict[tuple[int, int], list[int]] = {}
    for worker, client, comes in steps:
        slots = open_.setdefault((worker, client), [])
        if comes:
            slot = come(made, worker, key(client))
            if slot is not None:
                slots.append(slot)
        elif slots:
            made.leave(worker, slots.pop())
    for client in range(31):
        expected = sum(len(open_.get((worker, client), [])) for worker in range(4))
        slot = made.find(key(client))
        assert expected == (made.connections(slot) if slot is not None else 0)


def test_requests_for_locks_arrive_once_and_in_order_and_a_flood_does_not_block() -> None:
    made = table()
    requests = [LockRequest(key(number), 3, b"01JD8Q3K7C2VA") for number in range(3)]
    assert all(made.ask_for_lock(request) for request in requests)
    assert made.requests() == requests
    assert made.requests() == []
    sent = 0
    while made.ask_for_lock(requests[0]):
        sent += 1
        assert sent <= REQUESTS_MAX
    assert len(made.requests()) == sent == REQUESTS_MAX
    assert made.ask_for_lock(requests[0])


def test_no_client_can_choose_its_bucket() -> None:
    """Two tables have different secrets: clients that meet in one bucket do not meet in another."""
    first, second = table(4096), table(4096)
    buckets = [{made._bucket(key(number)) for number in range(64)} for made in (first, second)]
    assert buckets[0] != buckets[1]
