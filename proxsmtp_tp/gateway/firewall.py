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


class Firewall(Protocol):
    """One way to carry rules."""

    def requirements(self, plan: Plan) -> list[str]:
        """What is missing on this host, with the command that brings it; changes nothing."""

    def render(self, plan: Plan) -> str:
        """What would be loaded, for people."""

    def present(self, instance: str) -> bool:
        """Whether anything of the instance is there."""

    def drift(self, plan: Plan) -> list[str] | None:
        """How the host differs from the plan, by meaning: a line for each; [] in place; None: nothing is there."""

    def install(self, plan: Plan) -> None:
        """Replace what is there by the plan, all or nothing. Raises GatewayError."""

    def remove(self, instance: str) -> None:
        """Take everything of the instance away; nothing there is fine. Raises GatewayError."""


METHODS: dict[Method, Firewall] = {Method.NFTABLES: NftFirewall(), Method.IPTABLES: IptablesFirewall()}
