"""The upstream connection: every address of a name, each for a limited time, from whose address, and what is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from proxsmtp_tp.config.addresses import Address, InetAddress, UnixAddress
from proxsmtp_tp.net import dialling
from proxsmtp_tp.net.dialling import DialError, candidates, dial
from proxsmtp_tp.net.opening import OpeningOwner, _AcceptedSide
from proxsmtp_tp.net.original_destination import Endpoint
from proxsmtp_tp.net.sides import ServerSide
from tests.unit.net.dialogue import MESSAGE, MESSAGE_CODES, one_message
from tests.unit.net.proxy_harness import Mx, descriptors, has_upstreams, until
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.net.proxy_harness import StartProxy

NAME = "mx.example"


class Loop:
    """The running loop as `dialling` sees it, with something of our own in it: uvloop's methods can not be patched."""

    def __init__(self, **own: Any) -> None:
        self._own = own

    def get_running_loop(self) -> Loop:
        """In place of the module asyncio."""
        return self

    def __getattr__(self, name: str) -> Any:
        if name in self._own:
            return self._own[name]
        loop = asyncio.get_running_loop()
        return getattr(loop, name) if hasattr(loop, name) else getattr(asyncio, name)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the resolver knows."""
    known: dict[str, list[str]] = {}

    async def look_up(host: str, port: int, **more: Any) -> Any:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [entry for ip in known[host] for entry in socket.getaddrinfo(ip, port, **more)]

    monkeypatch.setattr(dialling, "asyncio", Loop(getaddrinfo=look_up))
    return known


@pytest.fixture
def silent() -> Iterator[InetAddress]:
    """An address that answers nothing: its listener's queue is full, so the kernel drops what comes (listen(2))."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield InetAddress("127.0.0.1", listener.getsockname()[1])


def nothing(_sock: socket.socket, _target: Endpoint | str) -> None:
    """Nobody wants to know."""


async def test_addresses_need_no_resolver(names: dict[str, list[str]]) -> None:
    assert await candidates(InetAddress("192.0.2.1", 25)) == [Endpoint("192.0.2.1", 25)]
    assert await candidates(InetAddress("2001:db8::1", 25)) == [Endpoint("2001:db8::1", 25)]
    assert await candidates(UnixAddress("/run/mx")) == ["/run/mx"]


async def test_a_name_has_addresses_in_their_order_each_once(names: dict[str, list[str]]) -> None:
    names[NAME] = ["2001:db8::1", "192.0.2.7", "192.0.2.1", "192.0.2.7"]
    found = await candidates(InetAddress(NAME, 25))
    assert found == [Endpoint("2001:db8::1", 25), Endpoint("192.0.2.7", 25), Endpoint("192.0.2.1", 25)]


async def test_a_name_has_a_link_local_address(names: dict[str, list[str]]) -> None:
    """As multicast DNS says it, with its interface."""
    names[NAME] = ["fe80::1%lo"]
    assert await candidates(InetAddress(NAME, 25)) == [Endpoint(f"fe80::1%{socket.if_nametoindex('lo')}", 25)]


async def test_an_unknown_name(names: dict[str, list[str]]) -> None:
    with pytest.raises(DialError, match=r"mx\.example: .*not known"):
        await candidates(InetAddress(NAME, 25))


async def test_a_name_is_looked_up_for_each_connection(names: dict[str, list[str]]) -> None:
    for ip in ("192.0.2.1", "192.0.2.2"):
        names[NAME] = [ip]
        assert await candidates(InetAddress(NAME, 25)) == [Endpoint(ip, 25)]


@pytest.mark.parametrize("dead", [["127.0.0.2"], ["::1", "127.0.0.2", "127.0.0.3"]])
async def test_the_first_address_is_dead(start_proxy: StartProxy, names: dict[str, list[str]], dead: list[str]) -> None:
    model = ModelServer()
    names[NAME] = [*dead, "127.0.0.1"]
    async with Mx() as mx, start_proxy(InetAddress(NAME, mx.port)) as harness:
        mx.serve(lambda: model)
        assert await one_message(await harness.client()) == MESSAGE_CODES
    assert model.messages == [MESSAGE]


async def test_the_first_address_does_not_answer(silent: InetAddress, names: dict[str, list[str]]) -> None:
    async with Mx(where=("127.0.0.3", silent.port)) as mx:
        targets: list[Endpoint | str] = [Endpoint(silent.host, silent.port), Endpoint("127.0.0.3", mx.port)]
        sock, server = await dial(targets, source=None, time_out=0.05, started=nothing)
        sock.close()
        assert server == "127.0.0.3"


async def test_every_address_is_named_with_its_reason(silent: InetAddress) -> None:
    with pytest.raises(DialError) as caught:
        await dial(
            [Endpoint(silent.host, silent.port), Endpoint("127.0.0.2", silent.port), "/nowhere/mx"],
            source=None,
            time_out=0.05,
            started=nothing,
        )
    first, second, third = str(caught.value).split("; ")
    assert first == f"127.0.0.1:{silent.port}: no answer within 0.05 s (ConnectTimeOut)"
    assert second == f"127.0.0.2:{silent.port}: Connection refused"
    assert third == "/nowhere/mx: No such file or directory"


async def test_the_client_learns_of_a_server_that_does_not_answer(start_proxy: StartProxy, silent: InetAddress) -> None:
    async with start_proxy(silent, connect_time_out=0.1) as harness:
        told = await (await harness.client()).rest()
        assert told.startswith(b"421 4.4.1 No connection to the server: ")
        assert b"no answer within 0.1 s" in told


async def test_no_address_at_all() -> None:
    with pytest.raises(DialError, match="no address"):
        await dial([], source=None, time_out=1, started=nothing)


