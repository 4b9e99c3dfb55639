"""The end of a worker, and of a connection with an internal error: the peers get 421, and nothing is left."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.addresses import client_of_address
from proxsmtp_tp.config.settings import TransparentProxy
from proxsmtp_tp.net.connection import Connection
from proxsmtp_tp.net.proxy import Proxy
from proxsmtp_tp.session import events
from proxsmtp_tp.session.state import Reason, Wait
from tests.unit.net.dialogue import DOT, WHOLE, address, meet, relayed
from tests.unit.net.proxy_harness import WAIT_SECONDS, Mx, codes, living, until
from tests.unit.session.handlers import before_handlers
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.session.dialogue import Dialogue
    from tests.unit.net.proxy_harness import Peer, StartProxy


async def test_drain_lets_the_running_transaction_finish(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat") as harness:
        busy, server = await meet(harness, mx)
        await address(busy, server)
        assert (await busy.ask("DATA")).startswith(b"354")
        idle, idle_server = await meet(harness, mx)
        dialling = await harness.client()
        await mx.accept()
        harness.proxy.drain(Reason.STOP)
        assert (await idle.rest()).startswith(b"421 4.3.2 Service shutting down")
        assert await idle_server.rest() == b"QUIT\r\n"
        assert (await dialling.rest()).startswith(b"421 4.3.2 Service shutting down")
        await busy.say(DOT)
        assert await server.line() == b"DATA"
        await server.say("354 go")
        await server.text()
        await server.say("250 2.0.0 queued as 1")
        assert await busy.reply() == b"250 2.0.0 queued as 1"
        assert (await busy.rest()).startswith(b"421 4.3.2 Service shutting down")
        for client in harness.clients:
            client.close()
        await harness.ended()


async def test_a_drain_accepts_no_connection(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await meet(harness, mx)
        await address(client, server)
        harness.proxy.drain(Reason.STOP)
        late = await harness.client()  # in the queue of the socket, for the next worker
        await relayed(client, server, "RSET", "250 ok")
        assert (await client.rest()).startswith(b"421 4.3.2")
        client.close()
        await harness.ended()
        late.close()
        assert harness.admission.counts() == [0]


async def test_drain_has_an_end(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, drain_time_out=0.1) as harness:
        client, server = await meet(harness, mx)
        await address(client, server)
        harness.proxy.drain(Reason.STOP)
        assert (await client.rest()).startswith(b"421 4.3.2")
        assert await server.rest() == b"QUIT\r\n"
        client.close()
        await harness.ended()


async def test_stop_ends_each_connection_with_421_in_whatever_phase(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat >/dev/null; sleep 600") as harness:
        clients: list[tuple[Peer, Peer]] = []
        for lines in ("", "MAIL FROM:<a@c.example>\nRCPT TO:<b@mx.example>\nDATA\nhello", "NOOP"):
            client, server = await meet(harness, mx)
            await client.say(lines.replace("hello", f"hello\n{DOT}" if clients else "hello"))
            clients.append((client, server))
        await harness.client()
        harness.proxy.stop()
        for client, _ in clients:
            assert codes(await client.rest())[-1] == 421
            client.close()
        for client in harness.clients:
            client.close()
        await harness.ended()


async def test_a_reload_serves_who_has_come_and_ends_who_has_been_served(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx) as harness:
        harness.proxy.context.limits[Wait.QUIT] = 0.1
        served, served_server = await meet(harness, mx)
        await relayed(served, served_server, "MAIL FROM:<a@c.example>", "250 ok")
        await relayed(served, served_server, "RSET", "250 ok")
        greeted, greeted_server = await meet(harness, mx)
        dialling = await harness.client()
        dialled_server = await mx.accept()
        harness.proxy.drain(Reason.RELOAD)
        assert (await served.rest()).startswith(b"421 4.3.2 Service shutting down")
        assert await served_server.rest() == b"QUIT\r\n"
        harness.proxy.context.limits[Wait.QUIT] = WAIT_SECONDS
        await dialled_server.say("220 mx ESMTP")
        assert (await dialling.reply()).startswith(b"220")
        for client, server in ((greeted, greeted_server), (dialling, dialled_server)):
            await address(client, server)
            await relayed(client, server, "RSET", "250 ok")
        await relayed(greeted, greeted_server, "QUIT", "221 bye")
        assert await greeted.rest() == b""
        assert (await dialling.ask("NOOP")).startswith(b"421 4.3.2 Service shutting down")
        assert await dialled_server.rest() == b"QUIT\r\n"
        for client in harness.clients:
            client.close()
        await harness.ended()


async def test_a_stop_after_a_reload_ends_who_is_idle_and_keeps_the_time(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, drain_time_out=3600) as harness:
        idle, _ = await meet(harness, mx)
        busy, server = await meet(harness, mx)
        await address(busy, server)
        harness.proxy.drain(Reason.RELOAD)
        until_then = harness.proxy._draining_until
        harness.proxy.drain(Reason.STOP)
        harness.proxy.drain(Reason.RELOAD)  # too late
        assert harness.proxy.context.ending is Reason.STOP
        assert harness.proxy._draining_until == until_then
        assert (await idle.rest()).startswith(b"421 4.3.2 Service shutting down")
        await relayed(busy, server, "RSET", "250 ok")
        assert (await busy.rest()).startswith(b"421 4.3.2 Service shutting down")
        for client in harness.clients:
            client.close()
        await harness.ended()


async def test_a_reload_has_an_end(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, drain_time_out=0.1) as harness:
        client, server = await meet(harness, mx)
        harness.proxy.drain(Reason.RELOAD)
        assert (await client.rest()).startswith(b"421 4.3.2")
        assert await server.rest() == b"QUIT\r\n"
        client.close()
        await harness.ended()


def just_after(moment: str, monkeypatch: pytest.MonkeyPatch, then: Callable[[], None]) -> None:
    """Have something happen just after this method of Connection. `open` is only called then, and has not begun."""
    if moment == "open":  # compiled code calls it itself: this comes between the call and its first step

        def known(peer: str) -> str:
            asyncio.get_running_loop().call_soon(then)
            return client_of_address(peer)

        monkeypatch.setattr("proxsmtp_tp.net.proxy.client_of_address", known)
        return
    original = getattr(Connection, moment)

    def called(connection: Connection, *arguments: object) -> object:
        done = original(connection, *arguments)
        then()
        return done

    monkeypatch.setattr(Connection, moment, called)


@pytest.mark.parametrize("moment", ["open", "client_made", "server_made"])
async def test_a_reload_comes_just_when_a_client_does(
    moment: str, start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else will serve it, so it is served."""
    async with Mx() as mx, start_proxy(mx) as harness:
        just_after(moment, monkeypatch, lambda: harness.proxy.drain(Reason.RELOAD))
        client, server = await meet(harness, mx)
        await address(client, server)
        await relayed(client, server, "RSET", "250 ok")
        await relayed(client, server, "QUIT", "221 bye")
        assert await client.rest() == b""
        client.close()
        await harness.ended()


