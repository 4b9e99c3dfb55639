"""Which commands need no shell: those that the shell would only split into words, find in PATH and execute.

GNU make and Exim do the same. A command is plain if each of its characters is in `_PLAIN` or a blank, and its first
word is a program. The list has the safe characters, not the special ones: in doubt, the shell runs the command. dash,
bash in its sh mode and busybox give the same words for a plain command (POSIX.1-2017, Shell Command Language, section
2.2: no quoting, 2.5 and 2.6: nothing to expand, 2.9.1: no assignment, no redirection).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from proxsmtp_tp.config.filter_lines import MemberType

if TYPE_CHECKING:
    from proxsmtp_tp.config.filter_lines import FilterLine

_SPECIAL = re.compile(r"[^A-Za-z0-9_./,:+@%= \t-]")
"""The first character that is not plain. A line end separates commands. Octets over 127 are left to the shell: how it
reads them depends on the locale."""

_SESSION_WORDS = frozenset(("setsid",))
"""A program that makes a new session forks first if it leads its process group already, and its exit status is lost.
Executed directly, a command leads its group; as a child of the shell it does not."""

_COMMANDS = (MemberType.PIPE, MemberType.FILE, MemberType.WORKER)

_RESERVED = "! { } [[ ]] case coproc do done elif else esac fi for function if in select then time until while"
_DASH = """
. : [ alias bg break cd chdir command continue echo eval exec exit export false fc fg getopts hash jobs kill local
printf pwd read readonly return set shift test times trap true type ulimit umask unalias unset wait
"""
_BASH = """
bind builtin caller compgen complete compopt declare dirs disown enable help history let logout mapfile popd pushd
readarray shopt source suspend typeset
"""
_OTHERS = "login newgrp print whence"

RESERVED_WORDS = frozenset(_RESERVED.split())
"""Of sh(1) (section 2.4) and bash(1)."""
BUILTINS = frozenset((*_DASH.split(), *_BASH.split(), *_OTHERS.split()))
"""Of the shells that are /bin/sh somewhere."""


def why_a_shell(command: str) -> str:
    """Why /bin/sh must run the command, for people; empty: it is plain, and `words` are its arguments."""
    if special := _SPECIAL.search(command):
        return f"because of {_shown(special[0])}"
    words = command.split()
    if not words:
        return "because it is empty"
    first = words[0]
    if first in RESERVED_WORDS:
        return f"because {first} is a reserved word of the shell"
    if first in BUILTINS:
        return f"because {first} is a command of the shell itself"
    if "=" in first:
        return f"because {first} may be an assignment"
    if first[0] in "-+":
        return f"because {first} may be an option of the shell"
    for word in words:
        if word.rpartition("/")[2] in _SESSION_WORDS:
            return f"because of {word}"
    return ""


def words(command: str) -> tuple[str, ...]:
    """The arguments of a plain command; () if it is not plain."""
    return () if why_a_shell(command) else tuple(command.split())


def how_it_runs(command: str) -> str:
    """`run directly`, or `run by /bin/sh` and why."""
    reason = why_a_shell(command)
    return f"run by /bin/sh, {reason}" if reason else "run directly, without a shell"


def how_line_runs(line: FilterLine) -> str:
    """Of a filter of a chain; empty: it is no command."""
    if line.type not in _COMMANDS:
        return ""
    if line.memory:
        return "run by /bin/sh, because memory= is set by its ulimit"
    return how_it_runs(line.command)


def _shown(character: str) -> str:
    return "the line end" if character == "\n" else f"the character {character}"
