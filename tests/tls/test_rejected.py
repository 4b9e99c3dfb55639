"""TlsRejected with a real Postfix that verifies: it has no alert, leaves after the handshake, and tries again."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.network import SENDER_V4
from tests.tls.capture import Capture, check_legs
from tests.tls.levels import ACTIONS, LEVELS, SMTP, Lab, open_lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxsmtp_tp.lab.gateway import Instance
    from proxsmtp_tp.lab.network import GatewayNetwork

TERMINATED = [action for action in ACTIONS if action.name == "terminate"]
VERIFYING = [level for level in LEVELS if level.name in {"verify", "secure", "mta-sts"}]
REFUSED = "Server certificate not verified"
AGAIN = 60.0
"""Seconds for the second attempt, on a busy machine."""


@pytest.fixture
def servers(lab: GatewayNetwork, directory: Path) -> Iterator[Lab]:
    with open_lab(lab, directory) as opened:
        yield opened


def check_report(servers: Lab, instance: Instance) -> None:
    """What passes is named, and forgotten by a reload."""
    server = servers.addresses["terminate"]
    passing = "pass (TlsRejected) with no server name for another"
    assert "TLS passes for " in instance.command("status")
    assert passing in instance.command("explain", SENDER_V4, server)
    assert instance._daemon is not None
    instance._daemon.send_signal(signal.SIGHUP)
    assert instance.wait_log("the new configuration is in force")
    assert passing not in instance.command("explain", SENDER_V4, server)


def attempts(servers: Lab, rejected: str) -> tuple[set[str], list[tuple[bool, bool]], str]:
    """What became of each sender's first attempt; of the second what arrived (judged, TLS); and the log."""
    instance, gateway = servers.instance("pass", TlsRejected=rejected), servers.network.gateway
    with Capture("lan", gateway) as clients, Capture("wan", gateway) as upstream, instance.running():
        start = servers.sender.log.count(REFUSED)
        first = servers.outcomes(VERIFYING, TERMINATED)
        queued = len(servers.sender.queue())
        assert queued == len(VERIFYING)
        servers.sender.flush()
        if rejected == "pass":
            servers.server.wait_mailbox(queued, AGAIN)
            check_report(servers, instance)
        else:
            servers.sender.wait_log(REFUSED, start + 2 * queued, AGAIN)
        arrived = [(judged, server_tls) for judged, _, server_tls in servers.arrived().values()]
    check_legs(*([each for each in leg.streams if each.port == SMTP] for leg in (clients, upstream)))
    return {outcome.shown for outcome in first.values()}, arrived, instance.log


def test_the_second_attempt_passes_or_fails(servers: Lab) -> None:
    first, arrived, log = attempts(servers, "fail")
    assert (first, arrived) == ({"waits 4.7.5"}, [])
    assert "TlsRejected" not in log
    servers.sender.empty_queue()
    first, arrived, log = attempts(servers, "pass")
    assert first == {"waits 4.7.5"}
    assert arrived == [(False, True)] * len(VERIFYING)
    assert log.count("passes from now on, not judged (TlsRejected: pass)") == len(VERIFYING)
    assert log.count(", TlsRejected: pass): from_client=") == len(VERIFYING)
