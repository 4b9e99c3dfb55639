"""A running session is in the table, in its phase, and ends when an administrator wants it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.config.tls_lines import parse_tls
from tests.unit.net.dialogue import meet, relayed
from tests.unit.net.proxy_harness import Mx, until
from tests.unit.net.tls_peers import asked, in_tls

if TYPE_CHECKING:
    import pytest

    from tests.unit.net.proxy_harness import Peer, ProxyHarness, StartProxy


async def phase(harness: ProxyHarness, name: str) -> dict[str, Any]:
    """The only session, once it is in this phase."""
    await until(lambda: [each["phase"] for each in harness.admission.sessions.listed(9)] == [name], name)
    return harness.admission.sessions.listed(9)[0]


async def data_sent(client: Peer, server: Peer) -> None:
    await relayed(client, server, "MAIL FROM:<a@c.example>", "250 ok")
    await relayed(client, server, "RCPT TO:<b@mx.example>", "250 ok")


async def test_a_session_from_its_connection_to_its_end(start_proxy: StartProxy) -> None:
    """Each phase but `connecting`, which is over at once on the loopback."""
    async with Mx() as mx, start_proxy(mx, filter_command="read x; cat", filter_processes=1) as harness:
        client = await harness.client()
        server = await mx.accept()
        seen = await phase(harness, "greeting")
        assert (seen["from"], seen["messages"], seen["client"][:10]) == (None, 0, "127.0.0.1:")
        await server.say("220 mx ESMTP")
        await client.reply()
        await phase(harness, "command")
        await client.say("EHLO c.example")
        await phase(harness, "reply")
        await server.line()
        await server.say("250 mx")
        await client.reply()
        await data_sent(client, server)
        await client.ask("DATA")
        await phase(harness, "data")
        await until(lambda: harness.admission.sessions.listed(1)[0]["from"] == "a@c.example", "the envelope")
        seen = harness.admission.sessions.listed(1)[0]
        assert (seen["to"], seen["recipients"], seen["helo"], seen["server"]) == (
            "b@mx.example",
            1,
            "c.example",
            "127.0.0.1",
        )
        assert seen["messages"] == 1
        await client.say("x\ny\n.")
        assert (await server.line()) == b"DATA"
        await phase(harness, "reply")
        await server.say("354 go")
        await server.text()
        await phase(harness, "final")
        await server.say("250 queued")
        await client.reply()
        await phase(harness, "command")
        await client.say("QUIT")
        await server.line()
        await server.say("221 bye")
        await client.reply()
        await phase(harness, "closing")
        client.close()
        await until(lambda: not harness.admission.sessions.listed(9), "the row is free")


async def test_at_the_filter_or_waiting_for_it(start_proxy: StartProxy, tmp_path: Any) -> None:
    command = f"cat; while ! test -e {tmp_path}/go; do sleep 0.02; done"
    async with Mx() as mx, start_proxy(mx, filter_command=command, filter_processes=1) as harness:
        peers = [await meet(harness, mx) for _ in range(2)]
        for client, server in peers:
            await data_sent(client, server)
            await client.ask("DATA")
            await client.say("x\n.")
        table = harness.admission.sessions
        await until(lambda: {each["phase"] for each in table.listed(9)} == {"filter", "waiting"}, "one waits")
        assert table.phases()[1] > 0
        (tmp_path / "go").touch()
        for _, server in peers:
            assert (await server.line()) == b"DATA"
        assert table.phases()[1] == 0


async def test_a_session_that_is_killed_gets_421(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await meet(harness, mx)
        other, other_server = await meet(harness, mx)
        first = next(each for each in harness.admission.sessions.listed(9) if each["id"] == harness_id(harness, 0))
        assert harness.admission.sessions.kill(first["id"])
        assert (await client.rest()) == b"421 4.3.2 Connection closed by an administrator, try again later\r\n"
        assert (await server.rest()) == b"QUIT\r\n"
        await relayed(other, other_server, "NOOP", "250 ok")
    assert any("closed by an administrator" in line and first["id"] in line for line in caplog.messages)


async def test_tls_that_is_passed_on_and_killed(start_proxy: StartProxy) -> None:
    """Nothing can be said within it: the end is a reset."""
    async with Mx() as mx, start_proxy(mx, filter_command="cat", tls=parse_tls("pass")) as harness:
        clear = await asked(harness, mx)
        await phase(harness, "tls")
        client, server = in_tls(*clear)
        assert all(await asyncio.gather(client.shake(), server.shake()))
        await phase(harness, "passing")
        await until(lambda: harness.admission.sessions.listed(1)[0]["server"] == "127.0.0.1", "the server")
        await until(lambda: harness.admission.sessions.listed(1)[0]["passed_by"] == "pass", "the Tls line")
        [seen] = harness.admission.sessions.listed(9)
        assert (seen["client_tls"], seen["server_tls"], seen["from"], seen["messages"]) == (None, None, None, 0)
        assert harness.admission.sessions.kill(seen["id"])
        assert await client.rest() == b""
        assert client.was_reset
        await until(lambda: not harness.admission.sessions.listed(9), "the row is free")


async def test_tls_from_the_first_octet_that_is_terminated_and_killed(start_proxy: StartProxy) -> None:
    """The 421 is within TLS."""
    async with Mx() as mx, start_proxy(mx, tls=parse_tls("terminate"), tls_wrapped=(mx.port,)) as harness:
        clear = await harness.client(), await mx.accept()
        await phase(harness, "tls")
        client, server = in_tls(*clear)
        assert all(await asyncio.gather(client.shake(), server.shake()))
        await phase(harness, "greeting")
        await server.say("220 mx ESMTP")
        assert (await client.reply()).startswith(b"220 ")
        await phase(harness, "command")
        table = harness.admission.sessions
        await until(lambda: table.listed(1)[0]["client_tls"] == "TLSv1.3", "both legs are shown")
        [seen] = table.listed(9)
        assert (seen["server_tls"], seen["server"]) == ("TLSv1.3/verified", "127.0.0.1")
        assert table.kill(seen["id"])
        assert (await client.reply()).startswith(b"421 4.3.2 Connection closed by an administrator")
        assert await client.rest() == b""


def harness_id(harness: ProxyHarness, number: int) -> str:
    return list(harness.proxy._connections)[number].trace_id


async def test_a_full_table_costs_no_session(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        while harness.admission.sessions.take_chunk(1):
            pass
        client, server = await meet(harness, mx)
        await relayed(client, server, "NOOP", "250 ok")
        assert harness.admission.sessions.listed(9) == []
