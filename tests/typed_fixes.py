"""Which fixes of doctor a test types: `@types` says so, and the test fails if it does not type them.

What a test types goes through `typed` (DaemonHost.type, or a container's). The test of the rows of FIXES that no test
names is tests/unit/gateway/test_doctor_fixes.py.
"""

from __future__ import annotations

import re
from functools import wraps
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.gateway.doctor.fixes import FIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_commands: list[str] = []
# A daemon whose process is not known is not ended before it is started.
_WAYS = {"start": ("start",), "restart": ("restart", "start"), "reload": ("reload",)}
"""By the word in a row of FIXES: the first words of the rows that take its place, with a unit or by hand."""


def typed(command: str) -> None:
    """A command of a fix was typed, and ended well."""
    _commands.append(command)


def types(*rows: str, by: str = "", each: Mapping[str, str] | None = None) -> Callable[..., Any]:
    """The test types the fixes of these rows; with `each`, that of the value of its parameter `by`, if it has one."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @wraps(test)
        def run(*args: Any, **parameters: Any) -> None:
            _commands.clear()
            test(*args, **parameters)
            own = (each or {}).get(parameters.get(by, ""), "")
            for row in (*rows, *filter(None, [own])):
                assert any(pattern(row).fullmatch(command) for command in _commands), f"{row!r} was not typed"

        run.fixes = {*rows, *(each or {}).values()}  # type: ignore[attr-defined]
        return run

    return decorate


def pattern(row: str) -> re.Pattern[str]:
    """What the commands of a row look like."""
    fixed, parts = FIXES[row], []
    while found := re.search(r"\{(\w+)\}", fixed):
        own = found[1] in _WAYS
        parts += [re.escape(fixed[: found.start()]), _any_of(found[1]) if own else ".+"]
        fixed = fixed[found.end() :]
    return re.compile("".join([*parts, re.escape(fixed)]))


def _any_of(command: str) -> str:
    rows = [row for row in FIXES if "," in row and row.partition(",")[0] in _WAYS[command]]
    return f"(?:{'|'.join(pattern(row).pattern for row in rows)})"
