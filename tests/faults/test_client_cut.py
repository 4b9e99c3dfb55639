"""Promises 2 and 3: the client disconnects, after each octet of a dialogue in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.cuts import FINAL, LENGTH, RecordingServer, Script, play, play_all
from tests.unit.net.proxy_harness import Mx

if TYPE_CHECKING:
    from tests.unit.net.proxy_harness import StartProxy

EVERY_OCTET = range(LENGTH + 1)


@pytest.mark.parametrize("filter_command", [None, "cat"], ids=["streamed", "filtered"])
@pytest.mark.parametrize("burst", [False, True], ids=["step by step", "in one piece"])
@pytest.mark.parametrize("way", ["close", "reset", "finish"])
async def test_the_client_is_cut_at_every_octet(
    start_proxy: StartProxy, way: str, burst: bool, filter_command: str | None
) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command=filter_command) as harness:
        server = RecordingServer(mx)
        scripts = [Script(number) for number in EVERY_OCTET]
        results = await play_all(play(harness, script, script.number, way=way, burst=burst) for script in scripts)
        await harness.empty()
        await server.quiet()
        for script, result in zip(scripts, results, strict=True):
            cut = script.number
            delivered = server.delivered(cut)
            assert delivered in ([], [script.message]), cut
            assert not result.accepted or delivered, cut
            if cut < script.complete_at:
                assert not delivered, cut
                assert len(result.told) <= FINAL or result.told[FINAL] // 100 != 2, cut
                if filter_command is not None:
                    assert b"DATA" not in server.commands(cut), "the server got a message that was not complete"
            elif way == "finish" and cut == LENGTH:
                assert result.told == [220, 250, 250, 250, 354, 250, 221]
                assert delivered
            elif cut > script.complete_at and not burst:
                assert result.accepted


async def test_nothing_but_the_clients_words_reach_the_server(start_proxy: StartProxy) -> None:
    """Octets of the dialogue that are cut off are never completed by us: no line that the client did not end."""
    async with Mx() as mx, start_proxy(mx) as harness:
        server = RecordingServer(mx)
        scripts = [Script(number) for number in EVERY_OCTET]
        await play_all(play(harness, script, script.number, way="finish", burst=True) for script in scripts)
        await harness.empty()
        await server.quiet()
        for observed in server.observed:
            if observed.number is None:
                continue
            said = Script(observed.number).stream[: observed.number]
            for command in observed.commands:
                assert command == b"QUIT" or command + b"\r\n" in said, (observed.number, command)
