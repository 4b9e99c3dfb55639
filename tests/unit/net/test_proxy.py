"""One worker: which clients it accepts, where it connects, how it ends."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import resource
import socket
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.addresses import InetAddress, UnixAddress
from proxsmtp_tp.config.settings import ConnectFailure, TransparentProxy
from proxsmtp_tp.net import dialling
from tests.unit.net.dialogue import MESSAGE, MESSAGE_CODES, WHOLE, one_message
from tests.unit.net.proxy_harness import Mx, Peer, codes, until
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.net.proxy_harness import StartProxy

V4 = InetAddress("127.0.0.1", 0)
V6 = InetAddress("::1", 0)


def mx_on(kind: str, folder: Path) -> Mx:
    if kind == "unix":
        return Mx(socket.AF_UNIX, str(folder / "mx"))
    return Mx(socket.AF_INET6, ("::1", 0)) if kind == "v6" else Mx()


def listen_on(kind: str, folder: Path) -> InetAddress | UnixAddress:
    if kind == "unix":
        return UnixAddress(str(folder / "in"))
    return V6 if kind == "v6" else V4


@pytest.mark.parametrize("filter_command", [None, "cat"])
@pytest.mark.parametrize("upstream", ["v4", "v6", "unix"])
@pytest.mark.parametrize("inside", ["v4", "v6", "unix"])
async def test_a_whole_dialogue(
    start_proxy: StartProxy, tmp_path: Path, inside: str, upstream: str, filter_command: str | None
) -> None:
    model = ModelServer()
    async with (
        mx_on(upstream, tmp_path) as mx,
        start_proxy(mx, listen_on(inside, tmp_path), filter_command=filter_command) as harness,
    ):
        mx.serve(lambda: model)
        assert await one_message(await harness.client()) == MESSAGE_CODES
        await harness.empty()
    assert model.messages == [MESSAGE]
    assert model.commands[-1] == b"QUIT"


async def test_two_listeners(start_proxy: StartProxy, tmp_path: Path) -> None:
    model = ModelServer()
    async with Mx() as mx, start_proxy(mx, V4, V6, UnixAddress(str(tmp_path / "in"))) as harness:
        mx.serve(lambda: model)
        for listener in range(3):
            assert await one_message(await harness.client(listener)) == MESSAGE_CODES
    assert model.messages == [MESSAGE] * 3


async def test_a_pipelined_dialogue_in_one_piece(start_proxy: StartProxy) -> None:
    model = ModelServer()
    async with Mx() as mx, start_proxy(mx) as harness:
        mx.serve(lambda: model)
        client = await harness.client()
        await client.say(WHOLE)
        assert codes(await client.rest()) == MESSAGE_CODES
    assert model.messages == [MESSAGE]


# Who.


@pytest.mark.parametrize(
    ("networks", "greeting"), [("192.0.2.0/24 2001:db8::/32", b"554 5.7.1 "), ("127.0.0.0/8 ::1", b"220 ")]
)
@pytest.mark.parametrize("inside", [V4, V6])
async def test_only_clients_are_served(
    start_proxy: StartProxy, inside: InetAddress, networks: str, greeting: bytes
) -> None:
    clients = tuple(ipaddress.ip_network(network) for network in networks.split())
    async with Mx() as mx, start_proxy(mx, inside, clients=clients) as harness:
        mx.serve(ModelServer)
        client = await harness.client()
        assert (await client.reply()).startswith(greeting)
        await client.say(b"QUIT\r\n")
        await client.rest()


# How many.


async def test_above_the_limit_421_and_a_place_again_at_once(
    start_proxy: StartProxy, caplog: pytest.LogCaptureFixture
) -> None:
    async with Mx() as mx, start_proxy(mx, max_connections=2) as harness:
        harness.errors_expected = True
        mx.serve(ModelServer)
        first, second = await harness.client(), await harness.client()
        assert (await first.reply()).startswith(b"220")
        assert (await second.reply()).startswith(b"220")
        for _ in range(3):
            assert (await (await harness.client()).rest()).startswith(b"421 4.7.0 Too many connections")
        assert (await first.ask("QUIT")).startswith(b"221")
        first.close()
        await until(lambda: harness.admission.counts() == [1], "the place is free")
        third = await harness.client()
        assert (await third.reply()).startswith(b"220")
        assert (await second.ask("NOOP")).startswith(b"250")
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    told = [re.fullmatch(r"more than MaxConnections \(2\): (\d) connections refused; .*", line) for line in errors]
    assert sum(int(found[1]) for found in told if found) == 3
    assert len(told) <= 3


async def test_a_client_at_its_limit_gets_a_reply_and_others_are_accepted(
    start_proxy: StartProxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its share is its own again when its connections end."""
    who = ["192.0.2.1"]
    monkeypatch.setattr("proxsmtp_tp.net.proxy.client_of_address", lambda _ip: who[0])
    async with Mx() as mx, start_proxy(mx, max_connections=10) as harness:
        mx.serve(ModelServer)
        greedy = [await harness.client() for _ in range(8)]
        for client in greedy:
            assert (await client.reply()).startswith(b"220")
        for _ in range(3):
            told = await (await harness.client()).rest()
            assert told == b"421 4.7.0 Too many connections from your address, try again later\r\n"
        who[0] = "192.0.2.2"
        assert (await (await harness.client()).reply()).startswith(b"220")
        who[0] = "192.0.2.1"
        for client in greedy[:5]:
            client.close()
        await until(lambda: sum(harness.admission.counts()) == 4, "the places are free")
        assert (await (await harness.client()).reply()).startswith(b"220")
    assert re.search(r"\d connections of clients .* refused: 192\.0\.2\.1 \d", caplog.text)


