"""What a firewall method can do, and the table of methods. A new method is one file and one row here.

`drift` and `install` take a plan; `remove` takes only the instance, because removal must work without a configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from proxsmtp_tp.gateway.iptables import IptablesFirewall
from proxsmtp_tp.gateway.nft_firewall import NftFirewall
from proxsmtp_tp.gateway.plan import Method

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.plan import Plan
    from proxsmtp_tp.gateway.rule_counts import Count


class Firewall(Protocol):
    """One firewall in which rules can be installed."""

    def requirements(self, plan: Plan) -> list[str]:
        """What is missing on this host, with the command that installs it; changes nothing."""

    def render(self, plan: Plan) -> str:
        """What would be loaded, as text."""

    def present(self, instance: str) -> bool:
        """Whether anything of the instance is installed."""

    def inventory(self) -> dict[str, list[str]]:
        """What is installed, by instance: a printable line for each part. Raises GatewayError."""

    def drift(self, plan: Plan) -> list[str] | None:
        """The differences from the plan, by meaning: a line for each; []: none; None: nothing is installed."""

    def counts(self, plan: Plan) -> list[Count]:
        """How many packets met each installed rule that has a name (`rule_counts.NAMES`).

        A name may come several times. Needs CAP_NET_ADMIN, and waits for no other program. Raises GatewayError.
        """

    def install(self, plan: Plan) -> None:
        """Replace the instance's rules by those of the plan, all or nothing. Raises GatewayError."""

    def require(self) -> None:
        """Raises GatewayError if this host lacks the program that shows which rules there are."""

    def remove(self, instance: str) -> None:
        """Remove everything of the instance; no error if nothing is installed. Raises GatewayError."""


METHODS: dict[Method, Firewall] = {Method.NFTABLES: NftFirewall(), Method.IPTABLES: IptablesFirewall()}
