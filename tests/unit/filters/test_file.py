"""FilterType file: EMAIL names the message; what has that name afterwards passes."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.endings import REPLIES, Ending
from proxsmtp_tp.filters.verdict import Action
from tests.unit.filters.filter_harness import WAIT_SECONDS, filtering, judge, message_files, start, until

if TYPE_CHECKING:
    from tests.unit.filters.conftest import Run

MESSAGE = b"Subject: hello\r\n\r\n" + b"Good morning.\r\n" * 100_000
SMALL = b"Subject: hello\r\n\r\nGood morning.\r\n"

PASSING = [
    ("true", SMALL),
    ("echo ignored; cat", SMALL),
    ('sed -i s/hello/goodbye/ "$EMAIL"', SMALL.replace(b"hello", b"goodbye")),
    ('sed s/hello/moved/ "$EMAIL" >"$EMAIL.new"; mv "$EMAIL.new" "$EMAIL"', SMALL.replace(b"hello", b"moved")),
    ('rm "$EMAIL"; echo new >"$EMAIL"', b"new\n"),
    ("echo 550 only a warning >&2", SMALL),
]

FAILING = [
    ('rm "$EMAIL"', Ending.OUTPUT_UNREADABLE),
    ('rm "$EMAIL"; ln -s /etc/passwd "$EMAIL"', Ending.OUTPUT_UNREADABLE),
    ('rm "$EMAIL"; mkfifo "$EMAIL"', Ending.OUTPUT_UNREADABLE),
    (': >"$EMAIL"', Ending.OUTPUT_EMPTY),
    ("/nonexistent/filter", Ending.NOT_FOUND),
    ("kill -KILL $$", Ending.KILLED),
]


@pytest.mark.parametrize(("command", "expected"), PASSING)
def test_what_has_the_name_passes(run_uvloop: Run, tmp_path: Path, command: str, expected: bytes) -> None:
    async def scenario() -> None:
        async with filtering(command, tmp_path, "file") as filter_:
            verdict, passed = await judge(filter_, SMALL)
            assert (verdict.action, passed) == (Action.PASS, expected)
        assert not message_files(tmp_path)

    run_uvloop(scenario())


@pytest.mark.parametrize(("command", "ending"), FAILING)
def test_what_is_no_message_does_not(run_uvloop: Run, tmp_path: Path, command: str, ending: Ending) -> None:
    async def scenario() -> None:
        async with filtering(command, tmp_path, "file") as filter_:
            verdict, _ = await judge(filter_, SMALL)
            assert verdict.reply == REPLIES[ending]
            assert verdict.detail.startswith(ending.value)
        assert not message_files(tmp_path)

    run_uvloop(scenario())


def test_a_directory_in_its_place_is_no_message(run_uvloop: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        filter_command = 'rm "$EMAIL"; mkdir "$EMAIL"; echo "$EMAIL" >name'
        async with filtering(f"cd {tmp_path}; {filter_command}", tmp_path, "file") as filter_:
            verdict, _ = await judge(filter_, SMALL)
            assert verdict.reply == REPLIES[Ending.OUTPUT_UNREADABLE]

    run_uvloop(scenario())
    Path((tmp_path / "name").read_text().strip()).rmdir()


def test_refused_with_the_last_line(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with filtering("echo 554 virus >&2; exit 1", tmp_path, "file") as filter_:
            verdict, _ = await judge(filter_, SMALL)
            assert verdict.reply is not None
            assert (verdict.action, verdict.reply.wire) == (Action.REJECT, b"554 virus\r\n")

    run(scenario())


def test_the_command_sees_the_whole_message_in_a_private_file(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        command = f'cd {tmp_path}; cp -p "$EMAIL" seen; echo "$EMAIL" >name; readlink /proc/self/fd/0 >>name'
        async with filtering(command, tmp_path, "file") as filter_:
            case = start(filter_)
            await case.write_in_pieces(MESSAGE)
            assert filter_.running == 0  # not before it is complete
            case.finish()
            assert (await case.verdict()).size == len(MESSAGE)
            assert case.read_all() == MESSAGE
            case.run.close()
            again = start(filter_)
            again.abort()
        assert (tmp_path / "seen").read_bytes() == MESSAGE
        assert stat.S_IMODE((tmp_path / "seen").stat().st_mode) == 0o600
        name, stdin = (tmp_path / "name").read_text().split()
        assert Path(name).parent == tmp_path
        assert stdin == "/dev/null"

    run(scenario())


def test_names_can_not_be_guessed(run_uvloop: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with filtering(f'echo "$EMAIL" >>{tmp_path}/names', tmp_path, "file") as filter_:
            for _ in range(5):
                await judge(filter_, SMALL)
        names = (tmp_path / "names").read_text().split()
        assert len(set(names)) == 5
        assert all(len(Path(name).name.removeprefix("proxsmtpd.")) >= 8 for name in names)

    run_uvloop(scenario())


def test_the_name_is_gone_before_the_message_is_read(run: Run, tmp_path: Path) -> None:
    """A crash while the server takes the message leaves nothing."""

    async def scenario() -> None:
        async with filtering("true", tmp_path, "file") as filter_:
            case = start(filter_)
            case.write(SMALL)
            assert len(message_files(tmp_path)) == 1
            case.finish()
            await case.verdict()
            assert not message_files(tmp_path)
            assert case.read_all(7) == SMALL
            case.run.close()

    run(scenario())


def test_a_message_that_shrinks_while_it_is_read_is_an_error_not_a_shorter_message(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with filtering(f'ln "$EMAIL" {tmp_path}/other', tmp_path, "file") as filter_:
            case = start(filter_)
            case.write(MESSAGE)
            case.finish()
            assert (await case.verdict()).size == len(MESSAGE)
            assert case.run.read(10) == MESSAGE[:10]
            (tmp_path / "other").write_bytes(b"")
            with pytest.raises(OSError, match="shorter"):
                case.read_all()
            case.run.close()

    run(scenario())


def test_a_message_that_grows_while_it_is_read_passes_as_it_was_judged(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with filtering(f'ln "$EMAIL" {tmp_path}/other', tmp_path, "file") as filter_:
            case = start(filter_)
            case.write(SMALL)
            case.finish()
            await case.verdict()
            with (tmp_path / "other").open("ab") as other:
                other.write(b"and one more thing")
            assert case.read_all() == SMALL
            case.run.close()

    run(scenario())


@pytest.mark.parametrize("directory", ["absent", "file"])
def test_an_unusable_directory_is_a_temporary_failure(run: Run, tmp_path: Path, directory: str) -> None:
    (tmp_path / "file").touch()

    async def scenario() -> None:
        async with filtering("true", tmp_path / directory, "file") as filter_:
            verdict, _ = await judge(filter_, SMALL)
            assert verdict.reply == REPLIES[Ending.SPOOL_MISSING]
            assert directory in verdict.detail

    run(scenario())


def test_a_background_job_on_standard_error_does_not_hold_the_message(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with filtering("sleep 1000 & true", tmp_path, "file", limit=WAIT_SECONDS * 100) as filter_:
            case = start(filter_)
            case.write(SMALL)
            case.finish()
            assert (await case.verdict()).action is Action.PASS
            assert case.read_all() == SMALL
            case.run.close()
            await until(lambda: not case.alive(), "what was left behind is ended")

    run(scenario())
