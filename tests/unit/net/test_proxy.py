"""One worker's share: whom it accepts, where it connects, how it ends."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import resource
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.addresses import InetAddress, UnixAddress
from proxsmtp_tp.config.settings import TransparentProxy
from proxsmtp_tp.session.session import Session
from tests.unit.net.dialogue import DOT, MESSAGE, MESSAGE_CODES, WHOLE, address, meet, one_message, relayed
from tests.unit.net.stage import PATIENCE, Mx, children, codes, until
from tests.unit.session.world import ModelServer

if TYPE_CHECKING:
    from tests.unit.net.stage import OpenStage, Peer, Stage

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
    open_stage: OpenStage, tmp_path: Path, inside: str, upstream: str, filter_command: str | None
) -> None:
    model = ModelServer()
    async with (
        mx_on(upstream, tmp_path) as mx,
        open_stage(mx, listen_on(inside, tmp_path), filter_command=filter_command) as stage,
    ):
        mx.serve(lambda: model)
        assert await one_message(await stage.client()) == MESSAGE_CODES
        await stage.empty()
    assert model.messages == [MESSAGE]
    assert model.commands[-1] == b"QUIT"


async def test_two_listeners(open_stage: OpenStage, tmp_path: Path) -> None:
    model = ModelServer()
    async with Mx() as mx, open_stage(mx, V4, V6, UnixAddress(str(tmp_path / "in"))) as stage:
        mx.serve(lambda: model)
        for listener in range(3):
            assert await one_message(await stage.client(listener)) == MESSAGE_CODES
    assert model.messages == [MESSAGE] * 3


async def test_a_pipelined_dialogue_in_one_piece(open_stage: OpenStage) -> None:
    model = ModelServer()
    async with Mx() as mx, open_stage(mx) as stage:
        mx.serve(lambda: model)
        client = await stage.client()
        await client.say(WHOLE)
        assert codes(await client.rest()) == MESSAGE_CODES
    assert model.messages == [MESSAGE]


# Who.


@pytest.mark.parametrize(
    ("networks", "greeting"), [("192.0.2.0/24 2001:db8::/32", b"554 5.7.1 "), ("127.0.0.0/8 ::1", b"220 ")]
)
@pytest.mark.parametrize("inside", [V4, V6])
async def test_only_clients_are_served(
    open_stage: OpenStage, inside: InetAddress, networks: str, greeting: bytes
) -> None:
    clients = tuple(ipaddress.ip_network(network) for network in networks.split())
    async with Mx() as mx, open_stage(mx, inside, clients=clients) as stage:
        mx.serve(ModelServer)
        client = await stage.client()
        assert (await client.reply()).startswith(greeting)
        await client.say(b"QUIT\r\n")
        await client.rest()


# How many.


async def test_past_the_limit_421_and_room_again_at_once(open_stage: OpenStage) -> None:
    async with Mx() as mx, open_stage(mx, max_connections=2) as stage:
        mx.serve(ModelServer)
        first, second = await stage.client(), await stage.client()
        assert (await first.reply()).startswith(b"220")
        assert (await second.reply()).startswith(b"220")
        for _ in range(3):
            assert (await (await stage.client()).rest()).startswith(b"421 4.7.0 Too many connections")
        assert (await first.ask("QUIT")).startswith(b"221")
        first.close()
        await until(lambda: stage.admission.counts() == [1], "the place is free")
        third = await stage.client()
        assert (await third.reply()).startswith(b"220")
        assert (await second.ask("NOOP")).startswith(b"250")


@pytest.mark.parametrize("way", ["close", "reset"])
async def test_a_client_that_goes_leaves_its_place_at_once(
    open_stage: OpenStage, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody lingers for a last reply to a client that is gone: the place would be lost to others meanwhile."""
    monkeypatch.setattr("proxsmtp_tp.net.connection.LINGER", 3600.0)
    async with Mx() as mx, open_stage(mx, max_connections=1) as stage:
        mx.serve(ModelServer)
        for _ in range(3):
            client = await stage.client()
            assert (await client.reply()).startswith(b"220")
            assert (await client.ask("EHLO c.example")).startswith(b"250")
            getattr(client, way)()
            await stage.empty()


async def test_a_burst_is_spread(open_stage: OpenStage) -> None:
    async with Mx() as mx, open_stage(mx, workers=2) as stage:
        mx.serve(ModelServer)
        clients = await asyncio.gather(*(stage.client() for _ in range(40)))
        for client in clients:
            assert (await client.reply()).startswith(b"220")
        counts = stage.admission.counts()
        assert sum(counts) == 40
        assert min(counts) >= 15, "one worker has nearly all"
        assert len({proxy.worker for proxy in stage.proxies if proxy._connections}) == 2


async def test_a_worker_that_is_stuck_keeps_nobody_waiting(open_stage: OpenStage) -> None:
    """The less busy one does not accept: the busier one does, after a moment."""
    async with Mx() as mx, open_stage(mx, workers=2) as stage:
        mx.serve(ModelServer)
        stage.proxies[1]._stop_listening()
        for _ in range(5):
            assert (await (await stage.client()).reply()).startswith(b"220")
        assert stage.admission.counts() == [5, 0]


