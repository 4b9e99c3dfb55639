"""A command that is executed directly has the same result as with a shell."""

from __future__ import annotations

import os
import select
import signal
import stat
import time
from contextlib import suppress
from pathlib import Path

import pytest

from proxsmtp_tp.filters import execution
from proxsmtp_tp.filters.execution import Execution

TOOLS = {
    "env": '#!/bin/sh\nexec tr "\\0" "\\n" </proc/$$/environ',
    "whoami": '#!/bin/sh\nprintf "%s\\n" "$0" "$@"',
    "no-line": 'printf "%s\\n" "no line:" "$0" "$@"',
    "no-interpreter": "#!/nonexistent/sh\n",
    "carriage-return": "#!/bin/sh\r\necho",
    "status": '#!/bin/sh\necho "some text" >&2; exit "$1"',
    "killed": "#!/bin/sh\nkill -KILL $$",
    "where": "#!/bin/sh\npwd -P; umask; ulimit -n; ulimit -v",
    "state": "#!/usr/bin/perl\nopen F, '/proc/self/status'; print grep { /^Sig(Blk|Ign|Cgt)/ } <F>",
}


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A directory of programs."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name, text in TOOLS.items():
        (folder / name).write_text(text + "\n")
        (folder / name).chmod(0o755)
    (folder / "forbidden").write_text("#!/bin/sh\n")
    (folder / "folder").mkdir()
    return folder


def run(command: str, environment: dict[bytes, bytes], *, killed_with_us: bool = False) -> tuple[int, str, str]:
    """Status as waitpid(2) gives it, standard output, standard error."""
    prepared = Execution(command, environment, killed_with_us=killed_with_us).prepared({b"SENDER": b"a@example.org"})
    pipes = [os.pipe(), os.pipe()]
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    pid = prepared.spawn([null, *(writing for _, writing in pipes)])
    os.close(null)
    said = []
    for reading, writing in pipes:
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            said.append(stream.read().decode("utf-8", "backslashreplace"))
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status), said[0], said[1]


