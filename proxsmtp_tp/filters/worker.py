"""Filter type worker: a command that is started once and judges many messages (`protocols.worker`).

The pool. A message gets a process that is idle, the one that was used last; without one, a process is started. So there
are at most as many as messages are judged at once (max=). A process leaves after `requests` messages, after `lifetime`
seconds, or when it was idle for `idle` seconds and there are more than `min`.

A process that does not get ready within `start` seconds makes the next start wait: 1 second, then twice as long each
time, up to BACK_OFF. Until then messages that need a new process fail at once. A process that ends while it judges does
not delay the next start: otherwise a sender whose message makes the command fail could stop all mail. `memory` is the
limit of its address space (ulimit -v), also of all processes that it starts.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.filters.edits import ReplaceMessage
from proxsmtp_tp.filters.execution import Execution
from proxsmtp_tp.filters.launcher import common_environment, keep_descriptors, keep_exit_statuses
from proxsmtp_tp.filters.member import FilterFailedError, Judgement
from proxsmtp_tp.filters.new_text import NewText, size_limit
from proxsmtp_tp.filters.protocols.worker import request_head
from proxsmtp_tp.filters.scanner_endings import shown
from proxsmtp_tp.filters.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.config.filter_lines import FilterLine
    from proxsmtp_tp.filters.interface import FilterRequest
    from proxsmtp_tp.filters.mail import Mail
    from proxsmtp_tp.filters.parts import Parts

BACK_OFF = 60.0
"""Seconds between two starts at most: an administrator who has fixed the command waits no longer."""


class WorkerMember:
    """A Member."""

    def __init__(self, line: FilterLine, parts: Parts) -> None:
        self._line = line
        self._space = parts.space
        self._execution = Execution(
            worker_command(line), common_environment(parts.space.directory), killed_with_us=True
        )
        self._idle: list[WorkerProcess] = []
        self._all: set[WorkerProcess] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._pause = 0.0
        self._not_before = 0.0
        self._closed = False
        keep_descriptors()
        keep_exit_statuses()

    async def judge(self, mail: Mail, request: FilterRequest) -> Judgement:
        """Member."""
        process = self._idle_one() or await self._start()
        try:
            with NewText(self._space, size_limit(mail.size)) as text:
                answer = await process.judge(_question(mail, request), text)
                text.finish()
                said, errors = shown(answer.reply) if answer.reply is not None else "", process.take_errors()
                edits = answer.edits
                if answer.size is not None:
                    edits = (ReplaceMessage(text.keep()), *edits)
                return Judgement(answer.action, answer.reply, said=said, errors=errors, edits=edits)
        finally:
            self._put_back(process)

    async def describe(self) -> list[str]:
        """Start a process. Raises FilterFailedError."""
        process = await self._start()
        self._put_back(process)
        return [f"{self._line.command}: ready"]

    def close(self) -> None:
        """Member: kill all processes."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for process in list(self._all):
            process.kill()

    # The pool.

    async def _start(self) -> WorkerProcess:
        """A new process that is ready. Raises FilterFailedError."""
        loop = asyncio.get_running_loop()
        wait = self._not_before - loop.time()
        if wait > 0:
            raise FilterFailedError(f"it is not started for {wait:.0f} s more, because it failed", unreachable=True)
        try:
            process = WorkerProcess(self._line.name, self._execution.prepared({}), lambda: self._forget(process))
        except (OSError, ValueError) as problem:
            self._back_off()
            raise FilterFailedError(f"it cannot be started: {problem}", unreachable=True) from problem
        self._all.add(process)
        try:
            async with asyncio.timeout(self._line.start):
                await process.get_ready()
        except TimeoutError:
            self._back_off()
            process.end()
            text = f"it was not ready within {self._line.start:g} s"
            raise FilterFailedError(text, unreachable=True) from None
        except FilterFailedError as error:
            self._back_off()
            raise FilterFailedError(f"it did not get ready: {error}", unreachable=True) from error
        except BaseException:
            process.end()
            raise
        self._pause = self._not_before = 0.0
        return process

    def _back_off(self) -> None:
        self._pause = min(2 * self._pause or 1.0, BACK_OFF)
        self._not_before = asyncio.get_running_loop().time() + self._pause

    def _put_back(self, process: WorkerProcess) -> None:
        """It waits for the next message, or leaves."""
        if process.over:
            return
        now = asyncio.get_running_loop().time()
        if self._closed or process.messages >= self._line.requests or now >= process.started + self._line.lifetime:
            process.leave()
            return
        process.idle_since = now
        self._idle.append(process)
        if self._timer is None or self._end_of(len(self._idle) - 1, process) < self._timer.when():
            self._watch_the_idle()

    def _idle_one(self) -> WorkerProcess | None:
        """The idle process that was used last. One that has just ended may still be in the list."""
        while self._idle:
            process = self._idle.pop()
            if not process.over:
                return process
        return None

    def _forget(self, process: WorkerProcess) -> None:
        self._all.discard(process)
        if process in self._idle:
            self._idle.remove(process)

    def _end_of(self, at: int, process: WorkerProcess) -> float:
        """When an idle process leaves. The first `min` of the list, which were used longest ago, may stay idle."""
        old = process.started + self._line.lifetime
        return old if at < self._line.min else min(old, process.idle_since + self._line.idle)

    def _watch_the_idle(self) -> None:
        """Let processes leave whose idle time has passed, and look again when the next one's may have: one that was
        used in between stays longer.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        ends = [(self._end_of(at, process), process) for at, process in enumerate(self._idle)]
        for end, process in ends:
            if end <= loop.time():
                self._idle.remove(process)
                process.leave()
        later = [end for end, _ in ends if end > loop.time()]
        if later:
            self._timer = loop.call_at(min(later), self._time_is_up)

    @callback
    def _time_is_up(self) -> None:
        self._timer = None
        self._watch_the_idle()

    def failed(self, error: Exception) -> None:
        """CallbackOwner: a bug of the pool. It concerns no message; the event loop logs it."""
        raise error


def worker_command(line: FilterLine) -> str:
    """The command that is executed; ulimit is a builtin of the shell."""
    return f"ulimit -v {line.memory // 1024}\n{line.command}" if line.memory else line.command


def _question(mail: Mail, request: FilterRequest) -> Iterator[bytes]:
    yield request_head(_facts(mail, request))
    yield from mail.chunks()


def _facts(mail: Mail, request: FilterRequest) -> Iterator[tuple[bytes, bytes]]:
    """What is known of a message; lines without a value are left out, but for `sender`."""
    envelope = request.envelope
    known = (
        (b"connection", request.connection.encode()),
        (b"id", request.trace_id.encode()),
        (b"client", request.client.encode()),
        (b"client-port", b"%d" % request.client_port if request.client_port else b""),
        (b"server", request.server.encode()),
        (b"server-port", b"%d" % request.server_port if request.server_port else b""),
        (b"helo", request.helo),
        (b"remote", request.remote),
        (b"remote-helo", request.remote_helo),
        (b"authenticated", b"yes" if request.authenticated else b""),
    )
    yield from ((name, value) for name, value in known if value)
    yield b"sender", envelope.sender or b""
    yield from ((b"recipient", address) for address in envelope.recipients)
    yield b"size", b"%d" % mail.size