async def test_no_descriptor_left_while_accepting(open_stage: OpenStage, caplog: pytest.LogCaptureFixture) -> None:
    """Who waits in the queue is served when there are descriptors again; nothing spins, nothing breaks."""
    async with Mx() as mx, open_stage(mx) as stage:
        mx.serve(ModelServer)
        first = await stage.client()
        assert (await first.reply()).startswith(b"220")
        waiting = await stage.client()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        await until(lambda: stage.admission.counts() == [2], "accepted")
        assert (await waiting.reply()).startswith(b"220")
        late = socket.socket()
        late.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (late.fileno() + 1, hard))
        hogs = hog_descriptors()
        try:
            await asyncio.get_running_loop().sock_connect(late, stage.listeners[0].getsockname())
            await until(lambda: "can not accept: Too many open files" in caplog.text, "the warning")
            assert (await first.ask("NOOP")).startswith(b"250")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for hog in hogs:
                hog.close()
        await until(lambda: stage.admission.counts() == [3], "accepted")
        late.close()


def hog_descriptors() -> list[socket.socket]:
    """All descriptors that may still be had."""
    hogs = []
    while True:
        try:
            hogs.append(socket.socket())
        except OSError as error:
            assert error.errno == errno.EMFILE
            return hogs


# Where to.


async def test_nobody_there_is_told_in_place_of_a_greeting(open_stage: OpenStage) -> None:
    async with Mx() as mx:
        address_of_nobody = mx.address
    async with open_stage(address_of_nobody) as stage:
        told = await (await stage.client()).rest()
        assert told.startswith(b"421 4.4.1 No connection to the server: 127.0.0.1:")
        assert told.endswith(b"Connection refused\r\n")
        await stage.empty()


async def test_no_out_address(open_stage: OpenStage) -> None:
    async with open_stage(None) as stage:
        assert (await (await stage.client()).rest()).startswith(b"421 4.4.1 ")