def both(
    command: str, environment: dict[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> tuple[tuple[int, str, str], tuple[int, str, str]]:
    """As it is executed now, and by the shell in any case."""
    now = run(command, environment)
    with monkeypatch.context() as patch:
        patch.setattr(execution, "words", lambda _command: ())
        return now, run(command, environment)


@pytest.mark.parametrize(
    "command",
    [
        "env",
        "whoami a  b=c",
        "{tools}/whoami a",
        "no-line a b",
        "{tools}/no-line a",
        "nonexistent",
        "/nonexistent/filter",
        "{tools}/nonexistent",
        "no-interpreter",
        "carriage-return",
        "forbidden",
        "{tools}/forbidden",
        "folder",
        "{tools}/folder",
        "{tools}",
        "status 0",
        "status 3",
        "status 126",
        "where",
        "state",
        "..",
        "tools/whoami a",
        "./tools/no-line",
    ],
)
def test_the_result_is_that_of_the_shell(
    tools: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {
        b"PATH": os.fsencode(f"/nonexistent:{tools}:/usr/bin"),
        b"LANG": b"C.UTF-8",
        b"OLDPWD": b"/x",
        b"_": b"y",
    }
    directly, by_shell = both(command.format(tools=tools), environment, monkeypatch)
    assert (directly[0], sorted(directly[1].splitlines()), directly[2]) == (
        by_shell[0],
        sorted(by_shell[1].splitlines()),
        by_shell[2],
    )


@pytest.mark.parametrize(
    "more",
    [
        {},
        {b"PWD": b"/"},
        {b"PWD": b"/nonexistent"},
        {b"PWD": b"relative"},
        {b"PWD": b"{link}"},
        {b"OLDPWD": b"/tmp", b"_": b"/usr/bin/x", b"SHLVL": b"7", b"LINENO": b"9"},
        {b"IFS": b"x"},
        {b"OPTIND": b"4"},
        {b"PPID": b"4"},
        {b"A.B": b"1", b"9A": b"2", b"BASH_FUNC_x%%": b"() { :; }"},
        {b"PS1": b"x", b"PS4": b"y", b"ENV": b"/nonexistent", b"MAIL": b"m", b"HISTSIZE": b"3", b"RANDOM": b"4"},
        {b"EMPTY": b"", b"LATIN": b"\xe9", b"LINE": b"a\nb"},
    ],
)  # fmt: skip
def test_the_environment_is_that_of_the_shell(
    tools: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: dict[bytes, bytes]
) -> None:
    link = tmp_path / "link"
    link.symlink_to(tools)
    monkeypatch.chdir(link)
    given = {name: value.replace(b"{link}", bytes(link)) for name, value in more.items()}
    directly, by_shell = both("env", {b"PATH": b"/usr/bin", **given}, monkeypatch)
    variables = [
        {line for line in each[1].splitlines() if not line.startswith("PPID=")} for each in (directly, by_shell)
    ]
    assert "SENDER=a@example.org" in variables[0]
    assert variables[0] == variables[1]


@pytest.mark.parametrize(
    "path", ["{a}:{b}", "{b}:{a}", ":{b}", "{b}:", "{a}::{b}", "{c}:{b}", "{d}:{b}", "{b}/show:{b}", None]
)
def test_the_program_is_found_as_the_shell_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    """a: not executable. b: executable. c: a directory of that name. d: nothing. The empty name: here."""
    folders = {name: tmp_path / name for name in "abcd"}
    for name, folder in folders.items():
        folder.mkdir()
        if name in "ab":
            (folder / "show").write_text('#!/bin/sh\necho "$0"\n')
    (folders["b"] / "show").chmod(0o755)
    (folders["c"] / "show").mkdir()
    here = tmp_path / "here"
    here.mkdir()
    (here / "show").write_text('#!/bin/sh\necho here "$0"\n')
    (here / "show").chmod(0o755)
    monkeypatch.chdir(here)
    environment = {} if path is None else {b"PATH": os.fsencode(path.format(**folders))}
    directly, by_shell = both("show", environment, monkeypatch)
    assert directly == by_shell


def test_a_signal_that_ends_the_program_is_seen(tools: Path) -> None:
    status, _, said = run("killed", {b"PATH": os.fsencode(f"{tools}:/usr/bin")})
    assert (status, said) == (-signal.SIGKILL, "")


def test_no_shell_is_there(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "SHELL", "/nonexistent/sh")
    environment = {b"PATH": os.fsencode(f"{tools}:/usr/bin")}
    assert run("whoami a", environment)[1].splitlines() == [str(tools / "whoami"), "a"]
    assert run("whoami a", environment, killed_with_us=True)[1].splitlines() == [str(tools / "whoami"), "a"]
    with pytest.raises(FileNotFoundError):
        run("whoami | cat", environment)


@pytest.mark.parametrize("command", ["whoami a", "whoami a; whoami b", "no-line a", "nonexistent", "forbidden"])
def test_with_setpriv_the_result_is_the_same(tools: Path, command: str) -> None:
    """The name of the shell in its messages is that of setpriv's command: /bin/sh."""
    environment = {b"PATH": os.fsencode(f"{tools}:/usr/bin")}
    status, output, said = run(command, environment)
    given = (status, output.replace("\nsh\n", "\n/bin/sh\n"), said.replace("sh: 1:", "/bin/sh: 1:"))
    assert run(command, environment, killed_with_us=True) == given


@pytest.mark.parametrize("command", ["sleep 1000", "sleep 1000; true"])
def test_the_kernel_kills_it_with_us(command: str) -> None:
    """PR_SET_PDEATHSIG of the process is that which posix_spawn(3) started: its parent is the thread that did."""
    prepared = Execution(command, {b"PATH": b"/usr/bin"}, killed_with_us=True).prepared({})
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        with suppress(BaseException):
            os.write(writing, b"%d" % prepared.spawn([None, None, None]))
            signal.pause()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as stream:
        pid = int(stream.read(20))
        pidfd = os.pidfd_open(pid)
        wait_for_program(pid, "sleep" if command == "sleep 1000" else "sh")
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        assert os.read(stream.fileno(), 1) == b""
    readable(pidfd)
    os.close(pidfd)


def wait_for_program(pid: int, name: str) -> None:
    while Path(f"/proc/{pid}/comm").read_text().strip() != name:
        os.sched_yield()


def readable(descriptor: int) -> None:
    assert select.select([descriptor], [], [], 60)[0]


def test_a_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        Execution("cat \0", {})
    with pytest.raises(ValueError, match="NUL"):
        Execution("cat", {b"PATH": b"\0"})
    with pytest.raises(ValueError, match="NUL"):
        Execution("cat", {b"PATH": b""}).prepared({b"A": b"\0"})


def test_the_search_follows_what_is_installed_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is installed while the daemon runs is found after SEARCH; a removed one is missed at once."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    first, second = tmp_path / "1", tmp_path / "2"
    for folder in (first, second):
        folder.mkdir()
    execution_ = Execution("late", {b"PATH": os.fsencode(f"{first}:{second}:/usr/bin")})
    for folder in (second, first):
        program = folder / "late"
        program.write_text(f"#!/bin/sh\nexit {folder.name}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        now += execution.SEARCH
        assert ended(execution_) == int(folder.name)
    (first / "late").unlink()
    assert ended(execution_) == 2
    (second / "late").unlink()
    assert ended(execution_) == 127


def ended(execution_: Execution) -> int:
    pid = execution_.prepared({}).spawn([None, None, None])
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
