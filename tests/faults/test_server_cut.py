"""Promises 1 and 3: the server disconnects, after each octet that it sends or reads in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.cuts import FINAL, LENGTH, ObservedServer, RecordingServer, Script, hear, play, play_all, speak
from tests.unit.net.proxy_harness import Mx

if TYPE_CHECKING:
    from tests.faults.cuts import Result
    from tests.unit.net.proxy_harness import Peer, StartProxy

GREETING = b"220 mx\r\n"
SPOKEN = len(GREETING + b"250-mx\r\n250-PIPELINING\r\n250 HELP\r\n" + b"250 ok\r\n" * 2)
SPOKEN += len(b"354 go\r\n" + b"250 2.0.0 queued\r\n" + b"221 bye\r\n")
"""Octets that the server says in a whole dialogue."""

BOTH_PATHS = pytest.mark.parametrize("filter_command", [None, "cat"], ids=["streamed", "filtered"])
BOTH_WAYS = pytest.mark.parametrize("way", ["close", "reset"])
BURST = pytest.mark.parametrize("burst", [False, True], ids=["step by step", "in one piece"])


class Cutter:
    """Each connection is cut one octet later than the one before."""

    def __init__(self, way: str, *, hearing: bool) -> None:
        self.way = way
        self.hearing = hearing
        self._next = 0
        self.cuts: dict[int, int] = {}
        """Where each connection was cut, by the identity of its ObservedServer."""

    async def __call__(self, peer: Peer, observed: ObservedServer) -> None:
        """One connection."""
        at = self._next
        self._next += 1
        self.cuts[id(observed)] = at
        await (self._cut_hearing if self.hearing else self._cut_speaking)(peer, observed, at)
        if self.way == "reset":
            peer.reset()

    async def _cut_speaking(self, peer: Peer, observed: ObservedServer, at: int) -> None:
        going = await speak(peer, observed, GREETING, at)
        while going and (data := await hear(peer)):
            going = await speak(peer, observed, observed.receive(data), at)

    async def _cut_hearing(self, peer: Peer, observed: ObservedServer, at: int) -> None:
        await speak(peer, observed, GREETING, None)
        heard = 0
        while heard < at and (data := await hear(peer)):
            await speak(peer, observed, observed.receive(data[: at - heard]), None)
            heard += len(data)


def judge(server: RecordingServer, scripts: list[Script], results: list[Result]) -> int:
    """What must hold wherever it was cut. How many messages came out."""
    for script, result in zip(scripts, results, strict=True):
        delivered = server.delivered(script.number)
        assert delivered in ([], [script.message]), script.number
        assert result.told[-1] in {221, 421}, result.told
        if result.accepted:
            assert delivered, script.number
            assert [w.confirmed for w in server.observed if w.number == script.number] == [True], script.number
        elif len(result.told) > FINAL:
            assert result.told[FINAL] // 100 == 4, result.told
    return sum(bool(server.delivered(script.number)) for script in scripts)


@BOTH_PATHS
@BOTH_WAYS
@BURST
async def test_the_server_is_cut_after_each_octet(
    start_proxy: StartProxy, way: str, burst: bool, filter_command: str | None
) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command=filter_command) as harness:
        server = RecordingServer(mx, Cutter(way, hearing=False))
        scripts = [Script(number) for number in range(SPOKEN + 1)]
        results = await play_all(play(harness, script, way="finish", burst=burst) for script in scripts)
        await harness.empty()
        await server.quiet()
        came_out = judge(server, scripts, results)
        # It had all of the message from the reply to the end of data on, whatever of that reply was heard.
        assert came_out >= len(b"250 2.0.0 queued\r\n221 bye\r\n")
        assert sum(result.accepted for result in results) >= (0 if way == "reset" else len(b"221 bye\r\n"))


@BOTH_PATHS
@BOTH_WAYS
@BURST
async def test_the_server_is_cut_at_every_octet_that_it_gets(
    start_proxy: StartProxy, way: str, burst: bool, filter_command: str | None
) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command=filter_command) as harness:
        server = RecordingServer(mx, Cutter(way, hearing=True))
        scripts = [Script(number) for number in range(LENGTH + 1)]
        results = await play_all(play(harness, script, way="finish", burst=burst) for script in scripts)
        await harness.empty()
        await server.quiet()
        assert judge(server, scripts, results) == LENGTH - scripts[0].complete_at + 1
