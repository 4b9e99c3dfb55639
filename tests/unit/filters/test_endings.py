"""Each way in which a command can end, and its verdict; from real commands."""

from __future__ import annotations

import errno
import os
import tempfile
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.settings import FilterDefault
from proxsmtp_tp.filters.endings import REPLIES, Ending
from proxsmtp_tp.filters.spool import MEMORY_LIMIT
from proxsmtp_tp.filters.verdict import Action, Verdict
from tests.unit.filters.filter_harness import filtering, judge, start

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.filters.command import Kind
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
    # Exit statuses of the shell that a script uses to refuse: it writes a code.
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

# Refusal or failure, which status and text do not tell: FilterDefault decides. Command, what the log says of it.
WITHOUT_CODE = [
    ("exit 1", "exit status 1"),
    ("echo Bad Email >&2; exit 75", "exit status 75 Bad Email"),
    ("python3 /missing.py", "/missing.py"),
    ("sh /missing.sh", "/missing.sh"),
    ("perl /missing.pl", "/missing.pl"),
    ("python3 -c 'raise ValueError(\"no header\")'", "exit status 1 ValueError: no header"),
    ("if", "Syntax error"),
    ("cat </missing", "/missing"),
    ("echo 354 go on >&2; exit 3", "exit status 3 354 go on"),
]


def decide(
    run: Run,
    command: str,
    directory: Path,
    message: bytes = MESSAGE,
    *,
    kind: Kind = "pipe",
    default: FilterDefault = FilterDefault.REJECT,
) -> tuple[Verdict, bytes]:
    async def scenario() -> tuple[Verdict, bytes]:
        async with filtering(command, directory, kind, default=default) as filter_:
            return await judge(filter_, message)

    return run(scenario())


def test_exit_0_passes_what_was_written(run: Run, tmp_path: Path) -> None:
    verdict, passed = decide(run, "cat", tmp_path)
    assert (verdict.action, verdict.detail, passed) == (Action.PASS, "passed", MESSAGE)


def test_exit_0_passes_whatever_standard_error_says(run_uvloop: Run, tmp_path: Path) -> None:
    verdict, passed = decide(run_uvloop, "echo 550 only a warning >&2; cat", tmp_path)
    assert (verdict.action, passed) == (Action.PASS, MESSAGE)
    assert (verdict.detail, verdict.errors) == ("passed: 550 only a warning", "550 only a warning")


TRACEBACK = """python3 -c '
def judge():
    raise ValueError("no \\"header\\"")
judge()'"""
# What the log says about standard error, beyond the line of the message: command, and this text.
ERRORS = [
    ("exit 1", ""),
    ("echo 550 5.7.1 No spam >&2; exit 1", ""),
    ("echo no code >&2; exit 1", ""),
    ("/nonexistent/filter", ""),
    ("echo warming up >&2; echo 550 5.7.1 No spam >&2; exit 1", "warming up / 550 5.7.1 No spam"),
    ("printf '\\n a\\r\\n\\n  \\nb' >&2; exit 1", "a / b"),
    ("cat >/dev/null; echo 'nothing to say' >&2", ""),
    ("echo why >&2; kill -KILL $$", ""),
    ("echo first >&2; echo why >&2; kill -KILL $$", "first / why"),
    (TRACEBACK, 'ValueError: no \\"header\\"'),
    ("printf 'a\\033[2J\\0b\\351\\nc' >&2; exit 1", "a\\x1b[2J\\x00b\\\\xe9 / c"),
    ("echo 'x\\\\' >&2; echo 'y\", status=FILTERED' >&2; exit 1", 'x\\\\ / y\\", status=FILTERED'),
]


@pytest.mark.parametrize("default", list(FilterDefault))
@pytest.mark.parametrize(("command", "errors"), ERRORS)
def test_what_a_filter_says_on_standard_error_is_for_the_log(
    run_uvloop: Run, tmp_path: Path, command: str, errors: str, default: FilterDefault
) -> None:
    verdict, _ = decide(run_uvloop, command, tmp_path, default=default)
    assert verdict.action is not Action.PASS
    if command == TRACEBACK:
        assert verdict.errors.startswith("Traceback (most recent call last): / File ")
        assert verdict.errors.endswith(errors)
    else:
        assert verdict.errors == errors
    assert verdict.errors == "" or verdict.errors.isprintable()


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


