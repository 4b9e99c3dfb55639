"""The table of clients that have rejected our certificate."""

from __future__ import annotations

import os

import pytest

from proxsmtp_tp.net.tls_rejections import SLOTS, Rejection, RejectionsOfClient, TlsRejections, client_of

ONE = Rejection("192.0.2.10", "198.51.100.25", 25, "mx.example")
LONGEST = Rejection("2001:db8:1111:2222::", "/" + "x" * 106, 65535, "a" * 249 + ".org")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(clock: Clock) -> TlsRejections:
    return TlsRejections(clock)


@pytest.mark.parametrize("one", [ONE, ONE._replace(name=""), LONGEST], ids=["named", "unnamed", "longest"])
def test_it_is_known_until_its_time_is_over(one: Rejection, table: TlsRejections, clock: Clock) -> None:
    assert not table.known(one)
    table.learn(one, 60)
    assert table.known(one)
    assert table.entries() == [(one, 60)]
    clock.now += 59
    assert table.known(one)
    clock.now += 1
    assert not table.known(one)
    assert table.entries() == []


@pytest.mark.parametrize(
    "other", [{"client": "192.0.2.11"}, {"server": "198.51.100.26"}, {"port": 587}, {"name": "b.example"}, {"name": ""}]
)
def test_nothing_else_is_known(other: dict[str, object], table: TlsRejections) -> None:
    table.learn(ONE, 60)
    assert not table.known(ONE._replace(**other))  # type: ignore[arg-type]


def test_another_rejection_restarts_the_time(table: TlsRejections, clock: Clock) -> None:
    table.learn(ONE, 60)
    clock.now += 50
    table.learn(ONE, 60)
    clock.now += 50
    assert table.entries() == [(ONE, 10)]


def test_it_is_bounded_and_what_ends_first_goes_first(table: TlsRejections, clock: Clock) -> None:
    learned = [ONE._replace(name=f"mx{number}.example") for number in range(SLOTS + 10)]
    for each in learned:
        clock.now += 1
        table.learn(each, 10_000)
    assert [each for each in learned if table.known(each)] == learned[10:]


def test_a_client_with_many_rejections_leaves_most_others_alone(table: TlsRejections, clock: Clock) -> None:
    """It cannot know whose places it takes."""
    others = [ONE._replace(client=f"203.0.113.{number}") for number in range(200)]
    for each in others:
        table.learn(each, 100)
    clock.now += 1
    for number in range(4 * SLOTS):
        table.learn(ONE._replace(name=f"mx{number}.example"), 100)
    assert sum(map(table.known, others)) > 150


def test_clear_forgets_all(table: TlsRejections) -> None:
    table.learn(ONE, 60)
    table.clear()
    assert not table.known(ONE)
    assert table.entries() == []
    table.learn(ONE._replace(port=26), 60)
    assert not table.known(ONE)


def test_all_workers_know_it() -> None:
    table = TlsRejections()
    if not (pid := os.fork()):
        table.learn(ONE, 60)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert table.known(ONE)
    assert 0 < table.entries()[0][1] <= 60


def test_a_subscriber_is_one_client() -> None:
    assert client_of("2001:db8:1:2:3::4") == "2001:db8:1:2::"
    assert client_of("192.0.2.10") == "192.0.2.10"
    assert client_of("127.0.0.1") == "127.0.0.1"
    assert client_of("") == ""  # a unix socket


def test_the_view_of_one_client(table: TlsRejections) -> None:
    view = RejectionsOfClient(table, 60.0, "2001:db8:1:2:3::4")
    view.learn("198.51.100.25", 25, "mx.example")
    assert RejectionsOfClient(table, 60.0, "2001:db8:1:2:9::9").known("198.51.100.25", 25, "mx.example")
    assert not RejectionsOfClient(table, 60.0, "2001:db8:1:3:9::9").known("198.51.100.25", 25, "mx.example")
