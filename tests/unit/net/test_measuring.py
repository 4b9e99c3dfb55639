"""What a real session counts: connections, replies, messages, recipients, octets and durations."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.net.measuring import _STATUS
from proxsmtp_tp.session import message
from proxsmtp_tp.telemetry import metrics
from proxsmtp_tp.telemetry.metrics import by_name, seconds_of
from tests.unit.net.dialogue import meet, relayed
from tests.unit.net.proxy_harness import Mx

if TYPE_CHECKING:
    from tests.unit.net.proxy_harness import ProxyHarness, StartProxy


def counted(harness: ProxyHarness) -> dict[str, dict[str, int]]:
    """What is not zero."""
    values = by_name(harness.admission.metrics.totals())
    return {
        name: {label: number for label, number in series.items() if number}
        for name, series in values.items()
        if any(series.values())
    }


async def test_one_session_with_two_messages(start_proxy: StartProxy) -> None:
    command = 'case "$(cat)" in *spam*) echo 550 5.7.1 spam >&2; exit 1;; esac; echo seen'
    async with Mx() as mx, start_proxy(mx, filter_command=command) as harness:
        client, server = await meet(harness, mx)
        for text in ("hello", "spam"):
            await relayed(client, server, "MAIL FROM:<a@c.example>", "250 ok")
            await relayed(client, server, "RCPT TO:<b@mx.example>", "250 ok")
            await relayed(client, server, "RCPT TO:<c@mx.example>", "550 no")
            await relayed(client, server, "RCPT TO:<d@mx.example>", "450 later")
            await client.ask("DATA")
            await client.say(f"{text}\n.")
            if text == "hello":
                assert await server.line() == b"DATA"
                await server.say("354 go")
                await server.text()
                await server.say("250 queued")
            else:
                assert await server.line() == b"RSET"
                await server.say("250 ok")
            await client.reply()
        seen: Any = counted(harness)
        totals = harness.admission.metrics.totals()
    assert seen["connections_total"] == {"accepted": 1}
    assert seen["messages_total"] == {"filtered": 1, "rejected": 1}
    assert seen["message_replies_total"] == {"2xx": 1, "5xx": 1}
    assert seen["message_bytes_total"] == {"": len("hello\r\n" + "spam\r\n")}
    assert seen["recipients_total"] == {"accepted": 2, "refused": 2, "deferred": 2}
    assert seen["filter_verdicts_total"] == {"pass": 1, "reject": 1}
    assert seen["replies_total"]["client 3xx"] == 2
    assert seen["replies_total"]["server 3xx"] == 1
    assert seen["replies_total"]["client 4xx"] == seen["replies_total"]["server 4xx"] == 2
    assert seen["replies_total"]["client 5xx"] == seen["replies_total"]["server 5xx"] + 1 == 3
    for histogram, number in (
        (metrics.FILTER_WAIT, 2),
        (metrics.FILTER, 2),
        (metrics.SERVER_CONNECT, 1),
        (metrics.SERVER_FINAL, 1),
        (metrics.DOT_TO_REPLY, 2),
    ):
        assert sum(seconds_of(totals, histogram)[0]) == number


async def test_connections_that_are_not_served(start_proxy: StartProxy) -> None:
    """One is refused, one has no server, and one is too many."""
    async with Mx() as mx:
        nobody = mx.address
    async with start_proxy(nobody) as harness:
        await (await harness.client()).rest()
        seen = counted(harness)
        assert seen["connections_total"] == {"no_server": 1}
        assert seen["closed_total"] == {"no_server": 1}
    async with Mx() as mx, start_proxy(mx, max_connections=1) as harness:
        harness.errors_expected = True
        await meet(harness, mx)
        await (await harness.client()).rest()
        seen = counted(harness)
        assert seen["connections_total"] == {"accepted": 1, "full": 1}
        assert seen["closed_total"] == {"full": 1}
        assert seen["replies_total"]["client 4xx"] == 1


def test_every_word_after_status_is_counted_under_a_name_of_its_own() -> None:
    """A new status of a message must not be counted as a filter that failed."""
    words = {value for name, value in vars(message).items() if name.isupper() and isinstance(value, str)}
    assert {word for word in words if re.fullmatch("[A-Z-]+", word)} | {"RELAYED"} <= set(_STATUS)


async def test_refusals_of_servers_by_what_they_refuse(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat") as harness:
        client, server = await meet(harness, mx)
        await relayed(client, server, "MAIL FROM:<spam@c.example>", "550 no")
        await relayed(client, server, "MAIL FROM:<a@c.example>", "250 ok")
        await relayed(client, server, "RCPT TO:<b@mx.example>", "450 later")
        await relayed(client, server, "RCPT TO:<c@mx.example>", "250 ok")
        await client.ask("DATA")
        await client.say("hi\n.")
        assert await server.line() == b"DATA"
        await server.say("354 go")
        await server.text()
        await server.say("554 5.7.1 spam")
        assert (await client.reply()).startswith(b"554")
        assert counted(harness)["server_refusals_total"] == {"sender": 1, "recipient": 1, "message": 1}
