"""What UpstreamTls demands of the server's leg (the levels of Postfix, TLS_README "Client TLS security levels").

A `Demand` answers after the server's EHLO (`not_offered`), after STARTTLS or the handshake failed (`failed`), and after
the handshake (`handshake_done`). A client that has TLS makes the level at least `encrypt`: what came by TLS never
leaves in clear.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.config.tls_lines import TlsLevel, UpstreamRule
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.replies import Reply
from proxsmtp_tp.tls.facts import Verified
from proxsmtp_tp.tls.policy import address_of, inside

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = ["MAY_GO_ON", "Demand", "Outcome", "TlsLevel", "TlsaState", "UpstreamPolicy", "UpstreamRule"]

_DEFAULT: Final = UpstreamRule(TlsLevel.MAY)


class TlsaState(Enum):
    """What DNS has for the server. Only answers that DNSSEC secures count (RFC 7672 section 2.1)."""

    NONE = "none"
    """There is no TLSA record; or nobody asked, because the level is not dane or there is no name."""
    UNUSABLE = "unusable"
    """There are records, none of which this program can compare with (RFC 7672 section 3.1)."""
    USABLE = "usable"
    FAILED = "failed"
    """The answer is bogus, or did not come: it may be an attack, so the server is not used (RFC 7672 section 2.1)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`refusal` is what the client gets in place of going on; None: go on. `clear`: go on without TLS.

    `reason`: for the log, in one line.
    """

    refusal: Reply | None = None
    clear: bool = False
    reason: str = ""


MAY_GO_ON: Final = Outcome()


@dataclass(frozen=True, slots=True)
class Demand:
    """What the server's leg of one session must have. `client_tls`: the client has TLS, or has asked for it."""

    rule: UpstreamRule = _DEFAULT
    client_tls: bool = False
    tlsa: TlsaState = TlsaState.NONE

    @property
    def level(self) -> TlsLevel:
        """The level in force: dane without records is may, with unusable ones encrypt, as in Postfix."""
        level = self.rule.level
        if level is TlsLevel.DANE and self.tlsa in {TlsaState.NONE, TlsaState.UNUSABLE}:
            level = TlsLevel.MAY if self.tlsa is TlsaState.NONE else TlsLevel.ENCRYPT
        return TlsLevel.ENCRYPT if level is TlsLevel.MAY and self.client_tls else level

    @property
    def wants_tls(self) -> bool:
        """Whether a client that stays in clear gets TLS to the server, too (UpstreamTls: encrypt, verify, secure)."""
        return self.level is not TlsLevel.MAY

    @property
    def unknown(self) -> Outcome | None:
        """The refusal before anything is tried: what DNS has of the server cannot be known."""
        if self.rule.level is TlsLevel.DANE and self.tlsa is TlsaState.FAILED:
            return Outcome(answers.UPSTREAM_TLSA_UNKNOWN, reason="the TLSA records of the server cannot be looked up")
        return None

    def not_offered(self) -> Outcome:
        """The server's EHLO has no STARTTLS."""
        return self._clear_or(answers.UPSTREAM_TLS_NOT_OFFERED, "the server does not offer STARTTLS")

    def failed(self, reason: str) -> Outcome:
        """The server refused STARTTLS (then `reason` is its reply), or the handshake failed.

        Going on in clear needs a new connection to the server, except after a refusal by its reply.
        """
        return self._clear_or(answers.UPSTREAM_TLS_FAILED, reason)

    def handshake_done(self, verified: Verified) -> Outcome:
        """The server's leg has TLS. No level goes back to clear from here."""
        needed = _NEEDED[self.level]
        if verified in needed:
            return MAY_GO_ON
        reason = f"the server's certificate is {verified.value}, and UpstreamTls demands {self.rule.level.value}"
        return Outcome(answers.UPSTREAM_NOT_VERIFIED, reason=reason)

    def _clear_or(self, refusal: Reply, reason: str) -> Outcome:
        if self.level is TlsLevel.MAY:
            return Outcome(clear=True, reason=reason)
        return Outcome(refusal, reason=f"{reason}, and UpstreamTls demands {self.level.value}")


_ANY: Final = frozenset(Verified)
_NEEDED: Final = {
    TlsLevel.MAY: _ANY,
    TlsLevel.ENCRYPT: _ANY,
    TlsLevel.DANE: frozenset({Verified.DANE}),
    TlsLevel.VERIFY: frozenset({Verified.NAME}),
    TlsLevel.SECURE: frozenset({Verified.NAME}),
}


class UpstreamPolicy:
    """All UpstreamTls lines: the first one that fits the server counts. Without one: may."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Sequence[UpstreamRule]) -> None:
        self._rules = tuple(rules)

    def rule_for(self, server: str, port: int) -> UpstreamRule:
        """`server`: a literal without brackets; "" (a unix socket) is in no network."""
        address = address_of(server)
        for rule in self._rules:
            if inside(address, rule.servers) and (not rule.ports or port in rule.ports):
                return rule
        return _DEFAULT
