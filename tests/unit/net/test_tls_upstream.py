"""The server's leg over real sockets: encrypted for a client in clear (UpstreamTls), and TLSA records."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from typing import Any

import pytest

from proxsmtp_tp.config.settings import TlsDane
from proxsmtp_tp.config.tls_lines import parse_tls, parse_upstream
from proxsmtp_tp.net.tls_resolver import Dane
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.tls.levels import TlsaState
from proxsmtp_tp.tls.tlsa import Tlsa, public_key_of
from tests.unit.net.dialogue import meet, relayed
from tests.unit.net.proxy_harness import Mx, Peer, ProxyHarness, StartProxy, until
from tests.unit.net.test_measuring import counted
from tests.unit.net.tls_legs import self_signed
from tests.unit.net.tls_peers import READY, TERMINATE, TlsPeer, asked, in_tls, send_one, server_side, source, terminated
from tests.unit.tls import hellos


class FakeResolver:
    """Says the same of every name."""

    def __init__(self, dane: Dane) -> None:
        self.dane = dane
        self.asked: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def look_up(self, name: str, port: int, server: str) -> Dane:
        """`Resolver.look_up`."""
        assert port
        assert server == "127.0.0.1"
        self.asked.append(name)
        await self.answers.wait()
        await asyncio.sleep(0)
        return self.dane


def with_resolver(harness: ProxyHarness, dane: Dane) -> FakeResolver:
    """The worker asks this one from now on."""
    tls = harness.proxy.context.tls
    assert tls is not None
    resolver = FakeResolver(dane)
    tls._resolver = resolver  # type: ignore[assignment]
    tls.asks_for_names = harness.settings.tls_dane is not TlsDane.TERMINATE
    return resolver


def records(*, right: bool) -> Dane:
    """A 3 1 1 record, of the server's key or of another one."""
    certificate = server_certificate()
    digest = hashlib.sha256(public_key_of(certificate) if right else b"another").digest()
    return Dane(TlsaState.USABLE, (Tlsa(3, 1, 1, digest),), ("mx.example",), bound=True)


def server_certificate() -> bytes:
    """The certificate of the server, in DER."""
    return ssl.PEM_cert_to_DER_cert(self_signed("mx.example").chain.decode())


async def encrypting(harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    """Our STARTTLS has its 220."""
    client, server = await meet(harness, mx, "STARTTLS", "SIZE")
    await client.say("MAIL FROM:<a@c.example>")
    assert await server.line() == b"STARTTLS"
    await server.say(READY)
    return client, server


@pytest.mark.parametrize("action", ["strip", "terminate", "pass"])
async def test_the_mail_of_a_client_in_clear_is_encrypted(action: str, start_proxy: StartProxy) -> None:
    lines = parse_tls(action)
    async with (
        Mx() as mx,
        start_proxy(mx, filter_command="cat", tls=lines, upstream_tls=parse_upstream("encrypt")) as harness,
    ):
        client, clear = await encrypting(harness, mx)
        server = TlsPeer(clear, server_side(), server_side=True, name=None)
        assert await server.shake()
        assert await server.line() == b"EHLO c.example"
        await server.say("250-mx\n250 SIZE")
        assert await server.line() == b"MAIL FROM:<a@c.example>"
        await server.say("250 ok")
        assert await client.reply() == b"250 ok"
        await relayed(client, server, "RSET", "250 ok")
        await send_one(client, server)
        client.close()
        await harness.empty()


async def test_tls_that_breaks_is_counted_for_a_client_in_clear(start_proxy: StartProxy) -> None:
    lines: dict[str, Any] = {"tls": parse_tls("terminate"), "upstream_tls": parse_upstream("encrypt")}
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **lines) as harness:
        client, clear = await encrypting(harness, mx)
        server = TlsPeer(clear, server_side(), server_side=True, name=None)
        assert await server.shake()
        assert await server.line() == b"EHLO c.example"
        await Peer.say(server, "250 in clear")
        await client.rest()
        await harness.empty()
        seen = counted(harness)["tls_total"]
    assert seen == {"server clear encrypt started": 1, "server clear none broken": 1}


async def test_a_client_in_clear_gets_a_reply_after_a_failed_handshake(start_proxy: StartProxy) -> None:
    lines: dict[str, Any] = {"tls": parse_tls("strip"), "upstream_tls": parse_upstream("encrypt")}
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **lines) as harness:
        client, server = await encrypting(harness, mx)
        await server.say(bytes((21, 3, 3, 0, 2, 2, 40)))
        assert await client.reply() == answers.closing(answers.UPSTREAM_TLS_FAILED).wire[:-2]
        assert await client.rest() == b""


@pytest.mark.parametrize("who", ["client", "server"])
async def test_nothing_is_left_of_a_reset_while_the_servers_leg_is_encrypted(who: str, start_proxy: StartProxy) -> None:
    lines: dict[str, Any] = {"tls": parse_tls("strip"), "upstream_tls": parse_upstream("encrypt")}
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **lines) as harness:
        for _ in range(5):
            client, server = await encrypting(harness, mx)
            (client if who == "client" else server).reset()
            await (server if who == "client" else client).rest()
            client.close()
            server.close()
            await harness.empty()
        assert harness.proxy.context.tls is not None
        assert not harness.proxy.context.tls.handshakes.running


