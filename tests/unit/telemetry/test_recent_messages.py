"""The ring of the last messages: every message is read once, or counted as lost, also after a worker has died."""

from __future__ import annotations

import os
import signal
import time

from proxsmtp_tp.telemetry.recent_messages import ENTRIES, Message, RecentMessages


def add(recent: RecentMessages, worker: int, number: int = 1) -> None:
    row = recent.of(worker)
    for each in range(number):
        row.add("192.0.2.7", "2001:db8::25", b"250 2.0.0 ok\r\n", each, 0.5)


def test_each_message_is_read_once() -> None:
    recent = RecentMessages(3)
    assert recent.since([]) == ([], 0, [])
    add(recent, 1)
    recent.of(0).add("2001:db8:1234:5678:9abc:def0:1234:5678", "", b"", 1 << 40, 0.0)
    messages, lost, numbers = recent.since([])
    assert messages == [
        Message(b"2001:db8:1234:5678:9abc:def0:1234:5678", b"", b"-", 0xFFFFFFFF, 0.0),
        Message(b"192.0.2.7", b"2001:db8::25", b"2", 0, 0.5),
    ]
    assert (lost, numbers) == (0, [1, 1])
    assert recent.since(numbers) == ([], 0, [1, 1])
    add(recent, 1, 2)
    messages, lost, numbers = recent.since(numbers)
    assert [message.octets for message in messages] == [0, 1]
    assert (lost, numbers) == (0, [1, 3])


def test_a_reader_that_comes_too_late_knows_how_many_it_has_missed() -> None:
    recent = RecentMessages(1)
    add(recent, 0, 5)
    add(recent, 0, ENTRIES + 100)
    messages, lost, numbers = recent.since([5])
    assert len(messages) + lost == ENTRIES + 100
    assert lost == 101  # the oldest may be overwritten while it is read
    assert [message.octets for message in messages] == list(range(101, ENTRIES + 100))
    assert numbers == [ENTRIES + 105]


def test_numbers_of_another_daemon_are_no_trouble() -> None:
    recent = RecentMessages(2)
    add(recent, 0, 3)
    assert recent.since([10**18, 5, 7, 9]) == ([], 0, [3])


def test_the_next_worker_in_a_row_goes_on() -> None:
    recent = RecentMessages(1)
    worker = os.fork()
    if worker == 0:
        while True:
            add(recent, 0)
    try:
        end = time.monotonic() + 30
        while not recent.numbers() and time.monotonic() < end:
            time.sleep(0.001)
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
    numbers = recent.numbers()
    assert numbers
    add(recent, 0)
    messages, lost, after = recent.since(numbers)
    assert ([message.client for message in messages], lost, after) == ([b"192.0.2.7"], 0, [numbers[0] + 1])


def test_a_reader_never_sees_a_torn_message() -> None:
    """A worker writes all the time; client and server of one message are of one write."""
    recent = RecentMessages(1)
    writer = os.fork()
    if writer == 0:
        row = recent.of(0)
        while True:
            for name in ("192.0.2.1", "192.0.2.2"):
                row.add(name, name, b"250", 0, 0.0)
    try:
        numbers, seen, end = recent.numbers(), 0, time.monotonic() + 30
        while seen < 20_000 and time.monotonic() < end:
            messages, _, numbers = recent.since(numbers)
            assert all(message.client == message.server for message in messages)
            seen += len(messages)
        assert seen >= 20_000
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
