"""A filter of a chain that fails, times out or ends with an error; a message that cannot be kept or read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.chain_endings import REPLIES, ChainEnding
from proxsmtp_tp.filters.edits import (
    AddHeader,
    ReplaceMessage,
)
from proxsmtp_tp.filters.endings import Ending, not_stored, trouble
from proxsmtp_tp.filters.member import FilterFailedError, Judgement
from proxsmtp_tp.filters.spool_space import SpoolFullError
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.replies import Reply
from proxsmtp_tp.telemetry.quoting import quoted
from tests.unit.filters.chain_harness import Chain, Fake, Lost, told
from tests.unit.filters.filter_harness import TEXT, jump, pass_through, start, until

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.filters.verdict import Verdict
    from tests.unit.filters.conftest import Run

FAILURES = [
    FilterFailedError("broken"),
    ConnectionResetError("broken"),
    EOFError("broken"),
    TimeoutError(),
]
ACTIONS = {"tempfail": Action.TEMPFAIL, "reject": Action.REJECT, "pass": Action.PASS, "quarantine": Action.REJECT}


@pytest.mark.parametrize("policy", ACTIONS)
@pytest.mark.parametrize("error", FAILURES)
def test_a_failure_is_what_the_policy_says_and_of_one_message(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, policy: str, error: Exception
) -> None:
    member = Fake(error, Judgement())
    chain = Chain(tmp_path, (f"failure={policy}", member))
    verdict, passed = run(chain.judge())
    assert verdict.action is ACTIONS[policy]
    assert told(verdict) == ["f0 failed"]
    assert passed == (TEXT if policy == "pass" else b"")
    assert "100001: filter f0 failed: " in caplog.text
    verdict, passed = run(chain.judge())
    assert passed == TEXT


def test_a_filter_without_a_connection_has_its_own_reply(run: Run, tmp_path: Path) -> None:
    member = Fake(FilterFailedError("refused", unreachable=True))
    assert run(Chain(tmp_path, member).judge())[0].reply == REPLIES[ChainEnding.UNREACHABLE]


@pytest.mark.parametrize("policy", ["tempfail", "pass"])
def test_a_message_that_is_lost_never_passes(run: Run, tmp_path: Path, policy: str) -> None:
    """No filter has failed: so `failure=` does not decide."""
    member = Fake(Judgement(edits=(ReplaceMessage(Lost(b"X: y\r\n\r\n")), AddHeader(b"X", b"y"))))
    verdict, passed = run(Chain(tmp_path, (f"failure={policy}", member)).judge())
    assert (verdict.action, passed) == (Action.TEMPFAIL, b"")
    assert verdict.reply == not_stored(OSError()).reply


def test_a_full_temp_directory_has_its_own_reply(run: Run, tmp_path: Path) -> None:
    """TempDirectory is full while the message comes."""
    chain = Chain(tmp_path, Fake())

    def full(_text: bytes) -> None:
        raise SpoolFullError("full")

    async def main() -> Verdict:
        case = start(chain.filter)
        case.write(TEXT)
        case.run._original.write = full  # type: ignore[attr-defined]
        case.write(TEXT)
        assert chain.space._tally.total == 0  # at once: others need it
        case.finish()
        verdict = await case.verdict()
        case.run.close()
        return verdict

    assert run(main()).reply == trouble(Ending.SPOOL_FULL, "").reply


FORGING = 'no, id=forged, "x'


def test_words_of_a_filter_cannot_look_like_a_field(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A comma outside of quotation marks ends a value, whoever chose the words."""
    caplog.set_level(logging.INFO)
    failing = Fake(FilterFailedError(FORGING, unreachable=True))
    shadow = Fake(Judgement(Action.REJECT, Reply.of(554, "no"), FORGING))
    chain = Chain(tmp_path, ("failure=pass", failing), ("mode=shadow", shadow))
    for _ in range(5):
        run(chain.judge())
    assert f"100001: filter f0 failed: {quoted(FORGING)}, id=" in caplog.text
    assert f"filter f0 does not answer, and gets no mail for some seconds: {quoted(FORGING)}\n" in caplog.text
    assert f", the verdict was pass: {quoted(FORGING)}, id=" in caplog.text
    assert "forged" not in caplog.text.replace(quoted(FORGING), "")


def test_a_bug_ends_the_connection(run: Run, tmp_path: Path) -> None:
    chain = Chain(tmp_path, Fake(ZeroDivisionError()))
    failed: list[Exception] = []

    async def main() -> None:
        case = start(chain.filter)
        case.owner.filter_failed = failed.append  # type: ignore[assignment,method-assign]
        case.write(TEXT)
        case.finish()
        await until(lambda: failed, "the bug is told")
        case.run.close()

    run(main())
    assert isinstance(failed[0], ZeroDivisionError)
    assert chain.space._tally.total == 0


def test_timeout_is_a_total(run_jumping: Run, tmp_path: Path) -> None:
    member = Fake(delay=100)
    chain = Chain(tmp_path, ("timeout=20", member))

    async def main() -> Verdict:
        case = start(chain.filter)
        case.write(TEXT)
        case.finish()
        await pass_through(10)
        jump(19)
        await pass_through(10)
        assert not case.owner.verdicts
        jump(2)
        return await case.verdict()

    verdict = run_jumping(main())
    assert verdict.reply == REPLIES[ChainEnding.TIMED_OUT]
    assert member.cancelled == 1
