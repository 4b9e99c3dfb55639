"""Checks of all lines about TLS together: problems and warnings, each with the field whose line it is about."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from proxsmtp_tp.config.addresses import InetAddress
from proxsmtp_tp.config.settings import TlsDane, TlsRejected
from proxsmtp_tp.config.tls_lines import SUBMISSION_PORTS, TlsAction, TlsRule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.config.tls_lines import Network

Finding = tuple[str, str]
"""Field of `Settings`, text."""

_WRAPPED = 465
"""TLS begins with the first octet there (RFC 8314 section 7.3)."""
_GREETED_IN_CLEAR = (25, 587)
"""There a server greets first (RFC 5321 section 3.1, RFC 6409)."""
_OF_TERMINATE = {
    "tls_certificate": "TlsCertificate",
    "tls_ca": "TlsCa",
    "tls_untrusted_ca": "TlsUntrustedCa",
}


def tls_problems(settings: Settings) -> Iterator[Finding]:
    """What is wrong; nothing without lines about TLS."""
    if not settings.tls:
        if settings.upstream_tls:
            yield (
                "upstream_tls",
                "UpstreamTls: write Tls lines, too; `Tls: strip` leaves clients in clear, as 1.10 does",
            )
        if settings.tls_wrapped:
            yield "tls_wrapped", "TlsWrapped: write Tls lines, too: without them there is no TLS"
        return
    yield from _not_for_everybody(settings)
    yield from _strip_after_a_name(settings)
    yield from _strip_of_submission(settings)
    yield from _pass_with_xclient(settings)
    if settings.tls_ca is not None and settings.tls_ca == settings.tls_untrusted_ca:
        yield "tls_untrusted_ca", "TlsUntrustedCa: the same as TlsCa: clients would trust servers that nobody verified"


def tls_warnings(settings: Settings) -> Iterator[Finding]:
    """What is accepted, but has consequences that the lines do not show."""
    rules = settings.tls
    yield from _wrapped_ports(settings)
    for rule in rules:
        if rule.action is TlsAction.STRIP:
            text = "mail of these connections crosses the network in clear, and senders that insist on TLS cannot send"
            yield "tls", f"Tls: {rule}: {text}"
        if rule.action is TlsAction.PASS and rule.names and not rule.servers:
            text = "any client can say this name to any server and is not judged then: add server="
            yield "tls", f"Tls: {rule}: {text}"
    if settings.tls_rejected is TlsRejected.PASS and settings.terminates_tls:
        yield "tls_rejected", "TlsRejected: pass: a client that rejects its certificate on purpose is not judged"
    for first, later in _pairs(rules):
        if _covers(first, later):
            yield "tls", f"Tls: {later}: never used, because `{first}` is first"
    if rules and not settings.terminates_tls:
        for field, name in _OF_TERMINATE.items():
            if getattr(settings, field):
                yield field, f"{name}: never used: no Tls line says terminate"


def _wrapped_ports(settings: Settings) -> Iterator[Finding]:
    """A port on which both sides would wait for the other."""
    if _WRAPPED not in settings.tls_wrapped:
        text = f"TLS begins with the first octet there, and no mail passes: write TlsWrapped: {_WRAPPED}"
        text += "" if settings.tls else " and Tls lines, or take the port out"
        if _WRAPPED in settings.rule_port:
            yield "rule_port", f"RulePort: {_WRAPPED}: {text}"
        fixed = None if settings.transparent else settings.out_address
        if isinstance(fixed, InetAddress) and fixed.port == _WRAPPED:
            yield "out_address", f"OutAddress: {fixed}: {text}"
    for port in settings.tls_wrapped:
        if port in _GREETED_IN_CLEAR:
            text = "servers greet in clear there, and TLS begins with STARTTLS: every connection would fail"
            yield "tls_wrapped", f"TlsWrapped: {port}: {text}"


def _not_for_everybody(settings: Settings) -> Iterator[Finding]:
    if any(_always(rule) for rule in settings.tls):
        return
    instead = "`Tls: terminate`, or `Tls: strip` to leave them in clear, as 1.10 does"
    yield "tls", f"Tls: no line is for all other connections: write a last line without conditions, such as {instead}"


def _strip_after_a_name(settings: Settings) -> Iterator[Finding]:
    for first, later in _pairs(settings.tls):
        if first.names and later.action is TlsAction.STRIP and _overlap(first, later):
            between = settings.tls[settings.tls.index(first) + 1 : settings.tls.index(later)]
            if any(_covers(rule, replace(first, names=())) for rule in between):
                continue  # what has no such name is decided there
            text = f"comes after `{first}` for the same connections: the name is known only after STARTTLS was offered"
            yield "tls", f"Tls: {later}: {text}: give one of them client=, server= or port= that the other has not"


def _strip_of_submission(settings: Settings) -> Iterator[Finding]:
    used = {*settings.rule_port, *settings.tls_wrapped, *(port for rule in settings.tls for port in rule.ports)}
    if isinstance(settings.out_address, InetAddress):
        used.add(settings.out_address.port)
    for port in sorted(used & {*SUBMISSION_PORTS, *settings.tls_wrapped}):
        for rule in _reachable(settings.tls, port):
            if rule.action is not TlsAction.STRIP:
                continue
            if port in settings.tls_wrapped:
                yield "tls", f"Tls: {rule}: not on port {port}: with TlsWrapped there is no STARTTLS to remove"
            elif not rule.submission:
                text = "people's passwords would cross the network in clear: write `strip submission` if you mean it"
                yield "tls", f"Tls: {rule}: not on port {port}, which is for submission: {text}"


def _pass_with_xclient(settings: Settings) -> Iterator[Finding]:
    """XCLIENT cannot be sent in a connection that passes, if TLS begins with the first octet."""
    if not settings.x_client:
        return
    for port in settings.tls_wrapped:
        text = f"not on port {port} of TlsWrapped with XClient: the server would take the client for this gateway"
        for rule in _reachable(settings.tls, port):
            if rule.action is TlsAction.PASS:
                yield "tls", f"Tls: {rule}: {text}"
            elif rule.action is TlsAction.TERMINATE and settings.tls_dane is TlsDane.PASS:
                yield "tls", f"Tls: {rule}: {text}: write TlsDane: refuse, or TlsDane: terminate"
            elif rule.action is TlsAction.TERMINATE and settings.tls_rejected is TlsRejected.PASS:
                yield "tls_rejected", f"TlsRejected: pass: {text}"


def _reachable(rules: Sequence[TlsRule], port: int) -> Iterator[TlsRule]:
    """The rules for a port, up to the first that fits all its connections."""
    for rule in rules:
        if not rule.ports or port in rule.ports:
            yield rule
            if not (rule.clients or rule.servers or rule.names):
                return


def _pairs(rules: Sequence[TlsRule]) -> Iterator[tuple[TlsRule, TlsRule]]:
    """Each two rules, the earlier one first."""
    for at, later in enumerate(rules):
        yield from product(rules[:at], [later])


def _always(rule: TlsRule) -> bool:
    return not (rule.clients or rule.servers or rule.ports or rule.names)


def _covers(first: TlsRule, later: TlsRule) -> bool:
    """Whether the first rule fits all connections that the later one fits."""
    return (
        _within(later.clients, first.clients)
        and _within(later.servers, first.servers)
        and (not first.ports or (bool(later.ports) and set(later.ports) <= set(first.ports)))
        and (not first.names or (bool(later.names) and set(later.names) <= set(first.names)))
    )


def _within(inner: tuple[Network, ...], outer: tuple[Network, ...]) -> bool:
    if not outer:
        return True
    return bool(inner) and all(any(_subnet(one, other) for other in outer) for one in inner)


def _subnet(one: Network, other: Network) -> bool:
    return one.network_address in other and one.prefixlen >= other.prefixlen


def _overlap(one: TlsRule, other: TlsRule) -> bool:
    """Whether a connection may fit both, but for the name."""
    return (
        _share(one.clients, other.clients)
        and _share(one.servers, other.servers)
        and (not one.ports or not other.ports or bool({*one.ports} & {*other.ports}))
    )


def _share(ones: tuple[Network, ...], others: tuple[Network, ...]) -> bool:
    if not ones or not others:
        return True
    return any(_subnet(one, other) or _subnet(other, one) for one, other in product(ones, others))
