"""The same over IPv6 and with other rules: what becomes of a sender's mail does not depend on how it comes to us."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.tls.capture import Capture, check_legs
from tests.tls.levels import ACTIONS, LEVELS, SMTP, open_lab

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.lab.network import GatewayNetwork

TRIED = [action for action in ACTIONS if action.name in {"strip", "pass", "terminate", "own"}]
WANTED = {
    "may": {"strip": "judged, in clear", "pass": "not judged", "terminate": "judged", "own": "judged"},
    "dane": {"strip": "waits 4.7.4", "pass": "not judged", "terminate": "not judged", "own": "judged"},
    "secure": {"strip": "waits 4.7.4", "pass": "not judged", "terminate": "waits 4.7.5", "own": "judged"},
}
"""As in docs/tls.md."""


def test_ipv6_and_both_methods(lab: GatewayNetwork, directory: Path) -> None:
    ways = {
        "nftables": {"RuleMethod": "nftables", "RuleMode": "tproxy", "TransparentProxy": "full"},
        "iptables": {"RuleMethod": "iptables", "RuleMode": "redirect", "TransparentProxy": "full"},
    }
    with open_lab(lab, directory, version=6) as servers:
        for way in ways.values():
            with (
                servers.instance("pass", **way).running(),
                Capture("lan", lab.gateway) as clients,
                Capture("wan", lab.gateway) as upstream,
            ):
                levels = [level for level in LEVELS if level.name in WANTED]
                found = servers.outcomes(levels, TRIED)
            assert {
                level.name: {action.name: found[level.name, action.name].shown for action in TRIED} for level in levels
            } == WANTED
            check_legs(*([each for each in leg.streams if each.port == SMTP] for leg in (clients, upstream)))
