"""The limits of clients in a worker: who is counted, what counts for which limit, and what is never charged."""

from __future__ import annotations

import random
import time
from collections import Counter as Tally
from ipaddress import ip_network
from typing import Any

import pytest

from proxsmtp_tp.config.rates import AtOnce, ClientLimit, LockReply, RateLimit
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.net.client_limits import ConnectionLimits, Keys, WorkerLimits, key_of, name_of
from proxsmtp_tp.net.client_table import SERVER_BITS, WINDOW, ClientTable, Word
from proxsmtp_tp.net.gcra import SECOND
from proxsmtp_tp.net.limit_decision import ADMINISTRATOR, _windows, decide, policy_of, server_weight, show_until
from proxsmtp_tp.session.limits import Exceeded, Locked
from proxsmtp_tp.telemetry.counters import Counter

DAY = 86400
CLIENT = "192.0.2.7"


class Worker:
    """One worker with a table of its own."""

    def __init__(self, size: int = 64, **settings: Any) -> None:
        self.counted: Tally[Counter] = Tally()
        self.table = ClientTable(size, 2)
        self.table._secret = bytes([1]) * 16  # with a random one, two servers have the same bit in some runs
        self.table.begin(0)
        self.limits = WorkerLimits(Settings(**settings), self.table, 0, lambda counter: self.counted.update([counter]))

    def enter(self, ip: str = CLIENT) -> ConnectionLimits:
        return self.limits.enter(ip)

    def lock(self, ip: str, until: int, reason: int = ADMINISTRATOR) -> None:
        network = Keys(Settings()).network(ip)
        assert network is not None
        key = key_of(network)
        with self.table.changing(key):
            slot = self.table.add(key)
            assert slot is not None
            self.table.set(slot, Word.LOCKED_UNTIL, until)
            self.table.set(slot, Word.LOCK_REASON, reason)
        self.table.locks = 1


@pytest.mark.parametrize(
    ("ip", "name"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", None),
        ("::1", None),
        ("", None),
        ("198.51.100.9", None),
        ("2001:db8:ffff::1", None),
    ],
)
def test_who_is_one_client(ip: str, name: str | None) -> None:
    excepted = (ip_network("198.51.100.0/24"), ip_network("2001:db8:ffff::/48"))
    network = Keys(Settings(client_except=excepted)).network(ip)
    assert (network and name_of(network)) == name


def test_prefixes_are_configured() -> None:
    keys = Keys(Settings(client_ipv4_prefix=24, client_ipv6_prefix=48))
    networks = [keys.network(ip) for ip in ("192.0.2.7", "192.0.2.200", "2001:db8:1:2::1", "2001:db8:1:3::1")]
    assert networks[0] == networks[1] == ip_network("192.0.2.0/24")
    assert networks[2] == networks[3] == ip_network("2001:db8:1::/48")


def test_with_nothing_configured_nothing_is_written() -> None:
    worker = Worker()
    limits = worker.enter()
    assert limits.connection("198.51.100.1") is None
    assert limits.message() is None
    assert limits.recipient() is None
    assert limits.happened(ClientLimit.SPAM) is None
    limits.leave()
    assert worker.table.entries() == 0


@pytest.mark.parametrize(
    ("field", "event"),
    [
        ("client_connection_rate", lambda limits: limits.connection("")),
        ("client_messages", lambda limits: limits.message()),
        ("client_recipients", lambda limits: limits.recipient()),
    ],
)
def test_a_limit_admits_its_burst_over_all_connections_and_then_names_itself(field: str, event: Any) -> None:
    given: dict[str, Any] = {field: RateLimit(3, DAY, 3)}
    worker = Worker(**given)
    assert [event(worker.enter()) for _ in range(3)] == [None] * 3
    finding = event(worker.enter())
    assert isinstance(finding.refused, Exceeded)
    assert finding.refused.limit.field == field
    assert DAY // 3 - 5 < finding.refused.seconds <= DAY // 3
    assert event(worker.enter("192.0.2.8")) is None


