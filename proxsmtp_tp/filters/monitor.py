"""FilterMode monitor: a filter judges each message, and the message passes as it came, whatever the verdict.

The original is stored a second time, because a filter may use up or change what it is given. The verdict of the run is
PASS with the original; `monitored` is what the filter said. A message that cannot be stored whole cannot pass: it gets
the TEMPFAIL of `endings`.

A message counts as changed if its form in the SMTP stream differs: LF for CR LF is no change.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.filters.endings import Ending, not_stored, trouble
from proxsmtp_tp.filters.spool import Spool
from proxsmtp_tp.filters.spool_space import SpoolFullError
from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.smtp.data import DataEncoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.filters.interface import Filter, FilterOwner, FilterRequest
    from proxsmtp_tp.filters.spool_space import SpoolSpace

CHUNK = 64 * 1024
"""Octets compared at a time, one chunk of both messages in a loop iteration."""

_WOULD = {
    Action.REJECT: "reject",
    Action.TEMPFAIL: "defer",
    Action.DISCARD: "discard",
    Action.QUARANTINE: "quarantine",
}


class MonitorFilter:
    """Lets every message pass that `judge` judges. `space` is where originals are stored."""

    def __init__(self, judge: Filter, space: SpoolSpace) -> None:
        self._judge = judge
        self._space = space

    def start(self, request: FilterRequest, owner: FilterOwner) -> MonitorRun:
        """Begin to judge a message. Call it inside a running event loop."""
        return MonitorRun(self._judge, self._space, request, owner)

    def close(self) -> None:
        """The worker ends."""
        self._judge.close()


class MonitorRun:
    """A FilterRun, and the owner of the run of the filter that is monitored."""

    def __init__(self, judge: Filter, space: SpoolSpace, request: FilterRequest, owner: FilterOwner) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._original = Spool(space)
        self._complete = False
        self._told = False
        self._said: Verdict | None = None
        self._digests = (_Digest(), _Digest())
        self._run = judge.start(request, self)

    # FilterRun.

    def write(self, text: bytes) -> None:
        """FilterRun."""
        if self._kept(self._original.write, text):
            self._run.write(text)

    def finish(self) -> None:
        """FilterRun."""
        if self._kept(self._original.complete):
            self._complete = True
            self._run.finish()
            if self._said is not None:
                self._loop.call_soon(self._pass)

    def read(self, size: int) -> bytes:
        """FilterRun: the original. Raises OSError if it cannot be read back completely."""
        return self._original.read(size)

    def abort(self) -> None:
        """FilterRun."""
        self._told = True
        self._run.abort()
        self._original.close()

    def close(self) -> None:
        """FilterRun."""
        self.abort()
        self._run.close()

    def _kept(self, step: Callable[..., None], *arguments: object) -> bool:
        """Store a part of the original; if that fails, the message cannot pass: give the verdict and return False."""
        if self._told:
            return False
        try:
            step(*arguments)
        except SpoolFullError as error:
            self._cannot_pass(trouble(Ending.SPOOL_FULL, error))
        except OSError as error:
            self._cannot_pass(not_stored(error))
        else:
            return True
        return False

    def _cannot_pass(self, verdict: Verdict) -> None:
        self._told = True
        self._run.abort()
        self._original.close()
        self._loop.call_soon(self._tell_verdict, verdict)

    @callback
    def _tell_verdict(self, verdict: Verdict) -> None:
        self._owner.filter_verdict(verdict)

    def failed(self, error: Exception) -> None:
        """CallbackOwner: no verdict will come."""
        self._owner.filter_failed(error)

    # FilterOwner.

    def filter_failed(self, error: Exception) -> None:
        """FilterOwner."""
        self._owner.filter_failed(error)

    def filter_waits(self) -> None:
        """FilterOwner."""
        self._owner.filter_waits()

    def filter_started(self) -> None:
        """FilterOwner."""
        self._owner.filter_started()

    def filter_verdict(self, verdict: Verdict) -> None:
        """What the filter says. It may come before the message is complete."""
        self._said = verdict
        if verdict.action is Action.PASS and self._complete:
            self._compare()
        elif self._complete:
            self._pass()

    @callback
    def _compare(self) -> None:
        """Read the next chunk of what the filter passed and of the original."""
        if self._told:
            return
        try:
            pieces = (self._run.read(CHUNK), self._original.read(CHUNK))
        except OSError as error:
            self._said = trouble(Ending.OUTPUT_UNREADABLE, error)
            self._pass()
            return
        for digest, piece in zip(self._digests, pieces, strict=True):
            digest.feed(piece)
        if any(pieces):
            self._loop.call_soon(self._compare)
        else:
            self._pass()

    @callback
    def _pass(self) -> None:
        said = self._said
        if self._told or said is None:
            return
        self._run.close()
        if self._kept(self._original.complete):  # read it from its beginning
            self._told = True
            changed = self._digests[0].value() != self._digests[1].value()
            verdict = Verdict(Action.PASS, None, _would(said, changed=changed), self._original.size)
            self._owner.filter_verdict(dataclasses.replace(verdict, errors=said.errors, monitored=said))


class _Digest:
    """Of a message in the form of the SMTP stream."""

    def __init__(self) -> None:
        self._encoder = DataEncoder()
        self._hash = hashlib.blake2b()

    def feed(self, text: bytes) -> None:
        self._hash.update(self._encoder.feed(text))

    def value(self) -> bytes:
        """Of all that was fed. Call it once."""
        self._hash.update(self._encoder.finish())
        return self._hash.digest()


def _would(said: Verdict, *, changed: bool) -> str:
    """What would have happened with FilterMode enforce, for the log."""
    if said.action is Action.PASS:
        return "would change the message" if changed else "would pass"
    reply = said.reply.wire.decode("ascii").strip() if said.reply is not None else ""
    return f"would {_WOULD[said.action]}: {reply} ({said.detail})"
