"""Locks in the master: one for one event, kept over restarts with its absolute end, in the file before the answer."""

from __future__ import annotations

import json
import logging
import os
import time
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.config.rates import ClientLimit, LockDuration, RateLimit
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.net.client_limits import WorkerLimits
from proxsmtp_tp.net.client_table import ClientTable, LockRequest
from proxsmtp_tp.net.limit_decision import reason_number
from proxsmtp_tp.service.lock_book import MEMORY, Lock, LockBook
from proxsmtp_tp.service.locks import FILE, Locks
from proxsmtp_tp.session.limits import Locked
from tests.unit.telemetry.test_events import KINDS, check

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86400
ONE = ip_network("192.0.2.7")
DURATION = LockDuration(900, 2, DAY)
REJECTS: dict[str, Any] = {
    "client_rejects": RateLimit(1, DAY, 1),
    "lock_on": (ClientLimit.REJECTS,),
    "lock_duration": DURATION,
}


class Daemon:
    """A master's locks, and a worker that asks for them."""

    def __init__(self, folder: Path, size: int = 64, table: ClientTable | None = None, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.table = table or ClientTable(size, 2)
        self.table.begin(0)
        self.path = folder / FILE
        self.locks = Locks(self.settings, self.table, self.path)
        self.worker = WorkerLimits(self.settings, self.table, 0, lambda _: None)

    def locked(self, ip: str) -> Locked | None:
        """What a worker says to a message of this client."""
        finding = self.worker.enter(ip).message()
        return finding.refused if finding is not None and isinstance(finding.refused, Locked) else None

    def reach(self, ip: str, times: int = 2) -> None:
        """Reach ClientRejects."""
        limits = self.worker.enter(ip, "01JD8Q3K7C2VA")
        for _ in range(times):
            limits.happened(ClientLimit.REJECTS)
        limits.leave()

    def saved(self) -> list[dict[str, Any]]:
        rows = json.loads(self.path.read_text("utf-8"))["locks"]
        assert isinstance(rows, list)
        return rows


# The book.


def test_locks_grow_with_repetition_and_a_week_without_resets_them() -> None:
    book, now = LockBook(9), 1_000_000.0
    lengths = []
    for _ in range(9):
        lock = book.lock(ONE, DURATION, "ClientRejects", now)
        assert lock is not None
        lengths.append(lock.until - lock.since)
        assert book.lock(ONE, DURATION, "ClientRejects", now) is None  # once
        now = lock.until + 1
    assert lengths == [900, 1800, 3600, 7200, 14400, 28800, 57600, DAY, DAY]
    again = book.lock(ONE, DURATION, "ClientRejects", now + MEMORY)
    assert again is not None
    assert (again.until - again.since, again.repeated) == (900, 0)


def test_a_removed_lock_leaves_nothing() -> None:
    book = LockBook(9)
    assert book.lock(ONE, DURATION, "ClientSpam", 1000) is not None
    assert book.remove(ONE, 1001) is not None
    assert book.remove(ONE, 1001) is None
    assert book.repeated(ONE, 1001) == 0


def test_the_book_is_bounded_and_forgets_ended_locks_first() -> None:
    book = LockBook(10)
    for number in range(50):
        book.lock(ip_network(f"192.0.2.{number}"), DURATION, "ClientSpam", 1000 + number * 100)
    assert len(book.to_json()["locks"]) <= 10
    assert len(book.active(1000 + 49 * 100)) == 9


@pytest.mark.parametrize(
    ("client", "prefixes", "expected"),
    [
        ("192.0.2.7/32", {4: 24, 6: 64}, "192.0.2.0/24"),
        ("2001:db8:1:2::/64", {4: 32, 6: 48}, "2001:db8:1::/48"),
        ("192.0.2.0/24", {4: 32, 6: 64}, None),
        ("2001:db8:1:2::/64", {4: 32, 6: 64}, "2001:db8:1:2::/64"),
    ],
)
def test_a_changed_prefix_widens_a_lock_or_ends_it(client: str, prefixes: dict[int, int], expected: str | None) -> None:
    book = LockBook(9)
    book.add(Lock(client, 1000, 2000, "ClientSpam"), 1000)
    dropped = book.adapt(prefixes)
    assert [lock.client for lock in book.active(1500)] == ([expected] if expected else [])
    assert [lock.client for lock in dropped] == ([] if expected else [client])


LOCKS = st.builds(
    Lock,
    st.ip_addresses().map(lambda ip: str(ip_network(ip))),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.sampled_from([limit.value for limit in ClientLimit] + ["administrator"]),
    st.text(max_size=20),
    st.integers(0, 99),
)


@given(st.lists(LOCKS, max_size=20))
def test_the_file_gives_back_what_was_written(locks: list[Lock]) -> None:
    book, again = LockBook(99), LockBook(99)
    for lock in locks:
        book.add(lock, 0)
    again.read_json(json.loads(json.dumps(book.to_json())))
    assert again.active(0) == book.active(0)


@pytest.mark.parametrize(
    "data",
    [None, [], {}, {"version": 2, "locks": []}, {"version": 1}, {"version": 1, "locks": [{}]},
     {"version": 1, "locks": 3},
     {"version": 1, "locks": [{"client": "x", "since": 1, "until": 2, "reason": "y"}]},
     {"version": 1, "locks": [{"client": "192.0.2.7/32", "since": 1, "until": "2", "reason": "y"}]},
     {"version": 1, "locks": [{"client": "192.0.2.7/32", "since": 1, "until": 2, "reason": "y", "more": 1}]}],
)  # fmt: skip
def test_a_file_of_anything_else_is_refused_whole(data: object) -> None:
    book = LockBook(9)
    with pytest.raises(ValueError, match=r"lock"):
        book.read_json(data)


# The master.


def test_a_limit_locks_its_client_at_all_workers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    daemon = Daemon(tmp_path, **REJECTS)
    daemon.reach("192.0.2.7")
    assert daemon.locked("192.0.2.7") is None
    daemon.locks.step()
    lock = daemon.locked("192.0.2.7")
    assert lock is not None
    assert lock.reason == "ClientRejects"
    assert daemon.locked("192.0.2.8") is None
    assert "client=192.0.2.7: locked for 15m, until " in caplog.text
    assert "ClientRejects 1/1d is reached, session 01JD8Q3K7C2VA" in caplog.text


def test_many_connections_make_one_lock_and_one_run_of_the_command(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    command = f'echo "$CLIENT $REASON $LIMIT $SECONDS $REPEATED $TRACE_ID" >> {ran}'
    daemon = Daemon(tmp_path, lock_command=command, **REJECTS)
    for _ in range(20):
        daemon.reach("192.0.2.7")
    daemon.locks.step()
    reap(daemon)
    assert ran.read_text("utf-8") == "192.0.2.7 ClientRejects 1/1d 900 0 01JD8Q3K7C2VA\n"
    assert len(daemon.locks.active()) == 1


def test_the_command_runs_for_a_lock_of_an_administrator_too(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    command = f'echo "$CLIENT $REASON ($LIMIT) $SECONDS ($TRACE_ID)" >> {ran}'
    daemon = Daemon(tmp_path, lock_command=command, **REJECTS)
    daemon.locks.add("192.0.2.7", 60, "sends spam")
    reap(daemon)
    assert ran.read_text("utf-8") == "192.0.2.7 sends spam () 60 ()\n"


def reap(daemon: Daemon) -> None:
    """As the master does, until no command runs."""
    while daemon.locks._hook._pid is not None:
        daemon.locks.reaped(*os.waitpid(daemon.locks._hook._pid, 0))


def test_locks_are_kept_over_a_restart_with_their_absolute_end(tmp_path: Path) -> None:
    first = Daemon(tmp_path, **REJECTS)
    first.reach("192.0.2.7")
    first.locks.step()
    end = first.locks.active()[0].until
    first.locks.close()
    second = Daemon(tmp_path, **REJECTS)
    assert [lock.until for lock in second.locks.active()] == [end]
    assert second.locked("192.0.2.7") == first.locked("192.0.2.7") is not None
    second.reach("192.0.2.7")
    second.locks.step()
    assert [lock.until for lock in second.locks.active()] == [end]


def test_an_administrators_change_is_on_the_disk_before_its_answer(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    lock, problem = daemon.locks.add("2001:db8::1", 3600, "asked by phone")
    assert problem == ""
    assert [(row["client"], row["text"]) for row in daemon.saved()] == [("2001:db8::/64", "asked by phone")]
    assert lock.until - lock.since == 3600
    found = daemon.locked("2001:db8::99")
    assert found is not None
    assert (found.client, found.reason) == ("2001:db8::/64", "administrator")
    removed, problem = daemon.locks.remove("2001:db8::1")
    assert (removed, problem, daemon.saved()) == (lock, "", [])
    assert daemon.locked("2001:db8::99") is None
    assert daemon.table.locks == 0
    assert daemon.locks.remove("2001:db8::1") == (None, "")


@pytest.mark.parametrize("name", ["192.0.2.7", "192.0.2.7/32"])
def test_a_client_is_named_by_an_address_or_as_it_is_listed(name: str, tmp_path: Path) -> None:
    assert Daemon(tmp_path).locks.add(name, 60, "")[0].client == "192.0.2.7/32"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("example", "is no IP address"),
        ("", "has no limits"),
        ("127.0.0.1", "this host itself"),
        ("198.51.100.7", "ClientExcept"),
        ("192.0.2.0/24", "is not one client"),
    ],
)
def test_who_cannot_be_locked(name: str, words: str, tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, client_except=(ip_network("198.51.100.0/24"),))
    with pytest.raises(ValueError, match=words):
        daemon.locks.add(name, 60, "")
    assert not daemon.path.exists()


def test_a_lock_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = Daemon(tmp_path)
    daemon.locks.add("192.0.2.7", 60, "")
    assert daemon.table.locks == 1
    assert daemon.locks.due() < time.monotonic() + 61
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    daemon.locks.step()
    assert daemon.table.locks == 0
    assert daemon.locked("192.0.2.7") is None
    assert daemon.locks.active() == []


def test_without_a_writable_directory_locks_work_and_the_answer_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    daemon = Daemon(tmp_path / "file")
    _, problem = daemon.locks.add("192.0.2.7", 60, "")
    assert "locks are not kept over a restart" in problem
    assert daemon.locked("192.0.2.7") is not None
    assert daemon.locks.due() > time.monotonic() + 30  # not again and again


def test_a_damaged_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_text("{", "utf-8")
    daemon = Daemon(tmp_path)
    assert "so no client is locked" in caplog.text
    daemon.locks.add("192.0.2.7", 60, "")
    assert (tmp_path / f"{FILE}.damaged").read_text("utf-8") == "{"
    assert len(daemon.saved()) == 1


def test_automatic_locks_are_written_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = Daemon(tmp_path, size=1024, **REJECTS)
    written: list[int] = []
    monkeypatch.setattr("proxsmtp_tp.service.locks._WRITE_INTERVAL", 3600.0)
    monkeypatch.setattr("proxsmtp_tp.service.locks.replace_file", lambda _, data: written.append(len(data)))
    for number in range(100):
        daemon.reach(f"192.0.2.{number}")
        daemon.locks.step()
    assert len(written) == 1
    assert len(daemon.locks.active()) == 100
    daemon.locks.close()
    assert len(written) == 2


def test_a_reload_changes_prefix_and_exceptions(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.locks.add("192.0.2.7", 600, "")
    settings = Settings(client_ipv4_prefix=24)
    daemon.locks.configure(settings)
    again = Daemon(tmp_path, table=daemon.table, client_ipv4_prefix=24)
    assert again.locked("192.0.2.99") is not None
    excepted = WorkerLimits(
        Settings(client_ipv4_prefix=24, client_except=(ip_network("192.0.2.8"),)), daemon.table, 0, lambda _: None
    )
    assert excepted.enter("192.0.2.8").message() is None


def test_a_request_of_an_earlier_configuration_locks_no_client(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.table.ask_for_lock(
        LockRequest(bytes(10) + b"\xff\xff\xc0\x00\x02\x07", reason_number(ClientLimit.SPAM), b"")
    )
    daemon.locks.step()
    assert daemon.locks.active() == []


def test_events_of_locks(tmp_path: Path) -> None:
    """A lock that begins by a limit and by hand, and what ends it; no address of mail in it."""
    log = tmp_path / "events.json"
    more = {**REJECTS, "event_log": str(log), "instance": "north", "lock_duration": DURATION}
    daemon = Daemon(tmp_path, **more)
    daemon.reach("192.0.2.7")
    daemon.locks.step()
    daemon.locks.add("2001:db8::7", 3600, "asked by phone")
    daemon.locks.remove("2001:db8::7")
    daemon.locks.add("192.0.2.9", 3600, "")
    daemon.locks.configure(Settings(**{**more, "client_ipv4_prefix": 24}))
    assert [lock.client for lock in daemon.locks.active()] == ["192.0.2.0/24"]
    daemon.locks.step()
    daemon.locks.close()
    seen = [json.loads(line) for line in log.read_text().splitlines()]
    for event in seen:
        check(event, KINDS[event["event"]])
    assert [(e["event"], e["client"]["address"], e["reason"], e.get("ended", e["id"])) for e in seen] == [
        ("lock", "192.0.2.7", "ClientRejects", "01JD8Q3K7C2VA"),
        ("lock", "2001:db8::/64", "administrator", ""),
        ("unlock", "2001:db8::/64", "administrator", "administrator"),
        ("lock", "192.0.2.9", "administrator", ""),
        ("unlock", "192.0.2.7", "ClientRejects", "configuration"),
        ("unlock", "192.0.2.9", "administrator", "configuration"),
    ]
    assert seen[0]["value"] == "1/1d"
    assert (seen[0]["seconds"], seen[1]["text"]) == (900, "asked by phone")
    assert daemon.locks.report()["total"] == {
        **dict.fromkeys(daemon.locks.report()["total"], 0), "rejects": 1, "administrator": 2
    }  # fmt: skip


def test_a_lock_that_ends_at_its_time_has_an_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "events.json"
    daemon = Daemon(tmp_path, event_log=str(log))
    lock, _ = daemon.locks.add("192.0.2.7", 900, "")
    assert daemon.locks.report()["active"]["administrator"] == 1
    monkeypatch.setattr(time, "time", lambda: float(lock.until))
    daemon.locks.step()
    assert [json.loads(line).get("ended") for line in log.read_text().splitlines()] == [None, "time"]
    assert daemon.locks.report()["active"]["administrator"] == 0
