"""What the daemon would answer a client (`explain`): a simulated session.

The client stays in clear, except on a port of TlsWrapped, and the server accepts everything. The session is that of the
daemon, so decisions and replies are the same. It has no socket, and counts in a copy of the state of the client's
limits.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxsmtp_tp.net.limit_decision import (
    Windows,
    decide,
    decide_connection,
    locked,
    policy_of,
    too_many_at_once,
    with_connections,
)
from proxsmtp_tp.net.original_destination import RefusedDestinationError
from proxsmtp_tp.net.refused_destinations import why_refused
from proxsmtp_tp.net.serving import is_served, session_options
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.limits import Finding
from proxsmtp_tp.session.session import Session
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.tls.client_hello import ClientHello
from proxsmtp_tp.tls.facts import Side, TlsFacts, Verified
from proxsmtp_tp.tls.levels import TlsaState

if TYPE_CHECKING:
    from proxsmtp_tp.config.rates import ClientLimit
    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.net.limit_decision import Rule
    from proxsmtp_tp.session.effects import Effect

CLOSED = "closed without a reply: TLS begins with the first octet (TlsWrapped)"
PASSED = "TLS passed on, not judged"
NO_RECORDS = "UpstreamTls: dane: what follows is for a server without TLSA records: DNS was not asked"

DATE = "Thu, 01 Jan 1970 00:00:00 +0000"
SENDER = "sender@example.org"
RECIPIENT = "recipient@example.org"


@dataclass(slots=True)
class ClientState:
    """A copy of what is known of a client: the words and servers of its slot, at a time of both clocks."""

    client: str
    words: list[int]
    servers: Windows
    server_bit: int
    now: int
    """Nanoseconds of CLOCK_MONOTONIC."""
    wall: float
    """Seconds since 1970."""
    connections: int = 0
    """Open connections of the client."""


class SimulatedLimits:
    """`session.limits.ClientLimits`, which counts in a copy. `state` None: the client has no limits."""

    def __init__(self, settings: Settings, state: ClientState | None) -> None:
        self._policy = policy_of(settings)
        self._state = state

    def connection(self, server: str) -> Finding | None:
        if (finding := self._locked()) is not None or self._state is None:
            return finding
        over = too_many_at_once(self._policy, self._state.connections)
        if over is None:
            return self._counted(self._state, server)
        return with_connections(self._counted(self._state, server), over) if over.rate.shadow else Finding(over)

    def _counted(self, state: ClientState, server: str) -> Finding | None:
        rules = self._policy.connection
        if not server:
            return self._count(rules)
        decision, servers = decide_connection(rules, state.words, state.servers, state.server_bit, state.now)
        state.servers = servers or state.servers
        for word, value in decision.changes:
            state.words[word] = value
        return decision.finding

    def message(self) -> Finding | None:
        return self._locked() or self._count(self._policy.message)

    def recipient(self) -> Finding | None:
        return self._count(self._policy.recipient)

    def happened(self, _limit: ClientLimit) -> Finding | None:
        return None  # the server accepts everything, and no filter runs

    def _locked(self) -> Finding | None:
        state = self._state
        if state is None:
            return None
        lock = locked(state.words, state.wall, state.client, self._policy.lock_reply)
        return Finding(lock) if lock is not None else None

    def _count(self, rules: tuple[Rule, ...]) -> Finding | None:
        state = self._state
        if state is None or not rules:
            return None
        decision = decide(rules, state.words, state.now)
        for word, value in decision.changes:
            state.words[word] = value
        return decision.finding


@dataclass(slots=True)
class Simulation:
    """The result. `answers`: the reply by step ("connection", "MAIL", "RCPT", "DATA"); "": the server decides."""

    answers: dict[str, str] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    """The lines that the daemon would log."""
    filtered: bool = False
    """A message would go to the filter."""


@dataclass(frozen=True, slots=True)
class Question:
    """Who connects (IP addresses), and the envelope of the message. `bypassed`: the filter is bypassed now; `port`: the
    server's.
    """

    client: str
    server: str
    sender: str = SENDER
    recipient: str = RECIPIENT
    bypassed: bool = False
    port: int = 25


def simulate(settings: Settings, question: Question, limits: SimulatedLimits) -> Simulation:
    """Simulate the session of this client."""
    client, server = question.client, question.server
    simulated = _SimulatedSession(Session(session_options(settings), client_ip=client, local_ip="", clock=lambda: DATE))
    session = simulated.session
    session.expect_port(question.port)
    if not is_served(settings, client):
        simulated.ends(session.refuse(answers.CLIENT_NOT_SERVED, "refused: its address is not in Clients"))
        return simulated.result
    if settings.transparent and (reason := why_refused(server)):
        refused = session.refuse(
            RefusedDestinationError.reply, f"original destination {server} is refused: it is {reason}"
        )
        simulated.ends(refused)
        return simulated.result
    session.use_limits(limits)
    session.use_bypass(lambda: question.bypassed)
    begun = session.check_limits(server if settings.transparent else "")
    if not simulated.take("connection", begun) or simulated.silent():
        return simulated.result
    begun = session.feed(events.Connected(server, question.port))
    if any(isinstance(effect, effects.PeekClientHello) for effect in begun) and not simulated.wrapped(begun):
        return simulated.result
    simulated.server("220 server ESMTP")
    simulated.ask("", "EHLO client.example.org")
    if simulated.ask("MAIL", f"MAIL FROM:<{question.sender}>") and simulated.ask(
        "RCPT", f"RCPT TO:<{question.recipient}>"
    ):
        simulated.ask("DATA", "DATA")
    return simulated.result


class _SimulatedSession:
    """The session, and a server that accepts everything."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.result = Simulation()

    def ask(self, step: str, line: str) -> bool:
        """The client sends a command. Returns whether it is accepted."""
        given = self.session.feed(events.ClientData(f"{line}\r\n".encode()))
        if any(isinstance(effect, effects.LookUpTlsa) for effect in given):
            given += self.session.feed(events.TlsaFound(TlsaState.NONE))
            self.result.reasons.append(NO_RECORDS)
        while commands := b"".join(effect.data for effect in given if isinstance(effect, effects.SendServer)):
            self._collect_reasons(given)
            given = []
            for command in commands.splitlines():
                given += self._answer(command)
            if step and not any(isinstance(effect, effects.SendServer) for effect in given):
                return self.take(step, given)
        self.result.filtered |= any(isinstance(effect, effects.StartFilter) for effect in given)
        return self.take(step, given)

    def _answer(self, command: bytes) -> list[Effect]:
        """The server accepts a command, also STARTTLS (UpstreamTls): then its certificate is valid."""
        given = self.server(_accepting(command))
        for begun in [effect for effect in given if isinstance(effect, effects.StartServerTls)]:
            given += self.session.feed(events.TlsStarted(Side.SERVER, _certified(begun)))
        return given

    def ends(self, given: list[Effect]) -> None:
        """The connection ends before a server is dialled."""
        if self.take("connection", given):
            self.silent()

    def silent(self) -> bool:
        """Whether the connection has ended without a reply, as on a port of TlsWrapped."""
        if self.session.ended:
            self.result.answers["connection"] = CLOSED
        return self.session.ended

    def wrapped(self, given: list[Effect]) -> bool:
        """TLS from the first octet, of a client that says no server name. Returns whether the session goes on."""
        self.take("connection", given)
        if self.silent():
            return False
        given = self.session.feed(events.ClientHelloSeen(ClientHello("", (), (), False, b"")))
        for begun in given:
            if isinstance(begun, effects.StartServerTls):
                given = self.session.feed(events.TlsStarted(Side.SERVER, _certified(begun)))
        if any(isinstance(effect, effects.StartClientTls) for effect in given):
            given += self.session.feed(events.TlsStarted(Side.CLIENT, TlsFacts("TLSv1.3", "")))
        if any(isinstance(effect, effects.PassTls) for effect in given):
            self.result.answers["connection"] = ""
            self.result.reasons.append(PASSED)
            return False
        return self.take("connection", given) and not self.silent()

    def server(self, reply: str) -> list[Effect]:
        """The server sends a reply."""
        return self.session.feed(events.ServerData(f"{reply}\r\n".encode()))

    def take(self, step: str, given: list[Effect]) -> bool:
        """Record our own answer to a step. Returns whether it accepts."""
        self._collect_reasons(given)
        said = b"".join(effect.data for effect in given if isinstance(effect, effects.SendClient))
        accepts = not said or said[:1] in b"23"
        if step:
            self.result.answers[step] = "" if accepts else said.decode("utf-8", "replace").strip()
        return accepts

    def _collect_reasons(self, given: list[Effect]) -> None:
        self.result.reasons += [
            effect.text for effect in given if isinstance(effect, effects.Log) and effect.level > logging.DEBUG
        ]


def _certified(begun: effects.StartServerTls) -> TlsFacts:
    """The server's leg: a trusted certificate for the right name, if a name is known."""
    named = begun.name or begun.rule.match or begun.rule.server_name
    return TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", verified=Verified.NAME if named else Verified.TRUSTED)


def _accepting(command: bytes) -> str:
    """The reply of the server to a command."""
    verb = command[:4].upper()
    if verb == b"EHLO":
        return "250-server\r\n250-STARTTLS\r\n250 XCLIENT ADDR NAME"
    return {b"XCLI": "220 server ESMTP", b"STAR": "220 go ahead", b"DATA": "354 go ahead"}.get(verb, "250 2.0.0 Ok")
