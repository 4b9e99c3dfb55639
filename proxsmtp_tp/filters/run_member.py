"""A filter with a run of its own (types pipe, file and smtp) as a member of a chain.

What a command writes is compared with what it was given: a message that comes back unchanged is no edit. A message with
other line ends than CRLF gets them, because the next filter may need them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from proxsmtp_tp.filters.edits import ReplaceMessage
from proxsmtp_tp.filters.endings import REPLIES, Ending
from proxsmtp_tp.filters.mail import CHUNK, Mail, Reader
from proxsmtp_tp.filters.member import FilterFailedError, Judgement, NotAskedError, PlacingMember
from proxsmtp_tp.filters.scanner_endings import REPLIES as SCANNER_REPLIES
from proxsmtp_tp.filters.scanner_endings import ScannerEnding
from proxsmtp_tp.filters.spool import Spool
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.data import Normalizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxsmtp_tp.filters.interface import FilterOwner, FilterRequest, PlaceOwner
    from proxsmtp_tp.filters.mail import Text
    from proxsmtp_tp.filters.spool_space import SpoolSpace
    from proxsmtp_tp.filters.verdict import Verdict


class StoredRun(Protocol):
    """A FilterRun of a message that is stored already."""

    def finish(self) -> None:
        """FilterRun."""

    def close(self) -> None:
        """FilterRun."""

    def take_output(self) -> Text | None:
        """After PASS: the message that the filter returned, which the caller closes; None: it passes as it was."""


class StoredFilter(Protocol):
    """A Filter that can judge a message that is stored already."""

    def start_stored(self, request: FilterRequest, owner: FilterOwner, message: Reader) -> StoredRun:
        """Begin to judge a message. Nothing is raised."""

    def close(self) -> None:
        """Filter."""


class _Owner:
    """The owner of a run. `owner` is told of places."""

    def __init__(self, owner: PlaceOwner | None) -> None:
        self._owner = owner
        self.verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    def filter_waits(self) -> None:
        """FilterOwner."""
        if self._owner is not None:
            self._owner.filter_waits()

    def filter_started(self) -> None:
        """FilterOwner."""
        if self._owner is not None:
            self._owner.filter_started()

    def filter_verdict(self, verdict: Verdict) -> None:
        """FilterOwner."""
        if not self.verdict.done():
            self.verdict.set_result(verdict)

    def filter_failed(self, error: Exception) -> None:
        """FilterOwner."""
        if not self.verdict.done():
            self.verdict.set_exception(error)


class RunMember(PlacingMember):
    """A PlacingMember."""

    def __init__(self, judge: StoredFilter, space: SpoolSpace) -> None:
        self._judge = judge
        self._space = space

    async def judge(self, mail: Mail, request: FilterRequest, owner: PlaceOwner | None = None) -> Judgement:
        """PlacingMember."""
        asked = _Owner(owner)
        run = self._judge.start_stored(request, asked, Reader(mail))
        try:
            run.finish()
            verdict = await asked.verdict
            if verdict.action is not Action.PASS:
                return _judgement(verdict)
            output = run.take_output()
        finally:
            run.close()
        edits = () if output is None else await self._edits(mail, output)
        return Judgement(detail=verdict.detail, errors=verdict.errors, edits=edits)

    async def _edits(self, mail: Mail, output: Text) -> tuple[ReplaceMessage, ...]:
        """One edit, or none if the message is the same. Closes the text unless it is in the edit."""
        given = Mail.of(output)
        try:
            same, clean = await _compared(mail, given)
            if same:
                output.close()
                return ()
            return (ReplaceMessage(output if clean else await self._normalised(given)),)
        except BaseException:
            output.close()
            raise

    async def _normalised(self, given: Mail) -> Spool:
        """The same text with CRLF line ends; the given one is closed."""
        spool, normalizer = Spool(self._space), Normalizer()
        try:
            for chunk in given.chunks():
                spool.write(normalizer.feed(chunk))
                await asyncio.sleep(0)
            spool.write(normalizer.finish())
            spool.complete()
        except BaseException:
            spool.close()
            raise
        for piece in given.pieces:
            piece.text.close()
        return spool

    def close(self) -> None:
        """Member."""
        self._judge.close()


async def _compared(mail: Mail, given: Mail) -> tuple[bool, bool]:
    """Whether both are the same message, apart from the form of line ends; whether the given one has only CRLF."""
    normalizer, at, same = Normalizer(), 0, True
    for chunk in given.chunks():
        text = normalizer.feed(chunk)
        if same:
            same = mail.at(at, len(text)) == text
            at += len(text)
        elif normalizer.seen:
            return False, False
        await asyncio.sleep(0)
    text = normalizer.finish()
    same = same and mail.at(at, len(text) + CHUNK) == text
    return same, not normalizer.seen


_NOT_ASKED = REPLIES[Ending.LINE_TIMED_OUT]
_SLOW = (REPLIES[Ending.TIMED_OUT], REPLIES[Ending.OUTPUT_HELD])
_UNREACHABLE = SCANNER_REPLIES[ScannerEnding.UNREACHABLE]


def _judgement(verdict: Verdict) -> Judgement:
    """A refusal. Raises FilterFailedError for a TEMPFAIL without words of the filter: it did not judge."""
    if verdict.action is Action.TEMPFAIL and not verdict.said:
        if verdict.reply == _NOT_ASKED:
            raise NotAskedError(verdict.detail, reply=verdict.reply)
        raise FilterFailedError(
            verdict.detail,
            reply=verdict.reply,
            timed_out=verdict.reply in _SLOW,
            unreachable=verdict.reply == _UNREACHABLE,
        )
    return Judgement(verdict.action, verdict.reply, verdict.detail, verdict.said, verdict.errors)


class FirstReachable(PlacingMember):
    """Several of the same kind, of which the next is used if one cannot be connected to."""

    def __init__(self, members: Sequence[PlacingMember]) -> None:
        self._members = tuple(members)

    async def judge(self, mail: Mail, request: FilterRequest, owner: PlaceOwner | None = None) -> Judgement:
        """PlacingMember."""
        reasons = []
        for member in self._members:
            try:
                return await member.judge(mail, request, owner)
            except FilterFailedError as error:
                if not error.unreachable:
                    raise
                reasons.append(str(error))
        raise FilterFailedError("; ".join(reasons), unreachable=True)

    def close(self) -> None:
        """Member."""
        for member in self._members:
            member.close()
