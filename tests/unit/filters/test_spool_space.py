"""How much space all messages may take together, and what clients get when there is none."""

from __future__ import annotations

import mmap
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters import spool_space
from proxsmtp_tp.filters.command import CommandFilter
from proxsmtp_tp.filters.endings import REPLIES, Ending
from proxsmtp_tp.filters.launcher import Command
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.ownership import Ownership
from proxsmtp_tp.filters.spool import MEMORY_LIMIT, MessageFile, Spool
from proxsmtp_tp.filters.spool_space import MEMORY_TOTAL, SpoolFullError, SpoolSpace
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.net.admission import Admission
from tests.unit.filters.filter_harness import TEXT, complete, judge, open_descriptors, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.filters.conftest import Run


def test_the_limit_holds_over_all_workers_and_what_is_over_counts_no_more(tmp_path: Path) -> None:
    table = Admission(10, 3)
    spaces = [SpoolSpace(str(tmp_path), 1000, table.tally(worker)) for worker in range(3)]
    first, second, third = (Spool(each) for each in spaces)
    first.write(b"x" * 500)
    second.write(b"x" * 400)
    with pytest.raises(SpoolFullError, match=r"SpoolLimit \(1000 octets\)"):
        third.write(b"x" * 101)
    third.write(b"x" * 100)
    first.close()
    first.close()
    third.write(b"x" * 500)
    table.clear(1)  # the worker was killed
    third.write(b"x" * 400)
    third.close()
    assert table.tally(0).total == 0


@pytest.mark.parametrize("size", [100, MEMORY_LIMIT + 100])
def test_all_that_was_taken_is_given_back(tmp_path: Path, size: int) -> None:
    place = SpoolSpace(str(tmp_path), 10 * size)
    ownership = Ownership(str(tmp_path))
    spool, file = Spool(place), MessageFile(place, ownership)
    for each in (spool, file):
        each.write(b"x" * size)
        each.complete()
    assert place._tally.total == 2 * size
    with open(file.name, "ab") as other:  # noqa: PTH123  (a filter)
        other.write(b"y" * 50)
    file.reopen()
    assert place._tally.total == 2 * size + 50
    for each in (spool, file):
        each.close()
    ownership.close()
    assert (place._tally.total, place.memory) == (0, 0)


def test_a_worker_that_keeps_much_keeps_the_next_on_disk(tmp_path: Path) -> None:
    before = open_descriptors()
    place = SpoolSpace(str(tmp_path))
    spools = [Spool(place) for _ in range(MEMORY_TOTAL // MEMORY_LIMIT + 8)]
    for spool in spools:
        spool.write(b"x" * MEMORY_LIMIT)
    assert place.memory == MEMORY_TOTAL
    assert len(open_descriptors()) - len(before) == 8
    for spool in spools:
        spool.complete()
        assert spool.read(10) == b"x" * 10
        spool.close()
    assert place.memory == 0
    assert open_descriptors() == before


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_a_message_beyond_the_limit_is_452_and_the_next_passes(run: Run, tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        gate = tmp_path / "gate"
        command = f"until test -e {gate}; do sleep 0.01; done; {'cat' if kind == 'pipe' else 'true'}"
        place = SpoolSpace(str(tmp_path), 3 * len(TEXT))
        filter_ = CommandFilter(Command(command, 30), kind, place, ProcessLimit(4))  # type: ignore[arg-type]
        first = complete(filter_)
        second = complete(filter_, TEXT * 4)
        verdict = await second.verdict()
        assert verdict.reply == REPLIES[Ending.SPOOL_FULL]
        assert verdict.reply.wire.startswith(b"452 4.3.1 ")
        assert "SpoolLimit" in verdict.detail
        gate.touch()
        assert (await first.verdict()).action is Action.PASS
        for case in (first, second):
            case.run.close()
        assert (await judge(filter_, TEXT))[0].action is Action.PASS
        await until(lambda: filter_.running == 0, "all are reaped")
        filter_.close()
        assert place._tally.total == 0

    run(scenario())


def test_output_counts(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        filter_ = CommandFilter(
            Command("cat; head -c 1000000 /dev/zero", 30), "pipe", SpoolSpace(str(tmp_path), 100_000), ProcessLimit(4)
        )
        assert (await judge(filter_, TEXT))[0].reply == REPLIES[Ending.SPOOL_FULL]
        await until(lambda: filter_.running == 0, "it is ended")
        filter_.close()

    run(scenario())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Eight megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    try:
        yield disk
    finally:  # lazily: a test that fails may still have a file open
        subprocess.run(["umount", "-l", disk], check=True)


def fill(spool: Spool) -> None:
    for _ in range(1000):
        spool.write(b"x" * 65536)


def test_a_part_of_the_disk_stays_free(small_disk: Path) -> None:
    spool = Spool(SpoolSpace(str(small_disk)))
    with pytest.raises(SpoolFullError, match="left"):
        fill(spool)
    disk = os.statvfs(small_disk)
    free = disk.f_bavail * disk.f_frsize
    assert (
        (8 << 20) // spool_space.RESERVE_PART
        <= free
        < (8 << 20) // spool_space.RESERVE_PART + 65536 + mmap.PAGESIZE * 8
    )
    assert spool.size > 7 << 20
    spool.close()
