"""docs/deployment.md, "By hand", as a new administrator types it, on a gateway that has nothing of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.scenario import Setup
from tests.deploy import acceptance
from tests.deploy.machines import Machines, wheel
from tests.deploy.prepare import TREE, VERSION, cache

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(300)

CONFIGURATION = """\
TransparentProxy: client
FilterCommand: /etc/proxsmtp-tp/filters/sample-filter.sh
User: proxsmtp-tp
RuleInterface: lan
"""
_INSTALL = """
export DEBIAN_FRONTEND=noninteractive
apt-get install -q -y --no-install-recommends python3-venv nftables
python3 -m venv /opt/proxsmtp-tp
/opt/proxsmtp-tp/bin/pip install --quiet --no-index --find-links /root/wheels proxsmtp-tp
ln -s /opt/proxsmtp-tp/bin/proxsmtp-tp /usr/local/bin/
mkdir -p /etc/proxsmtp-tp/filters
install -m 755 /root/wheels/sample-filter.sh /etc/proxsmtp-tp/filters/
sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
"""
_LEAVE = """
export DEBIAN_FRONTEND=noninteractive
rm -rf /opt/proxsmtp-tp /usr/local/bin/proxsmtp-tp /etc/proxsmtp-tp /root/wheels
apt-get purge -q -y --autoremove python3-venv nftables
"""


@pytest.fixture(scope="module")
def by_hand(town: Machines) -> Iterator[Machines]:
    """The program installed, and a configuration written."""
    wheels = town.gateway.root / "root/wheels"
    wheels.mkdir()
    sample = TREE / "proxsmtp_tp/lab/sample-filter.sh"
    for path in (*(cache() / "wheels").glob("*.whl"), sample):
        (wheels / path.name).write_bytes(path.read_bytes())
    release = cache() / "release" / wheel(VERSION).rpartition("/")[2]
    (wheels / release.name).write_bytes(release.read_bytes())
    town.gateway.run("sh", "-ec", _INSTALL)
    town.gateway.run("sh", "-c", "cat >/etc/proxsmtp-tp/gateway.conf", text=CONFIGURATION)
    yield town
    town.gateway.run("sh", "-ec", _LEAVE)


def units(town: Machines) -> str:
    """What systemd knows of ours."""
    return town.gateway.run("systemctl", "list-unit-files", "--no-legend", "--no-pager", "proxsmtp*", check=False)


def test_install_service_makes_a_gateway(by_hand: Machines) -> None:
    said = by_hand.gateway.run("proxsmtp-tp", "install-service", "gateway")
    assert said.endswith(
        "running: proxsmtp-tp.target proxsmtp-tp-rules@gateway.service proxsmtp-tp@gateway.service\n"
    ), said
    acceptance.accept(by_hand.site, Setup("redirect", "client"))


def test_it_comes_back_from_a_reboot(by_hand: Machines) -> None:
    by_hand.stop_gateway()
    by_hand.boot_gateway()
    by_hand.gateway.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    acceptance.accept_queues(by_hand.site)


def test_remove_service_leaves_nothing(by_hand: Machines) -> None:
    by_hand.gateway.run("proxsmtp-tp", "remove-service", "--purge")
    assert units(by_hand) == ""
    assert "proxsmtp" not in by_hand.gateway.run("nft", "list", "ruleset")
    assert "proxsmtp" not in by_hand.gateway.run("getent", "passwd")
    assert by_hand.gateway.run("proxsmtp-tp", "remove-service").endswith("there was nothing to remove\n")
    acceptance.accept_direct(by_hand.site)
