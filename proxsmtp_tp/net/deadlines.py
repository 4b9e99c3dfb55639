"""The time limits of one connection, checked about once a second. Times are those of the event loop's clock.

step        what the session waits for now (Wait); at the end, that the last reply reaches the client
message     MessageTimeOut, from a message's first byte to its last
answer      AnswerWithin, from the client's end of data to our own to the server
keep alive  KeepAlives, from the beginning of a message to its final reply
session     SessionTimeOut, and then the time for the running transaction

Setting a deadline is a plain assignment, not a timer, because it happens for every piece of a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxsmtp_tp.session import events
from proxsmtp_tp.session.state import Reason, Wait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.config.settings import Settings

NEVER = float("inf")

RFC_5321 = {
    Wait.GREETING: 300.0,  # section 4.5.3.2.1
    Wait.REPLY: 300.0,  # 4.5.3.2.2, 4.5.3.2.3: MAIL and RCPT; no other command has less
    Wait.START: 120.0,  # 4.5.3.2.4
    Wait.TEXT: 180.0,  # 4.5.3.2.5, for the sender; a receiver needs no shorter limit
    Wait.SENDING: 180.0,  # 4.5.3.2.5
    Wait.FINAL: 600.0,  # 4.5.3.2.6
    Wait.READING: 180.0,  # 4.5.3.2.5
    Wait.COMMAND: 300.0,  # 4.5.3.2.7
}
"""The shortest waits that RFC 5321 allows, in seconds: of a client for replies, of a server for the next command."""

NOOP_SECONDS = 60.0
"""Seconds between two KeepAlives, at least: a session has only eight NOOPs (`session.timing.NOOPS_LIMIT`)."""

PARTING = 5.0
"""Seconds for the QUIT of a client after a reload. Clients that keep connections for later use keep them idle for less
(Postfix: smtp_connection_cache_time_limit, 2 s)."""

LINGER = 5.0
"""Seconds for the last reply to reach a client that still sends: an immediate close would reset the connection."""

HURRIED_LINGER = 1.0
"""The same when the daemon stops: an idle client that does not read its 421 must not delay a restart."""


ANSWER_WITHIN = 540.0
"""Seconds that a client waits for its answer, if AnswerWithin is not given: a minute less than a client waits at least
(RFC 5321, 4.5.3.2.6)."""


def limits_of(settings: Settings) -> dict[Wait, float]:
    """Seconds for each thing that a session waits for. The filter has a limit of its own, in its run.

    TimeOut applies to all of them. But the reply to the end of data always has the time of RFC 5321: with less,
    messages would arrive twice.
    """
    time_out = settings.time_out
    limits = dict(RFC_5321) if time_out is None else dict.fromkeys(RFC_5321, time_out)
    limits[Wait.FINAL] = max(limits[Wait.FINAL], RFC_5321[Wait.FINAL])
    limits[Wait.QUIT] = min(limits[Wait.COMMAND], PARTING)
    limits[Wait.HANDSHAKE] = settings.tls_handshake_time_out
    limits[Wait.PASSING] = settings.tls_pass_idle_time_out
    limits[Wait.VERDICT] = NEVER
    limits[Wait.NOTHING] = NEVER
    return limits


_TEXT: Final = Wait.TEXT
"""Every event may compare it (see `session.state`)."""


class Deadlines:
    """The deadlines of one connection. `limits` are those of `limits_of`, shared by all connections."""

    __slots__ = (
        "_left", "_noop_after", "_settings", "_winding_down",
        "answer", "keep_alive", "limits", "message", "octets", "session", "step", "wait",
    )  # fmt: skip

    def __init__(self, settings: Settings, limits: dict[Wait, float], now: float) -> None:
        self._settings = settings
        self.limits = limits
        self.wait = Wait.NOTHING
        self.step = NEVER
        self.octets = 0
        """Octets that came from the client since `arm`."""
        self._left: float | None = None
        self.message = NEVER
        self.keep_alive = NEVER
        self.answer = NEVER
        self._noop_after = now
        self.session = now + settings.session_time_out
        self._winding_down = False

    def arm(self, wait: Wait, now: float) -> None:
        """The session waits for this from now on, or a part of it has arrived.

        Text extends its deadline by the time that it may take at MinDataRate, never beyond the limit (postconf(5),
        smtpd_min_data_rate): a client that sends an octet now and then has no more time than a silent one.
        """
        limit, rate = now + self.limits[wait], self._settings.min_data_rate
        if rate and wait is _TEXT and self.wait is _TEXT:
            self.step = min(self.step + self.octets / rate, limit)
        else:
            self.step = limit
            self._left = None
        self.wait = wait
        self.octets = 0

    def passing_begins(self, now: float) -> None:
        """The client's TLS is passed on: TlsPassTimeOut in place of SessionTimeOut."""
        self.session = now + self._settings.tls_pass_time_out

    def pause_text(self, now: float) -> None:
        """The client is not read at the moment: stop its deadline."""
        if self.wait is Wait.TEXT:
            self._left = self.step - now
            self.step = now + self.limits[Wait.SENDING]

    def resume_text(self, now: float) -> None:
        """The client is read again: continue its deadline with the time that was left."""
        if self.wait is Wait.TEXT and self._left is not None:
            self.step = now + self._left
        self._left = None

    def message_begins(self, now: float) -> None:
        """A message begins: its first byte may arrive."""
        self.message = now + self._settings.message_time_out
        keep_alives = self._settings.keep_alives
        self.keep_alive = max(now + keep_alives, self._noop_after) if keep_alives else NEVER

    def message_complete(self, now: float) -> None:
        """The filter has the whole message: from now on AnswerWithin counts."""
        within = self._settings.answer_within
        if within is None:
            within = max(ANSWER_WITHIN, self._settings.filter_timeout)  # 1.10 waited as long as FilterTimeout
        if within:
            self.answer = now + within

    def message_ends(self) -> None:
        """The message has ended."""
        self.message = NEVER
        self.keep_alive = NEVER
        self.answer = NEVER

    def linger(self, now: float, *, hurry: bool) -> None:
        """The last reply was sent: wait only for the client to close the connection."""
        self.wait = Wait.NOTHING
        self.step = now + (HURRIED_LINGER if hurry else LINGER)

    def passed(self, now: float) -> Iterator[events.Event]:
        """The events of limits that have passed, except `step`, which the connection handles."""
        if now >= self.message:
            self.message = NEVER
            yield events.MessageTimedOut()
        if now >= self.answer:
            self.answer = NEVER
            yield events.AnswerLate()
        if now >= self.keep_alive:
            self._noop_after = now + NOOP_SECONDS
            self.keep_alive = max(now + self._settings.keep_alives, self._noop_after)
            yield events.KeepAlive()
        if now >= self.session:
            yield self._session_too_long(now)

    def _session_too_long(self, now: float) -> events.Event:
        """SessionTimeOut: the running transaction may still finish, within a further limit."""
        if self._winding_down:
            self.session = NEVER
            return events.Shutdown()
        self._winding_down = True
        self.session = now + self._settings.message_time_out + self.limits[Wait.FINAL]
        return events.WindDown(Reason.AGE)
