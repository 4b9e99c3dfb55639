"""What the connections of one worker need for TLS: contexts, certificates, checks of servers, places for handshakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from proxsmtp_tp.certificates import names
from proxsmtp_tp.certificates.examining import Finding, examine
from proxsmtp_tp.net.handshake_limits import Busy, Handshake, HandshakeLimits
from proxsmtp_tp.net.tls_contexts import Certificate, ClientContexts, server_context
from proxsmtp_tp.tls.facts import Verified

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection, Sequence

    from proxsmtp_tp.certificates.material import Material
    from proxsmtp_tp.certificates.path_check import Anchors
    from proxsmtp_tp.config.tls_lines import UpstreamRule


class CertificateSource(Protocol):
    """Where the context of a client's leg comes from (`tls_certificates.Certificates`)."""

    async def context(
        self, server_names: tuple[str, ...], verified: bool, server_ip: str, port: int, versions: Collection[int] = ()
    ) -> ssl.SSLContext:
        """Raises CertificateError."""


class ClientContextMaker:
    """Makes the contexts that `tls_certificates.Certificates` gives out; keeps them by certificate."""

    def __init__(self) -> None:
        self._contexts = ClientContexts()

    def __call__(self, material: Material, versions: Collection[int]) -> ssl.SSLContext:
        """ValueError: the certificate cannot be used; says why."""
        return self._contexts.get(Certificate(material.chain, material.key), versions)


class WorkerTls:
    """One for each worker that has Tls lines."""

    def __init__(self, certificates: CertificateSource, anchors: Anchors | None, handshakes: HandshakeLimits) -> None:
        """`anchors`: the CAs that verify servers; None: no server is verified."""
        self.certificates = certificates
        self.handshakes = handshakes
        self.server_context = server_context(verify=False)
        """For all legs to servers: the handshake asks for no proof, `examine` looks at the certificate behind it."""
        self._anchors = anchors

    def examine(self, chain: Sequence[bytes], name: str, rule: UpstreamRule) -> Finding:
        """What the server's certificates (DER) prove. `name`: in our hello; `match` of the rule comes first."""
        if self._anchors is None:
            found = names.dns_names(chain[0]) if chain else ()
            return Finding(Verified.NO, "there is no CA to check it with", found)
        wanted = rule.match or ((name,) if name else ())
        return examine(chain, wanted, self._anchors)


def hello_name(client_name: str, rule: UpstreamRule) -> str:
    """The server name in our hello: the client's own, otherwise the one of the rule."""
    if client_name or rule.server_name:
        return client_name or rule.server_name
    return next((name for name in rule.match if not name.startswith("*.")), "")


def certificate_names(client_name: str, finding: Finding) -> tuple[str, ...]:
    """The names of the certificate that the client gets: a name of its own wish only if the server has it, too."""
    wished = not finding.trusted or bool(names.first_match(finding.names, (client_name,)))
    return ((client_name,) if client_name and wished else ()) + finding.names


class Place:
    """A connection's place for a handshake (`session.limits.HandshakePlace`)."""

    def __init__(self, limits: HandshakeLimits, client_ip: str) -> None:
        self._limits = limits
        self._client_ip = client_ip
        self._taken: Handshake | None = None

    def begin(self) -> str:
        """Take a place, if this connection has none; returns why there is none."""
        if self._taken is None:
            taken = self._limits.begin(self._client_ip)
            if isinstance(taken, Busy):
                return taken.value
            self._taken = taken
        return ""

    def end(self) -> None:
        """Give it back. Idempotent."""
        if self._taken is not None:
            self._taken.end()
            self._taken = None
