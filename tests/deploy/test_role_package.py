"""The role installs the Debian package: in place of nothing, in place of wheels, and wheels in place of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.gateway import changes
from proxsmtp_tp.lab.scenario import Setup
from tests.deploy import acceptance
from tests.deploy.load import load
from tests.deploy.machines import variables
from tests.deploy.prepare import PACKAGES
from tools.deb import package
from tools.roots import UBUNTU_24_04

if TYPE_CHECKING:
    from tests.deploy.container import Container
    from tests.deploy.machines import Machines

pytestmark = pytest.mark.timeout(900)


def daemon_program(gateway: Container) -> str:
    """The script that systemd has started as the daemon."""
    pid = gateway.run("systemctl", "show", "-p", "MainPID", "--value", "proxsmtp-tp@gateway").strip()
    words = gateway.run("cat", f"/proc/{pid}/cmdline").split("\0")
    return next(word for word in words if word.endswith("/proxsmtp-tp"))


def test_the_role_installs_the_package(machines: Machines) -> None:
    with machines.gateway_of(UBUNTU_24_04) as gateway:
        before = machines.state()
        # The version is that of the package; what the role would take from an index is not asked for.
        told = {**variables(), "wheel": "", "wheelhouse": "", "version": "0"}
        told["package"] = str(package(UBUNTU_24_04, PACKAGES))
        run = machines.play(**told)
        assert run.status == 0, run.output
        acceptance.accept(machines.site, Setup("redirect", "client"))
        assert not (gateway.root / "opt/proxsmtp-tp/current").exists()
        assert list(gateway.root.glob("etc/systemd/system/proxsmtp-tp*.service")) == []

        # Wheels take its place, and it takes theirs, while mail flows.
        with load(machines):
            run = machines.play(**variables())
            assert run.status == 0, run.output
            assert "proxsmtp-tp" not in gateway.run("dpkg-query", "-W", "-f", "${Package}\n").split()
            assert daemon_program(gateway) == "/usr/local/bin/proxsmtp-tp"
            run = machines.play(**told)
            assert run.status == 0, run.output
            assert daemon_program(gateway) == "/usr/bin/proxsmtp-tp"
        run = machines.play(**told)
        assert (run.status, run.changes) == (0, []), run.output
        assert not (gateway.root / "opt/proxsmtp-tp/current").is_symlink()
        gateway.run("proxsmtp-tp", "check-rules", "-f", "/etc/proxsmtp-tp/gateway.conf")
        run = machines.play(**{**told, "state": "absent"})
        assert run.status == 0, run.output
        assert changes(before, machines.state()) == []
