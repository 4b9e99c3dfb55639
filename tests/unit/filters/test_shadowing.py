"""Filters with mode=shadow: their verdicts are logged, and change nothing."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.edits import (
    AddHeader,
    ReplaceMessage,
)
from proxsmtp_tp.filters.member import Judgement
from proxsmtp_tp.filters.shadowing import AT_ONCE
from proxsmtp_tp.filters.verdict import Action
from tests.unit.filters.chain_harness import NO, Chain, Fake, Lost, told
from tests.unit.filters.filter_harness import TEXT, judge, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.filters.conftest import Run


def test_shadow(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shadow = Fake(NO)
    first = Fake(Judgement(edits=(AddHeader(b"X", b"1"),)))
    verdict, _ = run(Chain(tmp_path, ("mode=shadow", shadow), first).judge())
    assert verdict.action is Action.PASS
    assert told(verdict) == ["f1 edit"]
    assert shadow.mails == [TEXT]  # as the client sent it
    assert re.search(r"shadow filter f0: would reject after \d+\.\d", caplog.text)
    assert "the verdict was pass: found: it" in caplog.text


def test_shadows_that_are_too_slow_are_left_out(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shadow = Fake(delay=0.3)
    chain = Chain(tmp_path, ("mode=shadow", shadow), Fake())

    async def main() -> None:
        for _ in range(AT_ONCE + 2):
            assert (await judge(chain.filter, TEXT))[0].action is Action.PASS
        await until(lambda: not chain.filter.shadows._tasks, "shadows end")

    run(main())
    assert len(shadow.mails) == AT_ONCE
    assert caplog.text.count("did not get 2 messages") == 1
    assert chain.space._tally.total == 0


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (ZeroDivisionError(), "a shadow filter ended with an error"),
        (
            Judgement(edits=(ReplaceMessage(Lost(b"X: y\r\n\r\n")), AddHeader(b"X", b"y"))),
            "a shadow filter cannot read the message: [Errno 5] lost",
        ),
    ],
)
def test_a_shadow_that_breaks_costs_nothing(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, said: Judgement | BaseException, words: str
) -> None:
    chain = Chain(tmp_path, ("mode=shadow", Fake(said)), Fake())
    for _ in range(2):
        assert run(chain.judge())[1] == TEXT
    assert caplog.text.count(words) == 2


def test_shadows_end_with_the_worker(run: Run, tmp_path: Path) -> None:
    shadow = Fake(delay=100)
    chain = Chain(tmp_path, ("mode=shadow", shadow), Fake())

    async def main() -> None:
        await judge(chain.filter, TEXT)
        await until(lambda: shadow.mails, "it is asked")
        chain.filter.close()
        await until(lambda: not chain.filter.shadows._tasks, "shadows end")

    run(main())
    assert shadow.cancelled == 1
    assert chain.space._tally.total == 0