@pytest.mark.parametrize("moment", ["open", "client_made"])
@pytest.mark.parametrize("end", [lambda proxy: proxy.drain(Reason.STOP), Proxy.stop], ids=["drain", "stop"])
async def test_the_end_comes_just_when_a_client_does(
    moment: str, start_proxy: StartProxy, end: Callable[[Proxy], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets 421, and nothing is dialled for it."""
    async with Mx() as mx, start_proxy(mx) as harness:
        just_after(moment, monkeypatch, lambda: end(harness.proxy))
        client = await harness.client()
        assert (await client.rest()).startswith(b"421 4.3.2 Service shutting down")
        client.close()
        await harness.ended()
        with pytest.raises(BlockingIOError):
            mx.listener.accept()


async def test_no_process_remains_after_the_worker(start_proxy: StartProxy) -> None:
    """Also one that does not care about SIGTERM."""
    async with Mx() as mx, start_proxy(mx, filter_command="trap '' TERM; cat >/dev/null; sleep 600") as harness:
        mx.serve(ModelServer)
        client = await harness.client()
        await client.say(WHOLE)
        while len(codes(client.heard)) < 5:
            await client.line()
        await until(living, "the filter runs")
        harness.proxy.stop()
        await client.rest()
        client.close()
        await harness.ended()
        end = time.monotonic() + WAIT_SECONDS
        while living() and time.monotonic() < end:
            time.sleep(0.01)  # noqa: ASYNC251  (the loop is over: nobody's timer may help)
        assert not living()


async def test_a_connection_that_ends_just_when_its_server_is_there_closes_each_descriptor_once(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed a second time, its number may be somebody else's by then: that one's connection would break, or worse."""
    monkeypatch.setattr("proxsmtp_tp.net.deadlines.LINGER", 3600.0)
    made = Connection.server_made

    def end_first(connection: Connection, transport: object) -> None:
        connection.feed(events.Shutdown())
        made(connection, transport)

    monkeypatch.setattr(Connection, "server_made", end_first)
    async with Mx() as mx, start_proxy(mx) as harness:
        client = await harness.client()
        server = await mx.accept()
        assert (await client.rest()).startswith(b"421 4.3.2")
        assert await server.rest() == b""
        client.close()
        server.close()
        await harness.empty()
        others = [part for _ in range(10) for part in socket.socketpair()]
        gc.collect()
        for other in others:
            os.fstat(other.fileno())
            other.close()


# A bug costs one connection.


@pytest.mark.parametrize("when", ["the first bytes of the client", "every event from then on"])
async def test_a_bug_costs_one_connection(
    start_proxy: StartProxy, when: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken: list[Dialogue] = []

    def fails(d: Dialogue, event: object) -> None:
        if getattr(event, "data", b"").startswith(b"CRASH"):
            broken.append(d)
            raise ZeroDivisionError("a bug")
        if d in broken and when.startswith("every"):
            raise ZeroDivisionError("still broken")

    before_handlers(monkeypatch, fails)
    async with Mx() as mx, start_proxy(mx, max_connections=2) as harness:
        harness.errors_expected = True
        mx.serve(ModelServer)
        other = await harness.client()
        assert (await other.reply()).startswith(b"220")
        for number in range(3):
            client = await harness.client()
            assert (await client.reply()).startswith(b"220")
            await client.say("CRASH")
            assert await client.rest() == b"421 4.3.0 Internal error, try again later\r\n"
            client.close()
            await until(lambda: harness.admission.counts() == [1], "the place is free")
            assert caplog.text.count("internal error: closing") == number + 1
            assert "Traceback" in caplog.text
        assert (await other.ask("NOOP")).startswith(b"250")


async def test_a_bug_in_taking_a_client_over(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No descriptor is left to find out where the client wanted to go, for example."""

    def no_descriptor(*_: object) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("proxsmtp_tp.net.original_destination.why_refused", no_descriptor)
    async with start_proxy(None, transparent_proxy=TransparentProxy.CLIENT, max_connections=1) as harness:
        harness.errors_expected = True
        for _ in range(2):
            client = await harness.client()
            assert (await client.rest()).startswith(b"421 ")
            client.close()
            await harness.empty()
    assert "Too many open files" in caplog.text


async def test_a_client_that_resets_while_it_is_taken_over(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Mx() as mx, start_proxy(mx, max_connections=1) as harness:

        def reset_last() -> None:
            harness.clients[-1].reset()

        just_after("open", monkeypatch, reset_last)
        mx.serve(ModelServer)
        for _ in range(5):
            await harness.client()
            await harness.empty()
