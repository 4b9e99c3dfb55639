"""Where a message waits for a place of its filter, or of one of a chain: what `status` shows, and what is measured."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.filter_lines import parse_filter
from proxsmtp_tp.config.settings import FilterMode
from proxsmtp_tp.net.measuring import FilterTimes
from proxsmtp_tp.service import faults
from proxsmtp_tp.service.activity import activity
from proxsmtp_tp.telemetry import metrics
from proxsmtp_tp.telemetry.metrics import Metrics, by_name, seconds_of
from tests.unit.net.dialogue import MESSAGE_CODES, address, meet, one_message, relayed
from tests.unit.net.proxy_harness import Mx, until
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.unit.net.proxy_harness import ProxyHarness, StartProxy

HELD = "while ! test -e GO; do sleep 0.02; done"
"""A command that ends when the test makes the file GO."""

FILTERS: dict[str, dict[str, Any]] = {
    "FilterCommand": {"filter_command": f"cat; {HELD}", "filter_processes": 1},
    "pipe": {"filter": [f"f pipe cat; {HELD} max=1"]},
    "file": {"filter": [f"f file {HELD} max=1"]},
    "smtp": {"filter": ["f smtp SOCKET max=1 failure=pass"]},
    "milter": {"filter": ["f milter SOCKET max=1 failure=pass"]},
    "clamd": {"filter": ["f clamd SOCKET max=1 failure=pass"]},
    "the second one": {"filter": ["a pipe cat", f"b pipe cat; {HELD} max=1"]},
    "the second one, a clamd": {"filter": ["a pipe cat", "b clamd SOCKET max=1 failure=pass", "c pipe cat"]},
    "the third one": {"filter": ["a file true max=3", "b clamd /nowhere failure=pass", f"c pipe cat; {HELD} max=1"]},
    "monitor": {"filter": ["a pipe cat", f"b pipe cat; {HELD} max=1"], "filter_mode": FilterMode.MONITOR},
    "with a shadow": {"filter": ["s pipe cat mode=shadow", f"b pipe cat; {HELD} max=1"]},
}


@asynccontextmanager
async def silent_server(path: Path, released: Callable[[], bool]) -> AsyncIterator[None]:
    """A server that says nothing, and closes its connections once they are released."""

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until(released, "the test ends")
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        yield


@asynccontextmanager
async def two_messages(
    start_proxy: StartProxy, given: dict[str, Any], tmp_path: Path, **more: Any
) -> AsyncIterator[tuple[ProxyHarness, list[Awaitable[list[int]]], Path]]:
    """Two clients send a message; the filter holds what it has until the file is made."""
    go, socket = tmp_path / "go", tmp_path / "socket"

    def filled(text: str) -> str:
        return text.replace("GO", str(go)).replace("SOCKET", str(socket))

    wanted = dict(given)
    if "filter" in wanted:
        wanted["filter"] = tuple(row for line in wanted["filter"] for row in parse_filter(filled(line)))
    else:
        wanted["filter_command"] = filled(wanted["filter_command"])
    async with silent_server(socket, go.exists), Mx() as mx:
        mx.serve(ModelServer)
        async with start_proxy(mx, **wanted, **more) as harness:
            clients = [await harness.client() for _ in range(2)]
            try:
                yield harness, [asyncio.ensure_future(one_message(client)) for client in clients], go
            finally:
                go.touch()
            await harness.empty()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", FILTERS)
async def test_one_message_is_at_the_filter_and_the_other_waits(
    start_proxy: StartProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, workers: int
) -> None:
    monkeypatch.setattr(faults, "LONG_WAIT", 0.3)
    async with two_messages(start_proxy, FILTERS[name], tmp_path, workers=workers) as (harness, replies, go):

        def shown() -> dict[str, Any]:
            return activity(harness.admission, harness.settings)

        def at_filters() -> tuple[int, int]:
            filters = shown()["filters"]
            return filters["running"], filters["waiting"]

        await until(lambda: at_filters() == (1, 1), "one waits")
        await until(lambda: shown()["filters"]["oldest_wait"] >= 0.5, "how long it waits is known")
        assert at_filters() == (1, 1)
        (fault,) = faults.faults({**shown(), "connections": 2, "max_connections": 9})
        assert fault.startswith("1 messages wait for the filter")
        go.touch()
        assert await asyncio.gather(*replies) == [MESSAGE_CODES] * 2
        totals = harness.admission.metrics.totals()
    for histogram in (metrics.FILTER_WAIT, metrics.FILTER):
        assert sum(seconds_of(totals, histogram)[0]) == 2
    waited, ran = (seconds_of(totals, histogram)[1] for histogram in (metrics.FILTER_WAIT, metrics.FILTER))
    answered = seconds_of(totals, metrics.DOT_TO_REPLY)[1]
    assert waited >= 0.4
    assert ran >= 0.4
    assert waited + ran <= answered + 0.1  # the rest is the time of the server; clocks of loops are coarse


async def test_events_tell_how_long_a_message_waited_and_how_long_connecting_took(
    start_proxy: StartProxy, tmp_path: Path
) -> None:
    path = tmp_path / "events.json"
    async with two_messages(start_proxy, FILTERS["pipe"], tmp_path, event_log=str(path)) as (harness, replies, go):
        await until(lambda: activity(harness.admission, harness.settings)["filters"]["oldest_wait"] >= 0.5, "one waits")
        go.touch()
        await asyncio.gather(*replies)
        await harness.empty()
    first, second = sorted((json.loads(line)["ms"] for line in path.read_text().splitlines()), key=itemgetter("wait"))
    assert first["wait"] < 400 <= second["wait"] <= second["filter"] <= second["total"] + 1
    assert first["filter"] >= 400
    assert all(0 <= each["connect"] < 15_000 for each in (first, second))


async def test_only_a_message_that_a_filter_got_has_waited(start_proxy: StartProxy, tmp_path: Path) -> None:
    """A sender that the server refuses, after a message that was judged."""
    path = tmp_path / "events.json"
    async with Mx() as mx, start_proxy(mx, filter_command="cat", event_log=str(path)) as harness:
        port = mx.port
        client, server = await meet(harness, mx)
        await address(client, server)
        await client.ask("DATA")
        await client.say("hi\n.")
        for expected, reply in ((b"DATA", "354 go"), (b"", "250 ok")):
            assert not expected or await server.line() == expected
            assert expected or await server.text()
            await server.say(reply)
        await client.reply()
        await relayed(client, server, "MAIL FROM:<a@c.example>", "550 no")
        client.close()
        await server.rest()
        await harness.empty()
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["server"] for event in events] == [{"address": "127.0.0.1", "port": port}] * 2
    judged, refused = (event["ms"] for event in events)
    assert set(judged) == {"connect", "client", "wait", "filter", "server", "total"}
    assert set(refused) == {"connect", "total"}
    assert judged["connect"] == refused["connect"]


async def test_a_client_that_leaves_while_it_waits_is_shown_no_more(start_proxy: StartProxy, tmp_path: Path) -> None:
    async with two_messages(start_proxy, FILTERS["pipe"], tmp_path) as (harness, replies, go):
        phases: Callable[[], set[str]] = lambda: {each["phase"] for each in harness.admission.sessions.listed(9)}  # noqa: E731
        await until(lambda: phases() == {"filter", "waiting"}, "one waits")
        for task in replies:
            assert isinstance(task, asyncio.Task)
            task.cancel()
        for client in harness.clients:
            client.reset()
        await until(lambda: not phases(), "both are gone")
        go.touch()
        await harness.empty()
        assert sum(seconds_of(harness.admission.metrics.totals(), metrics.FILTER)[0]) == 0


def expected_wait(*steps: tuple[str, float]) -> float:
    """The sum of all times in which the message waited: from `complete` or `waits` until something else."""
    ends = [now for _, now in steps[1:]]
    return sum(end - now for (name, now), end in zip(steps, ends, strict=False) if name in {"complete", "waits"})


def measured(*steps: tuple[str, float]) -> tuple[list[float], list[float]]:
    """How many waits and filter times there are, and their sums, after these calls."""
    rows = Metrics(1)
    rows.begin(0)
    times = FilterTimes(rows.of(0))
    for name, now in steps:
        getattr(times, name)(now)
    assert times.take_waited(99) == expected_wait(*steps)
    assert times.take_waited(99) is None
    counted = (seconds_of(rows.totals(), histogram) for histogram in (metrics.FILTER_WAIT, metrics.FILTER))
    waits, runs = ([sum(numbers), round(seconds, 3)] for numbers, seconds in counted)
    return waits, runs


@pytest.mark.parametrize(
    ("steps", "waits", "runs"),
    [
        ([("complete", 10), ("started", 10), ("verdict", 13)], [1, 0], [1, 3]),
        ([("complete", 10), ("waits", 10), ("started", 12), ("verdict", 13)], [1, 2], [1, 1]),
        (
            [("complete", 10), ("started", 11), ("waits", 13), ("started", 17), ("started", 18), ("verdict", 20)],
            [1, 5],
            [1, 5],
        ),
        ([("complete", 10), ("started", 11), ("waits", 13), ("verdict", 20)], [1, 8], [1, 2]),  # in vain, at the second
        ([("complete", 10), ("waits", 10), ("verdict", 40)], [0, 0], [0, 0]),  # in vain: no filter has judged it
        ([("complete", 10), ("started", 12), ("left", 15), ("left", 16)], [1, 2], [0, 0]),
        ([("complete", 10), ("waits", 10), ("left", 15)], [0, 0], [0, 0]),
        ([("complete", 10), ("started", 12), ("verdict", 15), ("left", 16)], [1, 2], [1, 3]),
        (
            [("complete", 1), ("started", 1), ("verdict", 2), ("verdict", 9)],
            [1, 0],
            [1, 1],
        ),  # the next: a verdict early
    ],
)
def test_wait_and_filter_are_together_the_time_to_the_verdict(
    steps: list[tuple[str, float]], waits: list[float], runs: list[float]
) -> None:
    assert measured(*steps) == (waits, runs)


FAILS = "clamd /nowhere"


@pytest.mark.parametrize(
    ("given", "failures"),
    [
        ({"filter": [f"f {FAILS} failure=pass"]}, 1),
        ({"filter": [f"f {FAILS} failure=quarantine"]}, 1),
        ({"filter": [f"f {FAILS} failure=reject"]}, 1),
        ({"filter": [f"f {FAILS} failure=tempfail"]}, 1),
        ({"filter": [f"f {FAILS} failure=pass", f"g {FAILS} failure=pass"]}, 1),  # messages are counted
        ({"filter": [f"f {FAILS} failure=pass", "g pipe echo 550 no >&2; exit 1"]}, 1),
        ({"filter": [f"f {FAILS} failure=tempfail"], "filter_mode": FilterMode.MONITOR}, 1),
        ({"filter": [f"f {FAILS} failure=pass"], "filter_mode": FilterMode.MONITOR}, 1),
        ({"filter": ["f pipe cat", "g pipe echo 550 no >&2; exit 1"]}, 0),
        ({"filter": ["f pipe cat"]}, 0),
        ({"filter_command": "kill -9 $$"}, 1),
        ({"filter_command": "kill -9 $$", "filter_mode": FilterMode.MONITOR}, 1),
        ({"filter_command": "echo 550 no >&2; exit 1"}, 0),
        ({"filter_command": "cat"}, 0),
    ],
)
async def test_a_filter_that_fails_is_counted_whatever_becomes_of_the_message(
    start_proxy: StartProxy, tmp_path: Path, given: dict[str, Any], failures: int
) -> None:
    wanted = dict(given)
    if "filter" in wanted:
        wanted["filter"] = tuple(row for line in wanted["filter"] for row in parse_filter(line))
    async with Mx() as mx:
        mx.serve(ModelServer)
        async with start_proxy(mx, quarantine_directory=str(tmp_path / "kept"), **wanted) as harness:
            await one_message(await harness.client())
            await harness.empty()
            counted = by_name(harness.admission.metrics.totals())
            recent = harness.admission.recent_verdicts.report()
    assert counted["filter_failures_total"] == {"": failures}
    assert sum(counted["filter_verdicts_total"].values()) == 1
    if failures:
        assert recent["worked"] is None  # doctor: no message has passed a filter that worked
        assert [entry["coded"] for entry in recent["failed"]] == [False]
