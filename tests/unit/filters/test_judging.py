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
from proxsmtp_tp.filters.spool_space import SpoolSpace
from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.smtp.replies import Reply
from tests.unit.filters.filter_harness import Case, Owner, filtering, jump, pass_through, request, start, until

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.filters.interface import FilterOwner, FilterRequest
    from tests.unit.filters.conftest import Run

LIMIT = 30.0
TOO_LARGE = Verdict(Action.REJECT, Reply.of(552, "5.3.4 Message too big"), "too big")


class SizeRun(Judging):
    """Passes what is no larger than a hundred octets, when it is told to look."""

    def __init__(self, places: ProcessLimit, request: FilterRequest, owner: FilterOwner) -> None:
        super().__init__(places, LIMIT, request, owner, Spool(SpoolSpace("/nonexistent")))
        self.started = False

    def _start(self) -> None:
        self.started = True

    def look(self) -> None:
        size = self._message.size
        self._settle(TOO_LARGE if size > 100 else Verdict(Action.PASS, None, "small", size))

    def read(self, size: int) -> bytes:
        return self._message.read(size)

    def _out_of_time(self) -> None:
        self._trouble(Ending.TIMED_OUT)

    def _let_go(self) -> None:
        if self.started:
            self._limit.leave()


class SizeFilter:
    """Two at once."""

    def __init__(self) -> None:
        self.places = ProcessLimit(2)

    def start(self, request: FilterRequest, owner: FilterOwner) -> SizeRun:
        return SizeRun(self.places, request, owner)

    def close(self) -> None:
        self.places.close()


def begin(filter_: SizeFilter) -> Case:
    owner = Owner()
    owner.inside = True
    run = filter_.start(request(), owner)
    owner.inside = False
    return Case(owner, run, b"")


def complete(filter_: SizeFilter, text: bytes = b"small") -> Case:
    case = begin(filter_)
    case.write(text)
    case.finish()
    return case


def run_of(case: Case) -> SizeRun:
    assert isinstance(case.run, SizeRun)
    return case.run


def test_a_row_makes_it_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table._FILTERS, FilterType.FILE, lambda *_arguments: SizeFilter())
    assert isinstance(table.make_filter(Settings(filter_type=FilterType.FILE, filter_command="100")), SizeFilter)


def test_it_passes_and_refuses(run: Run) -> None:
    async def scenario() -> None:
        filter_ = SizeFilter()
        small, large = complete(filter_), complete(filter_, b"x" * 101)
        for case in (small, large):
            run_of(case).look()
        assert (await small.verdict()).action is Action.PASS
        assert small.read_all() == b"small"
        assert await large.verdict() == TOO_LARGE
        assert large.run.read(10) == b""
        for case in (small, large):
            case.run.close()
            case.run.close()
        assert filter_.places.taken == 0

    run(scenario())


def test_nothing_starts_and_no_time_counts_before_the_message_is_complete(run_jumping: Run) -> None:
    """However many clients send slowly: they occupy no place that a complete message needs."""

    async def scenario() -> None:
        filter_ = SizeFilter()
        slow = [begin(filter_) for _ in range(64)]
        for case in slow:
            case.write(b"S")
        jump(LIMIT * 100)
        await pass_through()
        assert (filter_.places.taken, filter_.places.waiting) == (0, 0)
        quick = complete(filter_)
        assert run_of(quick).started
        run_of(quick).look()
        assert (await quick.verdict()).action is Action.PASS
        assert not any(run_of(case).started or case.owner.verdicts for case in slow)
        slow[0].finish()
        assert run_of(slow[0]).started
        for case in [quick, *slow]:
            case.abort()

    run_jumping(scenario())


def test_the_third_waits_in_line(run_jumping: Run) -> None:
    async def scenario() -> None:
        filter_ = SizeFilter()
        first, second, third, fourth = (complete(filter_) for _ in range(4))
        await pass_through()
        assert [run_of(case).started for case in (first, second, third, fourth)] == [True, True, False, False]
        first.abort()
        await pass_through()
        assert run_of(third).started
        jump(LIMIT)
        assert (await second.verdict()).reply == REPLIES[Ending.TIMED_OUT]
        assert (await fourth.verdict()).reply == REPLIES[Ending.LINE_TIMED_OUT]
        assert first.owner.verdicts == []

    run_jumping(scenario())


def test_no_verdict_is_reported_after_an_abort(run: Run) -> None:
    async def scenario() -> None:
        case = complete(SizeFilter(), b"x" * 101)
        run_of(case).look()
        case.abort()
        await pass_through()
        assert case.owner.verdicts == []

    run(scenario())


def test_when_the_worker_ends_no_place_is_granted_any_more(run: Run) -> None:
    async def scenario() -> None:
        filter_ = SizeFilter()
        first, second, granted, waiting = (complete(filter_) for _ in range(4))
        first.abort()  # the third is granted its place, and learns of it from the loop
        filter_.close()
        second.abort()
        late = complete(filter_)
        await pass_through()
        assert filter_.places.taken == 0
        assert filter_.places.waiting == 0
        for case in (granted, waiting, late):
            assert not run_of(case).started
            case.abort()

    run(scenario())


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_a_command_that_waits_in_line_is_not_started_when_the_worker_has_ended(
    run: Run, tmp_path: Path, kind: str
) -> None:
    async def scenario() -> None:
        async with filtering(f"echo >>{tmp_path}/runs; sleep 1000", tmp_path, kind, processes=1) as filter_:  # type: ignore[arg-type]
            running, waiting = start(filter_), start(filter_)
            for case in (running, waiting):
                case.finish()
            runs = tmp_path / "runs"
            await until(lambda: runs.exists() and runs.read_text(), "the first runs")
            filter_.close()
            await until(lambda: filter_.running == 0, "it is reaped")
            await pass_through()
            assert runs.read_text() == "\n"
            for case in (running, waiting):
                case.abort()

    run(scenario())
