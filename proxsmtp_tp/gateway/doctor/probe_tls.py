"""The probe's mails by TLS: which are sent, and what is said of version, cipher and certificate.

A way gets a mail by STARTTLS, and one by TLS from the first octet where a port of `TlsWrapped` is intercepted, if the
Tls lines say terminate or pass for it. The probe's server has a certificate of a CA that exists only for this probe: no
level that verifies can accept it, and a client of terminate must get a certificate of the CA that nobody trusts.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from proxsmtp_tp.certificates import authority
from proxsmtp_tp.certificates.leaf import LeafKey, mint
from proxsmtp_tp.certificates.libraries import load
from proxsmtp_tp.certificates.pem import certificates_of, der_chain
from proxsmtp_tp.config.tls_lines import TlsAction, TlsLevel
from proxsmtp_tp.gateway.doctor.findings import Finding
from proxsmtp_tp.gateway.doctor.fixes import fix
from proxsmtp_tp.gateway.doctor.mail_peers import SERVER_NAME
from proxsmtp_tp.tls.levels import Demand, UpstreamPolicy
from proxsmtp_tp.tls.policy import Decision, TlsPolicy, address_of, inside, possible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from proxsmtp_tp.gateway.doctor.findings import Setup

TLS_SECONDS: float = 9.0
"""For one step by TLS: a resolver that is silent takes six before the daemon refuses (`net.tls_resolver`)."""
STARTTLS: Final = "starttls"
WRAPPED: Final = "wrapped"
_PURPOSE: Final = "the certificate of the probe's server"
_VERIFYING: Final = {TlsLevel.VERIFY, TlsLevel.SECURE}


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """Of the probe's server: chain and key in PEM."""

    chain: str
    key: str

    @property
    def der(self) -> bytes:
        """The certificate itself."""
        return der_chain(self.chain.encode())[0]


def make_certificate() -> ServerCertificate:
    """A certificate of a CA whose key is forgotten at once. Raises MissingLibraryError."""
    now = dt.datetime.now(dt.UTC)
    ca = authority.read(*authority.make("proxsmtp-tp doctor", now), where="probe", now=now)
    made = mint(ca, (SERVER_NAME,), LeafKey(), now)
    return ServerCertificate(made.chain.decode("ascii"), made.key.decode("ascii"))


def wrapped_port(setup: Setup) -> int | None:
    """The first intercepted port on which TLS begins with the first octet."""
    if not setup.settings.tls:
        return None
    return next((port for port in setup.plan.options.ports if port in setup.settings.tls_wrapped), None)


def kinds(setup: Setup, client: str, server: str) -> Iterator[tuple[str, int, Decision]]:
    """For each mail by TLS on this way: how TLS begins, the port, and the decision of the Tls lines."""
    for kind, port in ((STARTTLS, setup.probe_port), (WRAPPED, wrapped_port(setup))):
        if port is not None and (decision := decide(setup, client, server, port)) is not None:
            yield kind, port, decision


def decide(setup: Setup, client: str, server: str, port: int) -> Decision | None:
    """What the Tls lines of the file say; None: no mail is sent, because they neither terminate nor pass."""
    rules = setup.settings.tls
    wrapped = port in setup.settings.tls_wrapped
    if not rules or not (wrapped or possible(rules, client, server, port).keeps_starttls):
        return None
    decision = TlsPolicy(rules).decide(client, server, port, SERVER_NAME)
    return decision if decision.action in {TlsAction.TERMINATE, TlsAction.PASS} else None


def verifies(setup: Setup, server: str, port: int, *, client_tls: bool) -> str:
    """The UpstreamTls line that demands a verified certificate, which the probe's server cannot have; "": none does."""
    rule = UpstreamPolicy(setup.settings.upstream_tls).rule_for(server, port)
    return str(rule) if Demand(rule, client_tls).level in _VERIFYING else ""


def handshake(setup: Setup, step: str, mail: dict[str, Any], decision: Decision) -> Iterator[Finding]:
    """Up to the certificate. Yields nothing wrong only if the client has TLS."""
    line = f"{decision.action.value} (Tls: {decision.rule})"
    restart = fix("TLS is not as the file says", restart=setup.restart)
    if mail["tls"] == STARTTLS and mail.get("offered") is False:
        text = (
            f"the client sees no STARTTLS, which the server offers; the file says {line}: the daemon does not run with"
        )
        yield Finding(step, False, f"{text} this file, or a program on the way removes it", restart)
    elif mail["step"] == "STARTTLS" and not mail["reply"].startswith("2"):
        if "handshakes" in mail["reply"]:
            text = f"STARTTLS is refused: {mail['reply']}: see TlsHandshakes and TlsClientHandshakes"
            yield Finding(step, False, text)
            return
        yield Finding(step, False, f"STARTTLS is refused; the file says {line}: {mail['reply']}", restart)
    elif "version" not in mail and "error" in mail:
        yield Finding(step, False, _no_handshake(mail))


