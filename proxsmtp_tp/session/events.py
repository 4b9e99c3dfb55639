"""What can happen to a connection. The driver feeds these events to the session."""

from __future__ import annotations

from dataclasses import dataclass

from proxsmtp_tp.filters.verdict import Verdict
from proxsmtp_tp.session.state import Reason, Wait
from proxsmtp_tp.tls.client_hello import ClientHello
from proxsmtp_tp.tls.facts import Side, TlsFacts
from proxsmtp_tp.tls.levels import TlsaState


@dataclass(slots=True)
class Connected:
    """The upstream connection is established; `server` is the server's IP address, for filters and log lines.

    `port`: the server's, for the TLS policy; 0 for a unix socket.
    """

    server: str
    port: int = 0


@dataclass(slots=True)
class ConnectFailed:
    """No address of the server could be reached; `reason` is for the log and, if it gets a reply, the client."""

    reason: str


@dataclass(slots=True, init=False)
class ClientData:
    """Bytes from the client, in any chunks."""

    data: bytes

    def __init__(self, data: bytes) -> None:
        self.data = data


@dataclass(slots=True)
class ClientFull:
    """`full`: the client does not read, and the driver keeps what is to be sent. Not `full`: the client reads again."""

    full: bool


@dataclass(slots=True, init=False)
class ServerData:
    """Bytes from the server, in any chunks."""

    data: bytes

    def __init__(self, data: bytes) -> None:
        self.data = data


@dataclass(slots=True)
class ClientClosed:
    """The client sends no more. `half`: it may still read (FIN); otherwise the connection is gone (RST)."""

    half: bool


@dataclass(slots=True)
class ServerClosed:
    """The server sends no more; from now on nothing is sent to it either."""


@dataclass(slots=True)
class FilterVerdict:
    """The verdict of the filter on the message that StartFilter began."""

    verdict: Verdict


@dataclass(slots=True)
class MessageChunk:
    """The next bytes of a message that passed, after ReadMessage."""

    data: bytes
    last: bool = False
    """No more follow, and no MessageEnd."""


@dataclass(slots=True)
class MessageEnd:
    """The message that passed has been read to its end, after a chunk that was not known to be the last, or none."""


@dataclass(slots=True)
class MessageUnreadable:
    """The message that passed cannot be read back (the disk failed): `reason` is for the log."""

    reason: str


@dataclass(slots=True)
class ClientHelloSeen:
    """After PeekClientHello: the client begins TLS.

    `dane`: the name in the hello has usable TLSA records, and is the name of this server, both secured by DNSSEC.
    """

    hello: ClientHello
    dane: bool = False


@dataclass(slots=True)
class ClientHelloFailed:
    """After PeekClientHello: what the client sent is no ClientHello; `reason` is for the log."""

    reason: str


@dataclass(slots=True)
class TlsaFound:
    """After LookUpTlsa: what DNS has of the server."""

    tlsa: TlsaState


@dataclass(slots=True)
class TlsStarted:
    """After StartServerTls or StartClientTls: the handshake of this side is complete.

    `tlsa`: what DNS has of the server; NONE also where the level does not ask for it.
    """

    side: Side
    facts: TlsFacts
    tlsa: TlsaState = TlsaState.NONE


@dataclass(slots=True)
class TlsFailed:
    """After StartServerTls or StartClientTls: there is no TLS on this side. `reason` is for the log.

    `rejected`: the client does not accept our certificate, as its alert says.
    """

    side: Side
    reason: str
    tlsa: TlsaState = TlsaState.NONE
    rejected: bool = False


@dataclass(slots=True)
class PassingEnded:
    """After PassTls: the passed connection has ended. `reason` is empty if a peer has closed it."""

    from_client: int
    from_server: int
    reason: str = ""


@dataclass(slots=True)
class Continue:
    """Continue with the input that the last `feed` left (`Session.more`), after other connections were served."""


@dataclass(slots=True)
class DeadlinePassed:
    """What the session waits for did not happen in time."""

    wait: Wait


@dataclass(slots=True)
class MessageTimedOut:
    """The message took longer than MessageTimeOut, from its first byte to its end."""


@dataclass(slots=True)
class AnswerLate:
    """AnswerWithin seconds have passed since the client's end of data, with a filter."""


@dataclass(slots=True)
class KeepAlive:
    """KeepAlives seconds have passed: a server that waits for a message may need a NOOP."""


@dataclass(slots=True)
class WindDown:
    """End the connection after the running transaction; after a reload a client may also begin and finish its first."""

    reason: Reason


@dataclass(slots=True)
class Shutdown:
    """End the connection now: DrainTimeOut has passed, or (`by_administrator`) an administrator wants it."""

    by_administrator: bool = False


Event = (
    Connected
    | ConnectFailed
    | ClientData
    | ServerData
    | ClientClosed
    | ClientFull
    | ServerClosed
    | FilterVerdict
    | MessageChunk
    | MessageEnd
    | MessageUnreadable
    | ClientHelloSeen
    | ClientHelloFailed
    | TlsaFound
    | TlsStarted
    | TlsFailed
    | PassingEnded
    | Continue
    | DeadlinePassed
    | MessageTimedOut
    | AnswerLate
    | KeepAlive
    | WindDown
    | Shutdown
)
