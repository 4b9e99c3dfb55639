"""Having the rules refuse connections: who may ask, and what is sent when. The rules: gateway/test_unreachable.py."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.settings import ConnectFailure, Settings, TransparentProxy
from proxsmtp_tp.net import refusals
from proxsmtp_tp.net.dialling import DialError, dial
from proxsmtp_tp.net.original_destination import Endpoint
from proxsmtp_tp.net.refusals import Refusals
from tests.unit.net.proxy_harness import until

if TYPE_CHECKING:
    from collections.abc import Iterator

RULED = Settings(transparent_proxy=TransparentProxy.CLIENT, rule_interface=("eth0",), user="proxsmtp-tp")


@pytest.fixture(params=["127.0.0.1", "::1"])
def receiver(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """Who gets the datagrams here, where no rule takes them out."""
    with socket.socket(socket.AF_INET6 if ":" in request.param else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((request.param, 0))
        sock.setblocking(False)
        yield sock


def server(receiver: socket.socket) -> Endpoint:
    return Endpoint(*receiver.getsockname()[:2])


def test_a_datagram_names_the_server(receiver: socket.socket) -> None:
    Refusals(RULED).ask(server(receiver), None)
    assert receiver.recv(1) == b""


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(transparent_proxy=TransparentProxy.CLIENT, user="proxsmtp-tp"),
        Settings(transparent_proxy=TransparentProxy.OFF, rule_interface=("eth0",), user="proxsmtp-tp"),
        Settings(
            transparent_proxy=TransparentProxy.CLIENT, rule_interface=("eth0",), user="proxsmtp-tp",
            connect_failure=ConnectFailure.RESET,
        ),
    ],
    ids=["nothing", "without rules", "fixed", "reset alone"],
)  # fmt: skip
def test_nothing_is_sent_where_no_rule_listens(receiver: socket.socket, settings: Settings) -> None:
    Refusals(settings).ask(server(receiver), None)
    with pytest.raises(BlockingIOError):
        receiver.recv(1)


def test_without_a_user_only_root_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    anyone = Settings(transparent_proxy=TransparentProxy.CLIENT, rule_local=True)
    for user, heard in ((0, True), (1000, False)):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert Refusals(anyone).enabled is heard


def test_what_the_network_does_is_no_error() -> None:
    for unreachable in (Endpoint("255.255.255.255", 25), Endpoint("fe80::1%999", 25), Endpoint("198.51.100.25", 25)):
        Refusals(RULED).ask(unreachable, "2001:db8::1" if "." in unreachable.ip else None)


async def test_a_server_that_is_silent_is_named_until_it_answers(
    receiver: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "SILENCE", 0.05)
    monkeypatch.setattr(refusals, "AGAIN", 0.05)
    seen: list[bytes] = []
    loop = asyncio.get_running_loop()
    loop.add_reader(receiver.fileno(), lambda: seen.append(receiver.recv(1)))
    try:
        with Refusals(RULED).while_silent(loop, server(receiver), None):
            await until(lambda: len(seen) >= 3, "named again and again")
        await asyncio.sleep(0)
        known = len(seen)
        await asyncio.sleep(0.3)
        assert len(seen) <= known + 1  # one may have been on its way
    finally:
        loop.remove_reader(receiver.fileno())


async def test_one_that_answers_is_not_named(receiver: socket.socket) -> None:
    with Refusals(RULED).while_silent(asyncio.get_running_loop(), server(receiver), None):
        await asyncio.sleep(0.05)
    with pytest.raises(BlockingIOError):
        receiver.recv(1)


@pytest.mark.parametrize(
    ("number", "named"),
    [(errno.ECONNREFUSED, True), (errno.ENETUNREACH, True), (errno.EMFILE, False), (errno.EPERM, False)],
)
async def test_which_errors_are_the_servers(monkeypatch: pytest.MonkeyPatch, number: int, named: bool) -> None:
    """What we lack ourselves says nothing about a server."""
    target = Endpoint("127.0.0.1", 25)
    monkeypatch.setattr("proxsmtp_tp.net.dialling.socket_name", lambda *_: (_ for _ in ()).throw(OSError(number, "x")))
    with pytest.raises(DialError) as found:
        await dial([target], source=None, time_out=5, started=lambda _sock, _target: None)
    assert found.value.unreachable == ((target,) if named else ())
