"""How one command is executed: directly if it is plain and its program can be executed, otherwise by /bin/sh -c.

The result is the same in both cases. The program is found in PATH as dash finds it, and gets the environment
that dash would give it. Whatever a direct execution cannot do is done by the shell, so its exit status and its message
are the shell's: no such program (127), no permission (126), a script without a `#!` line.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.plain_command import words
from proxsmtp_tp.filters.posix_spawn import posix_spawn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SHELL = "/bin/sh"

SEARCH = 1.0
"""Seconds between two searches of PATH, which are a system call for each directory: so fast is a new program found. One
that was removed is never executed: then the shell searches."""

_Attempt = tuple[bytes, tuple[bytes, ...]]
"""A program to execute, and its arguments from argv[0] on."""

_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
_OF_THE_SHELL = frozenset((b"IFS", b"OPTIND", b"PPID"))
"""Variables that dash replaces although it inherited them."""


class Execution:
    """A command and the environment that all its processes have in common. ValueError for a NUL.

    `killed_with_us`: the kernel kills its process when ours ends, whatever ends it (PR_SET_PDEATHSIG). posix_spawn(3)
    cannot set that, so setpriv(1) of util-linux does; where that is missing nothing does.
    """

    def __init__(self, command: str, environment: Mapping[bytes, bytes], *, killed_with_us: bool = False) -> None:
        text = os.fsencode(command)
        if b"\0" in text:
            raise ValueError("a command with a NUL")
        setpriv = shutil.which("setpriv", path=os.defpath) if killed_with_us else None
        self._setpriv = os.fsencode(setpriv) if setpriv is not None else b""
        self._shell = self._killed(os.fsencode(SHELL), (b"sh", b"-c", text))
        self._words = tuple(map(os.fsencode, words(command)))
        directory = _working_directory(environment)
        if directory is None or not _left_alone(environment):
            self._words = ()
        else:
            environment = {**environment, b"PWD": directory}
        self._common = joined(environment)
        self._path = environment.get(b"PATH", b"").split(b":")
        self._found = b""
        self._found_until = 0.0

    def prepared(self, variables: Mapping[bytes, bytes]) -> Prepared:
        """For one process, which gets these variables in addition: none of them may be in the common ones. ValueError
        for a NUL.
        """
        program = self._program() if self._words else b""
        if self._setpriv and not _is_executable(program):
            program = b""  # setpriv would say so itself, or read it as a script
        attempts = (self._killed(program, self._words), self._shell) if program else (self._shell,)
        return Prepared(attempts, [*self._common, *joined(variables)])

    def _program(self) -> bytes:
        """The file of the program, as dash finds it; empty: there is none."""
        now = time.monotonic()
        if now >= self._found_until:
            self._found, self._found_until = self._search(), now + SEARCH
        return self._found

    def _search(self) -> bytes:
        name = self._words[0]
        if b"/" in name:
            return name
        for directory in self._path:
            file = directory + b"/" + name if directory else name
            if os.access(file, os.F_OK):
                return file
        return b""

    def _killed(self, program: bytes, arguments: tuple[bytes, ...]) -> _Attempt:
        if not self._setpriv:
            return program, arguments
        given = arguments if program != os.fsencode(SHELL) else (program, *arguments[1:])
        return self._setpriv, (b"setpriv", b"--pdeathsig", b"KILL", b"--", *given)


class Prepared:
    """One process that is to be started."""

    __slots__ = ("_attempts", "_environment")

    def __init__(self, attempts: Sequence[_Attempt], environment: Sequence[bytes]) -> None:
        self._attempts = attempts
        self._environment = environment

    def spawn(self, descriptors: Sequence[int | None]) -> int:
        """Start it; the process id. Raises OSError. It takes 0.2 to 1 ms: not for an event loop."""
        *first, shell = self._attempts
        for program, arguments in first:
            with suppress(OSError):  # the shell says what is wrong with it, or reads it as a script
                return posix_spawn(program, arguments, self._environment, descriptors)
        return posix_spawn(*shell, self._environment, descriptors)


def joined(variables: Mapping[bytes, bytes]) -> list[bytes]:
    """NAME=VALUE. Raises ValueError for a NUL, which execve(2) would take for the end."""
    strings = [name + b"=" + value for name, value in variables.items()]
    if b"\0" in b"".join(strings):
        raise ValueError("a NUL in an environment variable")
    return strings


def _is_executable(file: bytes) -> bool:
    """Whether the kernel executes it, as far as its beginning tells: execve(2), ENOEXEC."""
    try:
        with Path(os.fsdecode(file)).open("rb") as program:
            return os.access(file, os.X_OK) and program.read(4).startswith((b"\x7fELF", b"#!"))
    except OSError:
        return False


def _left_alone(names: Iterable[bytes]) -> bool:
    """Whether dash passes these variables on as they are, except PWD. It drops those that its language cannot name,
    and has a PATH of its own if there is none.
    """
    known = set(names)
    return b"PATH" in known and not known & _OF_THE_SHELL and all(map(_NAME.fullmatch, known))


def _working_directory(environment: Mapping[bytes, bytes]) -> bytes | None:
    """PWD as dash sets it: the inherited one if it is right, else the name without symbolic links. None: unknown."""
    inherited = environment.get(b"PWD", b"")
    try:
        if inherited.startswith(b"/") and Path(os.fsdecode(inherited)).samefile("."):
            return inherited
    except OSError:
        pass  # it names a directory that is not there any more
    try:
        return bytes(Path.cwd())
    except OSError:
        return None
