"""TlsRejected: pass, over real sockets: what a client does that rejects our certificate, and its next attempt."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.settings import TlsRejected
from proxsmtp_tp.service.commands import commands_of
from tests.unit.net.proxy_harness import Mx, ProxyHarness, StartProxy, until
from tests.unit.net.test_measuring import counted
from tests.unit.net.test_tls_wrapped import both, wrapped
from tests.unit.net.tls_peers import TERMINATE, asked, in_tls, terminated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LEARNS: dict[str, Any] = {"tls_rejected": TlsRejected.PASS}


async def by_alert(harness: ProxyHarness, mx: Mx) -> None:
    """The CA that the client trusts is the server's, and not ours."""
    client, server = in_tls(*await asked(harness, mx), ca="mx.example")
    ours, theirs = await asyncio.gather(client.shake(), server.shake())
    assert (ours, theirs) == (False, True)
    await harness.empty()


async def by_leaving(harness: ProxyHarness, mx: Mx) -> None:
    """The client looks at the certificate after the handshake."""
    client, server = in_tls(*await asked(harness, mx))
    assert all(await asyncio.gather(client.shake(), server.shake()))
    await client.say_goodbye()
    client.close()
    await server.rest()
    await harness.empty()


async def passes(harness: ProxyHarness, mx: Mx, name: str = "mx.example") -> None:
    """The client now sees the certificate of the server, which it trusts."""
    client, server = in_tls(*await asked(harness, mx), name=name, ca="mx.example")
    assert all(await asyncio.gather(client.shake(), server.shake()))
    await client.say("EHLO c.example")
    assert await server.line() == b"EHLO c.example"
    client.close()
    server.close()
    await harness.empty()


@pytest.mark.parametrize("rejects", [by_alert, by_leaving])
@pytest.mark.parametrize("workers", [1, 2])
async def test_the_next_attempt_passes(
    rejects: Callable[[ProxyHarness, Mx], Awaitable[None]],
    workers: int,
    start_proxy: StartProxy,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", workers=workers, **TERMINATE, **LEARNS) as harness:
        await rejects(harness, mx)
        await passes(harness, mx)
        await passes(harness, mx)
        seen = counted(harness)["tls_total"]
        [(one, seconds)] = harness.admission.tls_rejections.entries()
    assert (seen["client pass none learned"], seen["both pass none passed"]) == (1, 2)
    assert (one.client, one.server, one.name) == ("127.0.0.1", "127.0.0.1", "mx.example")
    assert 14300 < seconds <= 14400
    assert sum("(Tls: terminate, TlsRejected: pass): from_client=" in line for line in caplog.messages) == 2


async def test_what_sessions_shows_of_it(start_proxy: StartProxy) -> None:
    """The Tls line of the session that passes; and that the client is known to reject, also while it is in clear."""
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE, **LEARNS) as harness:
        daemon: Any = SimpleNamespace(sessions=harness.admission.sessions, admission=harness.admission)

        def seen() -> list[tuple[str | None, bool | None]]:
            listed = commands_of(daemon)["sessions"].run({})["sessions"]
            return [(each["passed_by"], each.get("tls_rejected")) for each in listed]

        before = await asked(harness, mx)
        assert seen() == [(None, None)]
        for side in before:
            side.close()
        await harness.empty()
        await by_alert(harness, mx)
        client, server = in_tls(*await asked(harness, mx), ca="mx.example")
        assert seen() == [(None, True)]
        assert all(await asyncio.gather(client.shake(), server.shake()))
        await until(lambda: seen() == [("terminate, TlsRejected: pass", True)], "the Tls line is shown")
        client.close()
        server.close()
        await harness.empty()


async def test_with_fail_the_next_attempt_fails_too(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE) as harness:
        await by_alert(harness, mx)
        await by_alert(harness, mx)
        assert harness.admission.tls_rejections.entries() == []


async def test_another_name_is_terminated(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **TERMINATE, **LEARNS) as harness:
        await by_alert(harness, mx)
        await terminated(harness, mx, name="other.example")


async def test_after_its_time_it_is_terminated(start_proxy: StartProxy) -> None:
    lines = TERMINATE | LEARNS | {"tls_rejected_time_out": 0.05}
    async with Mx() as mx, start_proxy(mx, filter_command="cat", **lines) as harness:
        await by_alert(harness, mx)
        await asyncio.sleep(0.1)
        await terminated(harness, mx)


async def test_tls_from_the_first_octet(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, **wrapped(mx), **LEARNS) as harness:
        client, server = await both(harness, mx, ca="mx.example")
        ours, theirs = await asyncio.gather(client.shake(), server.shake())
        assert (ours, theirs) == (False, True)
        await harness.empty()
        client, server = await both(harness, mx, ca="mx.example")
        assert all(await asyncio.gather(client.shake(), server.shake()))
        await server.say("220 mx.example")
        assert await client.reply() == b"220 mx.example"
        client.close()
        server.close()
        await harness.empty()
