"""One epoll instance for the descriptors of all children."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.watching import AT_ONCE, watch_of
from tests.unit.filters.filter_harness import open_descriptors, pass_through, until

if TYPE_CHECKING:
    from tests.unit.filters.conftest import Run


def test_a_descriptor_is_open_only_while_something_is_watched(run: Run) -> None:
    async def scenario() -> None:
        reading, writing = os.pipe()
        watch = watch_of(asyncio.get_running_loop())
        assert watch is watch_of(asyncio.get_running_loop())
        before = open_descriptors()
        for _ in range(2):
            seen: list[bytes] = []
            watch.add(reading, lambda seen=seen: seen.append(os.read(reading, 1)))  # type: ignore[misc]
            assert len(open_descriptors()) == len(before) + 1
            os.write(writing, b"x")
            await until(lambda: seen, "it is told")  # noqa: B023
            watch.remove(reading)
            watch.remove(reading)
            assert open_descriptors() == before
            os.write(writing, b"y")
            await pass_through()
            assert seen == [b"x"]
            os.read(reading, 1)
        os.close(reading)
        os.close(writing)

    run(scenario())


def test_a_waiter_removed_by_another_gets_no_call(run: Run) -> None:
    async def scenario() -> None:
        pipes = [os.pipe() for _ in range(AT_ONCE + 3)]
        watch = watch_of(asyncio.get_running_loop())
        told: list[int] = []

        def one(at: int) -> None:
            told.append(at)
            for reading, _ in pipes:
                watch.remove(reading)

        for at, (reading, writing) in enumerate(pipes):
            os.write(writing, b"x")
            watch.add(reading, lambda at=at: one(at))  # type: ignore[misc]
        await until(lambda: told, "one is told")
        await pass_through()
        assert len(told) == 1
        for ends in pipes:
            for end in ends:
                os.close(end)

    run(scenario())


def test_more_than_are_served_at_once_are_all_served(run: Run) -> None:
    async def scenario() -> None:
        pipes = [os.pipe() for _ in range(2 * AT_ONCE + 1)]
        watch = watch_of(asyncio.get_running_loop())
        told: set[int] = set()

        def one(reading: int) -> None:
            told.add(reading)
            watch.remove(reading)

        for reading, writing in pipes:
            os.write(writing, b"x")
            watch.add(reading, lambda reading=reading: one(reading))  # type: ignore[misc]
        await until(lambda: len(told) == len(pipes), "all are told")
        for ends in pipes:
            for end in ends:
                os.close(end)

    run(scenario())


def test_what_cannot_be_watched_is_an_error_and_leaves_nothing(run: Run) -> None:
    async def scenario() -> None:
        before = open_descriptors()
        with pytest.raises(OSError, match="Bad file descriptor"):
            watch_of(asyncio.get_running_loop()).add(9999, lambda: None)
        assert open_descriptors() == before

    run(scenario())


def test_who_holds_it_keeps_it_open_between_two_children(run: Run) -> None:
    async def scenario() -> None:
        before = open_descriptors()
        reading, writing = os.pipe()
        watch = watch_of(asyncio.get_running_loop())
        for _ in range(2):
            watch.hold()
        for _ in range(2):
            watch.add(reading, lambda: None)
            watch.remove(reading)
            assert len(open_descriptors()) == len(before) + 3
        watch.let_go()
        watch.add(reading, lambda: None)
        watch.let_go()
        assert len(open_descriptors()) == len(before) + 3
        watch.remove(reading)
        os.close(reading)
        os.close(writing)
        assert open_descriptors() == before

    run(scenario())
