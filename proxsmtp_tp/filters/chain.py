"""Several filters, one after the other (the directive Filter).

A message is stored whole first, so that a slow client does not occupy a filter. Each filter sees message and envelope
as those before it have edited them. A refusal or discard ends the chain; quarantine is remembered, and a later refusal
counts more. The verdict PASS has the edited message, to be read once, and the edited envelope: the difference to what
the client sent. Without an edit these are the client's own octets.

Filters with mode=shadow judge afterwards (`shadowing`).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.filters.chain_endings import USUAL
from proxsmtp_tp.filters.edits import shown_edit
from proxsmtp_tp.filters.endings import Ending, not_stored, trouble
from proxsmtp_tp.filters.mail import Mail, Reader
from proxsmtp_tp.filters.spool import Spool
from proxsmtp_tp.filters.spool_space import SpoolFullError
from proxsmtp_tp.filters.verdict import Action, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxsmtp_tp.filters.edits import Edit
    from proxsmtp_tp.filters.interface import FilterOwner, FilterRequest
    from proxsmtp_tp.filters.keeping import Keeper
    from proxsmtp_tp.filters.links import Answer, Link
    from proxsmtp_tp.filters.mail import Text
    from proxsmtp_tp.filters.shadowing import Shadows
    from proxsmtp_tp.filters.spool_space import SpoolSpace
    from proxsmtp_tp.smtp.envelope import Envelope


class ChainFilter:
    """The chain of one worker. `shadows`: the links with mode=shadow."""

    def __init__(self, links: Sequence[Link], shadows: Shadows, space: SpoolSpace, keeper: Keeper) -> None:
        self.links = tuple(links)
        self.shadows = shadows
        self.space = space
        self.keeper = keeper

    def start(self, request: FilterRequest, owner: FilterOwner) -> ChainRun:
        """Begin to judge a message. Call it inside a running event loop."""
        return ChainRun(self, request, owner)

    @property
    def running(self) -> int:
        """How many processes and connections of filters there are that take their own places."""
        return sum(link.running for link in (*self.links, *self.shadows.links))

    def close(self) -> None:
        """The worker ends: end all filters at once. No verdict is needed any more."""
        self.shadows.close()
        for link in (*self.links, *self.shadows.links):
            link.member.close()


class ChainRun:
    """A FilterRun."""

    def __init__(self, chain: ChainFilter, request: FilterRequest, owner: FilterOwner) -> None:
        self._chain = chain
        self._request = request
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._original = Spool(chain.space)
        self._texts: list[Text] = []
        """What filters have written."""
        self._task: asyncio.Task[None] | None = None
        self._verdict: Verdict | None = None
        self._settled = False
        self._aborted = False
        self._judged: Reader | None = None
        self._edits: list[tuple[str, Edit]] = []

    @property
    def edits(self) -> tuple[str, ...]:
        """For a trial: what the filters wanted to change, one line for each edit."""
        return tuple(f"{name}: {shown_edit(edit)}" for name, edit in self._edits)

    # FilterRun.

    def write(self, text: bytes) -> None:
        """FilterRun."""
        if not self._settled:
            self._kept(self._original.write, text)

    def finish(self) -> None:
        """FilterRun."""
        if not self._settled and self._kept(self._original.complete):
            self._task = self._loop.create_task(self._judge())

    def read(self, size: int) -> bytes:
        """FilterRun. Raises OSError if the judged message cannot be read back completely."""
        return self._judged.read(size) if self._judged is not None else b""

    def abort(self) -> None:
        """FilterRun."""
        if self._aborted:
            return
        self._aborted = self._settled = True
        if self._task is not None and not self._task.done():
            self._task.cancel()
            self._task.add_done_callback(self._judge_ended)  # until then a thread may read the message
        else:
            self._free()

    def close(self) -> None:
        """FilterRun."""
        self.abort()

    def failed(self, error: Exception) -> None:
        """CallbackOwner: no verdict will come."""
        self._owner.filter_failed(error)

    # PlaceOwner, of each filter. After `abort` a filter may still get its place: the owner has another message then.

    def filter_waits(self) -> None:
        """PlaceOwner."""
        if not self._aborted:
            self._owner.filter_waits()

    def filter_started(self) -> None:
        """PlaceOwner."""
        if not self._aborted:
            self._owner.filter_started()

    # The message.

    def _kept(self, step: Callable[..., None], *arguments: object) -> bool:
        """Do a step that stores the message; if it fails, give the verdict and return False."""
        try:
            step(*arguments)
        except OSError as error:
            self._settle(_lost(error))
            return False
        return True

    @callback
    def _judge_ended(self, _task: asyncio.Task[None]) -> None:
        self._free()

    def _free(self) -> None:
        """Free what was stored, once. Shadows may still need the message: then they free it."""
        original, verdict = self._original, self._verdict
        if verdict is not None and self._chain.shadows.links:
            self._chain.shadows.judge(original, self._request, verdict)
        else:
            original.close()
        for text in self._texts:
            text.close()

    # The verdict.

    async def _judge(self) -> None:
        try:
            verdict = await self._judged_by_all()
        except OSError as lost:
            verdict = _lost(lost)
        except Exception as error:  # noqa: BLE001  (a bug must cost one connection, not the worker)
            self.failed(error)
            return
        self._verdict = verdict
        self._settle(verdict)

    async def _judged_by_all(self) -> Verdict:
        mail, request = Mail.of(self._original), self._request
        answers: list[Answer] = []
        quarantine: str | None = None
        unjudged = False
        for link in self._chain.links:
            answer = await link.ask(mail, request, self._texts.append, self)
            answers.append(answer)
            self._edits += [(link.name, edit) for edit in answer.edits]
            if answer.refusal is not None:
                return await self._refused(link.name, answer, mail, request, answers)
            mail = answer.mail
            if answer.envelope is not request.envelope:
                request = replace(request, envelope=answer.envelope)
            if answer.quarantine is not None:
                quarantine, unjudged = answer.quarantine, answer.unjudged
        if quarantine is not None:
            kept = await self._kept_back(mail, request.envelope, quarantine)
            return _summed(replace(kept, unjudged=unjudged), answers)
        if not request.envelope.recipients:
            text = "no recipient is left"
            return _summed(Verdict(Action.DISCARD, USUAL[Action.DISCARD], text, said=text), answers)
        self._judged = Reader(mail)
        changed = request.envelope is not self._request.envelope
        return Verdict(
            Action.PASS,
            None,
            "passed",
            mail.size,
            errors=_errors(answers),
            envelope=request.envelope if changed else None,
            judged=tuple(answer.judged for answer in answers),
        )

    async def _refused(
        self, name: str, answer: Answer, mail: Mail, request: FilterRequest, answers: list[Answer]
    ) -> Verdict:
        refusal = answer.refusal
        if refusal is None:
            raise RuntimeError("no refusal")
        detail = f"{name}: {answer.judged.text}"
        verdict = Verdict(refusal.action, refusal.reply, detail, said=refusal.said, unjudged=refusal.unjudged)
        keeper = self._chain.keeper
        return _summed(await keeper.refused(mail, self._request, request.envelope, name, verdict=verdict), answers)

    async def _kept_back(self, mail: Mail, envelope: Envelope, reason: str) -> Verdict:
        return await self._chain.keeper.quarantine(mail, self._request, envelope, reason=reason)

    def _settle(self, verdict: Verdict) -> None:
        """Set the verdict, unless there is one already. The owner gets it from the event loop."""
        if self._settled:
            return
        self._settled = True
        if verdict.action is not Action.PASS and self._verdict is None:
            self._original.close()
        self._loop.call_soon(self._tell_verdict, verdict)

    @callback
    def _tell_verdict(self, verdict: Verdict) -> None:
        if not self._aborted:
            self._owner.filter_verdict(verdict)


def _lost(error: OSError) -> Verdict:
    """The message cannot be stored or read back."""
    return trouble(Ending.SPOOL_FULL, error) if isinstance(error, SpoolFullError) else not_stored(error)


def _summed(verdict: Verdict, answers: list[Answer]) -> Verdict:
    """With what each filter said."""
    return replace(verdict, errors=_errors(answers), judged=tuple(answer.judged for answer in answers))


def _errors(answers: list[Answer]) -> str:
    return "; ".join(f"{answer.judged.name}: {answer.errors}" for answer in answers if answer.errors)
