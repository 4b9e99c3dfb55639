"""A name with a dead IPv6 and a live IPv4 address: what MTAs do through the gateway. docs/gateway.md has the table."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.gateway.plan import REFUSE_HOLD
from tests.real.dual_stack import CLIENTS, instance, situation

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.lab.network import GatewayNetwork


@pytest.mark.parametrize("client", ["Exim", "sendmail", "OpenSMTPD"])
def test_an_mta_comes_to_the_live_address(lab: GatewayNetwork, directory: Path, client: str) -> None:
    """At the first try, but for sendmail: it tries one address of a name once it is connected.

    Its queue waits longer than an entry of the rules lasts, so the daemon renews the entry.
    """
    with situation(lab, directory, "refused") as there, instance(lab, directory).running():
        first = CLIENTS[client].send(there)
        assert client == "sendmail" or first == ""
        if first:
            time.sleep(REFUSE_HOLD + 3)
        assert CLIENTS[client].send(there) == ""
