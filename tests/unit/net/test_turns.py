"""What one callback of the event loop may do: a bounded part of one connection's work, or some of all connections'."""

from __future__ import annotations

import asyncio
import select
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.net.proxy import SLICE
from proxsmtp_tp.session.state import Reason
from tests.unit.net.dialogue import DOT, WHOLE
from tests.unit.net.proxy_harness import Mx, until
from tests.unit.session.feeds import READ
from tests.unit.session.handlers import before_handlers
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxsmtp_tp.net.proxy import Proxy
    from tests.unit.net.proxy_harness import StartProxy

CLIENTS = 12
WAITS = "cat >/dev/null; sleep 600"


class Turns:
    """Counts the turns of the event loop."""

    number = 0
    _running = True

    def next(self) -> None:
        """Another turn, and one after it."""
        self.number += 1
        if self._running:
            asyncio.get_running_loop().call_soon(self.next)

    def end(self) -> None:
        """Count no more."""
        self._running = False


@contextmanager
def counted() -> Iterator[Turns]:
    """Turns, for a while."""
    turns = Turns()
    turns.next()
    yield turns
    turns.end()


@pytest.mark.parametrize("filter_command", [None, "cat"], ids=["relayed", "filtered"])
@pytest.mark.parametrize(
    "unit",
    [
        b"RSET\r\n",
        b"STARTTLS\r\n",
        b"BDAT 1\r\nx",
        b"\r\n",
        b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@mx.example>\r\nDATA\r\n.\r\n",
        b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@mx.example>\r\nDATA\r\n" + b"x" * 70000 + b"\r\n.\r\n",
    ],
    ids=["RSET", "STARTTLS", "BDAT", "empty", "messages", "large messages"],
)
@pytest.mark.parametrize("early", [False, True], ids=["after EHLO", "before the greeting"])
async def test_a_connection_acts_once_a_turn(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, filter_command: str | None, unit: bytes, *, early: bool
) -> None:
    """Each event, and what is left of the one before. What one may cost: tests/unit/session/test_bounds.py.

    A client's and a server's read, their full buffers and a verdict may fall into one turn of the loop, one callback
    each.
    """
    fed: Counter[int] = Counter()
    async with Mx() as mx, start_proxy(mx, filter_command=filter_command) as harness:
        mx.serve(ModelServer)
        client = await harness.client()
        if not early:
            await client.reply()
            await client.ask("EHLO c.example")
        with counted() as turns:

            def count(_d: object, _event: object) -> None:
                fed[turns.number] += 1

            before_handlers(monkeypatch, count)
            size = READ if len(unit) > 100 or filter_command is None else READ // 16  # a process for each message
            await client.say((b"EHLO c.example\r\n" if early else b"") + (unit * (size // len(unit) + 1))[:size])
            client.finish()
            await client.rest()
            await until(lambda: not harness.proxy._connections, "it ended")
    assert fed
    assert max(fed.values()) <= 6


def drain(proxy: Proxy) -> None:
    """Tells all connections."""
    proxy.drain(Reason.STOP)


def reload_and_stop(proxy: Proxy) -> None:
    """Tells them twice: the second follows the first at each connection."""
    proxy.drain(Reason.RELOAD)
    proxy.stop()


def nothing(_proxy: Proxy) -> None:
    """Time passes."""


@pytest.mark.parametrize(
    ("end", "what"),
    [
        (drain, "feed"),
        (lambda proxy: proxy.stop(), "feed"),
        (reload_and_stop, "feed"),
        (nothing, "tick"),
    ],
    ids=["drain", "stop", "reload and stop", "tick"],
)
async def test_all_connections_are_not_one_turn(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, end: Callable[[Proxy], None], what: str
) -> None:
    """Each takes as long as all may together."""
    async with Mx() as mx, start_proxy(mx, max_connections=100, filter_command=WAITS, filter_processes=1) as harness:
        mx.serve(ModelServer)
        clients = [await harness.client() for _ in range(CLIENTS)]
        for client in clients:
            assert (await client.reply()).startswith(b"220")
            if what == "tick":  # each second it is asked whether a client that has closed its half is still there
                await client.say(WHOLE)
                client.finish()
        with counted() as turns:
            done: Counter[int] = Counter()
            poll = select.poll

            def slow(*_: object) -> Any:
                done[turns.number] += 1
                time.sleep(SLICE)
                return poll()

            with monkeypatch.context() as patched:
                if what == "tick":
                    patched.setattr(select, "poll", slow)
                else:
                    before_handlers(patched, slow)
                end(harness.proxy)
                await until(lambda: done.total() >= CLIENTS, "each had its turn")
        assert max(done.values()) <= 2
        if what == "feed":
            for client in clients:
                assert (await client.rest()).startswith(b"421 4.3.2 Service shutting down")


async def test_a_client_that_connects_while_all_are_told_gets_it_once(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a reload the first transaction is still served, also for one that was accepted just before."""
    monkeypatch.setattr("proxsmtp_tp.net.proxy.SLICE", 0.0)
    async with Mx() as mx, start_proxy(mx) as harness:
        mx.serve(ModelServer)
        clients = [await harness.client() for _ in range(4)]
        for client in clients:
            assert (await client.reply()).startswith(b"220")
        late = await harness.client()
        await until(lambda: len(harness.proxy._connections) == 5, "it is accepted")
        harness.proxy.drain(Reason.RELOAD)
        clients.append(late)
        assert (await late.reply()).startswith(b"220")
        for client in clients:
            for command in ("EHLO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<b@mx.example>"):
                assert (await client.ask(command)).startswith(b"250")
            assert (await client.ask("DATA")).startswith(b"354")
            assert (await client.ask(DOT)).startswith(b"250")
            assert (await client.ask("QUIT")).startswith(b"221")
        await harness.ended()
