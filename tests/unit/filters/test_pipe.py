"""FilterType pipe: a message in and out at the same time, in any amount and order, without a deadlock."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters import pipe
from proxsmtp_tp.filters.endings import REPLIES, Ending
from proxsmtp_tp.filters.pipes import READ_SIZE
from proxsmtp_tp.filters.verdict import Action
from tests.unit.filters.filter_harness import filtering, judge, pass_through, start, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.filters.conftest import Run

LINE = b"The quick brown fox jumps over the lazy dog, again and again and again.\r\n"
MEGABYTE = (LINE * (1_000_000 // len(LINE) + 1))[:1_000_000]
TEN_MEGABYTES = "head -c 10000000 /dev/zero"
PIPE_CAPACITY = 64 * 1024  # pipe(7)


@pytest.mark.parametrize(
    "command", ["cat", "dd bs=7k 2>/dev/null", "cat | cat | cat", "sh -c 'sh -c cat'", "tee /dev/null"]
)
def test_a_megabyte_passes_unchanged(run_uvloop: Run, tmp_path: Path, command: str) -> None:
    async def scenario() -> None:
        async with filtering(command, tmp_path) as filter_:
            verdict, passed = await judge(filter_, MEGABYTE)
            assert verdict.action is Action.PASS
            assert hashlib.sha256(passed).digest() == hashlib.sha256(MEGABYTE).digest()

    run_uvloop(scenario())


def test_every_octet_passes_unchanged(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        message = bytes(range(256)) + b"\r\n.\r\n" + b"\n" * 3 + b"\0"
        async with filtering("cat", tmp_path) as filter_:
            assert (await judge(filter_, message))[1] == message

    run(scenario())


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
    async def scenario() -> None:
        async with filtering(f"cd {tmp_path}; {command}", tmp_path) as filter_:
            verdict, passed = await judge(filter_, MEGABYTE)
            assert verdict.action is Action.PASS
            assert len(passed) == size

    run_uvloop(scenario())


def test_a_filter_that_does_not_keep_up_is_given_no_more_than_a_chunk_ahead(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        gate = tmp_path / "gate"
        async with filtering(f"until test -e {gate}; do sleep 0.01; done; cat", tmp_path) as filter_:
            case = start(filter_)
            case.write(MEGABYTE)
            case.finish()
            await until(lambda: case.run._child.input.stalled, "the filter does not read")  # type: ignore[attr-defined]
            assert case.run._child.input.queued <= pipe.CHUNK  # type: ignore[attr-defined]
            gate.touch()
            assert (await case.verdict()).action is Action.PASS
            assert case.read_all() == MEGABYTE
            case.run.close()

    run(scenario())


def test_the_command_starts_with_a_complete_message(run: Run, tmp_path: Path) -> None:
    """1.10 starts it with the first octet: a client that sends slowly occupies a process for this time."""

    async def scenario() -> None:
        async with filtering("cat", tmp_path) as filter_:
            case = start(filter_)
            for _ in range(20):
                case.write(LINE)
                await pass_through()
            assert filter_.running == 0
            case.finish()
            assert filter_.running == 1
            assert (await case.verdict()).size == 20 * len(LINE)
            case.run.close()

    run(scenario())


def test_no_chunk_holds_the_loop(run_uvloop: Run, tmp_path: Path) -> None:
    """A filter that reads as fast as it is given gets one chunk a loop iteration."""

    async def scenario() -> None:
        async with filtering("cat >/dev/null; echo read", tmp_path) as filter_:
            case = start(filter_)
            case.write(MEGABYTE * 8)
            case.finish()
            turns = 0
            while not case.owner.verdicts:
                await asyncio.sleep(0)
                turns += 1
            assert turns >= 8_000_000 // pipe.CHUNK
            case.run.close()

    run_uvloop(scenario())


@pytest.mark.parametrize("command", ["exec <&-; read x <GATE; echo kept", "head -c 9 >/dev/null; echo kept"])
def test_who_wants_no_more_input_is_not_fed_and_not_waited_for(run: Run, tmp_path: Path, command: str) -> None:
    """A paused owner goes on also where the queue is dropped, not taken."""

    async def scenario() -> None:
        gate = tmp_path / "gate"
        command_ = command.replace("read x <GATE", f"until test -e {gate}; do sleep 0.01; done")
        async with filtering(command_, tmp_path) as filter_:
            case = start(filter_)
            await case.write_in_pieces(MEGABYTE)
            case.finish()
            gate.touch()
            assert (await case.verdict()).action is Action.PASS
            assert case.read_all() == b"kept\n"
            case.run.close()

    run(scenario())


def test_input_that_is_not_read_is_dropped_when_the_filter_exits(run: Run, tmp_path: Path) -> None:
    """A background job holds the pipe, so there is no EPIPE."""

    async def scenario() -> None:
        command = "exec 3<&0; sleep 1000 <&3 >/dev/null 2>&1 & head -c 1"
        async with filtering(command, tmp_path) as filter_:
            case = start(filter_)
            case.write(MEGABYTE)
            case.finish()
            assert (await case.verdict()).size == 1
            case.run.close()
            for job in case.alive():
                os.kill(job, signal.SIGKILL)

    run(scenario())


@pytest.mark.parametrize("text", [b"text", MEGABYTE])
def test_exit_0_without_output_is_no_verdict_but_for_an_empty_message(run: Run, tmp_path: Path, text: bytes) -> None:
    async def scenario() -> None:
        async with filtering("exit 0", tmp_path) as filter_:
            assert (await judge(filter_, text))[0].reply == REPLIES[Ending.OUTPUT_EMPTY]
            assert (await judge(filter_, b""))[0].action is Action.PASS

    run(scenario())


def test_output_ends_with_the_last_who_holds_it(run: Run, tmp_path: Path) -> None:
    """1.10's habit: what a background job still writes belongs to the message."""

    async def scenario() -> None:
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

    run(scenario())


