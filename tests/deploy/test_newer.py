"""The role on the next Debian release: another Python, another nft, another systemd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.gateway import changes
from proxsmtp_tp.lab.scenario import Setup
from tests.deploy import acceptance
from tests.deploy.machines import variables
from tools.deb import VERSION
from tools.roots import DEBIAN_13

if TYPE_CHECKING:
    from tests.deploy.machines import Machines

pytestmark = pytest.mark.timeout(900)


def test_debian_13(machines: Machines) -> None:
    with machines.gateway_of(DEBIAN_13):
        before = machines.state()
        run = machines.play(**variables())
        assert run.status == 0, run.output
        assert machines.gateway.run("proxsmtp-tp", "--version") == f"proxsmtp-tp {VERSION} (pure)\n"
        acceptance.accept(machines.site, Setup("redirect", "client"))
        full = variables(transparent_proxy="full", rule_mode="tproxy")
        run = machines.play(**full)
        assert run.status == 0, run.output
        acceptance.accept(machines.site, Setup("tproxy", "full"))
        run = machines.play(**full)
        assert (run.status, run.changes) == (0, []), run.output
        run = machines.play(**variables(state="absent"))
        assert run.status == 0, run.output
        assert changes(before, machines.state()) == []
