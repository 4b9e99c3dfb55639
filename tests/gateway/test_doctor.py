"""Each step of interception is broken on purpose: `doctor` names it, and the command that it gives fixes it."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing

import pytest

from proxsmtp_tp.gateway.plan import Numbers, preferred_slot
from tests.gateway import foreign_rulesets
from tests.gateway.daemon_host import DaemonHost, diagnosed, soon
from tests.gateway.network import LAN, WAN
from tests.typed_fixes import types

OWN, OWN_TPROXY = Numbers(preferred_slot("setup")), Numbers(preferred_slot("tproxy"))
DROP_INPUT = """table inet other {
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established accept
        iifname lo accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    }
}
"""
NO_TRACKING = """table ip t {
    chain c {
        type filter hook prerouting priority raw;
        tcp dport 25 notrack
    }
}
"""


def test_nothing_is_wrong(redirect: DaemonHost, tproxy: DaemonHost) -> None:
    assert redirect.examine() == []
    assert tproxy.examine() == []


BROKEN_REDIRECT = {
    "forwarding": ("sysctl -qw net.ipv4.ip_forward=0", "forwarding, IPv4", "not forwarded"),
    "IPv6 forwarding": ("sysctl -qw net.ipv6.conf.all.forwarding=0", "forwarding, IPv6", "not forwarded"),
    "reverse path": (
        "ip route replace 203.0.113.0/24 via 198.51.100.25 dev wan0; sysctl -qw net.ipv4.conf.all.rp_filter=1",
        "return path, lan0",
        "answers to 203.0.113.0/24 leave by wan0",
    ),
    "no way back": ("ip route del 203.0.113.0/24", "return path, lan0", "no route back to 203.0.113.0/24"),
    "a rule is gone": ("nft flush chain inet proxsmtp_setup prerouting", "rules", "chain prerouting: missing"),
    "the rules are gone": ("nft flush ruleset", "rules", "not installed"),
    "untracked by nft": (
        f"nft -f - <<'END'\n{NO_TRACKING}END",
        "connection tracking",
        "nft ip t c switches it off",
    ),
    "untracked by iptables": (
        "iptables-legacy -t raw -A PREROUTING -p tcp --dport 25 -j CT --notrack",
        "connection tracking",
        "iptables-legacy -t raw switches it off",
    ),
    "nft drops": (
        f"nft -f - <<'END'\n{DROP_INPUT}END",
        "firewall, lan0",
        "nft table inet other does not let intercepted IPv4 and IPv6 connections in (port 10025)",
    ),
    "iptables drops": (
        "iptables-legacy -A INPUT -i lan0 -p tcp -m multiport --dports 1000:20000 -j DROP",
        "firewall, lan0",
        "iptables-legacy does not let intercepted IPv4",
    ),
    "ip6tables-nft drops": (
        "ip6tables-nft -A INPUT -i lan0 -p tcp -j REJECT",
        "firewall, lan0",
        "ip6tables-nft does not let intercepted IPv6",
    ),
}


@pytest.mark.parametrize("name", BROKEN_REDIRECT)
@types(
    by="name",
    each={
        "forwarding": "not forwarded",
        "reverse path": "strict reverse path",
        "no way back": "no route back",
        "a rule is gone": "rules differ",
        "the rules are gone": "rules are absent",
        "untracked by nft": "untracked by nft",
        "untracked by iptables": "untracked by iptables",
        "nft drops": "nft drops",
        "iptables drops": "iptables drops",
    },
)
def test_redirect_broken_and_fixed(redirect: DaemonHost, name: str) -> None:
    command, step, text = BROKEN_REDIRECT[name]
    redirect.run(command)
    try:
        redirect.type(diagnosed(redirect, step, text))
        assert redirect.examine() == []
    finally:
        redirect.run(
            "nft delete table inet other; nft delete table ip t; iptables-legacy -F INPUT; ip6tables-nft -F INPUT;"
            " ip route replace 203.0.113.0/24 via 192.0.2.10 dev lan0; sysctl -qw net.ipv4.conf.all.rp_filter=0; true"
        )


BROKEN_TPROXY = {
    "a policy rule is gone": (
        f"ip rule del priority {OWN_TPROXY.priority + 1}",
        "policy routing",
        f"missing: ip -4 rule priority {OWN_TPROXY.priority + 1}",
    ),
    "the route is gone": (
        f"ip -6 route flush table {OWN_TPROXY.table}", "policy routing", "missing: ip -6 route local default dev lo",
    ),
    "a policy rule comes first": (
        "ip route add default dev wan0 table 77; ip rule add from 192.0.2.0/24 lookup 77 priority 50",
        "delivery, lan0, IPv4",
        "routed away by a policy rule before ours: ip -4 rule 50",
    ),
    "firewalld": (
        f"nft -f - <<'END'\n{foreign_rulesets.FIREWALLD.replace('{ 22, 25 }', '{ 22 }')}END",
        "firewall, lan0",
        "nft table inet firewalld does not let intercepted IPv4 and IPv6 connections in (port 25)",
    ),
    "ufw": (
        f"iptables-legacy-restore <<'END'\n{foreign_rulesets.UFW.replace('25,10025', '587')}END",
        "firewall, lan0",
        "iptables-legacy does not let intercepted IPv4 connections in (port 25)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_TPROXY)
@types(
    by="name",
    each={
        "the route is gone": "policy routing differs",
        "a policy rule comes first": "policy rule comes first",
        "firewalld": "nft drops what is diverted",
        "ufw": "iptables drops what is diverted",
    },
)
def test_tproxy_broken_and_fixed(tproxy: DaemonHost, name: str) -> None:
    command, step, text = BROKEN_TPROXY[name]
    tproxy.run(command)
    try:
        tproxy.type(diagnosed(tproxy, step, text))
        assert tproxy.examine() == []
    finally:
        tproxy.run(
            "nft delete table inet firewalld; iptables-legacy -P INPUT ACCEPT; iptables-legacy -P FORWARD ACCEPT;"
            " iptables-legacy -F; iptables-legacy -X; ip rule del priority 30000; ip route flush table 77; true"
        )


@types("interface is down")
def test_an_interface_that_is_down(redirect: DaemonHost) -> None:
    redirect.run("ip link set lan0 down")
    redirect.type(diagnosed(redirect, "interface lan0", "it is down"))
    redirect.run("ip route replace 203.0.113.0/24 via 192.0.2.10 dev lan0")
    assert soon(lambda: redirect.examine() == [])


@types("link-local address only")
def test_ipv6_with_a_link_local_address_only(redirect: DaemonHost) -> None:
    redirect.run("ip -6 addr flush dev lan0 scope global")
    redirect.type(diagnosed(redirect, "IPv6, lan0", "only a link-local address"))
    found = redirect.examine()
    assert not [finding for finding in found if finding.step.startswith("IPv6")]
    redirect.run("ip -6 addr flush dev lan0 scope global; ip -6 addr add 2001:db8:1::1/64 dev lan0 nodad")
    assert redirect.examine() == []


def test_ipv6_that_leads_nowhere(redirect: DaemonHost) -> None:
    """Every interface has a link-local address, also where nobody uses IPv6."""
    redirect.run("ip -6 addr flush dev lan0 scope global; ip -6 addr flush dev wan0 scope global")
    assert not [finding for finding in redirect.examine() if finding.step.startswith("IPv6")]
    redirect.run(f"ip -6 addr add {LAN[6]}/64 dev lan0 nodad; ip -6 addr add {WAN[6]}/64 dev wan0 nodad")
    assert redirect.examine() == []


@types("port of a bridge", "bridge that filters")
def test_a_port_of_a_bridge_and_a_bridge_that_filters(redirect: DaemonHost) -> None:
    redirect.run("ip link add br0 type bridge; ip link set br0 up; ip link set lan0 master br0")
    try:
        fix = diagnosed(redirect, "interface lan0", "it is a port of bridge br0")
        redirect.instance.config.write_text(redirect.instance.config.read_text().replace("lan0", "br0"))
        redirect.type(fix)
        redirect.run("sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=0")
        redirect.type(diagnosed(redirect, "bridge br0", "bridge-nf-call-iptables is on"))
        assert not [finding for finding in redirect.examine() if finding.step in {"bridge br0", "rules"}]
    finally:
        redirect.run("ip link set lan0 nomaster; ip link del br0")
        redirect.instance.config.write_text(redirect.instance.config.read_text().replace("br0", "lan0"))
        redirect.install()
    assert redirect.examine() == []


@pytest.mark.parametrize(("method", "words"), [("nftables", ""), ("iptables", "no route leads on")])
def test_ipv6_of_clients_without_a_way_out(method: str, words: str) -> None:
    """It is intercepted, and nothing can come of it: with nftables the rules say so to the client."""
    with closing(DaemonHost(RuleMethod=method, TransparentProxy="client")) as host:

        def wrong() -> list[str]:
            return [finding.text for finding in host.examine() if finding.step == "IPv6, way out"]

        host.run("ip -6 addr flush dev wan0 scope global")
        assert [words in text for text in wrong()] == ([True] if words else [])
        host.run("ip -6 route add default via 2001:db8:1::99 dev lan0")  # back to the clients: no way out
        assert bool(wrong()) is bool(words)
        host.run("ip -6 route add 2001:db8:77::/64 dev wan0")
        assert wrong() == []


def test_an_ordinary_user(redirect: DaemonHost) -> None:
    """It sees what it may, and says what it could not look at."""
    redirect.instance.config.chmod(0o644)
    code = "import sys; from proxsmtp_tp.cli.main import main; sys.exit(main())"
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    doctor = [sys.executable, "-c", code, "doctor", "--probe", "-f", str(redirect.instance.config)]
    done = subprocess.run(
        ["ip", "netns", "exec", redirect.gateway, *user, *doctor],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done
    assert "ok     interface lan0: it is up" in lines
    assert "ok     daemon: it answers" in lines
    assert "?      rules: only root can look at it" in lines
    assert "?      probe: only root can send it" in lines
    assert re.fullmatch(r"none of \d+ wrong, \d+ not seen \(run it as root\)", lines[-1]), lines
