"""A SYN in fragments, or behind options and extension headers, is intercepted as any other; no part of it passes by.

Sources: RFC 791 section 3.2, RFC 8200 sections 4.2 to 4.6.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.gateway.intercepted import intercepted
from tests.gateway.network import SERVER
from tests.gateway.packets import (
    PACKET_CLIENT,
    RST,
    SYN,
    fragments,
    listening,
    packet,
    seen_from,
    with_destination_options,
    with_ip_options,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Callable

FORMS: dict[str, Callable[[bytes], list[bytes]]] = {
    "two fragments": fragments,
    "two fragments, the last one first": lambda whole: fragments(whole)[::-1],
    "options": lambda whole: [with_destination_options(whole) if whole[0] >> 4 == 6 else with_ip_options(whole)],
    "options, in fragments": lambda whole: fragments(
        with_destination_options(whole) if whole[0] >> 4 == 6 else with_ip_options(whole)
    ),
}
# In IPv6 the first fragment holds the whole header of TCP, or the kernel drops it (RFC 7112).
ANSWERED = {(PACKET_CLIENT[4], 31000 + at) for at in range(len(FORMS))} | {(PACKET_CLIENT[6], 31002)}


def is_cut_header(data: bytes) -> bool:
    """A first fragment of IPv6 that ends within TCP's header. nft lets it pass alone: what follows it never comes."""
    return data[0] >> 4 == 6 and b"\0\1\0\0\0\1" in data[42:66] and len(data) < 76


@pytest.mark.parametrize("fail", ["closed", "open"])
@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
@pytest.mark.parametrize("method", ["nftables", "iptables"])
def test_a_syn_in_any_form_is_intercepted(method: str, mode: str, fail: str) -> None:
    with (
        intercepted(RuleMethod=method, RuleMode=mode, RuleFail=fail) as (host, wire),
        closing(listening(host.net.server, "eth0")) as behind,
    ):
        for version in (4, 6):
            for at, form in enumerate(FORMS.values()):
                source = (PACKET_CLIENT[version], 31000 + at)
                for part in form(packet(source, (SERVER[version], 25), SYN, 1000)):
                    wire.send(part)
        syns = [it for it in wire.seen(2) if it.flags & SYN and it.target[0] in PACKET_CLIENT.values()]
        assert {it.target for it in syns if not it.flags & RST} == ANSWERED
        assert [it for it in seen_from(behind, PACKET_CLIENT.values(), 0.5) if not is_cut_header(it)] == []
