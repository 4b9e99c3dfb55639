"""Rulesets of other programs, as they are on gateways: the same tables, chains and priorities, with fewer rules.

firewalld, Debian 12 (1.3, nftables backend, zone public on lan0): priorities, reject at the end of input and forward.
ufw, Debian 12 (0.36, iptables-nft): chains ufw-*, policy drop. Docker 20.10 (iptables-nft): nat, isolation, policy
drop of forward, and a published port.
"""

from __future__ import annotations

FIREWALLD = """
table inet firewalld {
	chain mangle_PREROUTING {
		type filter hook prerouting priority mangle + 10; policy accept;
		jump mangle_PREROUTING_ZONES
	}
	chain mangle_PREROUTING_ZONES { iifname "lan0" goto mangle_PRE_public
	}
	chain mangle_PRE_public { meta l4proto tcp counter
	}
	chain nat_PREROUTING { type nat hook prerouting priority dstnat + 10; policy accept;
	}
	chain nat_POSTROUTING {
		type nat hook postrouting priority srcnat + 10; policy accept;
		oifname "docker0" ip saddr 172.17.0.0/16 masquerade
	}
	chain filter_PREROUTING {
		type filter hook prerouting priority filter + 10; policy accept;
		icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
		meta nfproto ipv6 fib saddr . mark . iif oif missing drop
	}
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		ct state invalid drop
		jump filter_INPUT_ZONES
		reject with icmpx admin-prohibited
	}
	chain filter_INPUT_ZONES { iifname "lan0" goto filter_IN_public
	}
	chain filter_IN_public {
		tcp dport { 22, 25 } accept
		meta l4proto { icmp, ipv6-icmp } accept
	}
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		iifname "lan0" accept
		reject with icmpx admin-prohibited
	}
}
"""

UFW = """*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-input - [0:0]
:ufw-user-input - [0:0]
:ufw-reject-input - [0:0]
:ufw-before-forward - [0:0]
-A INPUT -j ufw-before-input
-A INPUT -j ufw-user-input
-A INPUT -j ufw-reject-input
-A FORWARD -j ufw-before-forward
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
-A ufw-user-input -p tcp -m multiport --dports 25,10025 -j ACCEPT
-A ufw-before-forward -j ACCEPT
COMMIT
"""

DOCKER = """*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-USER -i lan0 -j ACCEPT
-A DOCKER-USER -o lan0 -j ACCEPT
COMMIT
"""


def blocklist(count: int) -> str:
    """A table of `count` rules, as some people keep them."""
    rules = "\n".join(f"ip saddr 203.0.{n // 250}.{n % 250} tcp dport 25 drop" for n in range(count))
    return f"table ip blocklist {{\nchain input {{\ntype filter hook forward priority 5;\n{rules}\n}}\n}}\n"


def xtables_blocklist(count: int) -> str:
    """The same for iptables-restore."""
    rules = "\n".join(f"-A FORWARD -s 203.0.{n // 250}.{n % 250} -p tcp --dport 25 -j DROP" for n in range(count))
    return f"*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{rules}\nCOMMIT\n"
