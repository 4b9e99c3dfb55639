"""The table of Tls lines: which action a connection gets. The first line that fits counts.

A line with name= can be decided only after the client's hello, which comes after STARTTLS was offered and answered. So
there are two questions: `TlsPolicy.by_address` before (may STARTTLS be offered?), `TlsPolicy.decide` after the hello.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.config.tls_lines import NO_NAME, SUBMISSION_PORTS, TlsAction, TlsRule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxsmtp_tp.config.tls_lines import Network

__all__ = ["Candidates", "Decision", "TlsAction", "TlsPolicy", "TlsRule"]

_UNDECIDED: Final = TlsRule(TlsAction.REFUSE)
"""Where no line fits. check-config demands a last line that fits always."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done with a connection. `rule`: the text of the Tls line that says so, for logs and `tls-policy`."""

    action: TlsAction
    rule: str


@dataclass(frozen=True, slots=True)
class Candidates:
    """The decisions that are possible before the client's hello, in order. There is at least one."""

    decisions: tuple[Decision, ...]

    @property
    def certain(self) -> Decision | None:
        """The decision, if no server name can change it."""
        return self.decisions[0] if len({each.action for each in self.decisions}) == 1 else None

    @property
    def keeps_starttls(self) -> bool:
        """Whether the client sees the server's STARTTLS: for some server name the action is not strip. With refuse it
        sees STARTTLS and gets an error in its place.
        """
        return any(each.action is not TlsAction.STRIP for each in self.decisions)


_NO_RULES: Final = Candidates((Decision(TlsAction.STRIP, ""),))


def possible(rules: Sequence[TlsRule], client: str, server: str, port: int) -> Candidates:
    """The same for a configuration that may have no Tls line: then STARTTLS is removed."""
    return TlsPolicy(rules).by_address(client, server, port) if rules else _NO_RULES


class TlsPolicy:
    """All Tls lines. Addresses are literals without brackets; "" (a unix socket) is in no network."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Sequence[TlsRule]) -> None:
        self._rules = tuple(rules)

    def by_address(self, client: str, server: str, port: int) -> Candidates:
        """The decisions that are possible while the server name is not known."""
        found = []
        for rule in self._fitting(client, server, port):
            found.append(Decision(_action(rule, port), str(rule)))
            if not rule.names:
                return Candidates(tuple(found))
        return Candidates((*found, Decision(_UNDECIDED.action, "")))

    def decide(self, client: str, server: str, port: int, name: str) -> Decision:
        """The decision after the client's hello; `name` is its `reliable_name`.

        It never strips: STARTTLS was offered and accepted. A line that says so refuses instead.
        """
        for rule in self._fitting(client, server, port):
            if not rule.names or any(name_fits(pattern, name) for pattern in rule.names):
                action = _action(rule, port)
                return Decision(TlsAction.REFUSE if action is TlsAction.STRIP else action, str(rule))
        return Decision(_UNDECIDED.action, "")

    def _fitting(self, client: str, server: str, port: int) -> list[TlsRule]:
        from_, to = address_of(client), address_of(server)
        return [
            rule
            for rule in self._rules
            if inside(from_, rule.clients) and inside(to, rule.servers) and (not rule.ports or port in rule.ports)
        ]


def _action(rule: TlsRule, port: int) -> TlsAction:
    """Ports of submission may be intercepted although no directive names them: there strip needs its word, too."""
    unwanted = rule.action is TlsAction.STRIP and port in SUBMISSION_PORTS and not rule.submission
    return TlsAction.REFUSE if unwanted else rule.action


def name_fits(pattern: str, name: str) -> bool:
    """Whether a server name (in lower case, "": none) fits a pattern. `*.example` has all names below it."""
    if pattern.startswith("*."):
        return name.endswith(pattern[1:]) and len(name) >= len(pattern)
    return name == ("" if pattern == NO_NAME else pattern)


@lru_cache(maxsize=1024)  # of the clients and servers of now: each session asks several times
def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """An address of a session as a value. "" is a unix socket: None."""
    return ip_address(text.partition("%")[0]) if text else None


def inside(address: IPv4Address | IPv6Address | None, networks: tuple[Network, ...]) -> bool:
    """Whether an address is in one of the networks, or there are none: no condition."""
    return not networks or (address is not None and any(address in network for network in networks))
