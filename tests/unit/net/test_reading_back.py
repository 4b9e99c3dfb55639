"""The judged message goes back to the session: a chunk in each turn of the event loop, the end with the last."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from proxsmtp_tp.net.judging import CHUNK, Judging
from proxsmtp_tp.net.measuring import FilterTimes
from proxsmtp_tp.telemetry.metrics import unread_row

if TYPE_CHECKING:
    from proxsmtp_tp.session import events

ONE, LAST, END = "MessageChunk", "last", "MessageEnd"


class Owner(SimpleNamespace):
    """A connection. `full_after`: its server reads no more than so many chunks."""

    full_after = 1000

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[list[str]] = [[]]

    @property
    def server_is_full(self) -> bool:
        return sum(map(len, self.turns)) >= self.full_after

    def feed(self, event: events.Event) -> None:
        self.turns[-1].append(LAST if getattr(event, "last", False) else type(event).__name__)

    def failed(self, error: Exception) -> None:
        raise error


class Run:
    """Gives these chunks."""

    def __init__(self, *sizes: int) -> None:
        self.chunks = [b"x" * size for size in sizes]

    def read(self, _size: int) -> bytes:
        return self.chunks.pop(0) if self.chunks else b""


def read_back(owner: Owner, *sizes: int) -> list[list[str]]:
    """What is fed in each turn of the event loop."""

    async def case() -> list[list[str]]:
        judging = Judging(
            owner, None, asyncio.get_running_loop(), lambda _client, _verdict: None, FilterTimes(unread_row())
        )
        judging.run = cast("Any", Run(*sizes))
        judging.read_back()
        for _ in range(8):
            owner.turns.append([])
            await asyncio.sleep(0)
        return [turn for turn in owner.turns if turn]

    return asyncio.run(case())


@pytest.mark.parametrize(
    ("sizes", "turns"),
    [
        ((), [[END]]),
        ((100,), [[LAST]]),
        ((CHUNK,), [[ONE], [END]]),
        ((CHUNK, CHUNK, 100), [[ONE], [ONE], [LAST]]),
        ((100, 100, 100), [[ONE], [LAST]]),
    ],
)
def test_turns(sizes: tuple[int, ...], turns: list[list[str]]) -> None:
    assert read_back(Owner(), *sizes) == turns


def test_the_server_reads_no_more() -> None:
    owner = Owner()
    owner.full_after = 1
    assert read_back(owner, CHUNK, 100) == [[ONE]]
