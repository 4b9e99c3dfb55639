"""TLS from the first octet over real sockets (TlsWrapped): nothing but TLS goes to either side."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.tls_lines import parse_tls
from proxsmtp_tp.net.original_destination import Endpoint
from tests.unit.net.proxy_harness import Mx, Peer, StartProxy
from tests.unit.net.test_measuring import counted
from tests.unit.net.tls_peers import TlsPeer, client_side, in_tls, quit_cleanly, send_one, server_side, source

if TYPE_CHECKING:
    from tests.unit.net.proxy_harness import ProxyHarness

GREETING = "220 mx.example ESMTP"


def wrapped(mx: Mx, line: str = "terminate") -> dict[str, Any]:
    """The configuration for this server."""
    return {"tls": parse_tls(line), "tls_wrapped": (mx.port,), "filter_command": "cat"}


async def both(harness: ProxyHarness, mx: Mx, ca: str = "") -> tuple[TlsPeer, TlsPeer]:
    """Client and server, ready for the handshake."""
    return in_tls(await harness.client(), await mx.accept(), ca=ca)


async def greeted(client: TlsPeer, server: TlsPeer) -> None:
    """Past EHLO within TLS; the server greets as soon as its own handshake is complete."""

    async def greet() -> None:
        assert await server.shake()
        await server.say(GREETING)

    shaken, _ = await asyncio.gather(client.shake(), greet())
    assert shaken
    assert (await client.reply()).startswith(b"220 ")
    await client.say("EHLO c.example")
    assert await server.line() == b"EHLO c.example"
    await server.say("250-mx\n250-STARTTLS\n250 SIZE")
    offered = await client.reply()
    assert b"SIZE" in offered
    assert b"STARTTLS" not in offered


async def raw_rest(peer: Peer) -> bytes:
    """All that comes in clear until the end; a reset is an end, too."""
    with suppress(ConnectionResetError):
        return await Peer.rest(peer)
    return b""


@pytest.mark.parametrize("line", ["terminate", "terminate name=mx.example\nTls: refuse"])
async def test_terminate(line: str, start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    lines = tuple(rule for each in line.split("\nTls: ") for rule in parse_tls(each))
    async with Mx() as mx, start_proxy(mx, **wrapped(mx) | {"tls": lines}) as harness:
        client, server = await both(harness, mx)
        await greeted(client, server)
        await send_one(client, server)
        await quit_cleanly(client, server)
        await harness.empty()
        assert counted(harness)["tls_total"] == {"both terminate encrypt started": 1}
    assert source(harness).asked == [(("mx.example", "mx.example"), True)]
    [message] = (line for line in caplog.messages if "status=FILTERED" in line)
    assert "client_tls=TLSv1.3, server_tls=TLSv1.3/verified" in message


async def test_a_hello_in_pieces_some_of_them_before_the_server_is_there(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, **wrapped(mx)) as harness:
        client = TlsPeer(await harness.client(), client_side(), server_side=False, name="mx.example")
        with suppress(Exception):
            client.tls.do_handshake()  # it wants to read
        hello = client._outgoing.read()
        for at in range(0, 60, 6):
            await Peer.say(client, hello[at : at + 6])
        server = TlsPeer(await mx.accept(), server_side(), server_side=True, name=None)
        for at in range(60, len(hello), 100):
            await Peer.say(client, hello[at : at + 100])
            await asyncio.sleep(0)
        await greeted(client, server)
        await send_one(client, server)


async def test_pass(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    async with Mx() as mx, start_proxy(mx, **wrapped(mx, "pass")) as harness:
        client, server = await both(harness, mx, ca="mx.example")  # it sees the server's own certificate
        assert all(await asyncio.gather(client.shake(), server.shake()))
        await server.say(GREETING)
        assert await client.reply() == GREETING.encode()
        ours, theirs = Endpoint(*server.sock.getpeername()), Endpoint(*server.sock.getsockname())
        assert not harness.admission.is_upstream(ours, theirs)  # a client with these ends would be no loop
        await client.say("MAIL FROM:<a@x>")
        assert await server.line() == b"MAIL FROM:<a@x>"
        await client.say_goodbye()
        client.finish()
        assert await server.rest() == b""
        server.close()
        await harness.empty()
        assert counted(harness)["tls_total"] == {"both pass none passed": 1}
    assert any("TLS passed on, not judged (Tls: pass): from_client=" in line for line in caplog.messages)


async def test_refuse(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, **wrapped(mx, "refuse")) as harness:
        client, server = await both(harness, mx)
        assert not await client.shake()
        assert "ACCESS_DENIED" in client.alert
        assert await raw_rest(server) == b""
        await harness.empty()


async def test_a_client_that_speaks_smtp(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    async with Mx() as mx, start_proxy(mx, **wrapped(mx)) as harness:
        client = await harness.client()
        await client.say("EHLO c.example")
        server = await mx.accept()
        assert await raw_rest(client) == b""
        assert await raw_rest(server) == b""
        await harness.empty()
    assert any("the client does not begin TLS with its first octet (TlsWrapped): " in line for line in caplog.messages)


async def test_a_server_that_speaks_smtp(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    """Before the client's hello, and in the place of its own part of the handshake."""
    async with Mx() as mx, start_proxy(mx, **wrapped(mx)) as harness:
        client = await harness.client()
        server = await mx.greeted()
        assert await raw_rest(client) == b""
        assert await raw_rest(server) == b""
        await harness.empty()
        client, server = await both(harness, mx)
        shaking = asyncio.create_task(client.shake())
        assert (await asyncio.get_running_loop().sock_recv(server.sock, 65536))[0] == 22  # a handshake record
        await Peer.say(server, GREETING)
        assert await shaking
        assert (await client.reply()).startswith(b"421 4.7.5 ")
        await client.rest()
        await harness.empty()
    assert any("the server speaks in clear where TLS begins" in line for line in caplog.messages)


async def test_a_server_that_is_not_there(start_proxy: StartProxy) -> None:
    async with Mx() as mx:
        nobody, settings = mx.address, wrapped(mx)
    async with start_proxy(nobody, **settings) as harness:
        assert await raw_rest(await harness.client()) == b""


@pytest.mark.parametrize(
    "refused",
    [
        {"clients": (ip_network("192.0.2.0/24"),)},
        {"max_connections": 1},
    ],
    ids=lambda given: next(iter(given)),
)
async def test_a_client_that_is_refused_gets_nothing_in_clear(refused: dict[str, Any], start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, **wrapped(mx) | refused) as harness:
        client = await harness.client()
        if "clients" not in refused:
            await mx.accept()
            harness.errors_expected = True  # MaxConnections is logged
            client = await harness.client()
        assert await raw_rest(client) == b""


async def test_a_client_that_rejects_our_certificate(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    async with Mx() as mx, start_proxy(mx, **wrapped(mx)) as harness:
        client, server = await both(harness, mx, ca="mx.example")
        ours, theirs = await asyncio.gather(client.shake(), server.shake())
        assert theirs
        assert not ours
        await harness.empty()
        assert counted(harness)["tls_total"] == {"client terminate none certificate_rejected": 1}
    assert any("unknown CA: the client rejects our certificate" in line for line in caplog.messages)
