"""Which configuration is in force, since when, how the last reload ended, and whether the file differs now.

The master keeps an `InForce` and puts its `report` into the status; `proxsmtp-tp reload` and `status` read it.

The file is read again only if its inode, size or time of change has changed since it was last read. So a status that is
asked for often costs one stat(2).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.config.reader import ConfigError, Configuration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from proxsmtp_tp.config.settings import Settings

_SHOWN_MAX = 20
"""Problems in a report: the answer of the status socket has a limited size. check-config lists all problems."""


class FileState(Enum):
    """The configuration file, compared with what is in force."""

    IN_FORCE = "in force"
    CHANGED = "changed"
    WRONG = "wrong"


class ReloadState(Enum):
    """The last reload."""

    NONE = "none"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class _Look:
    signature: tuple[int, ...]
    state: FileState
    problems: tuple[str, ...] = ()


class InForce:
    """One object in the master. `load` reads the file; `settings` are those of the start."""

    def __init__(self, path: str, load: Callable[[], Configuration], settings: Settings) -> None:
        self._path = path
        self._load = load
        self._settings = settings
        self._since = time.time()
        self._reload = ReloadState.NONE
        self.reloads = 0
        """Reloads that have begun since the start of the daemon."""
        self._reload_at = 0.0
        self._problems: tuple[str, ...] = ()
        self._needs_restart: tuple[str, ...] = ()
        self._look: _Look | None = None

    def reload_begins(self) -> None:
        """The daemon reads the file again."""
        self.reloads += 1
        self._reload = ReloadState.RUNNING
        self._reload_at = time.time()
        self._problems = ()

    def reload_failed(self, problems: Sequence[str]) -> None:
        """The old configuration stays in force."""
        self._reload = ReloadState.FAILED
        self._problems = tuple(problems)

    def reload_done(self, settings: Settings, needs_restart: Sequence[str]) -> None:
        """`settings` of the file are in force, except the directives in `needs_restart`."""
        self._reload = ReloadState.DONE
        self._settings = settings
        self._needs_restart = tuple(needs_restart)
        self._since = time.time()
        self._look = None

    def report(self) -> dict[str, Any]:
        """For the status: a JSON object. Times in seconds of the epoch."""
        look = self._look_at_file()
        return {
            "file": self._path,
            "since": round(self._since),
            "file_state": look.state.value,
            "file_problems": list(look.problems[:_SHOWN_MAX]),
            "needs_restart": list(self._needs_restart),
            "reload": {
                "number": self.reloads,
                "state": self._reload.value,
                "at": round(self._reload_at),
                "problems": list(self._problems[:_SHOWN_MAX]),
            },
        }

    def _look_at_file(self) -> _Look:
        try:
            status = Path(self._path).stat()
            signature: tuple[int, ...] = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        except (OSError, ValueError):
            signature = ()
        if self._look is None or self._look.signature != signature or not signature:
            self._look = self._compare(signature)
        return self._look

    def _compare(self, signature: tuple[int, ...]) -> _Look:
        try:
            found = self._load().settings
        except ConfigError as error:
            return _Look(signature, FileState.WRONG, tuple(error.lines()))
        return _Look(signature, FileState.IN_FORCE if found == self._settings else FileState.CHANGED)


def describe(report: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Lines for people about `InForce.report`, and whether something is wrong with it."""
    file, reload = report["file"], report["reload"]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(report["since"]))
    lines = [f"configuration {file}, in force since {since}"]
    wrong = False
    if reload["state"] == ReloadState.FAILED.value:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(reload["at"]))
        lines += [f"the reload at {at} failed:", *(f"  {problem}" for problem in reload["problems"])]
        wrong = True
    if report["file_state"] == FileState.WRONG.value:
        lines += ["the file is wrong now:", *(f"  {problem}" for problem in report["file_problems"])]
        wrong = True
    elif report["file_state"] == FileState.CHANGED.value:
        lines.append("the file has changed since then: a reload uses it")
        wrong = True
    if report["needs_restart"]:
        lines.append(f"changed, and used after a restart only: {', '.join(report['needs_restart'])}")
        wrong = True
    return lines, wrong
