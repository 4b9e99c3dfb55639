"""A pool of workers in a test: judges messages, and checks that nothing is left."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.filter_lines import FilterLine, MemberType
from proxsmtp_tp.filters import editing
from proxsmtp_tp.filters.edits import ReplaceMessage
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.mail import Mail
from proxsmtp_tp.filters.member import FilterFailedError
from proxsmtp_tp.filters.parts import Parts
from proxsmtp_tp.filters.spool import Spool
from proxsmtp_tp.filters.spool_space import SpoolSpace
from proxsmtp_tp.filters.worker import WorkerMember
from tests.child_processes import child_processes
from tests.unit.filters.filter_harness import WAIT_SECONDS, until
from tests.unit.filters.member_harness import TEXT, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from proxsmtp_tp.filters.member import Judgement


class Pool:
    """A pool, and the messages of a test."""

    def __init__(self, member: WorkerMember, space: SpoolSpace) -> None:
        self.member = member
        self.space = space

    async def judge(self, text: bytes = TEXT, **known: Any) -> tuple[Judgement, bytes]:
        """Judge one message: what was said, and the message after it."""
        stored = Spool(self.space)
        stored.write(text)
        stored.complete()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                judgement = await self.member.judge(Mail.of(stored), request(**known))
            edited = editing.apply(Mail.of(stored), request().envelope, judgement.edits)
            after = b"".join(edited.mail.chunks())
            for edit in judgement.edits:
                if isinstance(edit, ReplaceMessage):
                    edit.text.close()
        finally:
            stored.close()
        return judgement, after

    async def fails(self, words: str, text: bytes = TEXT) -> FilterFailedError:
        """Judge one message, which fails with these words."""
        with pytest.raises(FilterFailedError, match=words) as raised:
            await self.judge(text)
        return raised.value


@asynccontextmanager
async def pool(tmp_path: Path, command: str, **settings: Any) -> AsyncIterator[Pool]:
    """A pool with that command. No process may be left."""
    line = replace(FilterLine("w", MemberType.WORKER, command), **settings)
    space = SpoolSpace(str(tmp_path))
    member = WorkerMember(line, Parts(space, ProcessLimit(16)))
    try:
        yield Pool(member, space)
    finally:
        member.close()
        await until(lambda: not member._all, "the processes")
        await until(lambda: not child_processes(), "every process is reaped")
    assert space._tally.total == 0