@pytest.mark.parametrize("dane", [TlsDane.PASS, TlsDane.REFUSE, TlsDane.TERMINATE])
@pytest.mark.parametrize("bound", [True, False])
async def test_a_name_with_tlsa_records(dane: TlsDane, bound: bool, start_proxy: StartProxy) -> None:
    """Attack 6: a name that is not the dialled server's is no evidence."""
    async with Mx() as mx, start_proxy(mx, filter_command="cat", tls_dane=dane, **TERMINATE) as harness:
        resolver = with_resolver(harness, Dane(TlsaState.USABLE, (), (), bound=bound))
        client, server = in_tls(*await asked(harness, mx), ca="mx.example")
        shaken = [*await asyncio.gather(client.shake(), server.shake())]
        if dane is TlsDane.PASS and bound:
            assert shaken == [True, True]  # with the server's own certificate
            assert not source(harness).asked
        elif dane is TlsDane.REFUSE and bound:
            assert shaken == [False, False]
            assert "ACCESS_DENIED" in client.alert
        else:
            assert shaken == [False, True]  # our certificate is not the one that the client trusts
            assert source(harness).asked
        assert resolver.asked == ([] if dane is TlsDane.TERMINATE else ["mx.example"])


async def test_what_comes_after_the_hello_while_dns_is_asked_passes_too(start_proxy: StartProxy) -> None:
    """Early data of a client that resumes its session with the server (RFC 8446 section 4.2.10)."""
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        resolver = with_resolver(harness, Dane(TlsaState.USABLE, (), (), bound=True))
        resolver.answers.clear()
        client, server = await asked(harness, mx)
        hello = hellos.hello(hellos.server_name(b"mx.example"))
        early = b"\x17\x03\x03\0\x05early"
        await client.say(hello)
        await until(lambda: resolver.asked, "DNS is asked")
        await client.say(early)
        await asyncio.sleep(0.1)
        resolver.answers.set()
        assert await server.text(early) == hello + early


@pytest.mark.parametrize("dane", [TlsDane.PASS, TlsDane.REFUSE])
@pytest.mark.parametrize("own", ["mx.example", "another.example"])
async def test_an_own_certificate_that_the_records_name_is_shown(
    dane: TlsDane, own: str, start_proxy: StartProxy
) -> None:
    """Then a client that compares them accepts it, and is judged; with another one TlsDane says what is done."""
    async with Mx() as mx, start_proxy(mx, filter_command="cat", tls_dane=dane, **TERMINATE) as harness:
        with_resolver(harness, records(right=True))
        source(harness).own_material = self_signed(own)
        client, server = in_tls(*await asked(harness, mx), ca="mx.example")
        await asyncio.gather(client.shake(), server.shake())
        assert bool(source(harness).asked) == (own == "mx.example")
        assert ("ACCESS_DENIED" in client.alert) == (dane is TlsDane.REFUSE and own == "another.example")
        client.close()
        server.close()
        await harness.empty()


@pytest.mark.parametrize("right", [True, False])
async def test_the_level_dane_compares_the_servers_certificate(right: bool, start_proxy: StartProxy) -> None:
    lines = TERMINATE | {"tls_dane": TlsDane.TERMINATE, "upstream_tls": parse_upstream("dane")}
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **lines) as harness:
        with_resolver(harness, records(right=right))
        if right:
            client, _ = await terminated(harness, mx)
        else:
            client, server = in_tls(*await asked(harness, mx))
            assert all(await asyncio.gather(client.shake(), server.shake()))
            await client.say("EHLO c.example")
            assert (await client.reply()).startswith(b"421 4.7.5 The certificate of the server is not verified")
        assert source(harness).asked[0][1] is right
        client.close()
        await harness.empty()


async def test_tlsa_records_that_cannot_be_looked_up(start_proxy: StartProxy) -> None:
    lines = TERMINATE | {"tls_dane": TlsDane.TERMINATE, "upstream_tls": parse_upstream("dane")}
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **lines) as harness:
        with_resolver(harness, Dane(TlsaState.FAILED))
        client, server = in_tls(*await asked(harness, mx))
        assert all(await asyncio.gather(client.shake(), server.shake()))
        await client.say("EHLO c.example")
        assert (await client.reply()).startswith(b"421 4.7.5 The TLSA records of the server can not be looked up")


@pytest.mark.parametrize("fits", [True, False])
async def test_a_client_in_clear_and_the_tlsa_records_of_a_name_of_ours(fits: bool, start_proxy: StartProxy) -> None:
    """UpstreamTls: dane sni=NAME: DNS is asked for this name before MAIL, and the certificate is compared."""
    lines = TERMINATE | {"upstream_tls": parse_upstream("dane sni=mx.example")}
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **lines) as harness:
        resolver = with_resolver(harness, records(right=fits))
        client, clear = await meet(harness, mx, "STARTTLS", "SIZE")
        await client.say("MAIL FROM:<a@x>")
        assert await clear.line() == b"STARTTLS"
        await clear.say(READY)
        server = TlsPeer(clear, server_side(), server_side=True, name=None)
        assert await server.shake()
        if fits:
            assert (await server.line()).startswith(b"EHLO ")
            await server.say("250-mx\n250 SIZE")
            assert await server.line() == b"MAIL FROM:<a@x>"
            await server.say("250 2.1.0 ok")
            assert await client.reply() == b"250 2.1.0 ok"
        else:
            assert (await client.reply()).startswith(b"421 4.7.5 The certificate of the server is not verified")
        assert set(resolver.asked) == {"mx.example"}


async def test_a_client_in_clear_where_dns_does_not_answer(start_proxy: StartProxy) -> None:
    lines = TERMINATE | {"upstream_tls": parse_upstream("dane sni=mx.example")}
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **lines) as harness:
        with_resolver(harness, Dane(TlsaState.FAILED))
        client, server = await meet(harness, mx, "STARTTLS", "SIZE")
        assert await client.ask("MAIL FROM:<a@x>") == answers.UPSTREAM_TLSA_UNKNOWN.wire[:-2]
        await client.say("QUIT")
        assert await server.line() == b"QUIT"
