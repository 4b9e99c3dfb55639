"""The first upgrade, from a gateway that runs release 2.0.0, as docs/deployment.md says: nobody is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.deploy import documented_commands, manual_install
from tests.deploy.machines import wheel
from tests.deploy.prepare import NEXT_VERSION
from tests.deploy.test_maintenance import DAEMON, journal, load, nobody_was_refused, status
from tools.deb import TREE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.deploy.machines import Machines

pytestmark = pytest.mark.timeout(300)

RELEASE = TREE / "tests/deploy/released/proxsmtp_tp-2.0.0-py3-none-any.whl"
# As the page of 2.0.0 said. Of what that release required, aiosmtpd was for its demo alone.
INSTALL = """
cd /root
apt-get install -q -y --no-install-recommends python3-venv nftables
python3 -m venv /opt/proxsmtp-tp
/opt/proxsmtp-tp/bin/pip install -q pyroute2 uvloop
/opt/proxsmtp-tp/bin/pip install -q --no-deps first/proxsmtp_tp-2.0.0-py3-none-any.whl
ln -s /opt/proxsmtp-tp/bin/proxsmtp-tp /usr/local/bin/
install -D -t /etc/proxsmtp-tp/filters sample-filter.sh
cat >/etc/proxsmtp-tp/gateway.conf <<END
TransparentProxy: client
FilterCommand: /etc/proxsmtp-tp/filters/sample-filter.sh
User: proxsmtp-tp
RuleInterface: lan
END
proxsmtp-tp install-service gateway
"""


@pytest.fixture
def gateway(machines: Machines) -> Iterator[Machines]:
    """It runs 2.0.0, installed by hand; the next version is ready."""
    run, root = machines.gateway.run, machines.gateway.root
    run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    with manual_install.wheels(machines):
        shutil.copy(wheel(NEXT_VERSION), root / "root/wheels")
        (root / "root/first").mkdir()
        shutil.copy(RELEASE, root / "root/first")
        run("sh", "-ec", INSTALL)
        yield machines
        run("proxsmtp-tp", "remove-service", "--purge")
        run("rm", "-r", "/etc/proxsmtp-tp", "/root/first")


def test_the_first_upgrade_refuses_no_client(gateway: Machines) -> None:
    """The message that is under way is judged by the old daemon's filter, which uses its own /tmp."""
    run = gateway.gateway.run
    assert run("systemctl", "show", "-p", "NFileDescriptorStore", DAEMON) == "NFileDescriptorStore=0\n"
    [steps] = documented_commands.blocks("deployment.md", "### By hand")
    typed = [replace(step, command=step.command.replace("NEXT", NEXT_VERSION), shown=[]) for step in steps]
    restart = next(number for number, step in enumerate(typed) if "ln -sf" in step.command)
    documented_commands.follow(gateway.gateway, typed[:restart])
    with load(gateway) as found:
        documented_commands.follow(gateway.gateway, typed[restart : restart + 2])
        assert "left-over" in journal(gateway)
    nobody_was_refused(gateway, found.result())
    assert [answer["version"] for answer in status(gateway)] == [NEXT_VERSION]
    assert run("systemctl", "show", "-p", "NFileDescriptorStore", DAEMON) == "NFileDescriptorStore=2\n"
