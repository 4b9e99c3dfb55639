"""Which commands need no shell: a shell would make the same words of them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from proxsmtp_tp.filters.plain_command import BUILTINS, RESERVED_WORDS, how_it_runs, why_a_shell, words

PLAIN = {
    "cat": ("cat",),
    "/usr/bin/cat": ("/usr/bin/cat",),
    "  cat\t-u  ": ("cat", "-u"),
    "/usr/bin/altermime --input=- --disclaimer=/etc/footer.txt": (
        "/usr/bin/altermime",
        "--input=-",
        "--disclaimer=/etc/footer.txt",
    ),
    "spamc -d 192.0.2.1,192.0.2.2 -p 783": ("spamc", "-d", "192.0.2.1,192.0.2.2", "-p", "783"),
    "scan user@example.org 50% a:b x+y": ("scan", "user@example.org", "50%", "a:b", "x+y"),
    "../filter": ("../filter",),
    "echo2 if": ("echo2", "if"),
    "env NAME=value filter": ("env", "NAME=value", "filter"),
    "/bin/echo ok": ("/bin/echo", "ok"),
    "7z": ("7z",),
}
SHELL = {
    "cat | cat": "because of the character |",
    "cat; true": "because of the character ;",
    "cat &": "because of the character &",
    "cat >/tmp/x": "because of the character >",
    "cat <x": "because of the character <",
    "(cat)": "because of the character (",
    "cat $HOME": "because of the character $",
    "cat `x`": "because of the character `",
    "cat 'x'": "because of the character '",
    'cat "x"': 'because of the character "',
    "cat a\\ b": "because of the character \\",
    "cat *.txt": "because of the character *",
    "cat ?": "because of the character ?",
    "cat [ab]": "because of the character [",
    "cat {a,b}": "because of the character {",
    "cat ~/x": "because of the character ~",
    "cat # x": "because of the character #",
    "cat ^x": "because of the character ^",
    "! cat": "because of the character !",
    "cat\ncat": "because of the line end",
    "cat\r": "because of the character \r",
    "cat \u00fc": "because of the character \u00fc",
    "cat\u00a0x": "because of the character \u00a0",
    "": "because it is empty",
    " \t": "because it is empty",
    "A=1 cat": "because A=1 may be an assignment",
    "9=1 cat": "because 9=1 may be an assignment",
    "echo ok": "because echo is a command of the shell itself",
    ". /etc/filter": "because . is a command of the shell itself",
    "exec cat": "because exec is a command of the shell itself",
    "true": "because true is a command of the shell itself",
    "if true": "because if is a reserved word of the shell",
    "-x": "because -x may be an option of the shell",
    "+x": "because +x may be an option of the shell",
    "setsid cat": "because of setsid",
    "nice /usr/bin/setsid cat": "because of /usr/bin/setsid",
}
SAFE = "abc./-+:,%@=_ \t"
HOSTILE = "\n|&;<>()$`'\"\\*?[]{}~#^!\r\x0b\x0c\x01\x7f\u00e9\u00a0"
SHOW = """#!/bin/sh
printf '%s\\0' "$@" x
printf '\\1'
"""
RUN_EACH = """
import subprocess, sys
for command in sys.stdin.read().split(chr(1)):
    subprocess.run([sys.argv[1], "-c", command], check=False)
"""


@pytest.mark.parametrize("command", PLAIN)
def test_a_plain_command_is_run_directly(command: str) -> None:
    assert why_a_shell(command) == ""
    assert words(command) == PLAIN[command]
    assert how_it_runs(command) == "run directly, without a shell"


@pytest.mark.parametrize("command", SHELL)
def test_what_has_shell_syntax_is_run_by_the_shell(command: str) -> None:
    assert why_a_shell(command) == SHELL[command]
    assert words(command) == ()
    assert how_it_runs(command) == f"run by /bin/sh, {SHELL[command]}"


def test_words_that_a_shell_interprets_are_left_to_the_shell() -> None:
    """dash has no list of them: it is asked for each name of a program."""
    folders = filter(Path.is_dir, map(Path, os.environ["PATH"].split(":")))
    programs = {file.name for folder in folders for file in folder.iterdir()}
    names = sorted(name for name in programs if why_a_shell(name) == "")
    asked = subprocess.run(
        ["dash", "-c", 'for name do type "$name"; done', "dash", *names], capture_output=True, text=True, check=False
    )
    own = [line for line in asked.stdout.splitlines() if line.endswith(("shell builtin", "shell keyword"))]
    assert len(names) > 100
    assert own == []
    listed = subprocess.run(["bash", "-c", "compgen -b; compgen -k"], capture_output=True, text=True, check=True)
    assert set(listed.stdout.split()) <= BUILTINS | RESERVED_WORDS
    assert all(why_a_shell(word) for word in BUILTINS | RESERVED_WORDS)


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_shell_gives_a_plain_command_the_same_words(tmp_path: Path, shell: str) -> None:
    """Any string that is called plain: executed directly and by the shell the program gets the same arguments."""
    chosen = random.Random(18)
    plain: set[str] = set()
    hostile = 0
    while len(plain) < 400:
        rest = "".join(chosen.choice(HOSTILE if chosen.random() < 0.1 else SAFE) for _ in range(chosen.randrange(12)))
        command = f"show {rest}"
        if words(command):
            plain.add(command)
        hostile += any(character in HOSTILE for character in rest)
    assert hostile > 100
    commands = sorted(plain)
    show = tmp_path / "show"
    show.write_text(SHOW)
    show.chmod(0o755)
    by_shell = subprocess.run(
        [sys.executable, "-c", RUN_EACH, f"/usr/bin/{shell}"],
        input="\1".join(commands), env={"PATH": f"{tmp_path}:/usr/bin"}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    got = [tuple(each.split("\0")[:-2]) for each in by_shell.stdout.split("\1")[:-1]]
    assert got == [words(command)[1:] for command in commands]