@pytest.mark.parametrize("way", ["close", "reset"])
async def test_a_client_that_goes_while_we_dial(start_proxy: StartProxy, silent: InetAddress, way: str) -> None:
    """The attempt is given up with a reset; a client that only closed its half may still learn how it ended."""
    async with start_proxy(silent, connect_time_out=0.3, max_connections=1) as harness:
        for _ in range(3):
            client = await harness.client()
            await until(lambda: has_upstreams(harness.admission), "it dials")
            getattr(client, way)()
            await harness.empty()


@pytest.mark.parametrize("seconds", [0.0, 0.001])
async def test_given_up_at_the_moment_it_is_decided(seconds: float) -> None:
    """Cancelled when the socket is connected already; nothing is left of it, whoever is first."""
    async with Mx(where=("127.0.0.3", 0)) as mx:
        before = len(descriptors())
        for _ in range(20):
            waiting = asyncio.create_task(
                dial([Endpoint("127.0.0.3", mx.port)], source=None, time_out=1, started=nothing)
            )
            await asyncio.sleep(seconds)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                (await waiting)[0].close()
        await until(lambda: len(descriptors()) <= before, "all are closed")


async def test_one_that_gives_up_does_not_disturb_others() -> None:
    """Two are connected at once; the first one that is told cancels the other. A bug in a callback stays its own."""
    loop = asyncio.get_running_loop()
    waiting = dialling.Waiting(loop, 1)
    told: list[object] = []
    async with Mx(where=("127.0.0.3", 0)) as mx:
        attempts: list[dialling.Dialling] = []

        def done(found: dialling.Dialled) -> None:
            told.append(found)
            for attempt in attempts:
                attempt.cancel()

        targets: list[Endpoint | str] = [Endpoint("127.0.0.3", mx.port)]
        attempts += [dialling.Dialling(targets, waiting, None, nothing, done) for _ in range(2)]
        for attempt in attempts:
            attempt.begin()
        time.sleep(0.05)  # noqa: ASYNC251  (both are connected before the loop looks)
        await until(lambda: told, "one is told")
        await asyncio.sleep(0.05)
        assert len(told) == 1
        told[0][0].close()  # type: ignore[index]
    waiting.close()


async def test_a_bug_after_the_start_is_reported(silent: InetAddress) -> None:
    """As a result, for the second target too: the event loop would only log it."""

    def started(_sock: socket.socket, target: Endpoint | str) -> None:
        if target == Endpoint("127.0.0.2", silent.port):
            raise ValueError("more connections than there can be")

    targets: list[Endpoint | str] = [Endpoint(ip, silent.port) for ip in ("127.0.0.4", "127.0.0.2")]
    with pytest.raises(ValueError, match="more connections"):
        await dial(targets, source=None, time_out=1, started=started)


async def test_the_next_timer_is_set_when_one_has_passed(silent: InetAddress) -> None:
    loop = asyncio.get_running_loop()
    waiting = dialling.Waiting(loop, 0.05)
    told: list[dialling.Dialled] = []
    for _ in range(2):
        dialling.Dialling([Endpoint(silent.host, silent.port)], waiting, None, nothing, told.append).begin()
        await asyncio.sleep(0.02)
    await until(lambda: len(told) == 2, "both had their time")
    waiting.close()
    waiting.close()


async def test_nothing_is_left_of_attempts_that_failed(silent: InetAddress) -> None:
    await asyncio.sleep(0)
    before = len(descriptors())
    for _ in range(5):
        with pytest.raises(DialError):
            await dial([Endpoint(silent.host, silent.port), "/nowhere/mx"], source=None, time_out=0.01, started=nothing)
    assert len(descriptors()) == before


async def test_our_end_point_is_known_before_the_server_answers(silent: InetAddress) -> None:
    """Else a connection that the firewall turns back to us would not be recognised."""
    seen: list[tuple[str, int]] = []
    target = Endpoint(silent.host, silent.port)

    def started(sock: socket.socket, dialled: Endpoint | str) -> None:
        assert dialled == target
        seen.append(sock.getsockname())

    with pytest.raises(DialError):
        await dial([target], source=None, time_out=0.01, started=started)
    [(ip, port)] = seen
    assert ip == "127.0.0.1"
    assert port


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
async def test_an_exchange_waits_for_no_timer(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, ip: str
) -> None:
    """Both sockets of a session have TCP_NODELAY, and are non-blocking."""
    made: list[tuple[int, bool]] = []

    def seen(side: _AcceptedSide | ServerSide, transport: asyncio.BaseTransport) -> None:
        if isinstance(side, ServerSide):
            side.owner.server_made(transport)
        else:
            side.owner.client_made(transport)
            cast("OpeningOwner", side.owner).client_opened()
        with socket.socket(fileno=socket.dup(transport.get_extra_info("socket").fileno())) as sock:
            made.append((sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), os.get_blocking(sock.fileno())))

    for side in (_AcceptedSide, ServerSide):
        monkeypatch.setattr(side, "connection_made", seen)
    async with (
        Mx(socket.AF_INET6 if ":" in ip else socket.AF_INET, (ip, 0)) as mx,
        start_proxy(InetAddress(ip, mx.port)) as harness,
    ):
        mx.serve(ModelServer)
        assert await one_message(await harness.client()) == MESSAGE_CODES
    assert made == [(1, False), (1, False)]


@pytest.mark.parametrize("address", [InetAddress("127.0.0.1", 1), UnixAddress("/nowhere/mx")])
async def test_the_client_learns_of_an_unreachable_address(
    start_proxy: StartProxy, address: Address, tmp_path: Path
) -> None:
    async with start_proxy(address) as harness:
        told = await (await harness.client()).rest()
        assert told.startswith(f"421 4.4.1 No connection to the server: {address}: ".encode())
