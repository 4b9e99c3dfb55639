"""docs/deployment.md, "By hand", word by word as a new administrator types it, on a fresh gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.scenario import Setup
from tests.deploy import acceptance, by_hand, walkthrough

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.deploy.machines import Machines

pytestmark = pytest.mark.timeout(300)

PAGE, HEADING = "deployment.md", "## By hand"
FORWARD = ("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


@pytest.fixture(scope="module")
def gateway(town: Machines) -> Iterator[Machines]:
    """It routes already, and the wheel and the sample filter have been copied to it."""
    town.gateway.run(*FORWARD)
    with by_hand.wheels(town):
        yield town
        town.gateway.run("rm", "-r", "/etc/proxsmtp-tp")


def units(town: Machines) -> str:
    """What systemd knows of ours."""
    return town.gateway.run("systemctl", "list-unit-files", "--no-legend", "--no-pager", "proxsmtp*", check=False)


def test_the_page_makes_a_gateway(gateway: Machines) -> None:
    install, look = walkthrough.blocks(PAGE, HEADING)
    walkthrough.follow(gateway.gateway, install)
    acceptance.accept(gateway.site, Setup("redirect", "client"))
    walkthrough.follow(gateway.gateway, look)


def test_a_second_install_service_changes_nothing(gateway: Machines) -> None:
    said = gateway.gateway.run("proxsmtp-tp", "install-service", "gateway")
    assert said == "running: proxsmtp-tp.target proxsmtp-tp-rules@gateway.service proxsmtp-tp@gateway.service\n"


def test_it_comes_back_from_a_reboot(gateway: Machines) -> None:
    gateway.stop_gateway()
    gateway.boot_gateway()
    gateway.gateway.run(*FORWARD)
    acceptance.accept_queues(gateway.site)


def test_remove_service_leaves_nothing(gateway: Machines) -> None:
    gateway.gateway.run("proxsmtp-tp", "remove-service", "--purge")
    assert units(gateway) == ""
    assert "proxsmtp" not in gateway.gateway.run("nft", "list", "ruleset")
    assert "proxsmtp" not in gateway.gateway.run("getent", "passwd")
    assert gateway.gateway.run("proxsmtp-tp", "remove-service").endswith("there was nothing to remove\n")
    acceptance.accept_direct(gateway.site)
