"""One message before a filter, without a connection: for the command try-filter.

The filter is made from the same settings as a worker's, and judges in the same way; FilterMode does not matter. It runs
in the process that calls, with its user, sandbox and environment.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.chain import ChainRun
from proxsmtp_tp.filters.run import CommandRun
from proxsmtp_tp.filters.verdict import Action, Verdict

if TYPE_CHECKING:
    from proxsmtp_tp.filters.interface import Filter, FilterRequest

CHUNK = 64 * 1024
"""Octets that are written and read at a time, as by a connection."""
ENDING = 3.0
"""Seconds for the processes of the filter to end after its verdict: `process.LINGER` and `process.KILL_GRACE`."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The result. `errors` is the end of standard error, `judged` the message that passed."""

    verdict: Verdict
    seconds: float
    errors: bytes = b""
    judged: bytes = b""
    edits: tuple[str, ...] = ()
    """Of a chain: what each filter wanted to change, one line for each edit."""


class _Owner:
    """The owner of the run."""

    def __init__(self) -> None:
        self.verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    def filter_waits(self) -> None:
        """FilterOwner."""

    def filter_started(self) -> None:
        """FilterOwner."""

    def filter_verdict(self, verdict: Verdict) -> None:
        """FilterOwner."""
        self.verdict.set_result(verdict)

    def filter_failed(self, error: Exception) -> None:
        """FilterOwner."""
        if not self.verdict.done():
            self.verdict.set_exception(error)


async def try_message(judge: Filter, request: FilterRequest, text: bytes) -> Trial:
    """Let the filter judge `text`, which has CRLF line ends. Raises OSError if the judged message cannot be read."""
    owner = _Owner()
    run = judge.start(request, owner)
    for at in range(0, len(text), CHUNK):
        run.write(text[at : at + CHUNK])
        await asyncio.sleep(0)
    began = time.monotonic()
    run.finish()
    verdict = await owner.verdict
    seconds = time.monotonic() - began
    try:
        judged = bytearray()
        while verdict.action is Action.PASS and (piece := run.read(CHUNK)):
            judged += piece
            await asyncio.sleep(0)
    finally:
        run.close()
    errors = run.error_output.tail if isinstance(run, CommandRun) else b""
    edits = run.edits if isinstance(run, ChainRun) else ()
    return Trial(verdict, seconds, errors, bytes(judged), edits)