@pytest.mark.parametrize("inside", ["v4", "v6", "unix"])
async def test_straight_to_a_transparent_listener(
    open_stage: OpenStage, tmp_path: Path, inside: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_stage(
        None, listen_on(inside, tmp_path), transparent_proxy=TransparentProxy.CLIENT, max_connections=1
    ) as stage:
        for _ in range(2):
            client = await stage.client()
            assert (await client.rest()).startswith(b"421 4.4.6 This is a transparent proxy")
            client.close()
            await stage.empty()
    assert "no original destination" in caplog.text


async def test_a_connection_that_came_out_of_us_is_refused(
    open_stage: OpenStage, caplog: pytest.LogCaptureFixture
) -> None:
    """OutAddress is our own listener: one connection of ours comes in, and no more."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        where = InetAddress("127.0.0.1", reserved.getsockname()[1])
        reserved.close()
    async with open_stage(where, where) as stage:
        client = await stage.client()
        assert (await client.rest()).startswith(b"421 4.4.6 This is a transparent proxy")
        client.close()
        await stage.empty()
    assert caplog.text.count("accepted connection from") == 2
    assert caplog.text.count("came out of this proxy: that would be a loop") == 1


async def test_loopback_mode_back_to_the_client(open_stage: OpenStage) -> None:
    model = ModelServer()
    async with Mx() as mx, open_stage(InetAddress("", mx.port)) as stage:
        mx.serve(lambda: model)
        assert await one_message(await stage.client()) == MESSAGE_CODES
    assert model.messages == [MESSAGE]


# The end.


async def test_drain_lets_the_running_transaction_finish(open_stage: OpenStage) -> None:
    async with Mx() as mx, open_stage(mx, filter_command="cat") as stage:
        busy, server = await meet(stage, mx)
        await address(busy, server)
        assert (await busy.ask("DATA")).startswith(b"354")
        idle, idle_server = await meet(stage, mx)
        dialling = await stage.client()
        await mx.accept()
        stage.proxy.drain()
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
        for client in stage.clients:
            client.close()
        await stage.ended()


async def test_drain_accepts_nobody(open_stage: OpenStage) -> None:
    async with Mx() as mx, open_stage(mx) as stage:
        client, server = await meet(stage, mx)
        await address(client, server)
        stage.proxy.drain()
        late = await stage.client()  # in the queue of the socket, for the next worker
        await relayed(client, server, "RSET", "250 ok")
        assert (await client.rest()).startswith(b"421 4.3.2")
        client.close()
        await stage.ended()
        late.close()
        assert stage.admission.counts() == [0]


async def test_drain_has_an_end(open_stage: OpenStage) -> None:
    async with Mx() as mx, open_stage(mx, drain_time_out=0.1) as stage:
        client, server = await meet(stage, mx)
        await address(client, server)
        stage.proxy.drain()
        assert (await client.rest()).startswith(b"421 4.3.2")
        assert await server.rest() == b"QUIT\r\n"
        client.close()
        await stage.ended()


async def test_stop_ends_each_connection_with_421_in_whatever_phase(open_stage: OpenStage) -> None:
    async with Mx() as mx, open_stage(mx, filter_command="cat >/dev/null; sleep 600") as stage:
        clients: list[tuple[Peer, Peer]] = []
        for lines in ("", "MAIL FROM:<a@c.example>\nRCPT TO:<b@mx.example>\nDATA\nhello", "NOOP"):
            client, server = await meet(stage, mx)
            await client.say(lines.replace("hello", f"hello\n{DOT}" if clients else "hello"))
            clients.append((client, server))
        await stage.client()
        stage.proxy.stop()
        for client, _ in clients:
            assert codes(await client.rest())[-1] == 421
            client.close()
        for client in stage.clients:
            client.close()
        await stage.ended()


@pytest.mark.parametrize("ending", ["drain", "stop"])
async def test_the_end_comes_just_when_a_client_does(
    open_stage: OpenStage, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepted, and not taken over yet: it is told, and nothing is dialled for it."""
    from proxsmtp_tp.net.connection import Connection

    opened = Connection.open
    stage: Stage

    async def open_late(connection: Connection) -> None:
        getattr(stage.proxy, ending)()
        await opened(connection)

    monkeypatch.setattr(Connection, "open", open_late)
    async with Mx() as mx, open_stage(mx) as stage:
        client = await stage.client()
        assert (await client.rest()).startswith(b"421 4.3.2 Service shutting down")
        client.close()
        await stage.ended()
        with pytest.raises(BlockingIOError):
            mx.listener.accept()


async def test_no_process_outlives_the_worker(open_stage: OpenStage) -> None:
    """Also one that does not care about SIGTERM."""
    async with Mx() as mx, open_stage(mx, filter_command="trap '' TERM; cat >/dev/null; sleep 600") as stage:
        mx.serve(ModelServer)
        client = await stage.client()
        await client.say(WHOLE)
        while len(codes(client.heard)) < 5:
            await client.line()
        await until(living_children, "the filter runs")
        stage.proxy.stop()
        await client.rest()
        client.close()
        await stage.ended()
        end = time.monotonic() + PATIENCE
        while living_children() and time.monotonic() < end:
            time.sleep(0.01)  # noqa: ASYNC251  (the loop is over: nobody's timer may help)
        assert not living_children()


def living_children() -> list[str]:
    """Processes of ours that run: what a worker that exits leaves to others."""
    states = {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in children()}
    return [pid for pid, state in states.items() if state != "Z"]


# A bug costs one connection.


@pytest.mark.parametrize("when", ["the first bytes of the client", "every event from then on"])
async def test_a_bug_costs_one_connection(
    open_stage: OpenStage, when: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    feed = Session.feed
    broken: list[Session] = []

    def feed_badly(session: Session, event: object) -> object:
        if getattr(event, "data", b"").startswith(b"CRASH"):
            broken.append(session)
            raise ZeroDivisionError("a bug")
        if session in broken and when.startswith("every"):
            raise ZeroDivisionError("still broken")
        return feed(session, event)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "feed", feed_badly)
    async with Mx() as mx, open_stage(mx, max_connections=2) as stage:
        stage.errors_expected = True
        mx.serve(ModelServer)
        other = await stage.client()
        assert (await other.reply()).startswith(b"220")
        for number in range(3):
            client = await stage.client()
            assert (await client.reply()).startswith(b"220")
            await client.say("CRASH")
            assert await client.rest() == b"421 4.3.0 Internal error, try again later\r\n"
            client.close()
            await until(lambda: stage.admission.counts() == [1], "the place is free")
            assert caplog.text.count("internal error: closing") == number + 1
            assert "Traceback" in caplog.text
        assert (await other.ask("NOOP")).startswith(b"250")


async def test_a_bug_in_taking_a_client_over(
    open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No descriptor is left to find out where the client wanted to go, for example."""

    def no_descriptor(*_: object) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("proxsmtp_tp.net.connection.original_destination", no_descriptor)
    async with open_stage(None, transparent_proxy=TransparentProxy.CLIENT, max_connections=1) as stage:
        stage.errors_expected = True
        for _ in range(2):
            client = await stage.client()
            assert (await client.rest()).startswith(b"421 ")
            client.close()
            await stage.empty()
    assert "Too many open files" in caplog.text


async def test_a_client_that_resets_while_it_is_taken_over(
    open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from proxsmtp_tp.net.connection import Connection

    opened = Connection.open
    stage: Stage

    async def open_late(connection: Connection) -> None:
        stage.clients[-1].reset()
        await opened(connection)

    monkeypatch.setattr(Connection, "open", open_late)
    async with Mx() as mx, open_stage(mx, max_connections=1) as stage:
        mx.serve(ModelServer)
        for _ in range(5):
            await stage.client()
            await stage.empty()
