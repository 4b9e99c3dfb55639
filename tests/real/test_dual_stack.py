"""A name with a dead IPv6 and a live IPv4 address: what real clients make of it through the gateway.

docs/gateway.md has the table of more clients, and how it was made (tests/real/dual_stack.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.real.dual_stack import CLIENTS, KINDS, instance, situation

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.lab.network import GatewayNetwork

DEBIAN = ("Postfix", "smtplib", "msmtp")
"""What debian-packages.txt has, and Python."""


@pytest.mark.parametrize("client", DEBIAN)
@pytest.mark.parametrize("kind", KINDS)
def test_a_dead_address_costs_the_first_message_at_most(
    lab: GatewayNetwork, directory: Path, client: str, kind: str
) -> None:
    """Without a route not even that. The next message goes to the live address, whatever the client."""
    assert CLIENTS[client].there()
    with situation(lab, directory, kind) as there, instance(lab, directory).running():
        first = CLIENTS[client].send(there)
        assert kind != "no route" or first == ""
        assert CLIENTS[client].send(there) == ""


def test_with_reply_a_simple_client_fails(lab: GatewayNetwork, directory: Path) -> None:
    """With ConnectFailure reply a simple client never comes to the live address."""
    with situation(lab, directory, "refused") as there, instance(lab, directory, ConnectFailure="reply").running():
        assert "No connection to the server" in CLIENTS["smtplib"].send(there)
        assert "No connection to the server" in CLIENTS["smtplib"].send(there)
