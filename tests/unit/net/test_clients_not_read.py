"""A client that is not read: its reset is still noticed, and the end of its sending half does not end the session."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.net.back_pressure import BACKLOG_LIMIT
from tests.unit.net import phases
from tests.unit.net.dialogue import DOT, MESSAGE, MESSAGE_CODES, WHOLE
from tests.unit.net.proxy_harness import Mx, codes, living, until
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.net.proxy_harness import StartProxy

LONG = b"NOOP " + b"x" * 1900 + b"\r\n"
BACKLOG = LONG * (BACKLOG_LIMIT // len(LONG) + 1)
"""Commands behind a message, so many that the client is not read any more."""


@pytest.fixture(autouse=True)
def no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever would wait for LINGER to pass fails."""
    monkeypatch.setattr("proxsmtp_tp.net.deadlines.LINGER", 3600.0)


async def test_a_reset_while_the_filter_does_not_read(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="read -r line; sleep 600") as harness:
        client, server = await phases.in_the_text(harness, mx)
        [connection] = harness.proxy._connections
        await client.say((b"x" * 70 + b"\r\n") * 10_000 + b".\r\n" + BACKLOG)
        await until(lambda: connection._pressure.client_paused, "the client is not read any more")
        client.reset()
        assert await server.rest() == b"QUIT\r\n"
        await harness.empty()
        await until(lambda: not living(), "the filter is ended")


@pytest.mark.parametrize("finished_first", [False, True])
async def test_a_reset_while_the_filter_judges(start_proxy: StartProxy, finished_first: bool) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat >/dev/null; sleep 600") as harness:
        client, server = await phases.in_the_text(harness, mx)
        [connection] = harness.proxy._connections
        await client.say(b"\r\n.\r\n" + BACKLOG)
        await until(lambda: connection._pressure.client_paused, "the client is not read any more")
        if finished_first:
            client.finish()
        client.reset()
        assert await server.rest() == b"QUIT\r\n"
        await harness.empty()
        await until(lambda: not living(), "the filter is ended")


async def test_a_reset_after_a_fin_that_was_handled(start_proxy: StartProxy) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat >/dev/null; sleep 600") as harness:
        client, server = await phases.in_the_text(harness, mx)
        [connection] = harness.proxy._connections
        await client.say(b"\r\n.\r\nQUIT\r\n")
        client.finish()
        await until(lambda: connection._client_finished, "it is heard")
        client.reset()
        assert await server.rest() == b"QUIT\r\n"
        await harness.empty()


async def test_a_client_that_only_finished_is_served(
    start_proxy: StartProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is looked at meanwhile, read or not: `cat dialogue - | nc -N`."""
    looks = 0
    poll = select.poll

    def counted() -> object:
        nonlocal looks
        looks += 1
        return poll()

    monkeypatch.setattr(select, "poll", counted)  # `was_reset` asks it
    model = ModelServer()
    command = f"while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done; cat"
    async with Mx() as mx, start_proxy(mx, filter_command=command) as harness:
        mx.serve(lambda: model)
        client = await harness.client()
        head, behind, _ = WHOLE.replace("\n", "\r\n").partition("QUIT")
        assert head.endswith(f"{DOT}\n".replace("\n", "\r\n"))
        await client.say(head.encode() + BACKLOG + f"{behind}\r\n".encode())
        client.finish()
        await until(lambda: looks > 5, "it is looked at")
        (tmp_path / "gate").touch()
        answered = BACKLOG.count(b"\r\n")
        assert codes(await client.rest()) == [*MESSAGE_CODES[:-1], *[250] * answered, MESSAGE_CODES[-1]]
        await harness.empty()
    assert model.messages == [MESSAGE]
