"""One filter of a chain with its settings: who is skipped, when it is asked, and what its failure means.

Guarantee: a failure is of one message. Only the count of the breaker remains.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from proxsmtp_tp.config.filter_lines import EditKind, Failure, Mode, Oversize
from proxsmtp_tp.filters import editing, edits
from proxsmtp_tp.filters.breaker import Breaker
from proxsmtp_tp.filters.chain_endings import HEADER_TOO_LARGE, NOT_CHECKED, OVERSIZE, REPLIES, USUAL, ChainEnding
from proxsmtp_tp.filters.edits import Edit
from proxsmtp_tp.filters.fields import HeaderTooLargeError
from proxsmtp_tp.filters.mail import Mail
from proxsmtp_tp.filters.member import FilterFailedError, Judgement, NotAskedError, PlacingMember
from proxsmtp_tp.filters.protocols.errors import ProtocolError
from proxsmtp_tp.filters.queueing import NoPlaceError, place
from proxsmtp_tp.filters.stderr import LINE_LIMIT
from proxsmtp_tp.filters.time_limit import time_limit
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.telemetry.facts import FilterJudged
from proxsmtp_tp.telemetry.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.config.filter_lines import FilterLine
    from proxsmtp_tp.filters.interface import FilterRequest, PlaceOwner
    from proxsmtp_tp.filters.limit import ProcessLimit
    from proxsmtp_tp.filters.mail import Text
    from proxsmtp_tp.filters.member import Member

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one filter. `refusal`: the end of the chain (not PASS); otherwise message and envelope go on."""

    judged: FilterJudged
    mail: Mail
    envelope: Envelope
    quarantine: str | None = None
    refusal: Judgement | None = None
    errors: str = ""
    edits: tuple[Edit, ...] = ()
    unjudged: bool = False
    """For `quarantine`: the filter has failed."""


