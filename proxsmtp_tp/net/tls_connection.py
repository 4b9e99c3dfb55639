"""TLS of one connection: performs the effects of `session.starttls`, and changes the owners of the two transports.

In clear, asyncio's callbacks go to the connection (`sides`), and this module has no part in it. From the 220 to
STARTTLS on they go to an object of this module, of `tls_sides` or of `tls_passing`, and from there to the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxsmtp_tp.certificates.examining import Finding
from proxsmtp_tp.certificates.libraries import MissingLibraryError
from proxsmtp_tp.certificates.material import CertificateError
from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.net.tls_leg import Muted
from proxsmtp_tp.net.tls_passing import Passing
from proxsmtp_tp.net.tls_sides import ClientLeg, ServerLeg
from proxsmtp_tp.net.tls_stream import TlsStream, TlsStreamError
from proxsmtp_tp.net.tls_worker import certificate_names, hello_name
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.tls.alerts import Alert, alert_record
from proxsmtp_tp.tls.client_hello import ClientHelloReader, NotTlsError
from proxsmtp_tp.tls.facts import Side, Verified

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from proxsmtp_tp.config.tls_lines import UpstreamRule
    from proxsmtp_tp.net.sides import ClientOwner, ServerOwner
    from proxsmtp_tp.net.tls_sides import TlsOwner
    from proxsmtp_tp.net.tls_worker import WorkerTls
    from proxsmtp_tp.tls.client_hello import ClientHello

BEHIND_HELLO_MAX = 65536
"""Octets after a ClientHello that are kept while TLS with the server is started. A client sends none before it has our
answer, but early data (RFC 8446 section 4.2.10), which we do not offer."""


class ConnectionTls:
    """TLS of one connection, from the client's STARTTLS on, or from its first octet (TlsWrapped)."""

    def __init__(self, owner: TlsOwner, worker: WorkerTls) -> None:
        self._owner = owner
        self._worker = worker
        self._reader = ClientHelloReader()
        self._hello: ClientHello | None = None
        self._early = b""
        """What the client sent before `peek`."""
        self._behind = b""
        """What the client sent after its ClientHello."""
        self._finding = Finding(Verified.NO)
        self._work: asyncio.Task[None] | None = None

    def close(self) -> None:
        """The connection has ended."""
        if self._work is not None:
            self._work.cancel()
            self._work = None

    def peek(self, effect: effects.PeekClientHello) -> None:
        """The client has its 220, or TLS begins with the first octet: nothing is written in clear any more."""
        owner = self._owner
        if owner.client is None or owner.server is None:
            return  # their ends are being told
        owner.client, owner.server = Muted(owner.client), Muted(owner.server)
        _set_owner(owner.client, _WaitingClient(owner, self))
        if effect.octets:
            self._early = effect.octets
            self._begin(self._feed_early())

    async def _feed_early(self) -> None:
        """What had come before `peek`, after the effects that are being performed, unless more has come meanwhile."""
        if self._early:
            self.client_octets(b"")

    # The client, until its TLS begins.

    def client_octets(self, data: bytes) -> None:
        """What the client sends after its STARTTLS, and before TLS with it begins."""
        owner = self._owner
        data, self._early = self._early + data, b""
        if owner.closing:
            return
        if self._hello is not None:
            self._behind += data
            if len(self._behind) > BEHIND_HELLO_MAX:
                owner.feed(events.TlsFailed(Side.CLIENT, "it sends too much behind its ClientHello"))
            return
        try:
            self._hello = self._reader.feed(data)
        except NotTlsError as error:
            owner.feed(events.ClientHelloFailed(error.reason))
            return
        if self._hello is None:
            return
        if self._worker.asks_for_names and self._hello.reliable_name:
            self._begin(self._look_up(self._hello))
        else:
            owner.feed(events.ClientHelloSeen(self._hello))

    # Effects.

    def refuse(self, effect: effects.RefuseTls) -> None:
        """Answer the hello with an alert."""
        if self._owner.client is not None:
            self._alert(effect.alert)

    def _alert(self, alert: int) -> None:
        transport = self._owner.client.transport
        if not transport.is_closing():
            transport.write(alert_record(Alert(alert)))

    def pass_on(self, _effect: effects.PassTls) -> None:
        """The client's TLS with the server is passed on."""
        owner = self._owner
        client, server = owner.client.transport, owner.server.transport
        passing = Passing(owner, client, server)
        _set_owner(owner.client, passing)
        _set_owner(owner.server, passing)
        owner.times.passing_begins(owner.loop.time())
        hello, self._hello = self._hello, None
        if hello is not None:
            passing.client_data(hello.octets + self._behind)
            self._behind = b""

    def look_up_server(self, effect: effects.LookUpTlsa) -> None:
        """Ask DNS for the server's TLSA records (UpstreamTls: dane)."""
        self._begin(self._look_up_server(effect.rule))

    async def _look_up_server(self, rule: UpstreamRule) -> None:
        owner = self._owner
        dane = await self._worker.dane_of_level(rule, rule.server_name, owner.server_port, owner.server_ip)
        if not owner.session.ended:
            owner.feed(events.TlsaFound(dane.state))

    def start_server(self, effect: effects.StartServerTls) -> None:
        """TLS with the server, then look at its certificate."""
        owner = self._owner
        if owner.server is None:
            return  # its end is being told
        transport = owner.server.transport if isinstance(owner.server, Muted) else owner.server
        name = hello_name(effect.name, effect.rule)
        try:
            stream = TlsStream(self._worker.server_context, Side.SERVER, name)
        except TlsStreamError as error:
            self._later(events.TlsFailed(Side.SERVER, error.reason))
            return

        def examine() -> None:
            self._begin(self._examine(stream, name, effect.rule))

        leg = owner.server = ServerLeg(transport, stream, owner, examine)
        _set_owner(leg, leg)
        leg.start()

    async def _examine(self, stream: TlsStream, name: str, rule: UpstreamRule) -> None:
        """What the server's certificate proves: by a CA, or by TLSA records where the level is dane."""
        owner = self._owner
        dane = await self._worker.dane_of_level(rule, name, owner.server_port, owner.server_ip)
        self._finding = self._worker.examine(stream.chain(), name, rule, dane)
        if not owner.session.ended:
            facts = stream.facts(self._finding.verified)
            owner.feed(events.TlsStarted(Side.SERVER, facts, dane.state))

    async def _look_up(self, hello: ClientHello) -> None:
        """The client has said a name: may it accept no certificate but the server's (TlsDane)?"""
        owner = self._owner
        dane = await self._worker.only_servers_own(hello.reliable_name, owner.server_port, owner.server_ip)
        if not owner.session.ended:
            owner.feed(events.ClientHelloSeen(hello, dane))

    def _later(self, event: events.Event) -> None:
        """Feed an event after the effects that are being performed."""

        async def feed() -> None:
            if not self._owner.session.ended:
                self._owner.feed(event)

        self._begin(feed())

    def start_client(self, effect: effects.StartClientTls) -> None:
        """Get a certificate, then TLS with the client."""
        self._begin(self._start_client(verified=effect.verified))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = self._owner.loop.create_task(work, name=f"tls {self._owner.name}")
        self._work.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._owner.failed(error)

    async def _start_client(self, *, verified: bool) -> None:
        owner, hello = self._owner, self._hello
        if hello is None:
            raise RuntimeError("TLS with a client that has sent no ClientHello")
        names = certificate_names(hello.server_name, self._finding)
        try:
            context = await self._worker.certificates.context(names, verified, owner.server_ip, hello.versions)
        except (CertificateError, MissingLibraryError) as error:
            if not owner.session.ended and owner.client is not None:
                self._alert(Alert.INTERNAL_ERROR)
                owner.feed(events.TlsFailed(Side.CLIENT, f"there is no certificate for it: {error}"))
            return
        if owner.session.ended or owner.client is None:
            return
        stream = TlsStream(context, Side.CLIENT, hello.server_name)
        leg = ClientLeg(
            owner.client.transport,
            stream,
            owner,
            lambda: owner.feed(events.TlsStarted(Side.CLIENT, stream.facts())),
        )
        owner.client = leg
        _set_owner(leg, leg)
        octets, self._hello, self._behind = hello.octets + self._behind, None, b""
        leg.start(octets)


def _set_owner(side: Muted, owner: ClientOwner | ServerOwner) -> None:
    """From now on asyncio's callbacks of this side go to `owner`."""
    side.transport.get_protocol().owner = owner


class _WaitingClient:
    """The client between its STARTTLS and TLS with it."""

    def __init__(self, owner: TlsOwner, tls: ConnectionTls) -> None:
        self._owner = owner
        self._tls = tls
        self.client_lost = owner.client_lost
        self.client_eof = owner.client_eof
        self.client_full = owner.client_full

    def client_made(self, transport: asyncio.BaseTransport) -> None:
        """It was made long ago."""

    @callback
    def client_data(self, data: bytes) -> None:
        """Octets of the ClientHello."""
        self._tls.client_octets(data)

    def failed(self, error: Exception) -> None:
        """A bug in a callback of this object."""
        self._owner.failed(error)
