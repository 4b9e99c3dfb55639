"""What the lines about TLS mean, for people: in check-config and in tls-policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxsmtp_tp.config.settings import TlsRejected
from proxsmtp_tp.config.tls_lines import SUBMISSION_PORTS, TlsAction, TlsLevel
from proxsmtp_tp.tls.levels import Demand
from proxsmtp_tp.tls.policy import address_of, inside

if TYPE_CHECKING:
    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.config.tls_lines import UpstreamRule

MEANING: Final = {
    TlsAction.TERMINATE: "TLS on both legs, messages are judged",
    TlsAction.PASS: "nothing is judged, the client has TLS with the server",
    TlsAction.STRIP: "STARTTLS is removed, mail is in clear",
    TlsAction.REFUSE: "a client that asks for TLS is refused",
}
REMOVED: Final = "STARTTLS is removed, mail is in clear: there is no Tls line"


def meaning(action: TlsAction, rule: str) -> str:
    """What a decision means. `rule`: its Tls line, "": there is none."""
    return REMOVED if action is TlsAction.STRIP and not rule else MEANING[action]


def decision(action: str, rule: str) -> str:
    """A decision in one line: the action, the Tls line, and what it means."""
    return f"{action}{f' (Tls: {rule})' if rule else ''}: {meaning(TlsAction(action), rule)}"


def in_force(settings: Settings) -> list[str]:
    """The table of check-config, one line each."""
    if not settings.tls:
        return [f"TLS: {REMOVED}"]
    lines = [f"TLS {number}: {rule}: {MEANING[rule.action]}" for number, rule in enumerate(settings.tls, 1)]
    if any(rule.action is TlsAction.STRIP and not rule.submission for rule in settings.tls):
        ports = " and ".join(map(str, SUBMISSION_PORTS))
        lines.append(f"TLS on ports {ports}: strip without the word submission refuses, like refuse")
    if settings.tls_wrapped:
        lines.append(f"TLS from the first octet on port {', '.join(map(str, settings.tls_wrapped))}")
    lines += [f"TLS to the server {number}: {rule}" for number, rule in enumerate(settings.upstream_tls, 1)]
    if not settings.upstream_tls:
        lines.append("TLS to the server: may, and encrypt for clients with TLS")
    if settings.terminates_tls:
        records = "TLS to a server with TLSA records for the client's server name"
        own = ", and terminate where they name its TlsCertificate" if settings.tls_certificate else ""
        lines.append(f"{records}: {settings.tls_dane.value} (TlsDane){own}")
        lines.append(f"TLS of a client that rejects its certificate: {rejected(settings)}")
        lines += [f"certificate for clients: {line}" for line in settings.tls_certificate]
        lines.append(
            f"certificate for clients{' of other servers' if settings.tls_certificate else ''}: {ca(settings)}"
        )
    return lines


def ca(settings: Settings) -> str:
    """Who signs the certificates that this gateway makes."""
    where = settings.tls_ca.certificate if settings.tls_ca else "the state directory"
    return f"made for each server, signed by the CA in {where}"


def rejected(settings: Settings) -> str:
    """What becomes of a client that rejects the certificate which it gets."""
    if settings.tls_rejected is TlsRejected.FAIL:
        return "it cannot send (TlsRejected: fail)"
    seconds = f"{settings.tls_rejected_time_out:g} s"
    return f"its next connections to that server pass for {seconds}, nothing is judged (TlsRejected: pass)"


def certificate(settings: Settings, server: str) -> str:
    """What a client of this server gets with terminate."""
    address = address_of(server)
    for line in settings.tls_certificate:
        if inside(address, line.servers):
            return line.files.certificate
    return ca(settings)


def demanded(rule: UpstreamRule, *, client_tls: bool) -> str:
    """What the server must have for a client with TLS, or in clear."""
    level = Demand(rule, client_tls).level
    known = ", ".join(rule.match) or rule.server_name or ("the server name that the client gives" if client_tls else "")
    if level is TlsLevel.VERIFY and not known:
        return "451: no name is known to verify (verify without match= and sni=)"
    asks = rule.level is TlsLevel.DANE and (client_tls or rule.server_name)
    records = "as its TLSA records say; without them: " if asks else ""
    return (
        records
        + {
            TlsLevel.MAY: "in clear, too (may)",
            TlsLevel.ENCRYPT: "TLS with any certificate (encrypt)",
            TlsLevel.VERIFY: f"TLS with a trusted certificate for {known} (verify)",
            TlsLevel.SECURE: f"TLS with a trusted certificate for {known} (secure)",
        }[level]
    )
