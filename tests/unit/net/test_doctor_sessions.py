"""The sessions of doctor are silent: no line, no event, nothing counted. Nobody else's are."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.addresses import UnixAddress
from proxsmtp_tp.net.doctor_sessions import is_of_doctor
from proxsmtp_tp.net.original_destination import Endpoint
from proxsmtp_tp.service.commands import commands_of
from proxsmtp_tp.service.control import ControlError
from proxsmtp_tp.service.log_levels import LogLevels
from proxsmtp_tp.telemetry.switches import Switch, Switches, mark_of_port, mark_of_process
from tests.unit.net.dialogue import address, meet
from tests.unit.net.proxy_harness import Mx, Peer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.net.proxy_harness import ProxyHarness, StartProxy

MINUTE = 60 * 10**9
GATEWAY = "192.0.2.1"


def switches(*marks: int, seconds: float = 60) -> Switches:
    made = Switches()
    until = time.monotonic_ns() + int(seconds * 10**9)
    made.set(Switch.PROBE_UNTIL, until)
    for mark in marks:
        made.expect_doctor(mark, until)
    return made


@pytest.mark.parametrize(
    ("client", "port", "announced", "silent"),
    [
        ("198.18.254.10", 40000, (), True),  # the client of the probe
        ("::ffff:198.18.254.10", 40000, (), True),
        ("2001:2:0:fe03::2", 40000, (), True),
        ("198.18.254.5", 40000, (), True),  # this host's own mail in a probe
        ("127.0.0.1", 40000, (40000,), True),
        ("127.0.0.1", 40001, (40000,), False),
        ("::ffff:127.0.0.1", 40000, (1, 2, 40000, 3), True),
        ("::1", 40000, (40000,), True),
        (GATEWAY, 40000, (40000,), True),  # a listener on this address
        ("192.0.2.7", 40000, (40000,), False),  # another host, with the same port
        ("fe80::7%eth0", 40000, (40000,), False),
        ("127.0.0.1", 40000, (), False),
        ("127.0.0.1", 40000, tuple(range(40000, 40008)), True),
        ("127.0.0.1", 40000, tuple(range(40000, 40009)), False),  # the oldest of nine is forgotten
    ],
)
def test_who_is_doctor(client: str, port: int, announced: tuple[int, ...], silent: bool) -> None:
    marks = [mark_of_port(each) for each in announced]
    with socket.socket() as sock:
        now, over = switches(*marks), switches(*marks, seconds=-1)
        assert is_of_doctor(now, sock, Endpoint(client, port), GATEWAY) is silent
        assert not is_of_doctor(over, sock, Endpoint(client, port), GATEWAY)


def test_a_process_at_a_unix_socket() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert is_of_doctor(switches(mark_of_process(os.getpid())), one, None, "")
        assert not is_of_doctor(switches(mark_of_process(1)), one, None, "")
        assert not is_of_doctor(switches(mark_of_port(os.getpid() & 0xFFFF)), one, None, "")


def test_an_end_that_is_over_is_not_in_force_again() -> None:
    """A later announcement makes the time of all longer, and not that of an earlier one."""
    made = switches(mark_of_port(7), seconds=-0.1)
    made.expect_doctor(mark_of_port(8), time.monotonic_ns() + MINUTE)
    assert [made.is_doctor(mark_of_port(port), time.monotonic_ns()) for port in (7, 8)] == [False, True]


async def whole_session(client: Peer, server: Peer) -> None:
    """A message that the server refuses, and one that it takes."""
    for said in ("550 no", "250 2.0.0 ok"):
        await address(client, server)
        assert (await client.ask("DATA")).startswith(b"354")
        await client.say("hi\n.")
        assert await server.line() == b"DATA"
        await server.say("354 go")
        await server.text()
        await server.say(said)
        await client.reply()
    client.close()
    await server.rest()


def counted(harness: ProxyHarness) -> list[int]:
    admission = harness.admission
    return [*admission.metrics.totals(), *admission.counters.totals().values()]


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("announced", [True, False])
async def test_a_session_of_doctor(
    start_proxy: StartProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, announced: bool
) -> None:
    caplog.set_level("INFO")
    path, listen = tmp_path / "events", [UnixAddress(str(tmp_path / "listen"))] if kind == "unix" else []
    made: dict[str, Any] = {"event_log": str(path), "filter_command": "cat"}
    async with Mx() as mx, start_proxy(mx, *listen, **made) as harness:
        sock = socket.socket(harness.listeners[0].family)
        sock.setblocking(False)
        mark = mark_of_process(os.getpid())
        if kind == "tcp":
            sock.bind(("", 0))
            mark = mark_of_port(sock.getsockname()[1])
        if announced:
            harness.admission.switches.expect_doctor(mark, time.monotonic_ns() + MINUTE)
        await asyncio.get_running_loop().sock_connect(sock, harness.listeners[0].getsockname())
        client = Peer(sock)
        harness.clients.append(client)
        server = await mx.greeted()
        await client.reply()
        await client.say("EHLO c.example")
        await server.line()
        await server.say("250 mx")
        await client.reply()
        await whole_session(client, server)
        await harness.empty()
        silent = not caplog.messages and not path.exists() and not any(counted(harness))
        assert silent is announced
        before = counted(harness)
        await whole_session(*await meet(harness, mx)) if kind == "tcp" else None  # the next one is not doctor's
        await harness.empty()
        assert (counted(harness) != before) is (kind == "tcp")
        assert path.exists() is (not announced or kind == "tcp")


def test_doctor_announces_and_leaves_no_line() -> None:
    class Daemon:
        levels = LogLevels(Switches(), None, 2)

    command = commands_of(Daemon())["probe"]  # type: ignore[arg-type]
    for name, number, mark in (("port", 40000, mark_of_port(40000)), ("pid", 7, mark_of_process(7))):
        request = {"command": "probe", "seconds": 5, name: number}
        command.run(request)
        assert Daemon.levels._switches.is_doctor(mark, time.monotonic_ns())
        assert not Daemon.levels._switches.is_doctor(mark, time.monotonic_ns() + 6 * 10**9)
        assert not command.changes(request)
        for wrong in ("x", True, 0, 1 << 22):
            with pytest.raises(ControlError, match=f"is no {name}"):
                command.run(request | {name: wrong})
    assert command.changes({"command": "probe", "seconds": 5})
