"""Connects to each filter of a chain and finds what it is, without a message: for the command check-filters."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from proxsmtp_tp.config.filter_lines import FilterLine, MemberType
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.member import FilterFailedError
from proxsmtp_tp.filters.parts import parts_of
from proxsmtp_tp.filters.spool_space import SpoolSpace
from proxsmtp_tp.filters.streams import Servers
from proxsmtp_tp.filters.types import TYPES

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from proxsmtp_tp.config.settings import Settings

_GREETING = 4096
"""Octets of a greeting that are read: eight times the longest line of a reply (RFC 5321 section 4.5.3.1.5)."""


@dataclass(frozen=True, slots=True)
class Described:
    """What one filter says of itself. `problem`: it does not answer; empty: it does, or is a command. `late`: it has
    not answered in time.
    """

    line: FilterLine
    says: tuple[str, ...] = ()
    problem: str = ""
    late: bool = False


@runtime_checkable
class _Describes(Protocol):
    async def describe(self) -> list[str]: ...


async def describe_all(settings: Settings) -> list[Described]:
    """Ask all filters at once."""
    space = SpoolSpace(settings.temp_directory)
    return list(await asyncio.gather(*(_describe(line, settings, space) for line in settings.filter)))


async def _describe(line: FilterLine, settings: Settings, space: SpoolSpace) -> Described:
    if line.type in {MemberType.PIPE, MemberType.FILE}:
        return Described(line, ("a command for each message: try-filter runs it",))
    if line.type is MemberType.SMTP:
        return await _answered(line, _greeting(line))
    member = TYPES[line.type](line, parts_of(settings, space, ProcessLimit(line.max)))
    try:
        if not isinstance(member, _Describes):
            return Described(line, ("it cannot be asked",))
        return await _answered(line, member.describe())
    finally:
        member.close()


async def _answered(line: FilterLine, asked: Awaitable[list[str]]) -> Described:
    try:
        async with asyncio.timeout(line.timeout):
            return Described(line, tuple(await asked))
    except TimeoutError:
        return Described(line, problem=f"no answer within {line.timeout:g} s", late=True)
    except (FilterFailedError, OSError, EOFError) as error:
        return Described(line, problem=str(error) or type(error).__name__)


async def _greeting(line: FilterLine) -> list[str]:
    stream = await Servers(line.addresses, line.connect).open()
    try:
        greeting = b""
        while b"\n" not in greeting and len(greeting) < _GREETING and (more := await stream.read(_GREETING)):
            greeting += more
    finally:
        stream.close()
    greeting = greeting[: greeting.find(b"\n") + 1] or greeting
    if not greeting.startswith(b"220"):
        raise FilterFailedError(f"{stream.address} greets with {greeting[:200]!r}")
    return [f"{stream.address}: {greeting.decode('utf-8', 'backslashreplace').strip()}"]