@pytest.mark.parametrize("way", ["close", "reset"])
async def test_a_client_that_goes_leaves_its_place_at_once(
    start_proxy: StartProxy, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody lingers for a last reply to a client that is gone: the place would be lost to others meanwhile."""
    monkeypatch.setattr("proxsmtp_tp.net.deadlines.LINGER", 3600.0)
    async with Mx() as mx, start_proxy(mx, max_connections=1) as harness:
        mx.serve(ModelServer)
        for _ in range(3):
            client = await harness.client()
            assert (await client.reply()).startswith(b"220")
            assert (await client.ask("EHLO c.example")).startswith(b"250")
            getattr(client, way)()
            await harness.empty()


async def test_the_less_busy_worker_is_next(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, workers=2) as harness:
        mx.serve(ModelServer)
        for _ in range(10):
            assert (await (await harness.client()).reply()).startswith(b"220")
        assert harness.admission.counts() == [5, 5]


async def test_a_burst_is_spread(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, workers=2) as harness:
        mx.serve(ModelServer)
        clients = await asyncio.gather(*(harness.client() for _ in range(40)))
        for client in clients:
            assert (await client.reply()).startswith(b"220")
        counts = harness.admission.counts()
        assert sum(counts) == 40
        assert min(counts) >= 15, "one worker has nearly all"
        assert len({proxy.context.worker for proxy in harness.proxies if proxy._connections}) == 2


async def test_a_stopped_worker_delays_no_client(start_proxy: StartProxy) -> None:
    """The less busy one does not accept: the busier one does, after a moment."""
    async with Mx() as mx, start_proxy(mx, workers=2) as harness:
        mx.serve(ModelServer)
        harness.proxies[1]._stop_listening()
        for _ in range(5):
            assert (await (await harness.client()).reply()).startswith(b"220")
        assert harness.admission.counts() == [5, 0]


async def test_no_descriptor_left_while_accepting(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    """Who waits in the queue is served when there are descriptors again; nothing spins, nothing breaks."""
    async with Mx() as mx, start_proxy(mx) as harness:
        mx.serve(ModelServer)
        first = await harness.client()
        assert (await first.reply()).startswith(b"220")
        waiting = await harness.client()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        await until(lambda: harness.admission.counts() == [2], "accepted")
        assert (await waiting.reply()).startswith(b"220")
        late = socket.socket()
        late.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (late.fileno() + 1, hard))
        taken = take_all_descriptors()
        try:
            await asyncio.get_running_loop().sock_connect(late, harness.listeners[0].getsockname())
            await until(lambda: "can not accept: Too many open files" in caplog.text, "the warning")
            assert (await first.ask("NOOP")).startswith(b"250")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in taken:
                descriptor.close()
        await until(lambda: harness.admission.counts() == [3], "accepted")
        late.close()


def take_all_descriptors() -> list[socket.socket]:
    """All descriptors that may still be had."""
    taken = []
    while True:
        try:
            taken.append(socket.socket())
        except OSError:
            return taken


# Where to.


async def test_a_server_that_is_not_there_is_reported_in_place_of_a_greeting(start_proxy: StartProxy) -> None:
    async with Mx() as mx:
        address_of_nobody = mx.address
    async with start_proxy(address_of_nobody) as harness:
        told = await (await harness.client()).rest()
        assert told.startswith(b"421 4.4.1 No connection to the server: 127.0.0.1:")
        assert told.endswith(b"Connection refused\r\n")


async def test_a_server_that_is_not_there_resets_the_client(start_proxy: StartProxy) -> None:
    async with Mx() as mx:
        address_of_nobody = mx.address
    async with start_proxy(address_of_nobody, connect_failure=ConnectFailure.RESET) as harness:
        client = await harness.client()
        assert await client.rest() == b""
        assert client.was_reset


async def test_a_server_that_closes_before_its_greeting_resets_the_client(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, connect_failure=ConnectFailure.RESET) as harness:
        client = await harness.client()
        await client.say("EHLO early")
        (await mx.accept()).close()
        assert await client.rest() == b""
        assert client.was_reset


async def test_no_out_address(start_proxy: StartProxy) -> None:
    async with start_proxy(None) as harness:
        assert (await (await harness.client()).rest()).startswith(b"421 4.4.1 ")


@pytest.mark.parametrize("inside", ["v4", "v6", "unix"])
async def test_straight_to_a_transparent_listener(
    start_proxy: StartProxy, tmp_path: Path, inside: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with start_proxy(
        None, listen_on(inside, tmp_path), transparent_proxy=TransparentProxy.CLIENT, max_connections=1
    ) as harness:
        for _ in range(2):
            client = await harness.client()
            assert (await client.rest()).startswith(b"421 4.4.6 This is a transparent proxy")
            client.close()
            await harness.empty()
    assert "no original destination" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_a_connection_that_came_out_of_us_is_refused(
    start_proxy: StartProxy, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    """OutAddress is our own listener: one connection of ours comes in, and no more."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        where = InetAddress("127.0.0.1", reserved.getsockname()[1])
        reserved.close()
    async with start_proxy(InetAddress(host, where.port), where) as harness:
        client = await harness.client()
        assert (await client.rest()).startswith(b"421 4.4.6 This is a transparent proxy")
        client.close()
        await harness.empty()
    assert caplog.text.count("accepted connection from") == 2
    assert caplog.text.count("was made by this proxy: that would be a loop") == 1


async def test_a_client_with_a_port_that_one_of_our_connections_has(start_proxy: StartProxy) -> None:
    """On the address that we dial from: a client on this machine, or anyone in full transparent mode."""
    async with Mx() as mx, start_proxy(mx) as harness:
        mx.serve(ModelServer)
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        handle = harness.admission.add_upstream(0, sock.getsockname(), ("127.0.0.1", mx.port))
        client = Peer(sock)
        await asyncio.get_running_loop().sock_connect(sock, harness.listeners[0].getsockname())
        assert (await client.reply()).startswith(b"220")
        client.close()
        harness.admission.forget(0, handle)


async def test_a_connection_of_ours_that_is_recognised_late(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One worker accepts what another has just dialled, before that one could say so: asked again, it is known."""
    async with Mx() as mx, start_proxy(mx) as harness:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))

        handles: list[int] = []

        begin = dialling.Dialling.begin

        def dialled(attempt: dialling.Dialling) -> None:
            handles.append(harness.admission.add_upstream(0, sock.getsockname(), harness.listeners[0].getsockname()))
            begin(attempt)

        monkeypatch.setattr(dialling.Dialling, "begin", dialled)
        client = Peer(sock)
        await asyncio.get_running_loop().sock_connect(sock, harness.listeners[0].getsockname())
        server = await mx.accept()
        assert (await client.rest()).startswith(b"421 4.4.6 This is a transparent proxy")
        assert await server.rest() == b""
        client.close()
        harness.admission.forget(0, handles[0])
    assert "was made by this proxy: that would be a loop" in caplog.text


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
async def test_loopback_mode_back_to_the_client(start_proxy: StartProxy, family: int, host: str) -> None:
    model = ModelServer()
    async with Mx(family, (host, 0)) as mx, start_proxy(InetAddress("", mx.port), InetAddress(host, 0)) as harness:
        mx.serve(lambda: model)
        assert await one_message(await harness.client()) == MESSAGE_CODES
    assert model.messages == [MESSAGE]