def _no_handshake(mail: dict[str, Any]) -> str:
    if mail["alert"]:
        return (
            f"the TLS handshake failed: the alert {mail['alert']} came: see the minting process, and the daemon's log"
        )
    what = "nothing came" if mail["silent"] else "the connection was closed"
    return f"the TLS handshake failed: {what} ({mail['error']}): see the daemon's log, and firewalls on the way"


def shown(setup: Setup, step: str, mail: dict[str, Any], decision: Decision, own: ServerCertificate) -> Finding:
    """Version, cipher and whose certificate it is."""
    server = mail["server"]
    found = bytes.fromhex(mail["certificate"])
    whose = _whose(setup, server, found, own)
    facts = f"{mail['version']}, {mail['cipher']}, {_CERTIFICATES[whose]}"
    expected = _expected(setup, server, decision.action)
    if whose == expected:
        return Finding(step, True, f"{facts}, as the file says: {decision.action.value} (Tls: {decision.rule})")
    why = (
        "a program on the way has TLS with the client, or the daemon has read another certificate"
        if whose == "other"
        else "the daemon does not run with this file"
    )
    text = f"{facts}; with {decision.action.value} (Tls: {decision.rule}) it must be {_CERTIFICATES[expected]}: {why}"
    return Finding(step, False, text, fix("TLS is not as the file says", restart=setup.restart))


_CERTIFICATES: Final = {
    "server": "the certificate of the probe's server itself",
    "own": "the certificate of TlsCertificate",
    "trusted": "a certificate of the CA that clients trust (TlsCa)",
    "untrusted": "a certificate of the CA that nobody trusts, because nobody knows the probe's server",
    "other": "a certificate of somebody else",
}
"""Whose certificate the client has got."""


def _expected(setup: Setup, server: str, action: TlsAction) -> str:
    if action is TlsAction.PASS:
        return "server"
    return "own" if _own_file(setup, server) else "untrusted"


def _whose(setup: Setup, server: str, certificate: bytes, own: ServerCertificate) -> str:
    if certificate == own.der:
        return "server"
    if (file := _own_file(setup, server)) and certificate == _first_of(file):
        return "own"
    for trusted, pem in setup.authorities().items():
        if _signed_by(certificate, pem):
            return "trusted" if trusted else "untrusted"
    return "other"


def _own_file(setup: Setup, server: str) -> str:
    address = address_of(server)
    lines = (line for line in setup.settings.tls_certificate if inside(address, line.servers))
    return next((line.files.certificate for line in lines), "")


def _first_of(file: str) -> bytes:
    try:
        return der_chain(Path(file).read_bytes())[0]
    except (OSError, IndexError, ValueError):
        return b""


def _signed_by(certificate: bytes, ca_pem: bytes) -> bool:
    """By the name of the CA: those that the daemon makes have a number in it."""
    x509 = load("cryptography.x509", _PURPOSE)
    leaf, ca = x509.load_der_x509_certificate(certificate), certificates_of(ca_pem, "CA")[0]
    return bool(leaf.issuer == ca.subject)


def refused(setup: Setup, step: str, mail: dict[str, Any]) -> Finding | None:
    """A refusal that UpstreamTls makes in place of the server; None: it is none."""
    server, port, in_tls = mail["server"], mail["port"], bool(mail["tls"])
    reply: str = mail["reply"]
    if not reply.startswith(_REFUSALS):
        return None
    if line := verifies(setup, server, port, client_tls=in_tls):
        text = f"the probe's server is refused, because nobody knows it, as UpstreamTls: {line} says: {reply}"
        return Finding(step, True, f"{text}; whether mail passes is not proven")
    rule = UpstreamPolicy(setup.settings.upstream_tls).rule_for(server, port)
    text = f"the daemon refuses the server, which has TLS (UpstreamTls: {rule}): {reply}"
    if "TLSA" in reply:
        return Finding(step, False, f"{text}: the resolver in /etc/resolv.conf must answer: see its line above")
    why = "a firewall, or another program on the way to servers, breaks TLS or removes STARTTLS"
    return Finding(step, False, f"{text}: {why}; the log says what came")


_REFUSALS: Final = ("451 4.7.4", "451 4.7.5", "421 4.7.4", "421 4.7.5")
"""What UpstreamTls answers: `smtp.answers`, with 421 where it ends the connection."""


def mails(kinds_of_way: Sequence[tuple[str, int, Decision]], message: str) -> list[dict[str, Any]]:
    """The same for the prober."""
    return [{"tls": kind, "port": port, "message": message, "seconds": TLS_SECONDS} for kind, port, _ in kinds_of_way]
