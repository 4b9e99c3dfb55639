"""A filter that does not answer several times in a row gets no mail for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.chain_endings import ChainEnding
from proxsmtp_tp.filters.member import FilterFailedError, Judgement, NotAskedError
from tests.unit.filters.chain_harness import UNREACHABLE, Chain, Fake
from tests.unit.filters.filter_harness import TEXT, judge, jump, start, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.filters.conftest import Run


def test_a_dead_filter_gets_a_pause_and_one_probe(
    run_jumping: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    member = Fake(FilterFailedError("refused", unreachable=True))
    chain = Chain(tmp_path, ("failure=pass", member))

    async def ask(times: int) -> None:
        for _ in range(times):
            assert (await judge(chain.filter, TEXT))[1] == TEXT

    async def main() -> None:
        await ask(8)
        assert len(member.mails) == 5
        jump(1.5)
        await ask(3)
        assert len(member.mails) == 6  # the trial failed
        jump(1.5)
        await ask(1)
        assert len(member.mails) == 6  # the pause is twice as long now
        jump(1)
        member.said = [Judgement()]
        await ask(3)
        assert len(member.mails) == 9

    run_jumping(main())
    assert caplog.text.count("filter f0 does not answer, and gets no mail for some seconds: refused") == 1
    assert caplog.text.count("filter f0 answers again") == 1
    assert f"filter f0 failed: {ChainEnding.PAUSED.value}" in caplog.text


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ([UNREACHABLE] * 5, 5),
        ([TimeoutError()] * 5, 5),  # `timeout=`
        ([FilterFailedError("it says nothing", timed_out=True)] * 5, 5),
        ([UNREACHABLE] * 4 + [NotAskedError("busy")] + [UNREACHABLE] * 5, 6),  # it says nothing about the filter
        ([UNREACHABLE] * 4 + [FilterFailedError("garbage")] + [UNREACHABLE] * 4, 9),  # an answer, if a wrong one
        ([UNREACHABLE] * 4 + [Judgement()] + [UNREACHABLE] * 4, 9),
    ],
)
def test_failures_in_a_row_begin_a_pause(
    run: Run, tmp_path: Path, said: list[Judgement | BaseException], asked: int
) -> None:
    member = Fake(*said)
    chain = Chain(tmp_path, member)

    async def main() -> None:
        for _ in range(asked + (asked != 9)):
            await judge(chain.filter, TEXT)

    run(main())
    assert len(member.mails) == asked


@pytest.mark.parametrize("how", ["the client leaves", "no place"])
def test_a_trial_without_an_answer_is_made_again(run_jumping: Run, tmp_path: Path, how: str) -> None:
    member = Fake(UNREACHABLE)
    chain = Chain(tmp_path, member)

    async def main() -> None:
        for _ in range(5):
            await judge(chain.filter, TEXT)
        jump(1.5)
        if how == "no place":
            member.said = [NotAskedError("busy")]
            await judge(chain.filter, TEXT)
        else:
            member.delay = 100
            case = start(chain.filter)
            case.write(TEXT)
            case.finish()
            await until(lambda: len(member.mails) == 6, "the trial")
            case.abort()
            await until(lambda: member.cancelled, "its end")
        member.said, member.delay = [Judgement()], 0.0
        await judge(chain.filter, TEXT)

    run_jumping(main())
    assert len(member.mails) == 7


def test_errors_about_one_message_begin_no_pause(run: Run, tmp_path: Path) -> None:
    member = Fake(FilterFailedError("garbage"))
    chain = Chain(tmp_path, member)

    async def main() -> None:
        for _ in range(9):
            await judge(chain.filter, TEXT)

    run(main())
    assert len(member.mails) == 9
