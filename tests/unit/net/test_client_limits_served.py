"""Limits of clients and locks through the whole proxy: the replies, the places, the counters."""

from __future__ import annotations

import json
import time
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.rates import ClientLimit, RateLimit
from proxsmtp_tp.config.settings import LogAddresses
from proxsmtp_tp.net.client_table import Word
from proxsmtp_tp.telemetry import addresses
from proxsmtp_tp.telemetry.counters import Counter
from tests.unit.net.dialogue import meet, one_message, relayed
from tests.unit.net.proxy_harness import Mx
from tests.unit.session.models import ModelServer
from tests.unit.telemetry.test_events import KINDS, check

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.net.proxy_harness import ProxyHarness, StartProxy

DAY = 86400
CLIENT = "127.0.0.1"


@pytest.fixture(autouse=True)
def _from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of these tests come from the loopback, where nobody has limits."""
    monkeypatch.setattr(IPv4Address, "is_loopback", False)


def counted(harness: ProxyHarness) -> dict[Counter, int]:
    return {counter: number for counter, number in harness.admission.counters.totals().items() if number}


async def test_connections_over_the_rate_are_refused_before_the_server_learns_of_them(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, client_connection_rate=RateLimit(2, DAY, 2)) as harness:
        for _ in range(2):
            await meet(harness, mx)
        refused = await harness.client()
        answer = await refused.rest()
        assert answer.startswith(b"421 4.7.1 Too many connections from your address (ClientConnectionRate), try again")
        assert refused.trace_ids
        assert len(mx.peers) == 2
        assert counted(harness) == {Counter.LIMITED_CONNECTION_RATE: 1}


async def test_the_place_of_a_client_is_free_when_its_connection_has_ended(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, client_messages=RateLimit(9, DAY, 9)) as harness:
        mx.serve(ModelServer)
        table = harness.admission.clients
        client = await harness.client()
        await client.reply()
        slot = table.find(bytes(10) + b"\xff\xff\x7f\x00\x00\x01")
        assert slot is not None
        assert table.connections(slot) == 1
        client.reset()
        await harness.empty()
        assert table.connections(slot) == 0


async def test_messages_over_the_limit_get_450_and_the_session_goes_on(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, client_messages=RateLimit(1, DAY, 1)) as harness:
        mx.serve(ModelServer)
        await one_message(await harness.client())
        client = await harness.client()
        await client.reply()
        await client.ask("EHLO c.example")
        answer = await client.ask("MAIL FROM:<a@c.example>")
        assert answer.startswith(b"450 4.7.1 Too many messages from your address (ClientMessages), try again in ")
        assert (await client.ask("QUIT")).startswith(b"221")
        assert counted(harness) == {Counter.LIMITED_MESSAGES: 1}


async def test_rejected_recipients_end_in_450_and_the_master_is_asked_for_a_lock(start_proxy: StartProxy) -> None:
    settings: dict[str, Any] = {"client_rejects": RateLimit(1, DAY, 1), "lock_on": (ClientLimit.REJECTS,)}
    async with Mx() as mx, start_proxy(mx, **settings) as harness:
        client, server = await meet(harness, mx)
        await relayed(client, server, "MAIL FROM:<a@c.example>", "250 ok")
        await relayed(client, server, "RCPT TO:<b@mx.example>", "550 5.1.1 unknown")
        answer = await client.ask("RCPT TO:<c@mx.example>")
        assert answer.startswith(b"450 4.7.1 Servers have refused too many recipients of your address (ClientRejects)")
        (request,) = harness.admission.clients.requests()
        assert [request.trace.decode()] == client.trace_ids
        await client.ask("RCPT TO:<d@mx.example>")
        assert harness.admission.clients.requests() == []  # what is refused for it is no new event


async def test_a_locked_client_is_refused_with_reason_time_and_id(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        table = harness.admission.clients
        key = bytes(10) + b"\xff\xff\x7f\x00\x00\x01"
        with table.changing(key):
            slot = table.add(key)
            assert slot is not None
            table.set(slot, Word.LOCKED_UNTIL, int(time.time()) + 100)
            table.set(slot, Word.LOCK_REASON, 6)
        table.locks = 1
        client = await harness.client()
        answer = await client.rest()
        assert answer.startswith(b"421 4.7.1 127.0.0.1 is locked until ")
        assert answer.endswith(b"Z (ClientSpam)\r\n")
        assert len(client.trace_ids) == 1
        assert mx.peers == []
        assert counted(harness) == {Counter.LIMITED_LOCKED: 1}


async def test_events_tell_limits_and_no_address(start_proxy: StartProxy, tmp_path: Path) -> None:
    """One event for a limit and a session; the transaction has its limits, too; LogAddresses holds for all of them."""
    log = tmp_path / "events"
    settings: dict[str, Any] = {
        "client_recipients": RateLimit(1, DAY, 1, shadow=True),
        "client_messages": RateLimit(2, DAY, 2),
        "event_log": str(log),
        "log_addresses": LogAddresses.NONE,
    }
    addresses.use(addresses.Addresses(addresses.none))
    try:
        async with Mx() as mx, start_proxy(mx, **settings) as harness:
            mx.serve(ModelServer)
            client = await harness.client()
            await client.reply()
            await client.ask("EHLO c.example")
            for _ in range(2):
                await client.ask("MAIL FROM:<anncanary@c.example>")
                await client.ask("RCPT TO:<bobcanary@mx.example>")
                await client.ask("DATA")
                assert (await client.ask("Subject: canary\n\nhi\n.")).startswith(b"250")
            for _ in range(2):
                assert (await client.ask("MAIL FROM:<anncanary@c.example>")).startswith(b"450")
            await client.ask("QUIT")
            await harness.empty()
    finally:
        addresses.use(addresses.Addresses())
    seen = [json.loads(line) for line in log.read_text().splitlines()]
    for event in seen:
        check(event, KINDS[event["event"]])
    assert [event["event"] for event in seen] == ["message", "limit", "message", "limit"]
    assert "limits" not in seen[0]
    shadow = {"name": "ClientRecipients", "action": "shadow", "value": "1/1d shadow"}
    assert {**seen[1]["limit"], "seconds": 0} == {**shadow, "seconds": 0}
    assert [{**limit, "seconds": 0} for limit in seen[2]["limits"]] == [{**shadow, "seconds": 0}]
    assert (seen[3]["limit"]["name"], seen[3]["limit"]["action"]) == ("ClientMessages", "defer")
    assert len({event["id"] for event in seen}) == 1
    assert "canary" not in log.read_text()
