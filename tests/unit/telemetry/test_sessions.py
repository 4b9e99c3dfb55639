"""The table of sessions: written without locks, read by anybody, and nothing of a dead worker stays."""

from __future__ import annotations

import os
import signal
import time

import pytest

from proxsmtp_tp.telemetry.sessions import ADDRESS_MAX, SessionPhase, SessionRow, SessionTable, Shown, WorkerSessions

ROWS = 64 * 8


def session(identifier: str = "01JD8Q3K7C2VA", **changes: object) -> Shown:
    values = {
        "id": identifier,
        "client": "192.0.2.7:4711",
        "server": "198.51.100.25",
        "helo": b"c.example",
        "messages": 2,
        "sender": b"a@c.example",
        "recipients": 3,
        "recipient": b"b@mx.example",
        "opened": int(time.monotonic() * 1000),
        **changes,
    }
    return Shown(**values)  # type: ignore[arg-type]


def start(rows: WorkerSessions, shown: Shown, now: float) -> SessionRow | None:
    row = rows.begin(shown.id, shown.client, now)
    if row is not None:
        row.show(shown)
    return row


def begin(table: SessionTable, worker: int, shown: Shown):  # type: ignore[no-untyped-def]
    row = start(table.of(worker), shown, time.monotonic())
    assert row is not None
    return row


def test_a_session_is_seen_with_all_that_it_says() -> None:
    table = SessionTable(ROWS)
    row = begin(table, 0, session(opened=int((time.monotonic() - 100) * 1000), server_tls="TLSv1.3/verified"))
    row.enter(SessionPhase.FILTER, time.monotonic() - 5)
    [seen] = table.listed(10)
    assert 5 <= seen.pop("phase_seconds") < 15
    assert 100 <= seen.pop("seconds") < 110
    assert seen == {
        "id": "01JD8Q3K7C2VA",
        "client": "192.0.2.7:4711",
        "server": "198.51.100.25",
        "phase": "filter",
        "helo": "c.example",
        "messages": 2,
        "from": "a@c.example",
        "recipients": 3,
        "to": "b@mx.example",
        "client_tls": None,
        "server_tls": "TLSv1.3/verified",
        "passed_by": None,
    }
    row.show(session(sender=None, helo=b"\xff", recipient=b""))
    assert (table.listed(1)[0]["from"], table.listed(1)[0]["helo"]) == (None, "\\xff")
    row.show(session(sender=b""))
    assert table.listed(1)[0]["from"] == ""


def test_a_session_that_has_just_begun() -> None:
    table = SessionTable(ROWS)
    assert table.of(0).begin("01JD8Q3K7C2VA", "192.0.2.7:4711", time.monotonic()) is not None
    [seen] = table.listed(10)
    assert seen.pop("phase_seconds") < 10
    assert seen.pop("seconds") < 10
    assert seen == {
        "id": "01JD8Q3K7C2VA",
        "client": "192.0.2.7:4711",
        "server": "",
        "phase": "connecting",
        "helo": "",
        "messages": 0,
        "from": None,
        "recipients": 0,
        "to": "",
        "client_tls": None,
        "server_tls": None,
        "passed_by": None,
    }


def test_the_longest_in_a_phase_come_first_and_no_more_than_asked_for() -> None:
    table = SessionTable(ROWS)
    rows = table.of(0)
    for number in range(100):
        row = start(rows, session(str(number)), 1000.0)
        assert row is not None
        row.enter(SessionPhase.COMMAND, 1000.0 - number)
    assert [each["id"] for each in table.listed(3)] == ["99", "98", "97"]
    assert len(table.listed(1000)) == 100


def test_phases_are_counted_and_the_oldest_wait_is_known() -> None:
    table = SessionTable(ROWS)
    now = time.monotonic()
    for worker, (phase, ago) in enumerate([(6, 3), (6, 9), (7, 50), (3, 1)]):
        begin(table, worker, session(str(worker))).enter(phase, now - ago)
    phases, oldest = table.phases()
    assert {phase.name: number for phase, number in phases.items() if number} == {
        "COMMAND": 1,
        "WAITING": 2,
        "FILTER": 1,
    }
    assert 9 <= oldest < 19


def test_rows_are_used_again_and_a_full_table_costs_no_session() -> None:
    table = SessionTable(64 * 2)
    mine, other = table.of(0), table.of(1)
    rows = [start(mine, session(str(number)), 1.0) for number in range(64)]
    assert all(start(other, session(), 1.0) for _ in range(64))
    assert start(mine, session(), 1.0) is None
    assert start(other, session(), 1.0) is None
    for _ in range(1000):
        row = rows.pop()
        assert row is not None
        row.end()
        rows.append(start(mine, session("again"), 1.0))
    assert sum(table.phases()[0].values()) == 128


def test_the_rows_of_a_dead_worker_are_free() -> None:
    table = SessionTable(64 * 3)
    for worker in range(3):
        begin(table, worker, session(str(worker)))
    table.clear(1)
    assert {each["id"] for each in table.listed(9)} == {"0", "2"}
    begin(table, 7, session("7"))
    table.clear(2)
    table.clear(0)
    assert [each["id"] for each in table.listed(9)] == ["7"]
    table.clear(7)
    assert table.listed(9) == []
    assert table._used[0] == 0


def test_a_session_is_ended_by_its_id_and_the_next_in_its_row_is_not() -> None:
    table = SessionTable(ROWS)
    rows = table.of(0)
    row = start(rows, session("one"), 1.0)
    assert row is not None
    assert not table.kill("two")
    assert not row.must_end
    assert table.kill("one")
    assert row.must_end
    row.end()
    after = start(rows, session("two"), 1.0)
    assert after is not None
    assert not after.must_end
    table.wanted[after._row] = (1 << 32) + 1  # the master was late: it has meant the session before
    assert not after.must_end


@pytest.mark.parametrize("length", [0, ADDRESS_MAX, 320, 100_000])
def test_long_addresses_are_cut(length: int) -> None:
    table = SessionTable(ROWS)
    neighbours = table.of(0)
    for name in ("before", "long", "after"):
        long = b"x" * length if name == "long" else b"y"
        assert start(neighbours, session(name, sender=long, recipient=long, helo=long, client="2001:db8::1" * 4), 1.0)
    seen = {each["id"]: each["from"] for each in table.listed(9)}
    assert seen == {"before": "y", "long": "x" * min(length, ADDRESS_MAX), "after": "y"}


def test_a_reader_never_sees_a_mixture_of_two_texts() -> None:
    """A worker writes and frees its rows all the time; what is read is what one write wrote."""
    table = SessionTable(64)
    writer = os.fork()
    if writer == 0:
        rows = table.of(0)
        number = 0
        while True:
            number += 1
            name = str(number)
            text = name.encode() * (number % 7 + 1)
            row = start(rows, session(name, sender=text, recipient=text, messages=number), time.monotonic())
            if row is not None:
                row.show(session(name, sender=text + b"!", recipient=text + b"!", messages=number))
                row.end()
    try:
        seen = 0
        end = time.monotonic() + 1.5
        while time.monotonic() < end or not seen:
            for each in table.listed(64):
                if each["from"] is None:
                    assert (each["messages"], each["to"]) == (0, "")  # it has just begun
                    continue
                seen += 1
                text = each["id"] * (each["messages"] % 7 + 1)
                assert (each["id"], each["from"].rstrip("!"), each["to"]) == (str(each["messages"]), text, each["from"])
            assert time.monotonic() < end + 20
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