def test_connections_at_once_and_what_is_refused_takes_no_place() -> None:
    worker = Worker(client_connections=AtOnce(2), lock_on=(ClientLimit.CONNECTIONS,))
    open_ = [worker.enter(), worker.enter()]
    assert [limits.connection("") for limits in open_] == [None, None]
    for _ in range(5):
        refused = worker.enter().connection("")
        assert refused is not None
        assert refused.refused == Exceeded(ClientLimit.CONNECTIONS, AtOnce(2), 0)
    assert len(worker.table.requests()) == 5
    assert worker.enter("192.0.2.8").connection("") is None
    open_[0].leave()
    assert worker.enter().connection("") is None
    assert worker.enter().connection("") is not None


def test_connections_at_once_in_shadow_form() -> None:
    worker = Worker(client_connections=AtOnce(1, shadow=True), client_connection_rate=RateLimit(2, DAY, 2))
    assert worker.enter().connection("") is None
    second, third = worker.enter().connection(""), worker.enter().connection("")
    assert second is not None
    assert third is not None
    assert second.refused is None
    assert isinstance(third.refused, Exceeded)
    assert third.refused.limit is ClientLimit.CONNECTION_RATE
    assert [shadow.limit for shadow in (*second.shadow, *third.shadow)] == [ClientLimit.CONNECTIONS] * 2


def test_rejects_refuse_later_mail_and_recipients() -> None:
    worker = Worker(client_rejects=RateLimit(2, DAY, 2))
    limits = worker.enter()
    assert limits.happened(ClientLimit.REJECTS) is None
    reached = limits.happened(ClientLimit.REJECTS)
    assert reached is not None
    assert reached == limits.happened(ClientLimit.REJECTS)
    for finding in (limits.message(), limits.recipient(), limits.happened(ClientLimit.REJECTS)):
        assert finding is not None
        assert isinstance(finding.refused, Exceeded)
        assert finding.refused.limit is ClientLimit.REJECTS
    assert limits.connection("") is None


def test_spam_refuses_later_mail_only() -> None:
    worker = Worker(client_spam=RateLimit(1, DAY, 1))
    limits = worker.enter()
    assert limits.happened(ClientLimit.SPAM) is not None
    finding = limits.message()
    assert finding is not None
    assert isinstance(finding.refused, Exceeded)
    assert finding.refused.limit is ClientLimit.SPAM
    assert limits.recipient() is None


def test_what_one_limit_refuses_is_charged_to_no_other() -> None:
    worker = Worker(client_connection_rate=RateLimit(9, DAY, 9), client_servers=RateLimit(1, DAY, 1))
    limits = worker.enter()
    slot = limits._slot
    assert slot is not None
    assert limits.connection("198.51.100.1") is None
    before = worker.table.state(slot)[Word.SEEN + 1 :], worker.table.servers(slot)
    for number in range(2, 30):
        assert worker.enter().connection(f"198.51.100.{number}") is not None
    assert (worker.table.state(slot)[Word.SEEN + 1 :], worker.table.servers(slot)) == before
    assert worker.table.connections(slot) == 1  # who is refused takes no place
    assert limits.connection("198.51.100.1") is None  # a server that is known already


def test_shadow_refuses_nothing_and_does_not_hide_another_limit() -> None:
    worker = Worker(client_spam=RateLimit(1, DAY, 1, shadow=True), client_messages=RateLimit(2, DAY, 2))
    limits = worker.enter()
    limits.happened(ClientLimit.SPAM)
    first, second, third = limits.message(), limits.message(), limits.message()
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.refused, second.refused) == (None, None)
    assert [exceeded.limit for exceeded in first.shadow] == [ClientLimit.SPAM]
    assert isinstance(third.refused, Exceeded)
    assert third.refused.limit is ClientLimit.MESSAGES


def test_a_client_without_a_slot_is_served_and_counted() -> None:
    worker = Worker(size=8, client_messages=RateLimit(1, DAY, 1))
    for number in range(8):
        worker.enter(f"192.0.2.{number}")
    limits = worker.enter("192.0.2.100")
    assert [limits.message() for _ in range(5)] == [None] * 5
    assert worker.counted == {Counter.CLIENTS_UNTRACKED: 1}
    limits.leave()


def test_leave_is_idempotent_and_afterwards_the_client_may_be_forgotten() -> None:
    worker = Worker(client_messages=RateLimit(1, DAY, 1))
    limits = worker.enter()
    slot = limits._slot
    assert slot is not None
    assert worker.table.connections(slot) == 1
    limits.leave()
    limits.leave()
    assert worker.table.connections(slot) == 0


