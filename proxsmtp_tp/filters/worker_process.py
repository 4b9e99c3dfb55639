"""One process of a worker: it gets ready, judges messages one after the other, and leaves.

A process that breaks the protocol is ended with its whole session: it writes without a message or after its answer, or
its answer is not valid. So an answer can never be taken for that to another message.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from proxsmtp_tp.filters import stderr
from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.filters.mail import joined
from proxsmtp_tp.filters.member import FilterFailedError
from proxsmtp_tp.filters.process import LINGER, Child
from proxsmtp_tp.filters.protocols.errors import ProtocolError, excerpt
from proxsmtp_tp.filters.protocols.worker import HeadReader, WorkerAnswer, check_ready, parse_answer
from proxsmtp_tp.telemetry.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from proxsmtp_tp.filters.execution import Prepared
    from proxsmtp_tp.filters.new_text import NewText
    from proxsmtp_tp.filters.process import ExitStatus

log = logging.getLogger(__name__)

LEAVE = 5.0
"""Seconds that a process has to leave after the end of its input, before it gets a signal."""


class WorkerProcess:
    """A ChildOwner. `ended` is called once, from the event loop, when the process judges no more messages.

    The constructor raises OSError if the system can give no descriptor.
    """

    def __init__(self, name: str, prepared: Prepared, ended: Callable[[], None]) -> None:
        self.messages = 0
        """How many it has judged."""
        self.over = False
        """It gets no more messages."""
        self._name = name
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self.started = self.idle_since = self._loop.time()
        """By the event loop's clock."""
        self._head = HeadReader()
        self._answer: WorkerAnswer | None = None
        self._text: NewText | None = None
        self._left = 0
        """Octets of the new message that have not come yet."""
        self._waiting: asyncio.Future[None] = self._loop.create_future()
        """Done when the process is ready, or has answered; or failed."""
        self._taken = asyncio.Event()
        self.errors = stderr.ErrorOutput()
        """What it has written to standard error since the last message."""
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._status: ExitStatus | None = None
        self._child = Child(prepared, self, piped=True, freed=self._freed)

    # The pool's methods.

    async def get_ready(self) -> None:
        """Wait until it is ready. Raises FilterFailedError."""
        await self._waiting
        lines = self._head.lines
        try:
            check_ready(lines or ())
        except ProtocolError as error:
            self._fail(str(error))
            raise FilterFailedError(str(error)) from error
        self._head = HeadReader()

    async def judge(self, question: Iterable[bytes], text: NewText) -> WorkerAnswer:
        """Give it a message; `text` takes the new one. Raises FilterFailedError, OSError of `question`."""
        self._waiting = self._loop.create_future()
        self._text = text
        if errors := self.take_errors():
            log.info('filter %s: a process wrote between two messages: "%s"', self._name, errors)
        try:
            await self._write(question)
            if not (self._child.input.open or self._waiting.done()):
                self._gone()
            await self._waiting
            if self._child.input.unread or not self._child.input.open:
                raise FilterFailedError("it answered before it had read the whole message")
        except BaseException:
            self.end()
            raise
        finally:
            self._text = None
        answer, self._answer = self._answer, None
        if answer is None:
            raise AssertionError("a worker without an answer")
        self._head = HeadReader()
        self.messages += 1
        return answer

    def take_errors(self) -> str:
        """What it has written to standard error since the last call, as one line for the log."""
        if not self.errors.size:
            return ""
        errors, self.errors = self.errors, stderr.ErrorOutput()
        return errors.logged

    def leave(self) -> None:
        """It is not needed any more: close its input. If it has not ended after LEAVE seconds, end its session."""
        if not self._finish():
            return
        self._child.input.complete()
        self._timer = self._loop.call_later(LEAVE, self._time_is_up)

    def end(self) -> None:
        """End it now, with its session."""
        if self._finish():
            self._child.end()

    def kill(self) -> None:
        """The daemon's worker ends: kill its session at once."""
        self._finish()
        self._child.kill()

    # How it is written to.

    async def _write(self, question: Iterable[bytes]) -> None:
        """Write as fast as it reads. Raises FilterFailedError if it answers, or ends, before it has all."""
        for at, piece in enumerate(joined(question)):
            if at:
                await asyncio.sleep(0)
                if self._waiting.done():
                    break
            self._child.input.write(piece)
            while self._child.input.stalled and not self._waiting.done():
                await self._some_is_taken()
            if self._waiting.done():
                break

    async def _some_is_taken(self) -> None:
        self._taken.clear()
        taken = self._loop.create_task(self._taken.wait())
        try:
            await asyncio.wait((taken, self._waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            taken.cancel()

    # ChildOwner.

    def child_output(self, data: bytes) -> None:
        """ChildOwner."""
        if self._waiting.done():
            self._fail(f"it wrote something that nobody had asked for: {excerpt(data)}")
            return
        try:
            self._read(data)
        except (ProtocolError, OSError) as error:
            self._fail(str(error))

    def _read(self, data: bytes) -> None:
        head = self._head
        if head.lines is None:
            lines = head.feed(data)
            if lines is None:
                return
            data, head.rest = head.rest, b""
            if self._text is not None:
                self._answer = parse_answer(lines)
                self._left = self._answer.size or 0
        if len(data) > self._left:
            raise ProtocolError(f"more than it announced: {excerpt(data[self._left :])}")
        if data and self._text is not None:
            self._text.write(data)
        self._left -= len(data)
        if not self._left:
            self._waiting.set_result(None)

    def child_output_closed(self) -> None:
        """ChildOwner."""
        self._closed = True
        self._gone()

    def child_not_started(self, error: Exception) -> None:
        """ChildOwner."""
        self._fail(f"it cannot be started: {error}")

    def child_errors(self, data: bytes) -> None:
        """ChildOwner."""
        self.errors.feed(data)

    def child_input_taken(self) -> None:
        """ChildOwner."""
        self._taken.set()

    def child_exited(self, status: ExitStatus) -> None:
        """ChildOwner."""
        self._status = status
        self._gone()

    def _gone(self) -> None:
        """It has exited, or closed its standard input or output; the rest comes next, unless processes are left."""
        if self._closed and self._status is not None:
            self._fail(self._how_it_ended())
        elif self._timer is None:
            self._timer = self._loop.call_later(LINGER, self._time_is_up)

    @callback
    def _time_is_up(self) -> None:
        self._fail(self._how_it_ended())
        self._child.end()

    def _how_it_ended(self) -> str:
        if self._status is None:
            return "it closed its standard output" if self._closed else "it closed its standard input"
        status = self._status
        how = f"signal {status.signal}" if status.signal is not None else f"exit status {status.code}"
        line = stderr.parse(self.errors.line).shown
        return f"it ended, {how}" + (f": {line}" if line else "")

    def failed(self, error: Exception) -> None:
        """ChildOwner: a bug."""
        self._finish()
        if not self._waiting.done():
            self._waiting.set_exception(error)

    def _fail(self, reason: str) -> None:
        """It broke the protocol, or has ended: the coroutine that waits for it gets the reason."""
        if self._waiting.done():
            if not self.over:  # no message fails because of it, so only this line says it
                log.warning("filter %s: a process is ended: %s", self._name, quoted(reason, stderr.LINE_LIMIT))
        else:
            self._waiting.set_exception(FilterFailedError(reason))
        self.end()

    def _finish(self) -> bool:
        """Give it no more messages. False if that was so already."""
        if self.over:
            return False
        self.over = True
        self._loop.call_soon(self._tell)
        return True

    @callback
    def _tell(self) -> None:
        self._ended()

    def _freed(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._waiting.done():
            self._waiting.set_exception(FilterFailedError("it was ended"))
        if not self._waiting.cancelled():
            self._waiting.exception()  # retrieved, so that the event loop does not log it
