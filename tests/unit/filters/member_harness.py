"""Runs a filter type of a chain against a server in the test, or a real one, and applies what it says."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from proxsmtp_tp.config.filter_lines import FilterLine, parse_filter
from proxsmtp_tp.filters import editing
from proxsmtp_tp.filters.edits import ReplaceBody, ReplaceMessage
from proxsmtp_tp.filters.interface import FilterRequest
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.mail import Mail
from proxsmtp_tp.filters.member import Judgement
from proxsmtp_tp.filters.milter import MilterMember
from proxsmtp_tp.filters.parts import Parts
from proxsmtp_tp.filters.spool import Spool
from proxsmtp_tp.filters.spool_space import SpoolSpace
from proxsmtp_tp.filters.types import TYPES
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from proxsmtp_tp.filters.member import Member, PlacingMember

TEXT = b"Received: from a\r\n\tby b\r\nSubject: hello\r\nFrom: <a@example.org>\r\n\r\nGood morning.\r\n"
WAIT_SECONDS = 60.0

Handler = "Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]"


@dataclass
class Judged:
    """What a filter said, and the message and envelope with its edits. `text` is empty if the message did not pass."""

    judgement: Judgement
    text: bytes
    envelope: Envelope
    quarantine: str | None


def request(**known: Any) -> FilterRequest:
    """A message from a client in a network for documentation."""
    envelope = Envelope(b"a@example.org", b"", [b"b@example.org"], [b""])
    usual = FilterRequest(
        "1/1", envelope, "192.0.2.7", "198.51.100.9", b"client.example", trace_id="t1", client_port=999
    )
    return replace(usual, **known)


async def judge(
    line: str | FilterLine, text: bytes = TEXT, directory: str = "/tmp", *, after: bytes | None = None, **known: Any
) -> Judged:
    """Judge one message. Nothing may be left of it: neither stored octets nor connections. `after`: the same client had
    this message judged before.
    """
    filter_line = line if isinstance(line, FilterLine) else parse_filter(line)[0]
    space = SpoolSpace(directory)
    stored = Spool(space)
    stored.write(text)
    stored.complete()
    member = TYPES[filter_line.type](filter_line, Parts(space, ProcessLimit(16), hostname="gw.example"))
    asked = request(**known)
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            if after is not None:
                await _judge_before(member, after, asked, space)
            judgement = await member.judge(Mail.of(stored), asked)
        edited = editing.apply(Mail.of(stored), asked.envelope, judgement.edits)
        passed = b"".join(edited.mail.chunks()) if judgement.action is Action.PASS else b""
        judged = Judged(judgement, passed, edited.envelope, edited.quarantine)
        for edit in judgement.edits:
            if isinstance(edit, ReplaceBody | ReplaceMessage):
                edit.text.close()
    finally:
        member.close()
        stored.close()
    assert space.memory == 0
    assert space._tally.total == 0
    return judged


async def _judge_before(member: Member | PlacingMember, text: bytes, asked: FilterRequest, space: SpoolSpace) -> None:
    stored = Spool(space)
    stored.write(text)
    stored.complete()
    earlier = await member.judge(Mail.of(stored), asked)
    for edit in earlier.edits:
        if isinstance(edit, ReplaceBody | ReplaceMessage):
            edit.text.close()
    stored.close()
    if isinstance(member, MilterMember):
        assert earlier.action is not Action.PASS or member._connections._kept


async def describe(line: str) -> list[str]:
    """What check-filters would show."""
    filter_line = parse_filter(line)[0]
    member = TYPES[filter_line.type](filter_line, Parts(SpoolSpace("/tmp"), ProcessLimit(16), hostname="gw.example"))
    try:
        return cast("list[str]", await member.describe())  # type: ignore[attr-defined]
    finally:
        member.close()


@asynccontextmanager
async def server(path: Path, handler: Any) -> AsyncIterator[str]:
    """A server on a unix socket; the context is its address. Every connection must be closed by the filter."""
    open_ones: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones.add(task)
        try:
            await handler(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()
            open_ones.discard(task)

    listening = await asyncio.start_unix_server(serve, path)
    try:
        yield str(path)
    finally:
        listening.close()
        if open_ones:
            await asyncio.wait(open_ones, timeout=WAIT_SECONDS)
        assert not open_ones
