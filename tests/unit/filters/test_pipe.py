"""FilterType pipe: text in and out at the same time, in any amount and order, without a deadlock."""

from __future__ import annotations

import hashlib
import os
import signal
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters import pipe
from proxsmtp_tp.filters.endings import REPLIES, Ending
from proxsmtp_tp.filters.process import READ_SIZE
from proxsmtp_tp.filters.verdict import Action
from tests.unit.filters.court import filtering, judge, pass_through, start, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.filters.conftest import Run

LINE = b"The quick brown fox jumps over the lazy dog, again and again and again.\r\n"
MEGABYTE = (LINE * (1_000_000 // len(LINE) + 1))[:1_000_000]
TEN_MEGABYTES = "head -c 10000000 /dev/zero"
PIPE_ROOM = 64 * 1024  # pipe(7)


@pytest.mark.parametrize(
    "command", ["cat", "dd bs=7k 2>/dev/null", "cat | cat | cat", "sh -c 'sh -c cat'", "tee /dev/null"]
)
def test_a_megabyte_passes_unchanged(run_uvloop: Run, tmp_path: Path, command: str) -> None:
    async def scene() -> None:
        async with filtering(command, tmp_path) as filter_:
            verdict, passed = await judge(filter_, MEGABYTE)
            assert verdict.action is Action.PASS
            assert hashlib.sha256(passed).digest() == hashlib.sha256(MEGABYTE).digest()

    run_uvloop(scene())


def test_every_octet_passes_unchanged(run: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        message = bytes(range(256)) + b"\r\n.\r\n" + b"\n" * 3 + b"\0"
        async with filtering("cat", tmp_path) as filter_:
            assert (await judge(filter_, message))[1] == message

    run(scene())


# Writes much before it reads; reads all before it writes; never reads; reads a little; writes nothing but errors.
ODD_ONES = [
    (f"{TEN_MEGABYTES}; cat >/dev/null", 10_000_000),
    (f"{TEN_MEGABYTES}; cat", 11_000_000),
    ("x=$(cat); echo ready", 6),
    (f"exec <&-; {TEN_MEGABYTES}", 10_000_000),
    ("echo replaced", 9),
    ("head -c 100; cat >/dev/null", 100),
    ("head -c 100", 100),
    ("cat; head -c 3000000 /dev/zero >&2", 1_000_000),
    ("sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >pid; cat; kill $!", 1_000_000),
]


@pytest.mark.parametrize(("command", "size"), ODD_ONES)
def test_no_order_of_reading_and_writing_is_a_deadlock(
    run_uvloop: Run, tmp_path: Path, command: str, size: int
) -> None:
    async def scene() -> None:
        async with filtering(f"cd {tmp_path}; {command}", tmp_path) as filter_:
            verdict, passed = await judge(filter_, MEGABYTE)
            assert verdict.action is Action.PASS
            assert len(passed) == size

    run_uvloop(scene())


def test_a_filter_that_does_not_keep_up_pauses_its_input(run: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        gate = tmp_path / "gate"
        async with filtering(f"until test -e {gate}; do sleep 0.01; done; cat", tmp_path) as filter_:
            case = start(filter_)
            written = 0
            while not case.owner.paused:
                case.write(LINE)
                written += len(LINE)
                await pass_through(1)
                assert written < PIPE_ROOM + pipe.INPUT_HIGH + 2 * len(LINE)
            assert written > pipe.INPUT_HIGH
            gate.touch()
            await until(lambda: not case.owner.paused, "the input goes on")
            case.finish()
            assert (await case.verdict()).action is Action.PASS
            assert len(case.read_all()) == written
            assert case.owner.flow == ["pause", "resume"]
            case.run.close()

    run(scene())


def test_a_filter_that_keeps_up_is_never_paused(run: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        async with filtering("cat", tmp_path) as filter_:
            case = start(filter_)
            for _ in range(20):
                before = case.run._output.size  # type: ignore[attr-defined]
                case.write(LINE)
                await until(lambda b=before: case.run._output.size > b, "the filter takes it")  # type: ignore[attr-defined,misc]
            assert case.owner.flow == []
            case.finish()
            assert (await case.verdict()).size == 20 * len(LINE)
            case.run.close()

    run(scene())


@pytest.mark.parametrize("command", ["exec <&-; read x <GATE; echo kept", "head -c 9 >/dev/null; echo kept"])
def test_who_wants_no_more_input_is_not_fed_and_not_waited_for(run: Run, tmp_path: Path, command: str) -> None:
    """A paused owner goes on also where the queue is dropped, not taken."""

    async def scene() -> None:
        gate = tmp_path / "gate"
        command_ = command.replace("read x <GATE", f"until test -e {gate}; do sleep 0.01; done")
        async with filtering(command_, tmp_path) as filter_:
            case = start(filter_)
            await case.write_in_pieces(MEGABYTE)
            gate.touch()
            case.finish()
            assert (await case.verdict()).action is Action.PASS
            assert case.read_all() == b"kept\n"
            case.run.close()

    run(scene())


def test_an_owner_that_overshoots_is_resumed_when_the_filter_exits(run: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        gate = tmp_path / "gate"
        async with filtering(f"until test -e {gate}; do sleep 0.01; done; echo done", tmp_path) as filter_:
            case = start(filter_)
            case.write(MEGABYTE)
            await until(lambda: case.owner.paused, "the filter does not read")
            gate.touch()
            await until(lambda: not case.owner.paused, "nobody will ever read it")
            case.finish()
            assert (await case.verdict()).size == 5
            case.run.close()

    run(scene())


def test_input_that_nobody_will_read_is_dropped_when_the_filter_exits(run: Run, tmp_path: Path) -> None:
    """A background job holds the pipe, so there is no EPIPE."""

    async def scene() -> None:
        command = "exec 3<&0; sleep 1000 <&3 >/dev/null 2>&1 & head -c 1"
        async with filtering(command, tmp_path) as filter_:
            case = start(filter_)
            case.write(MEGABYTE)
            await until(lambda: case.owner.flow == ["pause", "resume"], "the filter has exited")
            case.write(MEGABYTE)
            case.finish()
            assert (await case.verdict()).size == 1
            case.run.close()
            for job in case.alive():
                os.kill(job, signal.SIGKILL)

    run(scene())


def test_exit_0_before_the_message_is_complete_waits_for_its_end(run: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        async with filtering("head -c 3", tmp_path) as filter_:
            case = start(filter_)
            case.write(b"abcdef")
            await until(lambda: filter_.running == 0, "the filter has exited")
            await pass_through()
            assert case.owner.verdicts == []
            case.write(b"ghi")
            case.finish()
            assert (await case.verdict()).action is Action.PASS
            assert case.read_all() == b"abc"
            case.run.close()

    run(scene())


def test_exit_0_without_output_before_the_message_began_waits_to_see_whether_there_is_one(
    run: Run, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with filtering("exit 0", tmp_path) as filter_:
            case = start(filter_)
            await until(lambda: filter_.running == 0, "the filter has exited")
            case.write(b"text")
            case.finish()
            assert (await case.verdict()).reply == REPLIES[Ending.OUTPUT_EMPTY]
            case.run.close()
            empty = start(filter_)
            empty.finish()
            assert (await empty.verdict()).action is Action.PASS
            empty.run.close()

    run(scene())


def test_output_ends_with_the_last_who_holds_it(run: Run, tmp_path: Path) -> None:
    """1.10's habit: what a background job still writes belongs to the message."""

    async def scene() -> None:
        gate = tmp_path / "gate"
        command = f"(until test -e {gate}; do sleep 0.01; done; echo late) & cat"
        async with filtering(command, tmp_path) as filter_:
            case = start(filter_)
            case.write(b"early\n")
            case.finish()
            await until(lambda: case.run._status is not None, "the leader exits")  # type: ignore[attr-defined]
            assert case.owner.verdicts == []
            gate.touch()
            assert (await case.verdict()).action is Action.PASS
            assert case.read_all() == b"early\nlate\n"
            case.run.close()

    run(scene())


def test_a_runaway_filter_does_not_fill_the_disk(
    run_uvloop: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "OUTPUT_ALLOWANCE", 1_000_000)

    async def scene() -> None:
        async with filtering("yes", tmp_path) as filter_:
            case = start(filter_)
            case.write(LINE)
            assert (await case.verdict()).reply == REPLIES[Ending.OUTPUT_TOO_LARGE]
            await until(lambda: not case.alive(), "it is ended")

    run_uvloop(scene())


def test_a_filter_may_return_several_times_what_it_got(
    run_uvloop: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "OUTPUT_ALLOWANCE", 0)

    async def scene() -> None:
        copy = tmp_path / "copy"
        async with filtering(f"cat >{copy}; cat {copy} {copy} {copy} {copy}", tmp_path) as filter_:
            verdict, passed = await judge(filter_, MEGABYTE)
            assert verdict.action is Action.PASS
            assert passed == MEGABYTE * 4

    run_uvloop(scene())


@pytest.mark.parametrize("directory", ["absent", "file"])
def test_an_unusable_directory_is_a_temporary_failure(run: Run, tmp_path: Path, directory: str) -> None:
    """Only a message that needs the disk meets it."""
    (tmp_path / "file").touch()

    async def scene() -> None:
        async with filtering("cat", tmp_path) as filter_:
            filter_._launcher.temp_directory = str(tmp_path / directory)
            assert (await judge(filter_, LINE))[0].action is Action.PASS
            verdict, _ = await judge(filter_, MEGABYTE)
            assert verdict.reply == REPLIES[Ending.SPOOL_FAILED]
            assert directory in verdict.detail

    run(scene())


def test_the_read_size_is_what_a_pipe_holds() -> None:
    assert READ_SIZE == PIPE_ROOM
