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
        inner = {"start": _any_of("start"), "restart": _any_of("restart"), "reload": _any_of("reload")}
        parts += [re.escape(fixed[: found.start()]), inner.get(found[1], ".+")]
        fixed = fixed[found.end() :]
    return re.compile("".join([*parts, re.escape(fixed)]))


def _any_of(command: str) -> str:
    """As it is with a unit, or by hand. A daemon whose process is not known is not ended before it is started."""
    ways = {"start": ("start",), "restart": ("restart", "start"), "reload": ("reload",)}[command]
    rows = [row for row in FIXES if row.partition(",")[0] in ways and "," in row]
    return f"(?:{'|'.join(pattern(row).pattern for row in rows)})"
