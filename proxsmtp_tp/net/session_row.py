"""What the table of sessions shows of a connection (`telemetry.sessions`).

The phase is one word, written when it changes. The text (server, envelope) is written once a second, and only if the
phase has changed since then: for a session of less than a second only words are written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from proxsmtp_tp.session.state import Wait
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.telemetry.sessions import SessionPhase, SessionRow, Shown

if TYPE_CHECKING:
    from proxsmtp_tp.net.original_destination import Endpoint
    from proxsmtp_tp.session.session import Session
    from proxsmtp_tp.telemetry.sessions import WorkerSessions

_PHASES: Final[dict[Wait, int]] = {
    Wait.GREETING: int(SessionPhase.GREETING),
    Wait.REPLY: int(SessionPhase.REPLY),
    Wait.START: int(SessionPhase.REPLY),
    Wait.FINAL: int(SessionPhase.FINAL),
    Wait.COMMAND: int(SessionPhase.COMMAND),
    Wait.QUIT: int(SessionPhase.COMMAND),
    Wait.TEXT: int(SessionPhase.DATA),
    Wait.VERDICT: int(SessionPhase.WAITING),
    Wait.SENDING: int(SessionPhase.SENDING),
    Wait.READING: int(SessionPhase.READING),
    Wait.HANDSHAKE: int(SessionPhase.TLS),
    Wait.PASSING: int(SessionPhase.PASSING),
    Wait.NOTHING: int(SessionPhase.CONNECTING),
}
_VERDICT: Final = Wait.VERDICT
_FILTER: Final = int(SessionPhase.FILTER)
_WAITING: Final = int(SessionPhase.WAITING)
_CLOSING: Final = int(SessionPhase.CLOSING)
# Names of the module, since Python 3.11 takes a third of a microsecond for a member of an Enum, and a session does this
# a dozen times.


class Owner(Protocol):
    """The connection."""

    trace_id: str
    session: Session
    server_ip: str


class ShownSession(SessionRow):
    """The row of one connection. One object with it: an idle session needs less memory."""

    __slots__ = ("_client", "_filtering", "_messages", "_opened", "_owner", "_wait")

    def __init__(self, rows: WorkerSessions, owner: Owner, client: Endpoint | None, now: float) -> None:
        """`client` None: it came by a unix socket. `now` in seconds."""
        super().__init__(rows, owner.trace_id, str(client or "unix"), now)
        self._owner = owner
        self._client = client
        self._opened = int(now * 1000)
        self._messages = 0
        self._filtering = False
        self._wait = Wait.NOTHING

    def wait(self, wait: Wait, now: float) -> None:
        """What the session waits for; also called again for the same wait."""
        if wait is not self._wait:
            self._wait = wait
            self.enter(_FILTER if wait is _VERDICT and self._filtering else _PHASES[wait], now)

    def message_begins(self) -> None:
        """Count one more message."""
        self._messages += 1

    def judging_begins(self) -> None:
        """A message is to be judged. Its filter does not run yet."""
        self._filtering = False

    def filter_waits(self, now: float) -> None:
        """The current message waits for a place from now on: of the first filter, or of another one of the chain."""
        if self._filtering:
            self._filtering = False
            if self._wait is _VERDICT:
                self.enter(_WAITING, now)

    def filter_started(self, now: float) -> None:
        """A filter of the current message runs from now on."""
        if not self._filtering:
            self._filtering = True
            if self._wait is _VERDICT:
                self.enter(_FILTER, now)

    def closing(self, now: float) -> None:
        """The last reply was sent."""
        self.enter(_CLOSING, now)

    def tick(self) -> bool:
        """Once a second: show what has changed. True: an administrator wants the session to end."""
        if self.changed:
            self.show(self._shown())
        return self.must_end

    def _shown(self) -> Shown:
        session = self._owner.session
        helo, envelope = session.introduced
        client_tls, server_tls = session.legs.reported
        if session.passed_by:
            envelope = Envelope()  # what came in clear before STARTTLS is forgotten
        return Shown(
            id=self._owner.trace_id,
            client=str(self._client or "unix"),
            server=self._owner.server_ip,
            helo=helo,
            messages=self._messages,
            sender=envelope.sender,
            recipients=len(envelope.recipients),
            recipient=envelope.recipients[0] if envelope.recipients else b"",
            opened=self._opened,
            client_tls=client_tls.short if client_tls else "",
            server_tls=server_tls.short if server_tls else "",
            passed_by=session.passed_by,
        )
