"""The fixes of doctor for firewalld and ufw, typed on a gateway where these run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.deploy import acceptance
from tests.deploy.prepare import PACKAGES
from tests.deploy.test_service import CONFIG, FORWARD, wrong
from tests.typed_fixes import typed, types
from tools.deb import package
from tools.roots import DEBIAN_12, cache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.deploy.machines import Machines

pytestmark = pytest.mark.timeout(300)

CONFIGURATION = """TransparentProxy: client
FilterCommand: cat
User: proxsmtp-tp
RuleInterface: lan
RuleForward: overrule
"""
"""These firewalls forward nothing."""
BLOCKED = "does not let intercepted IPv4 and IPv6 connections in"


@pytest.fixture(scope="module")
def gateway(machines: Machines) -> Iterator[Machines]:
    """With both programs, of which none is active."""
    with machines.gateway_of(DEBIAN_12, cache() / "firewalls") as gateway:
        gateway.run(*FORWARD)
        deb = package(DEBIAN_12, PACKAGES)
        (gateway.root / "root" / deb.name).write_bytes(deb.read_bytes())
        gateway.run("apt-get", "-q", "-y", "--no-install-recommends", "install", f"/root/{deb.name}")
        gateway.run("sh", "-c", f"cat >{CONFIG}", text=CONFIGURATION)
        gateway.run("proxsmtp-tp", "install-service")
        yield machines


def type_fix(machines: Machines) -> None:
    """Type the fix that doctor prints, and nothing is wrong any more. On a busy machine a step may end too late."""
    found: list[str] = []

    def named() -> bool:
        found[:] = [item.partition(" FIX ")[2] for item in wrong(machines) if BLOCKED in item]
        return bool(found)

    assert acceptance.wait_until(named), wrong(machines)
    machines.gateway.run("sh", "-ec", found[0])
    typed(found[0])
    assert acceptance.wait_until(lambda: wrong(machines) == []), wrong(machines)


@types("ufw")
def test_ufw(gateway: Machines) -> None:
    """It drops what NAT redirects to the daemon's port."""
    gateway.gateway.run("ufw", "--force", "enable")
    type_fix(gateway)
    gateway.gateway.run("ufw", "disable")


@types("firewalld")
def test_firewalld(gateway: Machines) -> None:
    """It lets in what NAT redirects, and rejects what TPROXY diverts: in the zone of the client interface."""
    run = gateway.gateway.run
    run("sh", "-c", f"cat >{CONFIG}", text=f"{CONFIGURATION}RuleMode: tproxy\n")
    run("proxsmtp-tp", "install-service")
    run("systemctl", "start", "firewalld")
    assert acceptance.wait_until(lambda: run("firewall-cmd", "--state", check=False) == "running\n")
    run("firewall-cmd", "--zone=internal", "--change-interface=lan")
    type_fix(gateway)
    run("systemctl", "stop", "firewalld")
