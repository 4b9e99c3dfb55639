"""The nftables method: one table of our own in family inet, replaced and removed in one transaction each."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway import nftables
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.nft_text import file_name, render, render_removal
from proxsmtp_tp.gateway.plan import names
from proxsmtp_tp.gateway.templates import read_template

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.nftables import Table
    from proxsmtp_tp.gateway.plan import Plan
    from proxsmtp_tp.gateway.rule_counts import Count


class NftFirewall:
    """See `firewall.Firewall`."""

    def requirements(self, plan: Plan) -> list[str]:
        """Checks for nft, and that the kernel accepts this script, in an empty network namespace."""
        if shutil.which("nft") is None:
            return ["nft is not installed: apt-get install nftables"]
        try:
            nftables.meant_table(plan.names.table, self.render(plan))
        except GatewayError as error:
            return [
                f"{error} (kernel modules: modprobe -a nft_redir nft_tproxy nft_socket nft_fib_inet nft_reject_inet)"
            ]
        return []

    def render(self, plan: Plan) -> str:
        """The script."""
        return render(plan, read_template(file_name(plan.options.mode)))

    def present(self, instance: str) -> bool:
        """Whether our table exists."""
        return shutil.which("nft") is not None and names(instance).table in nftables.table_names()

    def inventory(self) -> dict[str, list[str]]:
        """The tables with a name of ours."""
        if shutil.which("nft") is None:
            return {}
        prefix = names("_").table.removesuffix("_")
        ours = [name for name in sorted(nftables.table_names()) if name.startswith(prefix)]
        return {name.removeprefix(prefix): [f"nft table {nftables.FAMILY} {name}"] for name in ours}

    def drift(self, plan: Plan) -> list[str] | None:
        """Compare our table with what the script means."""
        name = plan.names.table
        live = nftables.live_table(name)
        if live is None:
            return None
        return _differences(nftables.meant_table(name, self.render(plan)), live)

    def counts(self, plan: Plan) -> list[Count]:
        """The rules of our table that have a comment."""
        return nftables.counts(plan.names.table)

    def install(self, plan: Plan) -> None:
        """Replace our table."""
        nftables.load(self.render(plan))

    def require(self) -> None:
        """Nft."""
        nftables.run_nft("--version")

    def remove(self, instance: str) -> None:
        """Remove our table."""
        if self.present(instance):
            nftables.load(render_removal(names(instance).table))


def _differences(meant: Table, live: Table) -> list[str]:
    if meant.same_as(live):
        return []
    found = []
    for name in sorted(meant.sets.keys() | live.sets.keys()):
        found += _set_differences(name, meant.sets.get(name), live.sets.get(name))
    for name in sorted(meant.chains.keys() | live.chains.keys()):
        found += _chain_differences(name, meant, live)
    if meant.other != live.other:
        found.append("something that is no set and no chain was added to the table")
    return found


def _set_differences(
    name: str, meant: tuple[str, tuple[str, ...]] | None, live: tuple[str, tuple[str, ...]] | None
) -> list[str]:
    if meant is None or live is None:
        return [f"set {name} {'is missing' if live is None else 'was added'}"]
    if meant[0] != live[0]:
        return [f"set {name} has another type"]
    gone, new = sorted(set(meant[1]) - set(live[1])), sorted(set(live[1]) - set(meant[1]))
    found = [f"set {name} lacks {_readable(element)}" for element in gone]
    return found + [f"set {name} has {_readable(element)}, which is unexpected" for element in new]


def _readable(element: str) -> str:
    value = json.loads(element)
    if isinstance(value, dict) and "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    if isinstance(value, dict) and "range" in value:
        return "-".join(map(str, value["range"]))
    return str(value)


def _chain_differences(name: str, meant: Table, live: Table) -> list[str]:
    wanted, found = meant.chains.get(name), live.chains.get(name)
    if wanted is None or found is None:
        return [f"chain {name} {'is missing' if found is None else 'was added'}"]
    if wanted == found:
        return []
    lines = [f"chain {name}: missing: {meant.text[name][i]}" for i, x in enumerate(wanted) if x not in found]
    lines += [f"chain {name}: unexpected: {live.text[name][i]}" for i, x in enumerate(found) if x not in wanted]
    return lines or [f"chain {name}: its rules are in another order, or one is there twice"]
