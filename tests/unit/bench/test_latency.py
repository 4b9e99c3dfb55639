"""bench.latency: the sender in C against real servers; the rates of each subject."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, ClassVar

import pytest

from bench import latency
from bench.latency import LatencySample, OpenLoop, Times
from bench.measuring import LoadError, Pace
from bench.processes import free_port
from bench.subjects import Setting, Subject, bare_relay, sink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT = 60.0


@pytest.fixture(scope="module")
def sender(tmp_path_factory: pytest.TempPathFactory) -> OpenLoop:
    return OpenLoop(latency.compiled_sender(tmp_path_factory.mktemp("sender")), sessions=4)


class Server(asyncio.Protocol):
    """Takes mail, and says nothing for `stops` seconds after its tenth message. `text`: of the last message."""

    stops = 0.0
    refuses = b""
    messages = 0
    text = b""
    ended: asyncio.Event
    transports: ClassVar[list[asyncio.Transport]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.transports.append(transport)
        self._left = b""
        transport.write(b"220 here\r\n")

    def data_received(self, data: bytes) -> None:
        self._left += data
        while (found := self._left.partition(b"\r\n.\r\n" if self._left.startswith(b"From:") else b"\r\n"))[1]:
            said, _, self._left = found
            if said.startswith(b"From:"):
                Server.text = said
                Server.messages += 1
                if Server.messages == 10 and Server.stops:
                    import time

                    time.sleep(Server.stops)
            verb = said[:4]
            refused = verb == Server.refuses
            replies = {b"DATA": b"354 go", b"QUIT": b"221 bye", b"EHLO": b"250-here\r\n250 PIPELINING"}
            self._transport.write((b"452 no" if refused else replies.get(verb, b"250 ok")) + b"\r\n")


@pytest.fixture
def server() -> Iterator[int]:
    """Its port."""
    Server.stops, Server.refuses, Server.messages = 0.0, b"", 0
    Server.transports.clear()
    port = free_port()
    loop = asyncio.new_event_loop()
    listening = threading.Event()

    async def serve() -> None:
        Server.ended = asyncio.Event()
        listener = await loop.create_server(Server, "127.0.0.1", port)
        listening.set()
        await Server.ended.wait()
        listener.close()
        for transport in Server.transports:
            transport.abort()
        await asyncio.sleep(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert listening.wait(WAIT)
    yield port
    loop.call_soon_threadsafe(Server.ended.set)
    thread.join(WAIT)
    loop.close()


def test_mails_go_at_the_rate_and_all_of_them_are_timed(sender: OpenLoop, server: int) -> None:
    seconds, took = sender.send(server, 100, 50)
    assert len(took) == Server.messages == 50
    assert seconds >= 49 / 100
    assert all(each > 0 for each in took)
    header, _, body = Server.text.partition(b"\r\n\r\n")
    assert header.startswith(b"From: <a@example.org>\r\n")
    assert len(body) == latency.SIZE - 1
    assert {len(line) for line in body.split(b"\r\n")[:-1]} == {78}


def test_who_stops_makes_all_mails_late_that_were_due_meanwhile(sender: OpenLoop, server: int) -> None:
    """A sender that waits for replies would have one slow mail for each of its 4 sessions."""
    Server.stops = 1.0
    took = sender.send(server, 100, 200)[1]
    assert sum(each > 400_000 for each in took) >= 50


def test_without_a_rate_all_mails_are_due_at_the_start(sender: OpenLoop, server: int) -> None:
    Server.stops = 1.0
    seconds, took = sender.send(server, 0, 100)
    assert max(took) <= seconds * 1e6 + 1
    assert sum(each >= 900_000 for each in took) >= 85  # all but those before the tenth, and their sessions


@pytest.mark.parametrize("verb", [b"EHLO", b"MAIL", b"RCPT", b"DATA", b"From"])
def test_a_refusal_is_an_error(sender: OpenLoop, server: int, verb: bytes) -> None:
    Server.refuses = verb
    with pytest.raises(LoadError, match=r"refused in step .: 452 no"):
        sender.send(server, 100, 10)


def test_a_missing_server_is_an_error(sender: OpenLoop) -> None:
    with pytest.raises(LoadError, match="Connection refused"):
        sender.send(free_port(), 100, 10)


def test_a_relay_beside_the_sink(sender: OpenLoop, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with sink(tmp_path) as direct, bare_relay(Setting(tmp_path, direct.port), "relay") as relay:
        found = latency.measured(sender, direct, [relay], Pace(1, 0.1, lambda _: None))
    assert found.failures == []
    assert found.highest["relay"] > 0
    assert {each.load for each in found.samples} >= {"10 %", "80 %"}
    for each in found.samples:
        assert each.through.p50 <= each.through.p99 <= each.through.highest
        assert each.added_p50 == each.through.p50 - each.direct.p50


def test_a_subject_that_fails_is_left_out(sender: OpenLoop, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with sink(tmp_path) as direct:
        found = latency.measured(sender, direct, [Subject("absent", free_port(), 0)], Pace(1, 0.1, lambda _: None))
    assert found.samples == []
    assert [(each.subject, each.load) for each in found.failures] == [("absent", "latency")]


def test_each_subject_has_shares_of_its_own_rate_and_the_common_rates_that_it_can_take() -> None:
    assert latency.rates_of({"fast": 1000.0, "slow": 50.0}, [60.0, 40.0, 900.0, 0.0]) == {
        "fast": [("10 %", 100.0), ("80 %", 800.0), ("60/s", 60.0), ("40/s", 40.0), ("900/s", 900.0)],
        "slow": [("10 %", 5.0), ("80 %", 40.0), ("40/s", 40.0)],
    }


def test_what_is_added_may_be_less_than_nothing_on_a_busy_machine() -> None:
    each = LatencySample("a", "10 %", 0, 1.0, 20, Times(1.0, 2.0, 3.0), Times(2.0, 4.0, 6.0))
    assert (each.added_p50, each.added_p99) == (-1.0, -2.0)


def test_output_without_mails_is_an_error() -> None:
    with pytest.raises(LoadError, match="no mail"):
        latency.parsed("0.5\n")
