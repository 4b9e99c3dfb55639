"""No packet makes connection tracking take a later SYN for a connection that is under way, and so pass it unfiltered.

REDIRECT looks at the first packet of a connection only. A packet without SYN is tracked as one, too
(net.netfilter.nf_conntrack_tcp_loose), and the SYN behind it with the same ends is no first packet any more.
"""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.gateway.intercepted import intercepted
from tests.gateway.network import SERVER, run
from tests.gateway.packets import ACK, FIN, PACKET_CLIENT, PSH, SYN, listening, packet, seen

DEAF = f"""table inet deaf {{
    chain in {{
        type filter hook prerouting priority raw
        ip saddr {PACKET_CLIENT[4]} tcp flags & (syn | ack) != syn drop
        ip6 saddr {PACKET_CLIENT[6]} tcp flags & (syn | ack) != syn drop
    }}
}}"""
FIRST = [ACK, ACK | PSH, ACK | FIN, SYN | ACK]


@pytest.mark.parametrize("fail", ["closed", "open"])
@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
@pytest.mark.parametrize("method", ["nftables", "iptables"])
def test_a_syn_after_another_packet_is_not_unfiltered(method: str, mode: str, fail: str) -> None:
    with intercepted(RuleMethod=method, RuleMode=mode, RuleFail=fail, RuleExisting="finish") as (host, wire):
        # A server, or a router before it, that answers such a packet with nothing.
        run(host.net.server, "nft", "-f", "-", stdin=DEAF)
        with closing(listening(host.net.server, "eth0")) as behind:
            for version in (4, 6):
                for at, flags in enumerate(FIRST):
                    source = (PACKET_CLIENT[version], 30000 + at)
                    wire.send(packet(source, (SERVER[version], 25), flags, 1000, 1))
                    wire.send(packet(source, (SERVER[version], 25), SYN, 2000))
            passed = [
                it for it in seen(behind, 1) if it.source[0] in PACKET_CLIENT.values() and it.flags & (SYN | ACK) == SYN
            ]
        assert passed == [], passed