def test_endless_output_does_not_fill_the_disk(
    run_uvloop: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "OUTPUT_ALLOWANCE", 1_000_000)

    async def scenario() -> None:
        async with filtering("yes", tmp_path) as filter_:
            case = start(filter_)
            case.write(LINE)
            case.finish()
            assert (await case.verdict()).reply == REPLIES[Ending.OUTPUT_TOO_LARGE]
            await until(lambda: not case.alive(), "it is ended")

    run_uvloop(scenario())


def test_a_filter_may_return_several_times_what_it_got(
    run_uvloop: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "OUTPUT_ALLOWANCE", 0)

    async def scenario() -> None:
        copy = tmp_path / "copy"
        async with filtering(f"cat >{copy}; cat {copy} {copy} {copy} {copy}", tmp_path) as filter_:
            verdict, passed = await judge(filter_, MEGABYTE)
            assert verdict.action is Action.PASS
            assert passed == MEGABYTE * 4

    run_uvloop(scenario())


@pytest.mark.parametrize("directory", ["absent", "file"])
def test_an_unusable_directory_is_a_temporary_failure(run: Run, tmp_path: Path, directory: str) -> None:
    """Only a message that needs the disk meets it."""
    (tmp_path / "file").touch()

    async def scenario() -> None:
        async with filtering("cat", tmp_path) as filter_:
            filter_._launcher.space.directory = str(tmp_path / directory)
            assert (await judge(filter_, LINE))[0].action is Action.PASS
            verdict, _ = await judge(filter_, MEGABYTE)
            assert verdict.reply == REPLIES[Ending.SPOOL_MISSING]
            assert directory in verdict.detail

    run(scenario())


def test_the_read_size_is_what_a_pipe_holds() -> None:
    assert READ_SIZE == PIPE_CAPACITY
