"""FilterMode monitor: the message passes as it came, and the verdict says what the filter would have done."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.settings import FilterMode, FilterType, Settings
from proxsmtp_tp.filters.command import CommandFilter
from proxsmtp_tp.filters.endings import REPLIES, Ending
from proxsmtp_tp.filters.launcher import Command
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.monitor import MonitorFilter
from proxsmtp_tp.filters.spool import MEMORY_LIMIT
from proxsmtp_tp.filters.spool_space import SpoolSpace
from proxsmtp_tp.filters.table import make_filter
from proxsmtp_tp.filters.verdict import Action
from tests.unit.filters.filter_harness import WAIT_SECONDS, judge, nothing_left, pass_through, start, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from proxsmtp_tp.filters.command import Kind
    from tests.unit.filters.conftest import Run

SMALL = b"Subject: hello\r\n\r\n.\r\n..\r\nGood morning.\r\n"
LARGE = b"Subject: hello\r\n\r\n" + b"0123456789abcdef\r\n" * (MEMORY_LIMIT // 9)


@asynccontextmanager
async def monitoring(
    command: str, directory: Path, kind: Kind = "pipe", *, limit: float = WAIT_SECONDS, space: SpoolSpace | None = None
) -> AsyncIterator[MonitorFilter]:
    """A monitored filter that leaves nothing behind, and no octet in the spool."""
    space = space or SpoolSpace(str(directory))
    async with nothing_left(directory):
        judged = CommandFilter(Command(command, limit), kind, space, ProcessLimit(2))
        filter_ = MonitorFilter(judged, space)
        yield filter_
        await until(lambda: judged.running == 0, "every process is reaped")
        filter_.close()
    assert (space.memory, space._tally.total) == (0, 0)


CHANGED = "would change the message"
# Command, what the filter says, how the log says it.
JUDGED = [
    ("cat", Action.PASS, "would pass"),
    ("tr -d '\\r'", Action.PASS, "would pass"),  # LF for CR LF: the server would get the same octets
    ("sed s/hello/goodbye/", Action.PASS, CHANGED),
    ("sed s/hello/jello/", Action.PASS, CHANGED),  # of the same length
    ("cat; echo more", Action.PASS, CHANGED),
    ("head -c 20", Action.PASS, CHANGED),
    ("echo 550 5.7.1 No spam >&2; exit 1", Action.REJECT, "would reject: 550 5.7.1 No spam (exit status 1)"),
    ("echo 451 4.7.1 Later >&2; exit 1", Action.TEMPFAIL, "would defer: 451 4.7.1 Later (exit status 1)"),
    ("echo 250 Gone >&2; exit 1", Action.DISCARD, "would discard: 250 Gone (exit status 1)"),
    ("python3 /missing.py", Action.REJECT, "would reject: 550 Content Rejected (exit status 2)"),
    ("/nonexistent/filter", Action.TEMPFAIL, "would defer: 451 4.3.5 Content filter is not available"),
    ("kill -KILL $$", Action.TEMPFAIL, "would defer: 451 4.3.0 Content filter failed"),
    ("cat >/dev/null", Action.TEMPFAIL, "would defer: 451 4.3.0 Content filter returned no message"),
]


@pytest.mark.parametrize("message", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(("command", "action", "shown"), JUDGED)
def test_the_message_passes_as_it_came(
    run_uvloop: Run, tmp_path: Path, command: str, action: Action, shown: str, message: bytes
) -> None:
    async def scenario() -> None:
        async with monitoring(command, tmp_path) as filter_:
            verdict, passed = await judge(filter_, message)
            assert (verdict.action, verdict.reply, verdict.size) == (Action.PASS, None, len(message))
            assert passed == message
            assert verdict.monitored is not None
            assert verdict.monitored.action is action
            assert verdict.detail.startswith(shown)

    run_uvloop(scenario())


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ('echo more >>"$EMAIL"', CHANGED),
        ('rm "$EMAIL"', "would defer"),
        ("true", "would pass"),
        ("exit 3", "would rej"),
    ],
)
def test_a_changed_file_passes_as_it_came(run_uvloop: Run, tmp_path: Path, command: str, shown: str) -> None:
    async def scenario() -> None:
        async with monitoring(command, tmp_path, "file") as filter_:
            verdict, passed = await judge(filter_, SMALL)
            assert (passed, verdict.action) == (SMALL, Action.PASS)
            assert verdict.detail.startswith(shown)

    run_uvloop(scenario())


def test_a_filter_that_is_too_slow(run_uvloop: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with monitoring("echo waiting >&2; sleep 30", tmp_path, limit=0.5) as filter_:
            verdict, passed = await judge(filter_, SMALL)
            assert passed == SMALL
            assert verdict.monitored is not None
            assert verdict.monitored.reply == REPLIES[Ending.TIMED_OUT]

    run_uvloop(scenario())


def test_standard_error_is_for_the_log(run_uvloop: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with monitoring("echo one >&2; echo two >&2; exit 1", tmp_path) as filter_:
            assert (await judge(filter_, SMALL))[0].errors == "one / two"

    run_uvloop(scenario())


def test_a_directory_that_only_the_filter_needs(run_uvloop: Run, tmp_path: Path) -> None:
    """The verdict comes before the message is complete; a small message is in memory and passes."""

    async def scenario() -> None:
        space = SpoolSpace(str(tmp_path / "missing"))
        async with monitoring("true", tmp_path, "file", space=space) as filter_:
            verdict, passed = await judge(filter_, SMALL)
            assert passed == SMALL
            assert verdict.monitored is not None
            assert verdict.monitored.reply == REPLIES[Ending.SPOOL_MISSING]

    run_uvloop(scenario())


@pytest.mark.parametrize("limit", [100, len(SMALL) + len(SMALL) // 2])
def test_a_message_that_cannot_be_stored_is_refused(run_uvloop: Run, tmp_path: Path, limit: int) -> None:
    """Or, where there is space for one of both only, it passes: the original is stored first."""

    async def scenario() -> None:
        async with monitoring("cat", tmp_path, space=SpoolSpace(str(tmp_path), limit)) as filter_:
            verdict, passed = await judge(filter_, SMALL * 100 if limit == 100 else SMALL)
            if limit == 100:
                assert (verdict.reply, verdict.monitored, passed) == (REPLIES[Ending.SPOOL_FULL], None, b"")
            else:
                assert passed == SMALL
                assert verdict.monitored is not None
                assert verdict.monitored.reply == REPLIES[Ending.SPOOL_FULL]

    run_uvloop(scenario())


@pytest.mark.parametrize("when", ["before the text", "before its end", "while it is judged", "after the verdict"])
def test_nothing_is_left_of_a_message_that_is_given_up(run_uvloop: Run, tmp_path: Path, when: str) -> None:
    async def scenario() -> None:
        async with monitoring("cat", tmp_path) as filter_:
            case = start(filter_)
            if when != "before the text":
                case.write(LARGE)
            if when in {"while it is judged", "after the verdict"}:
                case.finish()
            if when == "after the verdict":
                await case.verdict()
            case.abort()
            case.write(SMALL)
            case.run.close()
            await pass_through()
            assert len(case.owner.verdicts) == (when == "after the verdict")

    run_uvloop(scenario())


@pytest.mark.parametrize("kind", [FilterType.PIPE, FilterType.FILE, FilterType.SMTP])
def test_the_mode_is_that_of_the_configuration(run: Run, kind: FilterType) -> None:
    async def scenario() -> None:
        settings = Settings(filter_command="127.0.0.1:10024", filter_type=kind, filter_mode=FilterMode.MONITOR)
        assert isinstance(make_filter(settings), MonitorFilter)
        await asyncio.sleep(0)

    run(scenario())
