"""Log level and traced clients reach a running worker."""

from __future__ import annotations

import logging
import os
import time
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.net.tracing import Tracing
from proxsmtp_tp.telemetry.switches import Switch, Switches, Traced
from tests.unit.net.dialogue import meet, relayed
from tests.unit.net.proxy_harness import Mx, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.net.proxy_harness import StartProxy

MINUTE = 60 * 1_000_000_000


@pytest.fixture(autouse=True)
def _root_level() -> Iterator[None]:
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


def traced(*networks: str) -> tuple[Traced, ...]:
    """For a minute."""
    until_ns = time.monotonic_ns() + MINUTE
    return tuple(Traced(ip_network(network), until_ns) for network in networks)


async def test_a_traced_client_is_logged_whatever_the_level_is(
    start_proxy: StartProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """A session that runs already, and one that comes later."""
    async with Mx() as mx, start_proxy(mx) as harness:
        harness.admission.switches.set(Switch.LOG_LEVEL, logging.ERROR)
        first, server = await meet(harness, mx)
        await relayed(first, server, "NOOP", "250 unseen")
        harness.admission.switches.set_traced(traced("127.0.0.0/8"))
        await until(lambda: harness.proxy.context.tracing.wants("127.0.0.1"), "the worker has looked")
        await relayed(first, server, "NOOP", "250 seen")
        second, other = await meet(harness, mx)
        await relayed(second, other, "NOOP", "250 later")
        harness.admission.switches.set_traced(())
        await until(lambda: not harness.proxy.context.tracing.wants("127.0.0.1"), "the trace has ended")
        await relayed(first, server, "NOOP", "250 unseen again")
    texts = "\n".join(caplog.messages)
    assert "unseen" not in texts
    for part in ("SERVER < 250 seen", "CLIENT > 250 seen", "accepted connection from", "SERVER < 250 later"):
        assert part in texts
    assert all(record.levelno >= logging.INFO for record in caplog.records)


def test_the_level_of_all_lines_follows_the_switch() -> None:
    switches = Switches()
    tracing = Tracing(switches)
    switches.set(Switch.LOG_LEVEL, logging.DEBUG)
    assert tracing.look()
    assert logging.getLogger().level == logging.DEBUG
    assert tracing.wants("")
    assert not tracing.look()
    switches.set(Switch.LOG_LEVEL, logging.WARNING)
    assert tracing.look()
    assert logging.getLogger().level == logging.WARNING
    assert not tracing.wants("192.0.2.1")


@pytest.mark.parametrize(
    ("client", "follows"),
    [
        ("192.0.2.7", True),
        ("192.0.3.7", False),
        ("::ffff:192.0.2.7", True),
        ("2001:db8::7", True),
        ("2001:db8:1::7", False),
        ("fe80::1%eth0", True),
        ("", False),
    ],
)
def test_who_is_traced(client: str, follows: bool) -> None:
    switches = Switches()
    switches.set_traced(traced("192.0.2.0/24", "2001:db8::/64", "fe80::1"))
    assert Tracing(switches).follows(client) is follows


def test_a_trace_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the master does not come to end it."""
    switches = Switches()
    switches.set_traced(traced("192.0.2.1"))
    tracing = Tracing(switches)
    assert tracing.follows("192.0.2.1")
    later = time.monotonic_ns() + MINUTE
    monkeypatch.setattr(time, "monotonic_ns", lambda: later)
    assert tracing.look()
    assert not tracing.follows("192.0.2.1")
    assert not tracing.look()


def test_another_process_sees_it() -> None:
    """The mapping is shared over fork."""
    switches = Switches()
    tracing = Tracing(switches)
    child = os.fork()
    if child == 0:
        switches.set_traced(traced("192.0.2.1"))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert tracing.look()
    assert tracing.follows("192.0.2.1")