class Link:
    """A filter of a chain. `places`: for `max=`; a PlacingMember takes and frees them itself."""

    def __init__(self, line: FilterLine, member: Member, places: ProcessLimit) -> None:
        self.line = line
        self.member = member
        self.places = places
        self._breaker = Breaker()

    @property
    def name(self) -> str:
        """As the configuration names it."""
        return self.line.name

    @property
    def running(self) -> int:
        """Places that are in use in this worker."""
        return self.places.taken

    async def ask(
        self, mail: Mail, request: FilterRequest, keep: Callable[[Text], None], owner: PlaceOwner | None = None
    ) -> Answer:
        """Let the filter judge a message, and apply what it wants. `keep` takes each text that it makes; `owner` is
        told when the message waits for a place, and when it has one. Raises OSError if the message is lost.
        """
        began = asyncio.get_running_loop().time()

        def judged(verdict: str, text: str = "") -> FilterJudged:
            return FilterJudged(self.name, verdict, asyncio.get_running_loop().time() - began, text)

        if self._skips(request):
            return Answer(judged("skipped"), mail, request.envelope)
        try:
            if self.line.limit and mail.size > self.line.limit:
                return self._oversize(mail, request, judged)
            judgement = await self._judgement(mail, request, owner)
            for edit in judgement.edits:
                if isinstance(edit, edits.ReplaceBody | edits.ReplaceMessage):
                    keep(edit.text)
            return self._applied(judgement, mail, request, judged)
        except FilterFailedError as error:
            return self._failed(error, mail, request, judged)
        except HeaderTooLargeError as too_large:
            return self._unreadable(too_large, mail, request, judged)

    def _skips(self, request: FilterRequest) -> bool:
        return self.line.skips(request.client_address, authenticated=request.authenticated)

    def _oversize(self, mail: Mail, request: FilterRequest, judged: Callable[[str, str], FilterJudged]) -> Answer:
        text = f"{ChainEnding.TOO_LARGE.value}: {mail.size} octets"
        if self.line.oversize is Oversize.PASS:
            return Answer(judged("skipped", text), mail, request.envelope)
        action, reply = OVERSIZE[self.line.oversize]
        return self._refused(Judgement(action, reply, text, unjudged=True), mail, request, judged)

    # The filter is asked.

    async def _judgement(self, mail: Mail, request: FilterRequest, owner: PlaceOwner | None) -> Judgement:
        """Ask the filter. Raises FilterFailedError."""
        loop = asyncio.get_running_loop()
        if not self._breaker.allows(loop.time()):
            raise _failure(ChainEnding.PAUSED)
        try:
            judgement = await self._asked(mail, request, owner)
        except NotAskedError:
            self._breaker.undecided()
            raise
        except FilterFailedError as error:
            if error.unreachable or error.timed_out:
                if self._breaker.failed(loop.time()):
                    text = "filter %s does not answer, and gets no mail for some seconds: %s"
                    log.warning(text, self.name, _quoted(error))
            else:
                self._answered()
            raise
        except BaseException:
            self._breaker.undecided()
            raise
        self._answered()
        return judgement

    def _answered(self) -> None:
        if self._breaker.succeeded():
            log.warning("filter %s answers again", self.name)

    async def _asked(self, mail: Mail, request: FilterRequest, owner: PlaceOwner | None) -> Judgement:
        try:
            if isinstance(self.member, PlacingMember):
                return await self.member.judge(mail, request, owner)
            async with place(self.places, request.client, self.line.wait, owner):
                with time_limit(self.line.timeout):
                    return await self.member.judge(mail, request)
        except NoPlaceError:
            raise NotAskedError(ChainEnding.NO_PLACE.value, reply=REPLIES[ChainEnding.NO_PLACE]) from None
        except TimeoutError:
            raise _failure(ChainEnding.TIMED_OUT, f"{self.line.timeout:g} s", timed_out=True) from None
        except (OSError, EOFError, ProtocolError) as error:
            raise _failure(ChainEnding.FAILED, str(error) or type(error).__name__) from error

    # What it said.

    def _applied(
        self, judgement: Judgement, mail: Mail, request: FilterRequest, judged: Callable[[str, str], FilterJudged]
    ) -> Answer:
        if judgement.action is not Action.PASS:
            return self._refused(judgement, mail, request, judged)
        wanted = judgement.edits
        if forbidden := self._forbidden(wanted):
            raise _failure(ChainEnding.NOT_ALLOWED, f"{forbidden.value}: add it to edits= of filter {self.name}")
        edited = self._edited(mail, request.envelope, wanted)
        changed = edited.mail is not mail or edited.envelope is not request.envelope
        if edited.quarantine is not None and self.line.mode is Mode.TAG:
            return self._tagged("quarantine", edited.quarantine, mail, request, judged)
        if self.line.mode is Mode.TAG:
            edited = self._edited(edited.mail, edited.envelope, (edits.RemoveHeader(self._tag),))
            changed = edited.mail is not mail or edited.envelope is not request.envelope
        verdict = "quarantine" if edited.quarantine is not None else "edit" if changed else "pass"
        note = judged(verdict, edited.quarantine or judgement.detail)
        return Answer(note, edited.mail, edited.envelope, edited.quarantine, None, judgement.errors, wanted)

    def _edited(self, mail: Mail, envelope: Envelope, wanted: tuple[Edit, ...]) -> editing.Edited:
        try:
            return editing.apply(mail, envelope, wanted)
        except editing.EditError as error:
            raise _failure(ChainEnding.BAD_EDIT, error) from error

    def _forbidden(self, wanted: tuple[Edit, ...]) -> EditKind | None:
        """What one of the edits changes that `edits=` does not name."""
        if not wanted or self.line.edits == _ALL_KINDS:
            return None
        needed = {kind for edit in wanted for kind in _KINDS.get(type(edit), ())}
        return min(needed - self.line.edits, key=lambda kind: kind.value, default=None)

    def _refused(
        self, judgement: Judgement, mail: Mail, request: FilterRequest, judged: Callable[[str, str], FilterJudged]
    ) -> Answer:
        reply = judgement.reply or USUAL[judgement.action]
        words = reply.wire.decode("ascii", "replace").strip().replace("\r\n", " ")
        if self.line.mode is Mode.TAG:
            return self._tagged(judgement.action.value, words, mail, request, judged)
        said = judgement.said or words
        refusal = replace(judgement, reply=reply, said=said)
        text = judgement.detail or said
        return Answer(judged(judgement.action.value, text), mail, request.envelope, None, refusal, judgement.errors)

    # mode=tag.

    @property
    def _tag(self) -> bytes:
        """The name of our field: only we write it, so fields that the sender or the filter wrote are deleted."""
        return b"X-Filter-" + self.name.encode()

    def _tagged(
        self, verdict: str, text: str, mail: Mail, request: FilterRequest, judged: Callable[[str, str], FilterJudged]
    ) -> Answer:
        value = f"{verdict}={text}".encode("ascii", "replace")[:900]  # one line (RFC 5322 section 2.1.1)
        wanted = (edits.RemoveHeader(self._tag), edits.AddHeader(self._tag, value.translate(_PRINTABLE)))
        edited = self._edited(mail, request.envelope, wanted)
        return Answer(judged("tag", f"{verdict}: {text}"), edited.mail, request.envelope)

    # It failed.

    def _unreadable(
        self,
        error: HeaderTooLargeError,
        mail: Mail,
        request: FilterRequest,
        judged: Callable[[str, str], FilterJudged],
    ) -> Answer:
        """The header cannot be read. The sender made it so: failure=pass must not let such a message bypass the
        filter."""
        text = f"{ChainEnding.HEADER_TOO_LARGE.value}: {error}"
        if self.line.failure is Failure.QUARANTINE:
            return self._failed(FilterFailedError(text), mail, request, judged)
        log.warning("%s: filter %s failed: %s, id=%s", request.connection, self.name, _quoted(text), request.trace_id)
        refusal = Judgement(Action.REJECT, HEADER_TOO_LARGE, text, unjudged=True)
        return Answer(judged("failed", text), mail, request.envelope, None, refusal)

    def _failed(
        self,
        error: FilterFailedError,
        mail: Mail,
        request: FilterRequest,
        judged: Callable[[str, str], FilterJudged],
    ) -> Answer:
        log.warning("%s: filter %s failed: %s, id=%s", request.connection, self.name, _quoted(error), request.trace_id)
        note, failure = judged("failed", str(error)), self.line.failure
        if failure is Failure.PASS:
            return Answer(note, mail, request.envelope)
        if failure is Failure.QUARANTINE:
            return Answer(note, mail, request.envelope, f"filter {self.name} failed: {error}", unjudged=True)
        if failure is Failure.REJECT:
            refusal = Judgement(Action.REJECT, NOT_CHECKED, str(error), unjudged=True)
        else:
            ending = ChainEnding.UNREACHABLE if error.unreachable else ChainEnding.FAILED
            reply = error.reply or REPLIES[ending]
            refusal = Judgement(Action.TEMPFAIL, reply, str(error), unjudged=True)
        return Answer(note, mail, request.envelope, None, refusal)


_ALL_KINDS = frozenset(EditKind)

_PRINTABLE = bytes(octet if 32 <= octet < 127 else 63 for octet in range(256))

_KINDS = {
    edits.AddHeader: (EditKind.HEADERS,),
    edits.InsertHeader: (EditKind.HEADERS,),
    edits.ChangeHeader: (EditKind.HEADERS,),
    edits.RemoveHeader: (EditKind.HEADERS,),
    edits.ReplaceBody: (EditKind.BODY,),
    edits.ReplaceMessage: (EditKind.HEADERS, EditKind.BODY),
    edits.ChangeSender: (EditKind.SENDER,),
    edits.AddRecipient: (EditKind.RECIPIENTS,),
    edits.DeleteRecipient: (EditKind.RECIPIENTS,),
}


def _quoted(words: object) -> str:
    """What a filter said, for the log: as much of it as of a line of a command."""
    return quoted(str(words), LINE_LIMIT)


def _failure(ending: ChainEnding, about: object = "", *, timed_out: bool = False) -> FilterFailedError:
    known = str(about)
    text = f"{ending.value}: {known}" if known else ending.value
    return FilterFailedError(text, reply=REPLIES[ending], timed_out=timed_out)
