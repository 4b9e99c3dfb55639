"""Promise 2: the filter ends after each octet that it reads or writes in turn. The server gets no message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.child_processes import child_processes
from tests.faults.cuts import FINAL, RecordingServer, Script, play, play_all
from tests.unit.net.dialogue import DOT, address, meet
from tests.unit.net.proxy_harness import Mx, until

if TYPE_CHECKING:
    from tests.unit.net.proxy_harness import StartProxy

LENGTH = len(Script(0).message) - 1  # as the filter has it: one dot less
AT = "n=${SENDER%@*}; n=$((1$n - 10000)); "
"""How many octets this run may have: the number of the dialogue."""

ENDINGS = {
    "killed while reading": "head -c $n >/dev/null; kill -KILL $$",
    "killed while writing": "head -c $n; kill -KILL $$",
    "refuses while reading": "head -c $n >/dev/null; echo 554 5.7.1 no >&2; exit 1",
    "refuses after writing": "head -c $n; exit 75",
    "a child is left that holds the output": "head -c $n; sleep 600 & kill -KILL $$",
    "its input closed early": "head -c $n >/dev/null; exec <&-; kill -SEGV $$",
}


@pytest.mark.parametrize("burst", [False, True], ids=["step by step", "in one piece"])
@pytest.mark.parametrize("ending", ENDINGS)
async def test_the_filter_ends_at_every_octet(start_proxy: StartProxy, ending: str, burst: bool) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command=AT + ENDINGS[ending]) as harness:
        server = RecordingServer(mx)
        scripts = [Script(number) for number in range(LENGTH + 1)]
        results = await play_all(play(harness, script, way="finish", burst=burst) for script in scripts)
        await harness.empty()
        await server.quiet()
        for script, result in zip(scripts, results, strict=True):
            assert not server.delivered(script.number)
            assert server.commands(script.number)[3:] == [b"RSET", b"QUIT"]
            assert result.told[: FINAL + 1] in ([220, 250, 250, 250, 354, code] for code in (451, 550, 554))
            assert result.told[FINAL] == (451 if "kill" in ENDINGS[ending] else result.told[FINAL])
            assert result.told[FINAL + 1 :] == [221]


@pytest.mark.parametrize("at", [0, 1, 20, LENGTH])
@pytest.mark.parametrize("kind", ["pipe", "file"])
async def test_the_filter_is_killed_from_outside(start_proxy: StartProxy, at: int, kind: str) -> None:
    """As an administrator or the kernel does (out of memory): the leader of the group, with SIGKILL."""
    import os
    import signal

    from proxsmtp_tp.config.settings import FilterType

    async with Mx() as mx, start_proxy(mx, filter_command="cat; sleep 600", filter_type=FilterType(kind)) as harness:
        client, server = await meet(harness, mx)
        await address(client, server)
        assert (await client.ask("DATA")).startswith(b"354")
        message = DOT.replace("\n", "\r\n").encode() + b"\r\n"
        await client.say(message[: at % len(message)])
        await client.say(message[at % len(message) :])
        await until(child_processes, "the filter runs")
        os.kill(min(child_processes()), signal.SIGKILL)
        assert (await client.reply()).startswith(b"451 ")
        assert await server.line() == b"RSET"


async def test_a_verdict_for_half_a_message_is_none(start_proxy: StartProxy) -> None:
    """The filter meets complete messages only, also one that would not read on."""
    async with Mx() as mx, start_proxy(mx, filter_command="head -c 5; exit 0") as harness:
        client, server = await meet(harness, mx)
        await address(client, server)
        assert (await client.ask("DATA")).startswith(b"354")
        await client.say("Subject: half")
        client.reset()
        assert await server.rest() == b"QUIT\r\n"
