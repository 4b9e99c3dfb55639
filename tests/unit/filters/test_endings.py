"""Each way in which a command can end, and its verdict; from real commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.endings import REPLIES, Ending
from proxsmtp_tp.filters.verdict import Action, Verdict
from tests.unit.filters.filter_harness import filtering, judge, start

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.filters.conftest import Run

MESSAGE = b"Subject: hello\r\n\r\nGood morning.\r\n"

# What the command meant: command, verdict, reply.
MEANT = [
    ("exit 1", Action.REJECT, b"550 Content Rejected\r\n"),
    ("echo Bad Email >&2; exit 1", Action.REJECT, b"550 Content Rejected; Bad Email\r\n"),
    ("echo 550 Bad Email >&2; exit 1", Action.REJECT, b"550 Bad Email\r\n"),
    ("echo 554 5.7.1 virus >&2; exit 77", Action.REJECT, b"554 5.7.1 virus\r\n"),
    ("printf '550 one\\n\\n551 two\\r\\n \\n' >&2; exit 1", Action.REJECT, b"551 two\r\n"),
    ("printf '550 no newline' >&2; exit 1", Action.REJECT, b"550 no newline\r\n"),
    ("echo 451 later >&2; exit 1", Action.TEMPFAIL, b"451 later\r\n"),
    ("echo 421 closing >&2; exit 1", Action.TEMPFAIL, b"451 closing\r\n"),
    ("echo 250 Gone >&2; exit 1", Action.DISCARD, b"250 Gone\r\n"),
    ("cat; echo 550 judged whole >&2; exit 1", Action.REJECT, b"550 judged whole\r\n"),
    # The shell's own exit statuses, meant: the script says so with a code.
    ("echo 550 quota >&2; exit 127", Action.REJECT, b"550 quota\r\n"),
    ("echo 550 quota >&2; exit 137", Action.REJECT, b"550 quota\r\n"),
    ("echo too much >&2; exit 137", Action.REJECT, b"550 Content Rejected; too much\r\n"),
    ("exit 255", Action.REJECT, b"550 Content Rejected\r\n"),
]

# What it did not mean: command, ending, what the log says of it.
NOT_MEANT = [
    ("/nonexistent/filter", Ending.NOT_FOUND, "/nonexistent/filter"),
    ("/etc/passwd", Ending.NOT_FOUND, "denied"),
    ("cat >/dev/null; exec /nonexistent/filter", Ending.NOT_FOUND, "/nonexistent/filter"),
    ("cat | nonexistent-filter", Ending.NOT_FOUND, "nonexistent-filter"),
    ("kill -KILL $$", Ending.KILLED, "SIGKILL"),
    ("echo 550 no >&2; kill -SEGV $$", Ending.KILLED, "SIGSEGV 550 no"),
    ("sh -c 'kill -KILL $$'; exit $?", Ending.KILLED, "SIGKILL"),
    ("cat >/dev/null", Ending.OUTPUT_EMPTY, ""),
    ("cat >/dev/null; echo nothing to say >&2", Ending.OUTPUT_EMPTY, "nothing to say"),
]


def decide(run: Run, command: str, directory: Path, message: bytes = MESSAGE) -> tuple[Verdict, bytes]:
    async def scene() -> tuple[Verdict, bytes]:
        async with filtering(command, directory) as filter_:
            return await judge(filter_, message)

    return run(scene())


def test_exit_0_passes_what_was_written(run: Run, tmp_path: Path) -> None:
    verdict, passed = decide(run, "cat", tmp_path)
    assert (verdict.action, verdict.detail, passed) == (Action.PASS, "passed", MESSAGE)


def test_exit_0_passes_whatever_standard_error_says_and_logs_it(
    run_uvloop: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "proxsmtp_tp.filters")
    verdict, passed = decide(run_uvloop, "echo 550 only a warning >&2; cat", tmp_path)
    assert (verdict.action, passed) == (Action.PASS, MESSAGE)
    assert verdict.detail == "passed: 550 only a warning"
    assert "100001: filter passed: 550 only a warning" in caplog.messages


@pytest.mark.parametrize(("command", "action", "reply"), MEANT)
def test_what_the_command_meant(run_uvloop: Run, tmp_path: Path, command: str, action: Action, reply: bytes) -> None:
    verdict, _ = decide(run_uvloop, command, tmp_path)
    assert verdict.reply is not None
    assert (verdict.action, verdict.reply.wire) == (action, reply)
    assert verdict.detail.startswith("exit status ")
    words = reply.decode().strip().removeprefix("550 Content Rejected; ")
    assert verdict.said in {words, words.removeprefix("550 ")}


@pytest.mark.parametrize(("command", "ending", "known"), NOT_MEANT)
def test_what_the_command_did_not_mean(
    run_uvloop: Run, tmp_path: Path, command: str, ending: Ending, known: str
) -> None:
    verdict, _ = decide(run_uvloop, command, tmp_path)
    assert (verdict.action, verdict.reply) == (Action.TEMPFAIL, REPLIES[ending])
    assert verdict.detail.startswith(ending.value)
    assert known in verdict.detail
    assert verdict.said == ""  # it failed, it did not judge


def test_an_empty_message_may_stay_empty(run_uvloop: Run, tmp_path: Path) -> None:
    verdict, passed = decide(run_uvloop, "cat", tmp_path, b"")
    assert (verdict.action, passed) == (Action.PASS, b"")


def test_every_ending_that_is_not_meant_has_a_reply_of_its_own() -> None:
    meant = {Ending.PASSED, Ending.REFUSED}
    assert set(REPLIES) == set(Ending) - meant
    for reply in REPLIES.values():
        assert reply.transient
        assert reply.texts[0].startswith(b"4.")
        assert reply.code != 421


def test_a_refusal_does_not_need_the_whole_message_read(run: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        async with filtering("head -c 5 >/dev/null; echo 550 seen enough >&2; exit 1", tmp_path) as filter_:
            case = start(filter_)
            case.write(b"Subject: hello\r\n" + b"more" * 100_000)
            case.finish()
            verdict = await case.verdict()
            assert (verdict.action, verdict.reply and verdict.reply.wire) == (
                Action.REJECT,
                b"550 seen enough\r\n",
            )
            assert case.run.read(10) == b""
            case.run.close()
            case.run.close()
            assert len(case.owner.verdicts) == 1

    run(scene())
