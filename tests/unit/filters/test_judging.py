"""A new kind of filter needs its own file and a row: here is one, and how little it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.settings import FilterType, Settings
from proxsmtp_tp.filters import table
from proxsmtp_tp.filters.endings import REPLIES, Ending
from proxsmtp_tp.filters.judging import Judging
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.spool import Spool
from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.smtp.replies import Reply
from tests.unit.filters.court import Case, Owner, filtering, jump, pass_through, request, start, until

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.filters.interface import FilterOwner, FilterRequest
    from tests.unit.filters.conftest import Run

LIMIT = 30.0
TOO_LARGE = Verdict(Action.REJECT, Reply.of(552, "5.3.4 Message too big"), "too big")


class SizeRun(Judging):
    """Passes what is no larger than a hundred octets."""

    def __init__(self, places: ProcessLimit, request: FilterRequest, owner: FilterOwner) -> None:
        super().__init__(places, LIMIT, request, owner)
        self.started = False
        self._message = Spool("/nonexistent")

    def begin(self) -> None:
        self._set_paused(True)
        self._enter()

    def _start(self) -> None:
        self.started = True
        self._set_paused(False)
        self._clock.run()

    def _take(self, text: bytes) -> None:
        self._message.write(text)
        if self._message.size > 100:
            self._settle(TOO_LARGE)

    def _complete(self) -> None:
        self._message.rewind()
        self._settle(Verdict(Action.PASS, None, "small", self._message.size))

    def read(self, size: int) -> bytes:
        return self._message.read(size)

    def _out_of_time(self) -> None:
        self._trouble(Ending.TIMED_OUT)

    def _let_go(self) -> None:
        if self.started:
            self._limit.leave()

    def _discard(self) -> None:
        self._message.close()


class SizeFilter:
    """Two at once."""

    def __init__(self) -> None:
        self.places = ProcessLimit(2)

    def start(self, request: FilterRequest, owner: FilterOwner) -> SizeRun:
        run = SizeRun(self.places, request, owner)
        run.begin()
        return run

    def close(self) -> None:
        self.places.close()


def begin(filter_: SizeFilter) -> Case:
    owner = Owner()
    owner.inside = True
    run = filter_.start(request(), owner)
    owner.inside = False
    return Case(owner, run, b"")


def test_a_row_makes_it_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table._FILTERS, FilterType.FILE, lambda _settings, _command: SizeFilter())
    assert isinstance(table.make_filter(Settings(filter_type=FilterType.FILE, filter_command="100")), SizeFilter)


def test_it_passes_and_refuses(run: Run) -> None:
    async def scene() -> None:
        filter_ = SizeFilter()
        small, large = begin(filter_), begin(filter_)
        small.write(b"small")
        small.finish()
        assert (await small.verdict()).action is Action.PASS
        assert small.read_all() == b"small"
        large.write(b"x" * 101)
        large.write(b"more")
        large.finish()
        assert await large.verdict() == TOO_LARGE
        assert large.run.read(10) == b""
        for case in (small, large):
            case.run.close()
            case.run.close()
        assert filter_.places.taken == 0

    run(scene())


def test_the_third_waits_in_line_and_its_client_with_it(run_jumping: Run) -> None:
    async def scene() -> None:
        filter_ = SizeFilter()
        first, second, third, fourth = (begin(filter_) for _ in range(4))
        await pass_through()
        assert [case.owner.paused for case in (first, second, third, fourth)] == [False, False, True, True]
        first.abort()
        await pass_through()
        assert third.owner.flow == ["pause", "resume"]
        jump(LIMIT)
        assert (await second.verdict()).reply == REPLIES[Ending.TIMED_OUT]
        assert (await fourth.verdict()).reply == REPLIES[Ending.LINE_TIMED_OUT]
        assert fourth.owner.flow == ["pause", "resume"]
        assert first.owner.verdicts == []

    run_jumping(scene())


def test_a_verdict_that_was_not_told_before_the_abort_is_not_told(run: Run) -> None:
    async def scene() -> None:
        case = begin(SizeFilter())
        case.write(b"x" * 101)
        case.abort()
        await pass_through()
        assert case.owner.verdicts == []

    run(scene())


def test_when_the_worker_ends_nobody_is_granted_a_place_any_more(run: Run) -> None:
    async def scene() -> None:
        filter_ = SizeFilter()
        first, second, granted, waiting = (begin(filter_) for _ in range(4))
        first.abort()  # the third is granted its place, and hears of it from the loop
        filter_.close()
        second.abort()
        late = begin(filter_)
        await pass_through()
        assert filter_.places.taken == 0
        assert filter_.places.waiting == 0
        for case in (granted, waiting, late):
            assert not case.run.started  # type: ignore[attr-defined]
            case.abort()

    run(scene())


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_a_command_that_waits_in_line_is_not_started_when_the_worker_has_ended(
    run: Run, tmp_path: Path, kind: str
) -> None:
    async def scene() -> None:
        async with filtering(f"echo >>{tmp_path}/runs; sleep 1000", tmp_path, kind, processes=1) as filter_:  # type: ignore[arg-type]
            running, waiting = start(filter_), start(filter_)
            for case in (running, waiting):
                case.finish()
            await until((tmp_path / "runs").exists, "the first runs")
            filter_.close()
            await until(lambda: filter_.running == 0, "it is reaped")
            await pass_through()
            assert (tmp_path / "runs").read_text() == "\n"
            for case in (running, waiting):
                case.abort()

    run(scene())
