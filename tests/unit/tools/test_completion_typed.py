"""The completion as it is typed: interactive bash and zsh on a terminal, with the key TAB."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tools import completion

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 60
PROMPT = "typed> "
# What would be run, instead of the program itself.
_SHOW = "proxsmtp-tp() { printf 'run'; printf ' <%s>' \"$@\"; printf ' end\\n'; }\n"
SHELLS = {
    "bash": (["bash", "--noprofile", "--norc", "-i"], f"PS1='{PROMPT}'; source ./bash\n{_SHOW}"),
    "zsh": (
        ["zsh", "-f", "-i"],
        f"PS1='{PROMPT}'; fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -d dump\n{_SHOW}",
    ),
}
TYPED = [
    ("check-c\t", "<check-config>"),
    ("serve -d 4 -f one\t", "<serve> <-d> <4> <-f> <one.conf>"),
    ("install-rules --met\tipt\t", "<install-rules> <--method> <iptables>"),
    ("install-rules --interface l\t", "<install-rules> <--interface> <lo>"),
    ("locks ad\t", "<locks> <add>"),
    ("install-service --no-s\t--dry\t", "<install-service> <--no-start> <--dry-run>"),
]


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_in_an_interactive_shell(shell: str, tmp_path: Path) -> None:
    (tmp_path / "bash").write_text(completion.bash())
    (tmp_path / "_proxsmtp-tp").write_text(completion.zsh())
    (tmp_path / "one.conf").touch()
    arguments, prepare = SHELLS[shell]
    with terminal(tmp_path, arguments) as screen:
        os.write(screen, prepare.encode())
        # The last line of what prepares the shell has been run, and the shell waits for keys.
        os.write(screen, b"proxsmtp-tp ready\n")
        until(screen, rf"run <ready> end\s[\s\S]*{PROMPT}")
        for keys, wanted in TYPED:
            assert run(screen, f"proxsmtp-tp {keys}") == wanted, keys


def run(screen: int, keys: str) -> str:
    """What is run by these keys and Return."""
    os.write(screen, f"{keys}\n".encode())
    return until(screen, rf"run (.*) end\s[\s\S]*{PROMPT}")


def until(screen: int, pattern: str) -> str:
    """Read until this is on the screen; its group, if it has one."""
    shown, end = "", time.monotonic() + SECONDS
    while not (found := re.search(pattern, shown)):
        assert time.monotonic() < end, shown
        if select.select([screen], [], [], 1)[0]:
            shown += os.read(screen, 65536).decode(errors="replace").replace("\r", "")
    return found[1] if found.re.groups else ""


@contextmanager
def terminal(folder: Path, arguments: list[str]) -> Iterator[int]:
    """A program in a folder, on a terminal of its own, which is returned."""
    process, screen = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execvpe(arguments[0], arguments, {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb"})
    try:
        yield screen
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(screen)