@pytest.mark.parametrize("kind", ["pipe", "file"])
@pytest.mark.parametrize(("command", "known"), WITHOUT_CODE)
def test_without_a_code_filter_default_decides(
    run_uvloop: Run, tmp_path: Path, command: str, known: str, kind: Kind
) -> None:
    rejected, _ = decide(run_uvloop, command, tmp_path, kind=kind)
    assert rejected.action is Action.REJECT
    assert rejected.reply is not None
    assert rejected.reply.wire.startswith(b"550 Content Rejected")
    assert b"/" not in rejected.reply.wire
    assert known.split(maxsplit=3)[-1] in f"{rejected.detail} {rejected.said}"

    deferred, _ = decide(run_uvloop, command, tmp_path, kind=kind, default=FilterDefault.DEFER)
    assert (deferred.action, deferred.reply) == (Action.TEMPFAIL, REPLIES[Ending.NO_CODE])
    assert deferred.detail.startswith("no SMTP code: exit status ")
    assert known in deferred.detail
    assert deferred.said == ""


@pytest.mark.parametrize(("command", "action", "reply"), [row for row in MEANT if b"Content Rejected" not in row[2]])
def test_filter_default_does_not_change_a_verdict_with_a_code(
    run_uvloop: Run, tmp_path: Path, command: str, action: Action, reply: bytes
) -> None:
    verdict, _ = decide(run_uvloop, command, tmp_path, default=FilterDefault.DEFER)
    assert verdict.reply is not None
    assert (verdict.action, verdict.reply.wire) == (action, reply)


@pytest.mark.parametrize(("command", "ending", "known"), NOT_MEANT)
def test_filter_default_does_not_change_the_reply_to_a_known_failure(
    run_uvloop: Run, tmp_path: Path, command: str, ending: Ending, known: str
) -> None:
    verdict, _ = decide(run_uvloop, command, tmp_path, default=FilterDefault.DEFER)
    assert (verdict.action, verdict.reply) == (Action.TEMPFAIL, REPLIES[ending])
    assert known in verdict.detail


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
    async def scenario() -> None:
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

    run(scenario())


# A message that TempDirectory does not take: only a lack of space is 452.
NOT_STORED = [
    (errno.ENOSPC, Ending.DISK_FULL, 452),
    (errno.EDQUOT, Ending.DISK_FULL, 452),
    (errno.EROFS, Ending.DISK_READ_ONLY, 451),
    (errno.EACCES, Ending.SPOOL_DENIED, 451),
    (errno.EPERM, Ending.SPOOL_DENIED, 451),
    (errno.ENOENT, Ending.SPOOL_MISSING, 451),
    (errno.ENOTDIR, Ending.SPOOL_MISSING, 451),
    (errno.EIO, Ending.SPOOL_FAILED, 451),
    (errno.EMFILE, Ending.SPOOL_FAILED, 451),
]


@pytest.mark.parametrize(("number", "ending", "code"), NOT_STORED)
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_a_message_that_is_not_stored(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, number: int, ending: Ending, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path))

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    monkeypatch.setattr(tempfile, "mkstemp", fail)

    async def scenario() -> Verdict:
        async with filtering("cat" if kind == "pipe" else "true", tmp_path, kind) as filter_:  # type: ignore[arg-type]
            return (await judge(filter_, b"x" * (MEMORY_LIMIT + 1)))[0]

    verdict = run(scenario())
    assert verdict.action is Action.TEMPFAIL
    assert verdict.reply is not None
    assert (verdict.reply, verdict.reply.code) == (REPLIES[ending], code)
    assert verdict.detail.startswith(f"{ending.value}: [Errno {number}] ")


def test_each_refusal_of_a_message_that_is_not_stored_has_its_own_words() -> None:
    endings = {ending for _, ending, _ in NOT_STORED}
    assert len({REPLIES[ending].wire for ending in endings}) == len(endings) == len({e.value for e in endings})
