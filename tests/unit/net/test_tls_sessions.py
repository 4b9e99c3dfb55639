"""STARTTLS over real sockets: terminated, passed, refused; what ends a connection, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.tls_lines import parse_tls, parse_upstream
from proxsmtp_tp.session.state import Reason
from proxsmtp_tp.smtp import answers
from tests.unit.net.dialogue import address, meet, relayed
from tests.unit.net.proxy_harness import Mx, Peer, StartProxy, descriptors, until
from tests.unit.net.test_measuring import counted
from tests.unit.net.tls_peers import (
    READY,
    TERMINATE,
    TlsPeer,
    asked,
    client_side,
    in_tls,
    quit_cleanly,
    send_one,
    server_side,
    source,
    terminated,
)

if TYPE_CHECKING:
    from tests.unit.net.proxy_harness import ProxyHarness

PASS: dict[str, Any] = {"tls": parse_tls("pass")}


def running(harness: ProxyHarness) -> int:
    """Handshakes that run now."""
    assert harness.proxy.context.tls is not None
    return harness.proxy.context.tls.handshakes.running


async def test_terminate(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        client, server = await terminated(harness, mx)
        await send_one(client, server)
        await send_one(client, server)
        await quit_cleanly(client, server)
    assert source(harness).asked == [(("mx.example", "mx.example"), True)]
    assert any("server_tls=TLSv1.3/verified, sni=mx.example" in line for line in caplog.messages)


async def test_without_a_name_the_client_gets_the_names_of_the_servers_certificate(
    start_proxy: StartProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """It then accepts or rejects the server as it would without the gateway. REQUIRETLS needs a name."""
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        client, server = await terminated(harness, mx, name=None)
        await send_one(client, server)
        await quit_cleanly(client, server)
    assert source(harness).asked == [(("mx.example",), True)]
    assert any("/trusted, sni=-" in line for line in caplog.messages)


@pytest.mark.parametrize("end", ["close_notify", "FIN alone"])
async def test_tls_1_2_on_both_legs(end: str, start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        clear, other = await asked(harness, mx)
        ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), server_side("mx.example", ssl.TLSVersion.TLSv1_2)
        ours.check_hostname, ours.verify_mode = False, ssl.CERT_NONE
        ours.maximum_version = ssl.TLSVersion.TLSv1_2
        client = TlsPeer(clear, ours, server_side=False, name="mx.example")
        server = TlsPeer(other, theirs, server_side=True, name=None)
        assert all(await asyncio.gather(client.shake(), server.shake()))
        assert client.tls.version() == server.tls.version() == "TLSv1.2"
        await send_one(client, server)
        if end == "close_notify":
            await client.say_goodbye()
        client.close()
        await server.rest()
        await harness.empty()


async def test_pass(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **PASS) as harness:
        client, server = in_tls(*await asked(harness, mx), ca="mx.example")
        assert all(await asyncio.gather(client.shake(), server.shake()))
        await client.say("EHLO c.example\nMAIL FROM:<a@x>")
        assert await server.line() == b"EHLO c.example"
        assert await server.line() == b"MAIL FROM:<a@x>"
        await server.say("250-REQUIRETLS\n250 ok")
        assert await client.reply() == b"250-REQUIRETLS\r\n250 ok"
        await client.say_goodbye()
        client.finish()
        assert await server.rest() == b""
        assert server.goodbye
        await server.say("221 bye")
        server.close()
        assert await client.rest() == b"221 bye\r\n"
        await harness.empty()
    assert any("TLS passed on, not judged (Tls: pass): from_client=" in line for line in caplog.messages)


@pytest.mark.parametrize("side", ["client", "server"])
async def test_what_is_no_tls_is_not_passed_on(side: str, start_proxy: StartProxy) -> None:
    """Attack 5: both peers agree on STARTTLS, and then speak plain SMTP."""
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **PASS) as harness:
        client, server = in_tls(*await asked(harness, mx))
        assert all(await asyncio.gather(client.shake(), server.shake()))
        first, other = (client, server) if side == "client" else (server, client)
        await super(TlsPeer, first).say("250 clear")
        heard = bytes(other.heard)
        assert await other.rest() == heard == b""
        await harness.empty()
        assert client.was_reset or side == "client"


async def test_plain_smtp_after_starttls_is_not_passed_on(start_proxy: StartProxy) -> None:
    for tls in (PASS, TERMINATE):
        async with Mx() as mx, start_proxy(mx, filter_command="cat", **tls) as harness:
            client, server = await asked(harness, mx)
            await client.say("EHLO c.example")
            assert await server.rest() == b""
            assert await client.rest() == b""
            await harness.empty()


async def test_a_server_that_answers_a_hello_in_clear(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **PASS) as harness:
        client, server = await asked(harness, mx)
        client = TlsPeer(client, client_side(), server_side=False, name="mx.example")
        shaking = asyncio.create_task(client.shake())
        assert await server._more()  # the hello
        await server.say("250 I am in clear")
        assert not await shaking
        await harness.empty()


async def test_refuse_by_name(start_proxy: StartProxy) -> None:
    lines = parse_tls("refuse name=bad.example") + parse_tls("terminate")
    async with Mx() as mx, start_proxy(mx, filter_command="cat", tls=lines) as harness:
        client, _ = in_tls(*await asked(harness, mx), name="bad.example")
        assert not await client.shake()
        assert "ACCESS_DENIED" in client.alert
        await harness.empty()
        await terminated(harness, mx)


async def test_octets_after_starttls_and_after_the_220(start_proxy: StartProxy) -> None:
    """Attacks 1 and 2."""
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        client, server = await meet(harness, mx, "STARTTLS", "SIZE")
        await client.say("STARTTLS\nMAIL FROM:<evil@x>")
        assert await client.reply() == answers.BEHIND_STARTTLS.wire[:-2]
        assert await client.rest() == b""
        assert await server.line() == b"QUIT"
        client, server = await meet(harness, mx, "STARTTLS", "SIZE")
        await client.say("STARTTLS")
        assert await server.line() == b"STARTTLS"
        harness.errors_expected = True
        await server.say(f"{READY}\n250 injected")
        assert await client.reply() == answers.SERVER_BEHIND_STARTTLS.wire[:-2]
        assert await client.rest() == b""
        await harness.empty()


async def test_a_message_in_pieces_and_a_large_one(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        client, server = await terminated(harness, mx)
        large = "Subject: large\n\n" + "\n".join("x" * 70 for _ in range(60_000))
        await send_one(client, server, f"{large}\n.", large.replace("\n", "\r\n").encode() + b"\r\n")
        client.close()
        await harness.empty()


@pytest.mark.parametrize("half", [True, False], ids=["close_notify", "FIN alone"])
async def test_the_end_within_a_message_is_never_the_end_of_it(half: bool, start_proxy: StartProxy) -> None:
    """Attack 12."""
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        client, server = await terminated(harness, mx)
        await address(client, server)
        assert (await client.ask("DATA")).startswith(b"354")
        await client.say("Subject: cut\n\nhalf of a\n")
        if half:
            await client.say_goodbye()
        client.finish()
        assert await server.rest() in {b"", b"RSET\r\n", b"QUIT\r\n"}
        await harness.empty()


@pytest.mark.parametrize("clean", [True, False], ids=["close_notify", "FIN alone"])
async def test_a_client_that_closes_its_half_still_gets_its_reply(clean: bool, start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        client, server = await terminated(harness, mx)
        await client.say("NOOP")
        assert await server.line() == b"NOOP"
        if clean:
            await client.say_goodbye()
        client.finish()
        if clean:
            await server.say("250 noop")
            assert await client.rest() == b"250 noop\r\n"
        else:
            assert await client.rest() == b""
        await harness.empty()


async def test_a_server_that_leaves_within_tls(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        client, server = await terminated(harness, mx)
        server.close()
        assert await client.reply() == answers.SERVER_LOST.wire[:-2]
        assert await client.rest() == b""
        assert client.goodbye


async def test_a_server_whose_handshake_fails(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        client, server = await asked(harness, mx)
        client = TlsPeer(client, client_side(), server_side=False, name="mx.example")
        shaking = asyncio.create_task(client.shake())
        await server.say(bytes((21, 3, 3, 0, 2, 2, 40)))
        assert await shaking
        await client.say("EHLO c.example")
        assert (await client.reply()).startswith(b"421 4.7.5 TLS is required, but TLS with the server failed")
        assert await client.rest() == b""
    assert source(harness).asked == [(("mx.example",), False)]


async def test_a_server_that_is_not_verified(start_proxy: StartProxy) -> None:
    lines = TERMINATE | {"upstream_tls": parse_upstream("verify")}
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **lines) as harness:
        client, server = in_tls(*await asked(harness, mx), name="other.example")
        assert all(await asyncio.gather(client.shake(), server.shake()))
        await client.say("EHLO c.example")
        assert (await client.reply()).startswith(b"421 4.7.5 The certificate of the server is not verified")
        assert await server.rest() == b""
    assert source(harness).asked == [(("other.example", "mx.example"), False)]


async def test_a_client_that_rejects_our_certificate(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        client, server = in_tls(*await asked(harness, mx), ca="mx.example")
        ours, theirs = await asyncio.gather(client.shake(), server.shake())
        assert theirs
        assert not ours
        await harness.empty()
        assert counted(harness)["tls_total"] == {"client terminate none certificate_rejected": 1}
    assert any("unknown CA: the client rejects our certificate" in line for line in caplog.messages)


async def test_a_client_that_leaves_after_it_has_seen_our_certificate(
    start_proxy: StartProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """As one does that compares the name after the handshake: there is no alert."""
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        client, server = in_tls(*await asked(harness, mx))
        assert all(await asyncio.gather(client.shake(), server.shake()))
        await client.say_goodbye()
        client.close()
        await server.rest()
        await harness.empty()
        seen = counted(harness)["tls_total"]
    assert seen == {"both terminate encrypt started": 1, "client terminate none unused": 1}
    assert any("it probably does not accept the certificate" in line for line in caplog.messages)


async def test_tls_that_breaks_is_counted(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        client, _server = await terminated(harness, mx)
        await Peer.say(client, "NOOP")
        await harness.empty()
        seen = counted(harness)["tls_total"]
    assert seen == {"both terminate encrypt started": 1, "client terminate none broken": 1}


async def test_a_message_and_its_session_say_how_both_legs_are(
    start_proxy: StartProxy, caplog: pytest.LogCaptureFixture
) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        client, server = await terminated(harness, mx)
        await send_one(client, server)
        table = harness.proxy.context.sessions.table
        await until(lambda: table.listed(1)[0]["client_tls"], "the table of sessions shows TLS")
        [shown] = table.listed(1)
        assert (shown["client_tls"], shown["server_tls"]) == ("TLSv1.3", "TLSv1.3/verified")
    [line] = (line for line in caplog.messages if "status=FILTERED" in line)
    assert ", client_tls=TLSv1.3, server_tls=TLSv1.3/verified, changed=" in line


async def test_no_certificate(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        source(harness).missing = "none"
        client, server = in_tls(*await asked(harness, mx))
        ours, theirs = await asyncio.gather(client.shake(), server.shake())
        assert theirs
        assert not ours
        assert "INTERNAL_ERROR" in client.alert
        await harness.empty()
    assert any("there is no certificate for it: none" in line for line in caplog.messages)


async def test_another_protocol_gets_no_certificate(start_proxy: StartProxy) -> None:
    """Attack 9."""
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        peer, _ = await asked(harness, mx)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2", "http/1.1"])
        client = TlsPeer(peer, context, server_side=False, name="mx.example")
        assert not await client.shake()
        assert client.raw == bytes((21, 3, 3, 0, 2, 2, 120))  # the alert, and nothing else
        await harness.empty()


async def test_the_handshake_has_a_deadline(start_proxy: StartProxy) -> None:
    lines = TERMINATE | {"tls_handshake_time_out": 0.3}
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **lines) as harness:
        client, server = await asked(harness, mx)
        assert await client.rest() == b""
        assert await server.rest() == b""
        client, server = in_tls(*await asked(harness, mx))
        assert not await client.shake()  # the server never answers
        await harness.empty()


async def test_handshakes_are_limited(start_proxy: StartProxy) -> None:
    """Attack 17."""
    lines = TERMINATE | {"tls_handshakes": 2}
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **lines) as harness:
        first, second = await asked(harness, mx), await asked(harness, mx)
        client, server = await meet(harness, mx, "STARTTLS", "SIZE")
        assert await client.ask("STARTTLS") == answers.closing(answers.TLS_BUSY).wire[:-2]
        assert await client.rest() == b""  # it cannot go on in clear
        assert await server.line() == b"QUIT"
        peers = in_tls(*first)
        assert all(await asyncio.gather(*(peer.shake() for peer in peers)))
        second[0].reset()
        await until(lambda: not running(harness), "no handshake runs")
        await asked(harness, mx)


async def test_a_drain_ends_terminated_connections_and_lets_passed_ones_go_on(start_proxy: StartProxy) -> None:
    lines = parse_tls("pass name=pass.example") + parse_tls("terminate")
    async with Mx() as mx, start_proxy(mx, filter_command="cat", tls=lines, drain_time_out=2) as harness:
        client, _ = await terminated(harness, mx)
        passed, server = in_tls(*await asked(harness, mx), name="pass.example")
        assert all(await asyncio.gather(passed.shake(), server.shake()))
        harness.proxy.drain(Reason.STOP)
        assert await client.reply() == answers.SHUTTING_DOWN.wire[:-2]
        await passed.say("NOOP")
        assert await server.line() == b"NOOP"
        await harness.ended()
        assert await passed.rest() == b""
        assert passed.was_reset


async def test_an_envelope_in_clear_is_forgotten_within_tls(start_proxy: StartProxy) -> None:
    """Nothing of it is sent again, and the server decides about DATA without one (RFC 3207 section 4.2)."""
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        clear, other = await meet(harness, mx, "STARTTLS", "SIZE")
        await relayed(clear, other, "MAIL FROM:<a@c.example>", "250 ok")
        await relayed(clear, other, "RCPT TO:<b@mx.example>", "250 ok")
        await relayed(clear, other, "STARTTLS", READY)
        client, server = in_tls(clear, other)
        assert all(await asyncio.gather(client.shake(), server.shake()))
        await relayed(client, server, "DATA", "503 5.5.1 MAIL first")
        await client.say("EHLO c.example")
        assert await server.line() == b"EHLO c.example"
        await server.say("250 mx")
        assert await client.reply() == b"250 smtp.passthru"
        await send_one(client, server)
        await quit_cleanly(client, server)


async def test_logins_that_are_bound_to_the_clients_tls_are_not_shown(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        client, server = in_tls(*await asked(harness, mx))
        assert all(await asyncio.gather(client.shake(), server.shake()))
        await client.say("EHLO c.example")
        assert await server.line() == b"EHLO c.example"
        await server.say("250-mx\n250 AUTH EXTERNAL SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN")
        assert await client.reply() == b"250-smtp.passthru\r\n250 AUTH PLAIN"
        await quit_cleanly(client, server)


ROUNDS = 200
STEPS = ["starttls", "ready", "hello", "server", "tls", "ehlo"]


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("step", STEPS)
async def test_nothing_is_left_of_a_connection_that_is_reset(
    step: str, who: str, start_proxy: StartProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """After 200 rounds: no task, descriptor, filter, and no more objects in memory. What is left fails the fixture."""
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:

        async def rounds(number: int) -> tuple[int, int, Counter[str]]:
            for _ in range(number):
                client, server = await reached(step, harness, mx)
                (client if who == "client" else server).reset()
                if who == "server" and isinstance(client, TlsPeer) and step in {"hello", "server"}:
                    await client.shake()  # it hears of it within TLS
                await (client if who == "server" else server).rest()
                client.close()
                server.close()
                await harness.empty()
            assert not running(harness)
            for kept in (caplog, mx.peers, harness.clients):
                kept.clear()
            return len(asyncio.all_tasks()), len(descriptors()), in_memory()

        before = await rounds(ROUNDS // 10)  # fills caches
        after = await rounds(ROUNDS)
        assert after[:2] <= before[:2]
        assert after[2] - before[2] == Counter()


def in_memory() -> Counter[str]:
    """How many objects of each class of ours, of TLS and of the event loop there are."""
    gc.collect()
    kinds = (type(each) for each in gc.get_objects())
    names = (f"{kind.__dict__.get('__module__')}.{kind.__qualname__}" for kind in kinds)
    return Counter(name for name in names if name.startswith(("proxsmtp_tp.", "ssl.", "asyncio.", "uvloop.")))


async def reached(step: str, harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    """Client and server after this step."""
    if step == "ehlo":
        return await terminated(harness, mx)
    if step == "starttls":
        client, server = await meet(harness, mx, "STARTTLS", "SIZE")
        await client.say("STARTTLS")
        assert await server.line() == b"STARTTLS"
        return client, server
    clear, other = await asked(harness, mx)
    if step == "ready":
        return clear, other
    client, server = in_tls(clear, other)
    with suppress(ssl.SSLWantReadError):
        client.tls.do_handshake()
    await client.flush()
    if step == "hello":
        assert await server._feed()
    elif step == "server":
        assert await server.shake()
    else:
        assert all(await asyncio.gather(client.shake(), server.shake()))
    return client, server
