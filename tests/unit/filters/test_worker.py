"""Filter type worker: a pool of processes; each end of one costs at most one message."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.filters import worker, worker_process
from proxsmtp_tp.filters.mail import CHUNK
from proxsmtp_tp.filters.member import FilterFailedError
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.envelope import Envelope
from tests.child_processes import child_processes
from tests.unit.filters.filter_harness import until
from tests.unit.filters.member_harness import TEXT
from tests.unit.filters.worker_harness import pool

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE = TEXT + b"The quick brown fox jumps over the lazy dog, and over it again.\r\n" * 20_000

SHELL = r"""
printf 'proxsmtp-worker=1\n\n'
while read -r line; do
    case $line in
    size=*) size=${line#size=} ;;
    "") head -c "$size" >"$0.$$"
        %s ;;
    esac
done
rm -f "$0.$$"
"""
"""A worker in the shell: what it does with each message, in the file $0.$$, comes in between."""


def script(tmp_path: Path, each: str) -> str:
    """A worker in the shell."""
    path = tmp_path / "worker.sh"
    path.write_text(SHELL % each)
    return f"exec sh {path}"


def python(tmp_path: Path, judge: str) -> str:
    """A worker in Python with this body of `judge`."""
    path = tmp_path / "worker.py"
    path.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
        "from proxsmtp_tp.worker import *\nimport os, time\n"
        f"def judge(message):\n{textwrap.indent(textwrap.dedent(judge), '    ')}\nrun(judge)\n"
    )
    return f"exec {sys.executable} {path}"


PID = r"""printf 'action=pass\naddheader=P %s\n\n' $$"""


def test_one_process_judges_many_messages(tmp_path: Path) -> None:
    async def case() -> None:
        async with pool(tmp_path, script(tmp_path, PID)) as workers:
            results = {(await workers.judge())[1] for _ in range(5)}
            assert len(results) == 1
            assert len(workers.member._all) == 1

    asyncio.run(case())


def test_messages_at_once_get_a_process_each(tmp_path: Path) -> None:
    async def case() -> None:
        async with pool(tmp_path, script(tmp_path, f"sleep 0.2; {PID}")) as workers:
            results = await asyncio.gather(*(workers.judge() for _ in range(3)))
            assert len({text for _, text in results}) == 3
            assert len(workers.member._idle) == 3

    asyncio.run(case())


@pytest.mark.parametrize("text", [TEXT, LARGE, b"no header\r\n"])
def test_python(tmp_path: Path, text: bytes) -> None:
    body = """
    assert message.sender == "a@example.org" and message.recipients == ["b@example.org"]
    assert message.facts["helo"] == "client.example" and message.client == "192.0.2.7"
    print("not on standard output")
    data = message.read()
    assert len(data) == message.size
    return passed().replace(data.replace(b"o", b"0")).add_header("A", "b")
    """

    async def case() -> None:
        async with pool(tmp_path, python(tmp_path, body)) as workers:
            for _ in range(2):
                _judgement, after = await workers.judge(text)
                assert after.replace(b"A: b\r\n", b"").lstrip(b"\r\n") == text.replace(b"o", b"0")

    asyncio.run(case())


@pytest.mark.parametrize(
    ("answer", "action", "wire"),
    [
        ("rejected('550 5.7.1 100% no')", Action.REJECT, b"550 5.7.1 100% no\r\n"),
        ("deferred('451 4.7.1 later')", Action.TEMPFAIL, b"451 4.7.1 later\r\n"),
        ("discarded()", Action.DISCARD, None),
        ("quarantined('bad')", Action.PASS, None),
    ],
)
def test_verdicts(tmp_path: Path, answer: str, action: Action, wire: bytes | None) -> None:
    async def case() -> None:
        async with pool(tmp_path, python(tmp_path, f"return {answer}")) as workers:
            judgement, _ = await workers.judge()
            assert judgement.action is action
            assert (judgement.reply.wire if judgement.reply else None) == wire

    asyncio.run(case())


@pytest.mark.parametrize(
    ("each", "words"),
    [
        ("exit 3", "it ended, exit status 3"),
        ("echo oops >&2; kill -9 $$", "it ended, signal 9: oops"),
        ("exec >&-", "it closed its standard output"),
        (r"printf 'hello\n\n'", "no line name=value"),
        (r"printf 'action=pass\n\nmore'", "more than it announced"),
        (r"printf 'action=pass\nsize=3\n\nA: bcd'", "more than it announced"),
        (r"printf 'action=pass\nsize=99\n\nA'; exit", "it ended, exit status 0"),
        ("head -c 2000000 /dev/zero", "a head of more than"),
    ],
)
def test_a_failure_costs_one_message(tmp_path: Path, each: str, words: str) -> None:
    """The second message of the first process fails; the third one gets another process."""
    command = script(tmp_path, f"if [ -e {tmp_path}/armed ]; then rm {tmp_path}/armed; {each}; else {PID}; fi")

    async def case() -> None:
        async with pool(tmp_path, command) as workers:
            _, first = await workers.judge()
            (tmp_path / "armed").touch()
            await workers.fails(words)
            _, third = await workers.judge()
            assert third != first

    asyncio.run(case())


def test_a_message_that_is_not_read(tmp_path: Path) -> None:
    """The rest would be taken for the next message."""
    loop = r"while read -r line; do case $line in '') printf 'action=pass\n\n';; esac; done"

    async def case() -> None:
        async with pool(tmp_path, rf"printf 'proxsmtp-worker=1\n\n'; {loop}") as workers:
            await workers.fails("before it had read the whole message", LARGE)
            assert not workers.member._idle

    asyncio.run(case())


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        (r"sleep 0.3; printf 'action=pass\n\n'", "before it had read the whole message"),
        ("exec sleep 60", "it closed its standard input"),
    ],
)
def test_a_process_that_closes_its_input(tmp_path: Path, rest: str, words: str) -> None:
    """It has not read the whole message."""
    loop = rf"while read -r line; do case $line in '') exec 0</dev/null; {rest};; esac; done"

    async def case() -> None:
        async with pool(tmp_path, rf"printf 'proxsmtp-worker=1\n\n'; {loop}") as workers:
            await workers.fails(words, LARGE)
            assert not workers.member._idle

    asyncio.run(case())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("exit 1", "it did not get ready: it ended, exit status 1"),
        ("/nonexistent", "it did not get ready: it ended, exit status 127"),
        ("echo hello; echo; cat", "it did not get ready: no line"),
        ("printf 'proxsmtp-worker=2\n\n'; cat", "it did not get ready: not ready"),
        ("exec sleep 60", "it was not ready within 0.3 s"),
    ],
)
def test_a_command_that_does_not_get_ready(tmp_path: Path, command: str, words: str) -> None:
    async def case() -> None:
        async with pool(tmp_path, command, start=0.3 if "sleep" in command else 10.0) as workers:
            assert (await workers.fails(words)).unreachable
            workers.member._not_before += 60  # however slow this machine is
            assert (await workers.fails(r"it is not started for \d+ s more")).unreachable
            assert not workers.member._idle

    asyncio.run(case())


def test_the_pause_between_starts_grows(tmp_path: Path) -> None:
    async def case() -> None:
        async with pool(tmp_path, "exit 1") as workers:
            pauses = []
            for _ in range(8):
                workers.member._not_before = 0
                await workers.fails("did not get ready")
                pauses.append(workers.member._pause)
            assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]

    asyncio.run(case())


def test_a_message_that_ends_new_processes_costs_no_other(tmp_path: Path) -> None:
    """Its sender could otherwise stop the mail of all for a minute."""

    async def case() -> None:
        ends = 'if message.sender == "bad@example.org": os._exit(3)\nreturn passed()'
        async with pool(tmp_path, python(tmp_path, ends)) as workers:
            for _ in range(3):
                with pytest.raises(FilterFailedError, match="exit status 3"):
                    await workers.judge(envelope=Envelope(b"bad@example.org", b"", [b"b@example.org"], [b""]))
            assert (await workers.judge())[0].action is Action.PASS

    asyncio.run(case())


def test_cancelled(tmp_path: Path) -> None:
    """The time limit of the chain, or a client that has left: the process is ended."""

    async def case() -> None:
        async with pool(tmp_path, script(tmp_path, "sleep 60")) as workers:
            task = asyncio.create_task(workers.judge())
            await until(lambda: bool(workers.member._all), "the processes")
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not workers.member._all, "the processes")

    asyncio.run(case())


def test_a_process_that_ends_while_it_is_idle(tmp_path: Path) -> None:
    async def case() -> None:
        async with pool(tmp_path, script(tmp_path, PID)) as workers:
            _, first = await workers.judge()
            (process,) = child_processes()
            os.kill(process, signal.SIGTERM)
            await until(lambda: not workers.member._idle, "the processes")
            _, second = await workers.judge()
            assert first != second

    asyncio.run(case())


@pytest.mark.parametrize("settings", [{"requests": 1}, {"lifetime": 0}, {"idle": 0.1, "min": 0}])
def test_a_process_leaves(tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: dict[str, Any]) -> None:
    """It gets the end of its input, and can clean up: the script removes its file."""

    async def case() -> None:
        async with pool(tmp_path, script(tmp_path, PID), **settings) as workers:
            await workers.judge()
            await until(lambda: not workers.member._all, "the processes")
            await until(lambda: not list(tmp_path.glob("worker.sh.*")), "the processes")
            await until(lambda: not child_processes(), "every process is reaped")

    asyncio.run(case())
    assert not caplog.messages  # nothing is wrong


def test_an_answer_without_a_question_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It would be the beginning of the answer to the next message, of another sender."""
    each = f"{PID}; if [ ! -e {tmp_path}/once ]; then touch {tmp_path}/once; sleep 0.2; printf 'action=discard\\n'; fi"

    async def case() -> None:
        async with pool(tmp_path, script(tmp_path, each)) as workers:
            _, first = await workers.judge()
            await until(lambda: not workers.member._idle, "the process is ended")
            judgement, second = await workers.judge()
            assert judgement.action is Action.PASS
            assert second != first

    asyncio.run(case())
    assert "filter w: a process is ended: it wrote something that nobody had asked for: 'action=discard" in caplog.text


