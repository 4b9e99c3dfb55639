"""Lines of the log that one client causes are bounded; what is left out is counted; the line of a message never is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.settings import FilterType
from proxsmtp_tp.net import log_limit
from proxsmtp_tp.net.log_limit import BURST, CLIENTS_MAX, LINES_PER_SECOND, OTHERS, SUMMARY_INTERVAL, LogLimit
from tests.unit.net.dialogue import MESSAGE_CODES, one_message
from tests.unit.net.proxy_harness import Mx
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from tests.unit.net.proxy_harness import StartProxy

A = "192.0.2.1"
B = "192.0.2.2"


def allowed(limit: LogLimit, client: str, lines: int, now: float = 0.0) -> int:
    return sum(limit.allows(client, now) for _ in range(lines))


def test_a_burst_and_then_so_many_a_second() -> None:
    limit = LogLimit()
    assert allowed(limit, A, 10_000) == BURST
    assert allowed(limit, A, 10_000, now=2.0) == 2 * LINES_PER_SECOND
    assert allowed(limit, A, 10_000, now=1e6) == BURST


def test_one_client_takes_nothing_from_another() -> None:
    limit = LogLimit()
    allowed(limit, A, 10_000)
    assert allowed(limit, B, 10) == 10


def test_an_ipv6_client_counts_with_its_network() -> None:
    limit = LogLimit()
    assert sum(limit.allows(f"2001:db8::{number:x}", 0.0) for number in range(5000)) == BURST
    assert limit.allows("2001:db8:0:1::1", 0.0)
    assert limit.allows("fe80::1%eth0", 0.0)


def test_omitted_lines_are_counted_in_the_log_from_time_to_time() -> None:
    limit = LogLimit()
    allowed(limit, A, int(BURST) + 7)
    allowed(limit, "", int(BURST) + 1)
    assert not list(limit.summaries(SUMMARY_INTERVAL / 2))
    assert list(limit.summaries(SUMMARY_INTERVAL)) == [
        f"client={A}: 7 log lines left out: more than 50 a second",
        "client=a unix socket: 1 log lines left out: more than 50 a second",
    ]
    assert not list(limit.summaries(3 * SUMMARY_INTERVAL))


def test_nothing_that_was_left_out_is_forgotten_at_the_end() -> None:
    limit = LogLimit()
    allowed(limit, A, int(BURST) + 7)
    assert list(limit.summaries(0.0, all_of_them=True)) == [f"client={A}: 7 log lines left out: more than 50 a second"]


def test_clients_that_are_quiet_are_forgotten() -> None:
    limit = LogLimit()
    for number in range(1000):
        limit.allows(f"10.0.{number >> 8}.{number & 255}", 0.0)
    assert not list(limit.summaries(1.0))
    assert not limit._buckets


def test_too_many_clients_share_one_bucket() -> None:
    limit = LogLimit()
    count = CLIENTS_MAX + 2 * int(BURST)
    assert sum(limit.allows(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 0.0) for n in range(count)) == CLIENTS_MAX + BURST
    assert len(limit._buckets) == CLIENTS_MAX + 1
    [said] = limit.summaries(0.0, all_of_them=True)
    assert said == f"client={OTHERS}: {int(BURST)} log lines left out: more than 50 a second"


@pytest.fixture
def small_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_limit, "BURST", 30.0)
    monkeypatch.setattr(log_limit, "LINES_PER_SECOND", 0.0)


@pytest.mark.usefixtures("small_bucket")
async def test_a_client_that_is_rejected_again_and_again(
    start_proxy: StartProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Twenty refused MAIL end a connection; the next one comes at once."""
    async with Mx() as mx, start_proxy(mx, filter_type=FilterType.REJECT) as harness:
        mx.serve(ModelServer)
        for _ in range(5):
            client = await harness.client()
            assert (await client.reply()).startswith(b"220")
            await client.say("EHLO c\n" + "\n".join(["MAIL FROM:<a@c.example>"] * 200))
            heard = await client.rest()
            assert heard.count(b"530 ") == 20
            assert b"\r\n421 4.7.0 Error: too many errors\r\n" in heard
            client.close()
        await harness.empty()
        assert len(caplog.records) == 30
    left_out = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert left_out == [f"client=127.0.0.1: {5 * 23 - 30} log lines left out: more than 0 a second"]


@pytest.mark.usefixtures("small_bucket")
async def test_each_message_has_its_line(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        mx.serve(ModelServer)
        for _ in range(40):
            assert await one_message(await harness.client()) == MESSAGE_CODES
        await harness.empty()
    assert caplog.text.count("status=RELAYED") == 40
    assert caplog.text.count("accepted connection from") == caplog.text.count("disconnected=quit") == 15


@pytest.mark.usefixtures("small_bucket")
async def test_clients_above_max_connections(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    async with Mx() as mx, start_proxy(mx, max_connections=1) as harness:
        harness.errors_expected = True
        mx.serve(ModelServer)
        first = await harness.client()
        await first.reply()
        for _ in range(50):
            client = await harness.client()
            assert (await client.rest()).startswith(b"421 4.7.0 Too many connections")
            client.close()
        first.close()
        await harness.empty()
    told = re.findall(r"more than MaxConnections \(1\): (\d+) connections refused", caplog.text)
    assert sum(map(int, told)) == 50
    assert len(told) < 30  # one a second
