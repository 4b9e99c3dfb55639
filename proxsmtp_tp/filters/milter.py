"""Filter type milter: any program that speaks sendmail's milter protocol.

A connection is made when the message is complete: the filter is not kept waiting by slow clients. It is used again for
the next messages of the same client (`milter_connections`). The protocol, and what each answer means:
`protocols.milter`. A message that is refused at one recipient is refused.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.asking import READ_SIZE, connection
from proxsmtp_tp.filters.edits import ReplaceBody
from proxsmtp_tp.filters.member import FilterFailedError, Judgement
from proxsmtp_tp.filters.milter_connections import MilterConnections
from proxsmtp_tp.filters.milter_facts import message_for
from proxsmtp_tp.filters.new_text import NewText, size_limit
from proxsmtp_tp.filters.protocols.milter import OUTPUT, MilterDialogue
from proxsmtp_tp.filters.protocols.milter_message import Decision
from proxsmtp_tp.filters.protocols.milter_options import Actions, Stage, Steps
from proxsmtp_tp.filters.scanner_endings import shown
from proxsmtp_tp.filters.streams import Servers
from proxsmtp_tp.filters.verdict import Action

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.config.filter_lines import FilterLine
    from proxsmtp_tp.filters.interface import FilterRequest
    from proxsmtp_tp.filters.mail import Mail
    from proxsmtp_tp.filters.milter_connections import Kept
    from proxsmtp_tp.filters.parts import Parts
    from proxsmtp_tp.filters.protocols.milter_message import MilterMessage, Outcome, ShownMacros
    from proxsmtp_tp.filters.protocols.milter_options import Options
    from proxsmtp_tp.filters.streams import Stream


class MilterMember:
    """A Member."""

    def __init__(self, line: FilterLine, parts: Parts) -> None:
        self._servers = Servers(line.addresses, line.connect)
        self._space = parts.space
        self._hostname, self._own_macros = parts.hostname, parts.macros
        self._connections = MilterConnections(line.max)
        self._in_use = 0

    async def judge(self, mail: Mail, request: FilterRequest) -> Judgement:
        """Member."""
        with NewText(self._space, size_limit(mail.size)) as body:
            self._in_use += 1
            try:
                outcome = await self._outcome(mail, request, body)
            finally:
                self._in_use -= 1
            body.finish()
            return _judgement(outcome, body)

    async def _outcome(self, mail: Mail, request: FilterRequest, body: NewText) -> Outcome:
        """What the filter says, on a connection that knows the client already if there is one."""
        kept = self._connections.take(request)
        if kept is not None:
            dialogue = MilterDialogue(self._shown(mail, request, kept.macros), kept.options)
            try:
                return await self._talked(dialogue, mail, request, body, kept)
            except FilterFailedError:
                self._connections.pause()
                if dialogue.heard:
                    raise
                # It had closed the connection, and said nothing of this message: ask it on another one.
            except BaseException:
                self._connections.pause()
                raise
        self._connections.make_space(self._in_use)
        return await self._talked(MilterDialogue(self._shown(mail, request)), mail, request, body)

    def _shown(self, mail: Mail, request: FilterRequest, before: ShownMacros | None = None) -> MilterMessage:
        return message_for(mail, request, self._hostname, self._own_macros, before)

    async def _talked(
        self, dialogue: MilterDialogue, mail: Mail, request: FilterRequest, body: NewText, kept: Kept | None = None
    ) -> Outcome:
        """The whole dialogue, and the end of the connection, unless it can be used again."""
        began = kept.began if kept is not None else asyncio.get_running_loop().time()
        used = connection(self._servers, kept.stream if kept is not None else None)
        async with used as stream:
            outcome = await _talk(stream, dialogue, mail, body)
            used.kept = self._connections.give(request, stream, dialogue, began, self._in_use - 1)
            if not used.kept:
                stream.write(dialogue.goodbye())
        return outcome

    async def describe(self) -> list[str]:
        """Negotiate: what the filter speaks, may do, and wants. Raises FilterFailedError."""
        dialogue = MilterDialogue(message_for(None, None, self._hostname))
        async with connection(self._servers) as stream:
            stream.write(dialogue.output())
            while dialogue.options is None:
                await _hear(stream, dialogue)
            stream.write(dialogue.goodbye())
            return _described(dialogue.options, str(stream.address))

    def close(self) -> None:
        """Member."""
        self._connections.close()


async def _talk(stream: Stream, dialogue: MilterDialogue, mail: Mail, body: NewText) -> Outcome:
    """The whole dialogue, until its outcome."""
    chunks = mail.chunks(mail.body_start)
    while dialogue.outcome is None:
        if sent := _ready(dialogue, chunks):
            stream.write(sent)
            await stream.drain()
            if not dialogue.waiting:
                await asyncio.sleep(0)  # drain gives way only where the filter is slow
        elif dialogue.waiting:
            await _hear(stream, dialogue)
            body.write(dialogue.take_body())
    return dialogue.outcome


def _ready(dialogue: MilterDialogue, chunks: Iterator[bytes]) -> bytes:
    """All that can be sent before the filter must answer, at most about OUTPUT and a chunk; b"" if it must answer now.

    Each write wakes the filter.
    """
    ready = b""
    while len(ready) < OUTPUT:
        if sent := dialogue.output():
            ready = ready + sent if ready else sent
        elif dialogue.wants_body:
            dialogue.body(next(chunks, b""))
        else:
            break
    return ready


async def _hear(stream: Stream, dialogue: MilterDialogue) -> None:
    data = await stream.read(READ_SIZE)
    if data:
        dialogue.feed(data)
        if dialogue.outcome is None and stream.spoke:
            await asyncio.sleep(0)  # more was read ahead
    else:
        dialogue.closed()


def _judgement(outcome: Outcome, body: NewText) -> Judgement:
    detail = f"at {outcome.event.value}"
    if outcome.decision is Decision.DISCARD:
        return Judgement(Action.DISCARD, detail=detail)
    if outcome.reply is not None:
        action = Action.TEMPFAIL if outcome.reply.transient else Action.REJECT
        return Judgement(action, outcome.reply, detail, shown(outcome.reply))
    edits = (*outcome.edits, ReplaceBody(body.keep())) if outcome.body_replaced else outcome.edits
    return Judgement(detail=detail, edits=edits)


def _described(options: Options, address: str) -> list[str]:
    wanted = [action.name.lower() for action in Actions if action in options.actions and action.name]
    left_out = [step.name.lower() for step in Steps if step in options.steps and step.name]
    lines = [
        f"{address}: milter protocol version {options.version}",
        f"actions: {', '.join(wanted) or 'none'}",
        f"steps: {', '.join(left_out) or 'all events, all answered'}",
    ]
    for stage in Stage:
        if stage in options.macros:
            names = b" ".join(options.macros[stage]).decode("ascii", "replace")
            lines.append(f"macros at {stage.name.lower()}: {names or 'none'}")
    return lines