@pytest.mark.parametrize("limited", [{}, {"client_messages": RateLimit(9, DAY, 9)}])
def test_a_lock_answers_at_the_greeting_and_at_mail_and_ends_by_itself(limited: dict[str, Any]) -> None:
    """Also of a client that was connected before it, and with no limit configured."""
    worker = Worker(lock_reply=LockReply.REFUSED, **limited)
    limits = worker.enter()
    assert limits.message() is None
    until = int(time.time()) + 100
    worker.lock(CLIENT, until)
    for finding in (limits.connection(""), limits.message(), worker.enter().message()):
        assert finding is not None
        assert finding.refused == Locked(CLIENT, show_until(until), "administrator", LockReply.REFUSED)
    assert limits.recipient() is None
    assert worker.enter("192.0.2.8").message() is None
    worker.lock(CLIENT, int(time.time()) - 1)
    assert limits.message() is None


def test_a_limit_that_locks_asks_the_master_once_for_a_connection() -> None:
    worker = Worker(
        client_rejects=RateLimit(2, DAY, 2), client_messages=RateLimit(5, DAY, 5), lock_on=(ClientLimit.REJECTS,)
    )
    limits = worker.limits.enter(CLIENT, "01JD8Q3K7C2VA")
    limits.happened(ClientLimit.REJECTS)
    assert worker.table.requests() == []
    for _ in range(10):
        limits.happened(ClientLimit.REJECTS)
    (request,) = worker.table.requests()
    assert request.trace == b"01JD8Q3K7C2VA"
    for _ in range(10):
        limits.message()  # refused because of the rejects: that is no new event, and locks nobody
    assert worker.table.requests() == []


def test_a_limit_in_shadow_form_does_not_lock() -> None:
    worker = Worker(client_messages=RateLimit(1, DAY, 1, shadow=True), lock_on=(ClientLimit.MESSAGES,))
    limits = worker.enter()
    for _ in range(5):
        limits.message()
    assert worker.table.requests() == []


# ClientServers.


@pytest.mark.parametrize("servers", [20, 100, 200, 500])
def test_the_number_of_servers_is_right_on_average(servers: int) -> None:
    chance = random.Random(servers)
    sums = []
    for _ in range(60):
        current, weighed = [0] * WINDOW, 0.0
        for _ in range(servers):
            bit = chance.randrange(SERVER_BITS)
            weighed += server_weight(current, [0] * WINDOW, bit)
            current[bit // 64] |= 1 << bit % 64
        sums.append(weighed)
    assert abs(sum(sums) / len(sums) / servers - 1) < 0.02
    assert all(abs(one / servers - 1) < 0.25 for one in sums)


def test_a_server_is_known_for_this_period_and_the_next() -> None:
    policy = policy_of(Settings(client_servers=RateLimit(1, 60, 1)))
    (rule,) = policy.connection
    words = [0] * 16
    words[Word.SERVERS_WINDOW] = 1000
    seen = [1] + [0] * (WINDOW - 1)
    empty = [0] * WINDOW

    def at(period: int) -> tuple[list[int], list[int], int]:
        return _windows(rule, words, (seen, empty), period * 60 * SECOND + 1)

    assert at(1000) == (seen, empty, 1000)
    assert at(1001) == (empty, seen, 1001)
    assert at(1002) == (empty, empty, 1002)
    assert at(999) == (empty, empty, 999)


def test_the_same_servers_again_and_again_are_no_sign_of_anything() -> None:
    worker = Worker(client_servers=RateLimit(10, DAY, 10))
    servers = [f"198.51.100.{number}" for number in range(10)]
    for _ in range(100):
        for server in servers:
            assert worker.enter().connection(server) is None
    findings = [worker.enter().connection(f"203.0.113.{number}") for number in range(50)]
    assert sum(finding is None for finding in findings) <= 5


def test_nothing_is_decided_twice_in_one_way_and_another() -> None:
    """`decide` is pure: the same words give the same answer, and it changes nothing itself."""
    policy = policy_of(Settings(client_messages=RateLimit(1, 60, 1)))
    words, now = [0] * 16, 10**15
    first = decide(policy.message, words, now)
    assert first == decide(policy.message, words, now)
    assert words == [0] * 16
    for word, value in first.changes:
        words[word] = value
    refused = decide(policy.message, words, now)
    assert refused.changes == ()
    assert refused.finding is not None
