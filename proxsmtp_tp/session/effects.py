"""What the driver must do, in the given order, without awaiting anything in between.

Those of `telemetry.facts` are facts for the log and for events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from proxsmtp_tp.session.state import Wait
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.smtp.login import NO_LOGIN, Login
from proxsmtp_tp.telemetry.counters import Counter
from proxsmtp_tp.telemetry.facts import LimitHit, LimitRefusal, Refusal, SessionEnd, Transaction
from proxsmtp_tp.tls.facts import NO_TLS, Legs
from proxsmtp_tp.tls.levels import UpstreamRule


@dataclass(slots=True, init=False)
class SendClient:
    """Write to the client."""

    data: bytes

    def __init__(self, data: bytes) -> None:
        self.data = data


@dataclass(slots=True, init=False)
class SendServer:
    """Write to the server."""

    data: bytes

    def __init__(self, data: bytes) -> None:
        self.data = data


@dataclass(slots=True)
class CloseClient:
    """Close the client's connection after everything was sent; with `reset`, at once and with RST."""

    reset: bool = False


@dataclass(slots=True)
class CloseServer:
    """Close the server's connection; with `abort` at once, so that buffered data is not sent."""

    abort: bool = False


@dataclass(slots=True)
class PeekClientHello:
    """The client has its 220 to STARTTLS: read its ClientHello; the answer is ClientHelloSeen or ClientHelloFailed.

    From here to TlsStarted of both sides, or to PassTls, no octet of the client is ClientData. `octets`: what it has
    sent already, where TLS begins with its first octet (TlsWrapped).
    """

    octets: bytes = b""


@dataclass(slots=True)
class LookUpTlsa:
    """Ask DNS for the TLSA records of the server, by the name that `rule` has (sni=); the answer is TlsaFound."""

    rule: UpstreamRule


@dataclass(slots=True)
class StartServerTls:
    """Begin TLS with the server, as its client; the answer is TlsStarted or TlsFailed of this side.

    `name` is the client's server name ("": it sent none), `rule` what the server's certificate will have to fulfil.
    """

    name: str
    rule: UpstreamRule


@dataclass(slots=True)
class StartClientTls:
    """Begin TLS with the client, as its server; the answer is TlsStarted or TlsFailed of this side.

    `verified`: the server is verified, so the client may get a certificate of the CA that it trusts.
    """

    verified: bool


@dataclass(slots=True)
class RefuseTls:
    """Answer the ClientHello with a fatal alert (RFC 8446 section 6.2, its number). CloseClient follows."""

    alert: int


@dataclass(slots=True)
class PassTls:
    """From now on pass on what both sides send, from the ClientHello on; the answer is PassingEnded."""


@dataclass(slots=True)
class StartFilter:
    """Begin to judge a message."""

    envelope: Envelope
    helo: bytes
    remote: bytes = b""
    remote_helo: bytes = b""
    authenticated: bool = False
    """The server has accepted AUTH."""
    login: Login = NO_LOGIN
    tls: Legs = NO_TLS


@dataclass(slots=True, init=False)
class FilterData:
    """Message text for the filter: no dot-stuffing, CRLF line ends."""

    text: bytes

    def __init__(self, text: bytes) -> None:
        self.text = text


@dataclass(slots=True)
class FilterFinish:
    """The message is complete: the filter must give its verdict."""


@dataclass(slots=True)
class FilterAbort:
    """The verdict and the judged message are no longer needed: end the filter run."""


@dataclass(slots=True)
class ReadMessage:
    """Feed the judged message as MessageChunk events, as fast as the server accepts it, the last one so
    marked, or then MessageEnd.
    """


@dataclass(slots=True)
class Deadline:
    """The session waits for this from now on: restart its deadline."""

    wait: Wait


@dataclass(slots=True)
class MessageClock:
    """Start or stop the time limit for a whole message (MessageTimeOut)."""

    running: bool


CLOCK_STARTS: Final = MessageClock(running=True)
CLOCK_STOPS: Final = MessageClock(running=False)


@dataclass(slots=True)
class Count:
    """Increment a counter."""

    counter: Counter


@dataclass(slots=True)
class Log:
    """A log line; `level` as in the logging module. An `essential` one is never left out by the log limit."""

    level: int
    text: str
    essential: bool = False


Effect = (
    SendClient
    | SendServer
    | CloseClient
    | CloseServer
    | PeekClientHello
    | LookUpTlsa
    | StartServerTls
    | StartClientTls
    | RefuseTls
    | PassTls
    | StartFilter
    | FilterData
    | FilterFinish
    | FilterAbort
    | ReadMessage
    | Deadline
    | MessageClock
    | Count
    | Log
    | LimitHit
    | LimitRefusal
    | Refusal
    | Transaction
    | SessionEnd
)
