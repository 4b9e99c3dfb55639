"""`proxsmtp-tp rules`: every rule of ours on a host, and whose it is, also where records or configurations are gone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.gateway.plan import Method, Mode, instance_of_chain, names
from tests.gateway.commands import end, start
from tests.gateway.network import run

if TYPE_CHECKING:
    from tests.gateway.rules_host import RulesHost


def typed(host: RulesHost, *command: str) -> tuple[int, str]:
    """A command on the gateway: exit status, standard output."""
    return end(start(host.net.gateway, host.state, *command))[:2]


def listed(host: RulesHost) -> dict[str, list[str]]:
    status, said = typed(host, "rules", "--json")
    assert status == 0
    return {owner["instance"]: owner["found"] for owner in json.loads(said)}


def test_all_of_several_instances(host: RulesHost) -> None:
    before = host.snapshot()
    assert typed(host, "rules") == (0, "there are no rules of proxsmtp-tp on this host\n")
    host.install(instance="nr", ports=(25,))
    host.install(instance="nt", ports=(26,), mode=Mode.TPROXY)
    host.install(instance="ir", ports=(27,), method=Method.IPTABLES)
    host.install(instance="it", ports=(28,), method=Method.IPTABLES, mode=Mode.TPROXY, local=False)
    found = listed(host)
    assert list(found) == ["ir", "it", "nr", "nt"]
    assert found["nr"] == ["nft table inet proxsmtp_nr"]
    assert found["nt"][0] == "nft table inet proxsmtp_nt"
    assert "iptables table nat chain PXIN-ir" in found["ir"]
    assert "ip6tables table nat chain PXIN-ir" in found["ir"]
    for name in ("nt", "it"):
        routing = [line for line in found[name] if line.startswith("ip -")]
        assert sum(" rule priority " in line for line in routing) == 6
        assert sum(" route local default " in line for line in routing) == 2
    said = typed(host, "rules")[1]
    assert "nr: nftables, redirect, port 25 from lan0 to 10025\n  configuration: none in /etc/proxsmtp-tp;" in said

    # The records are gone: the kernel still knows. Their slots are those that the names prefer.
    for path in host.state.glob("*.json"):
        path.unlink()
    assert listed(host) == found
    assert "nt: the record of its rules is lost\n" in typed(host, "rules")[1]

    # Of one, the firewall's part is gone, too: nobody can say whose the routing is. The commands remove it.
    run(host.net.gateway, "nft", "delete", "table", "inet", "proxsmtp_nt")
    assert listed(host)[None] == [line for line in found["nt"] if line.startswith("ip -")]  # type: ignore[index]
    said = typed(host, "rules")[1]
    by_hand = [line.strip() for line in said.splitlines() if line.startswith("  ip -") and " del " in line]
    assert len(by_hand) == 8
    for command in by_hand:
        run(host.net.gateway, *command.split())
    for name in ("nr", "ir", "it"):
        assert typed(host, "remove-rules", "--instance", name)[0] == 0
    assert listed(host) == {}
    assert host.snapshot() == before


def test_a_record_without_rules_is_reported(host: RulesHost) -> None:
    host.install(instance="gone")
    run(host.net.gateway, "nft", "flush", "ruleset")
    status, said = typed(host, "rules")
    assert status == 0
    assert said.endswith("  nothing of it is in the kernel: proxsmtp-tp install-rules --instance gone\n")
    host.remove("gone")


@pytest.mark.parametrize("instance", ["a", "a-b_c", "x" * 16])
def test_the_owner_of_a_chain(instance: str) -> None:
    assert {instance_of_chain(chain) for chain in names(instance).chains} == {instance}
    assert instance_of_chain("PXOTHER-a") is None
    assert instance_of_chain("PXIN") is None
    assert instance_of_chain("FORWARD-a") is None
