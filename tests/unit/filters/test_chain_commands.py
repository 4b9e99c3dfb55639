"""Chains of real commands: what passes, and what the owner learns of places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.verdict import Action
from tests.unit.filters.chain_harness import made, told
from tests.unit.filters.filter_harness import TEXT, judge, nothing_left, start, until

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.filters.verdict import Verdict
    from tests.unit.filters.conftest import Run

COMMANDS = [
    (["a pipe cat"], TEXT, ["a pass"]),
    (["a pipe tr -d '\\r'"], TEXT, ["a pass"]),
    (["a file true"], TEXT, ["a pass"]),
    (["a pipe sed s/hello/bye/", "b pipe sed s/bye/twice/"], TEXT.replace(b"hello", b"twice"), ["a edit", "b edit"]),
    (["a file sed -i s/hello/bye/ $EMAIL", "b pipe cat"], TEXT.replace(b"hello", b"bye"), ["a edit", "b pass"]),
    (["a pipe tr -d '\\r' | sed s/hello/bye/"], TEXT.replace(b"hello", b"bye"), ["a edit"]),
    (["a pipe cat; printf more"], TEXT + b"more", ["a edit"]),
    (["a pipe exit 1", "b pipe cat"], b"", ["a reject"]),
    (["a pipe kill -9 $$ failure=pass", "b pipe cat"], TEXT, ["a failed", "b pass"]),
    (["a pipe true failure=pass"], TEXT, ["a failed"]),
    (["a smtp /nonexistent,127.0.0.1:1 failure=pass"], TEXT, ["a failed"]),
]


@pytest.mark.parametrize(("lines", "passed", "said"), COMMANDS)
def test_commands(run: Run, tmp_path: Path, lines: list[str], passed: bytes, said: list[str]) -> None:
    async def main() -> tuple[Verdict, bytes]:
        async with nothing_left(tmp_path):
            chain = made(tmp_path, *lines)
            result = await judge(chain, TEXT)
            await until(lambda: not chain.running, "every process is reaped")
            chain.close()
        assert (chain.space.memory, chain.space._tally.total) == (0, 0)
        return result

    verdict, given = run(main())
    assert told(verdict) == said
    assert given == passed


def test_large_messages_through_commands(run_uvloop: Run, tmp_path: Path) -> None:
    large = b"Subject: x\r\n\r\n" + b"0123456789abcdef\r\n" * 60_000

    async def main() -> bytes:
        chain = made(tmp_path, "a pipe cat", "b file true", "c pipe tr -d '\\r' | sed s/x/y/")
        passed = (await judge(chain, large))[1]
        chain.close()
        assert (chain.space.memory, chain.space._tally.total) == (0, 0)
        return passed

    assert run_uvloop(main()) == large.replace(b"x", b"y", 1)


PLACES = [
    (["a pipe cat", "b file true max=1", "c pipe cat"], ["started", "waits", "started", "started"]),
    (["a pipe cat skip=0.0.0.0/0", "b pipe cat max=1"], ["waits", "started"]),
    (["s pipe cat mode=shadow", "b pipe cat"], ["started"]),
    (["a smtp /nonexistent,/nowhere failure=pass", "b pipe cat max=1"], ["started", "started", "waits", "started"]),
]


@pytest.mark.parametrize(("lines", "told"), PLACES)
def test_the_owner_learns_the_places_of_each_filter(
    run: Run, tmp_path: Path, lines: list[str], told: list[str]
) -> None:
    """The filter with max=1 has no free place at first."""

    async def main() -> list[str]:
        chain = made(tmp_path, *lines)
        full = [link.places for link in chain.links if link.places.maximum == 1]
        for limit in full:
            assert limit.enter(lambda: None)
        case = start(chain)
        case.write(TEXT)
        case.finish()
        if full:
            await until(lambda: "waits" in case.owner.places, "it waits")
            full[0].leave()
        assert (await case.verdict()).action is Action.PASS
        case.run.close()
        await chain.shadows.ended()
        await until(lambda: not chain.running, "every process is reaped")
        chain.close()
        return case.owner.places

    assert run(main()) == told


@pytest.mark.parametrize("line", ["a pipe cat max=1", "a clamd /nonexistent max=1"])
def test_an_owner_that_aborted_learns_of_no_place(run: Run, tmp_path: Path, line: str) -> None:
    """The place becomes free at the same moment. The owner may have another message then."""

    async def main() -> None:
        chain = made(tmp_path, line)
        places = chain.links[0].places
        assert places.enter(lambda: None)
        case = start(chain)
        case.write(TEXT)
        case.finish()
        await until(lambda: case.owner.places == ["waits"], "it waits")
        places.leave()
        case.abort()
        await until(lambda: not chain.running, "the place is free")
        assert case.owner.places == ["waits"]
        chain.close()

    run(main())
