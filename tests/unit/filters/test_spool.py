"""Where a message's bytes are, and what happens when they can not be there."""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsmtp_tp.filters.endings import REPLIES, Ending
from proxsmtp_tp.filters.ownership import Ownership
from proxsmtp_tp.filters.spool import MEMORY_LIMIT, MessageFile, Spool
from proxsmtp_tp.filters.spool_space import SpoolSpace
from tests.unit.filters.filter_harness import filtering, judge, open_descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.filters.conftest import Run

BIG = b"Good morning.\r\n" * (MEMORY_LIMIT // 8)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As if the disk were full past `size`: EFBIG (setrlimit(2); Python ignores SIGXFSZ)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=10), st.integers(1, 300))
def test_what_is_written_is_read(pieces: list[bytes], size: int) -> None:
    spool = Spool(SpoolSpace("/nonexistent"))  # it stays in memory
    for piece in pieces:
        spool.write(piece)
    assert spool.size == sum(map(len, pieces))
    assert spool.read(10) == b""  # not before complete
    spool.complete()
    read = []
    while data := spool.read(size):
        assert len(data) <= size
        read.append(data)
    assert b"".join(read) == b"".join(pieces)
    spool.close()
    spool.close()


def test_a_large_message_is_in_a_nameless_file(tmp_path: Path) -> None:
    before = open_descriptors()
    spool = Spool(SpoolSpace(str(tmp_path)))
    for at in range(0, len(BIG), 50_000):
        spool.write(BIG[at : at + 50_000])
    (descriptor,) = set(open_descriptors()) - set(before)
    status = os.fstat(int(descriptor))
    assert (status.st_nlink, status.st_mode & 0o777, status.st_dev) == (0, 0o600, tmp_path.stat().st_dev)
    assert not list(tmp_path.iterdir())
    spool.complete()
    assert b"".join(iter(lambda: spool.read(65536), b"")) == BIG
    spool.close()
    assert open_descriptors() == before


def test_closing_before_the_end_frees_everything(tmp_path: Path) -> None:
    before = open_descriptors()
    ownership = Ownership(str(tmp_path))
    spool, file = Spool(SpoolSpace(str(tmp_path))), MessageFile(SpoolSpace(str(tmp_path)), ownership)
    spool.write(BIG)
    file.write(BIG)
    for each in (spool, file):
        each.close()
        each.close()
        assert each.read(10) == b""
    ownership.close()
    assert open_descriptors() == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("space", [0, 4096, 100_000])
def test_a_full_disk_is_an_oserror_and_closing_is_none(tmp_path: Path, space: int) -> None:
    before = open_descriptors()
    ownership = Ownership(str(tmp_path))
    with files_of_at_most(space):
        spool, file = Spool(SpoolSpace(str(tmp_path))), MessageFile(SpoolSpace(str(tmp_path)), ownership)
        with pytest.raises(OSError, match="File too large"):
            spool.write(BIG)
        with pytest.raises(OSError, match="File too large"):
            file.write(BIG)
        spool.close()
        file.close()
        last = MessageFile(SpoolSpace(str(tmp_path)), ownership)
        last.write(b"x" * 4000)
        if space == 0:
            with pytest.raises(OSError, match="File too large"):
                last.complete()
        else:
            last.complete()
        last.close()
        ownership.close()
    assert open_descriptors() == before
    assert not list(tmp_path.iterdir())


def test_the_last_octets_may_be_refused_as_late_as_at_its_end(tmp_path: Path) -> None:
    with files_of_at_most(MEMORY_LIMIT + 4096):
        spool = Spool(SpoolSpace(str(tmp_path)))
        spool.write(b"x" * (MEMORY_LIMIT + 4096))
        spool.write(b"late")
        with pytest.raises(OSError, match="File too large"):
            spool.complete()
        spool.close()


@pytest.mark.parametrize("kind", ["pipe", "file"])
@pytest.mark.parametrize("space", [0, MEMORY_LIMIT + 4096])
def test_a_file_that_may_not_grow_is_451(run: Run, tmp_path: Path, kind: str, space: int) -> None:
    async def scenario() -> None:
        command = "cat" if kind == "pipe" else "true"
        async with filtering(command, tmp_path, kind) as filter_:  # type: ignore[arg-type]
            with files_of_at_most(space):
                verdict, _ = await judge(filter_, BIG)
            assert verdict.reply is not None
            assert verdict.reply == REPLIES[Ending.SPOOL_FAILED]
            assert verdict.reply.wire.startswith(b"451 4.3.0 ")
            assert "File too large" in verdict.detail

    run(scenario())
