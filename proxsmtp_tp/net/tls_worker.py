"""What the connections of one worker need for TLS: contexts, certificates, checks of servers, places for handshakes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from proxsmtp_tp.certificates import names
from proxsmtp_tp.certificates.examining import Finding, examine, examine_dane
from proxsmtp_tp.certificates.path_check import Anchors, PathCheckError
from proxsmtp_tp.certificates.pem import der_chain
from proxsmtp_tp.config.settings import TlsRejected
from proxsmtp_tp.config.tls_lines import TlsLevel
from proxsmtp_tp.net.handshake_limits import HandshakeLimits
from proxsmtp_tp.net.tls_certificates import Certificates
from proxsmtp_tp.net.tls_contexts import ClientContexts, server_context
from proxsmtp_tp.net.tls_rejections import RejectionsOfClient
from proxsmtp_tp.net.tls_resolver import Dane, Resolver, local_nameservers
from proxsmtp_tp.tls.facts import Verified
from proxsmtp_tp.tls.levels import TlsaState

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection, Sequence

    from proxsmtp_tp.certificates.material import Material
    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.config.tls_lines import UpstreamRule
    from proxsmtp_tp.net.tls_certificates import WorkerKeys
    from proxsmtp_tp.net.tls_rejections import TlsRejections

log = logging.getLogger(__name__)

NO_DANE = Dane(TlsaState.NONE)


class CertificateSource(Protocol):
    """Where the context of a client's leg comes from (`tls_certificates.Certificates`)."""

    async def context(
        self, server_names: tuple[str, ...], verified: bool, server_ip: str, versions: Collection[int] = ()
    ) -> ssl.SSLContext:
        """Raises CertificateError."""

    def own(self, server: str) -> Material | None:
        """The own certificate (TlsCertificate) for a server."""


class WorkerTls:
    """One for each worker that has Tls lines."""

    def __init__(
        self,
        certificates: CertificateSource,
        anchors: Anchors | None,
        handshakes: HandshakeLimits,
        resolver: Resolver | None = None,
        *,
        asks_for_names: bool = False,
    ) -> None:
        """`anchors`: the CAs that verify servers; None: no server is verified. `resolver`: for TLSA records; None:
        nobody has any. `asks_for_names`: TlsDane wants to know of each name that a client says.
        """
        self._rejections: tuple[TlsRejections, float] | None = None
        """For TlsRejected: pass; None: it is fail."""
        self._resolver = resolver
        self.asks_for_names = asks_for_names and resolver is not None
        self.certificates = certificates
        self.handshakes = handshakes
        self.server_context = server_context()
        """For all legs to servers."""
        self._anchors = anchors

    def learn_rejections(self, settings: Settings, table: TlsRejections) -> None:
        """Use the table of all workers, if TlsRejected says so."""
        if settings.tls_rejected is TlsRejected.PASS:
            self._rejections = table, settings.tls_rejected_time_out

    def rejections_of(self, client_ip: str) -> RejectionsOfClient | None:
        """The servers for which a client has rejected our certificate; None: TlsRejected is fail."""
        return RejectionsOfClient(*self._rejections, client_ip) if self._rejections is not None else None

    def examine(self, chain: Sequence[bytes], name: str, rule: UpstreamRule, dane: Dane = NO_DANE) -> Finding:
        """What the server's certificates (DER) prove. `name`: in our hello; `match` of the rule comes first."""
        if dane.state is TlsaState.USABLE:
            return examine_dane(chain, dane.names, dane.records)
        if self._anchors is None:
            found = names.dns_names(chain[0]) if chain else ()
            return Finding(Verified.NO, "there is no CA to check it with", found)
        wanted = rule.match or ((name,) if name else ())
        return examine(chain, wanted, self._anchors)

    async def dane_of_level(self, rule: UpstreamRule, name: str, port: int, server: str) -> Dane:
        """The TLSA records of a server, where UpstreamTls asks for them.

        A name of a client that is not the server's own is no evidence: then there are none.
        """
        if rule.level is not TlsLevel.DANE or not name:
            return NO_DANE
        found = await self.look_up(name, port, server)
        return found if found.bound or found.state is TlsaState.FAILED else NO_DANE

    async def only_servers_own(self, name: str, port: int, server: str) -> bool:
        """Whether a client that compares the TLSA records of this name accepts no certificate but the server's.

        A TlsCertificate that the records name is as good for it.
        """
        dane = await self.look_up(name, port, server)
        if not dane.bound or dane.state is not TlsaState.USABLE:
            return False
        own = self.certificates.own(server)
        return own is None or not examine_dane(der_chain(own.chain), dane.names, dane.records).verified.proven

    async def look_up(self, name: str, port: int, server: str) -> Dane:
        """What DNS says of a server's name; never raises."""
        return NO_DANE if self._resolver is None else await self._resolver.look_up(name, port, server)


def make_worker_tls(settings: Settings, keys: WorkerKeys, rejections: TlsRejections) -> WorkerTls | None:
    """What a worker's connections need; None: there are no Tls lines. `rejections`: of all workers."""
    if not settings.tls:
        return None
    try:
        anchors = Anchors(Path(settings.upstream_ca_file) if settings.upstream_ca_file else None)
    except PathCheckError as error:  # the file has been changed since it was checked
        log.error("no server can be verified: %s", error)  # noqa: TRY400  (the text says all)
        anchors = None
    servers = local_nameservers() if settings.needs_resolver else ()
    made = WorkerTls(
        Certificates(keys, ClientContexts().get),
        anchors,
        HandshakeLimits(settings.tls_handshakes, settings.tls_client_handshakes),
        Resolver(servers) if servers else None,
        asks_for_names=settings.asks_for_names,
    )
    made.learn_rejections(settings, rejections)
    return made


def hello_name(client_name: str, rule: UpstreamRule) -> str:
    """The server name in our hello: the client's own, otherwise the one of the rule."""
    if client_name or rule.server_name:
        return client_name or rule.server_name
    return next((name for name in rule.match if not name.startswith("*.")), "")


def certificate_names(client_name: str, finding: Finding) -> tuple[str, ...]:
    """The names of the certificate that the client gets: the name that it asks for only if the server's certificate has
    it, too."""
    has_client_name = not finding.verified.vouched or bool(names.first_match(finding.names, (client_name,)))
    return ((client_name,) if client_name and has_client_name else ()) + finding.names