def test_a_process_that_does_not_leave_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pool` waits until every process is reaped."""
    monkeypatch.setattr(worker_process, "LEAVE", 0.2)

    async def case() -> None:
        command = script(tmp_path, PID)
        with (tmp_path / "worker.sh").open("a") as file:
            file.write("sleep 300\n")
        async with pool(tmp_path, command, requests=1) as workers:
            await workers.judge()
            await until(lambda: not workers.member._all, "the processes")

    asyncio.run(case())


def test_no_more_is_written_than_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it did not read before it answered would wait in memory."""
    loop, pieces = r"while read -r line; do case $line in '') printf 'action=pass\n\n'; sleep 300;; esac; done", 0
    asked = worker._question

    def counted(*given: Any) -> Iterator[bytes]:
        nonlocal pieces
        for piece in asked(*given):
            pieces += 1
            yield piece

    monkeypatch.setattr(worker, "_question", counted)

    async def case() -> None:
        async with pool(tmp_path, rf"printf 'proxsmtp-worker=1\n\n'; {loop}") as workers:
            await workers.fails("before it had read the whole message", LARGE)

    asyncio.run(case())
    assert pieces < len(LARGE) / CHUNK


def test_the_end_of_the_daemon_ends_a_message(tmp_path: Path) -> None:
    async def case() -> None:
        async with pool(tmp_path, script(tmp_path, f"touch {tmp_path}/asked; sleep 300")) as workers:
            task = asyncio.create_task(workers.judge())
            await until((tmp_path / "asked").exists, "it is asked")
            workers.member.close()
            with pytest.raises(FilterFailedError):
                await task

    asyncio.run(case())


def test_as_many_as_min_stay(tmp_path: Path) -> None:
    async def case() -> None:
        async with pool(tmp_path, script(tmp_path, f"sleep 0.2; {PID}"), idle=0.3, min=1) as workers:
            await asyncio.gather(*(workers.judge() for _ in range(3)))
            await until(lambda: len(workers.member._idle) == 1, "the processes")
            await asyncio.sleep(0.5)
            assert len(workers.member._idle) == 1

    asyncio.run(case())


def test_memory(tmp_path: Path) -> None:
    async def case() -> None:
        command = python(tmp_path, "return passed().add_header('A', str(len(bytearray(200 << 20))))")
        async with pool(tmp_path, command, memory=100 << 20) as workers:
            await workers.fails("MemoryError")
        async with pool(tmp_path, command, memory=900 << 20) as workers:
            await workers.judge()

    asyncio.run(case())


def test_standard_error_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the message for which it was written; or alone."""
    caplog.set_level("INFO")
    each = f"echo within >&2; {PID}; (sleep 0.1; echo between >&2; touch {tmp_path}/written) & wait"

    async def case() -> None:
        async with pool(tmp_path, "echo start >&2; " + script(tmp_path, each)) as workers:
            judgement, _ = await workers.judge()
            assert judgement.errors == "within"
            await until((tmp_path / "written").exists, "what it writes")
            await workers.judge()

    asyncio.run(case())
    assert [record.getMessage() for record in caplog.records] == [
        'filter w: a process wrote between two messages: "start"',
        'filter w: a process wrote between two messages: "between"',
    ]


def test_check(tmp_path: Path) -> None:
    async def case() -> None:
        async with pool(tmp_path, script(tmp_path, PID)) as workers:
            assert (await workers.member.describe())[0].endswith("ready")

    asyncio.run(case())
