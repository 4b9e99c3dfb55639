"""One run of the playbook with the example inventory: two gateways at once, each with its own settings."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.gateway import changes
from tests.deploy.machines import variables, wheel
from tools.deb import TREE, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.deploy.container import Container
    from tests.deploy.machines import Machines

pytestmark = pytest.mark.timeout(900)


def settings(gateway: Container) -> set[str]:
    """The configuration that runs, checked by the program itself; its rules are in place."""
    gateway.run("proxsmtp-tp", "check-rules", "-f", "/etc/proxsmtp-tp/gateway.conf")
    assert f'"version": "{VERSION}"' in gateway.run("proxsmtp-tp", "status", "--json")
    text = gateway.run("cat", "/etc/proxsmtp-tp/gateway.conf")
    return {line for line in text.splitlines() if line.startswith(("MaxConnections", "RuleInterface", "FilterCommand"))}


@pytest.fixture
def dist() -> Iterator[None]:
    """The wheel where docs/deployment.md has it made, and the inventory looks for it."""
    folder = TREE / "dist"
    new = not folder.exists()
    folder.mkdir(exist_ok=True)
    shutil.copy(wheel(VERSION), folder)
    yield
    if new:
        shutil.rmtree(folder)


@pytest.mark.usefixtures("dist")
def test_two_gateways_at_once(machines: Machines) -> None:
    told = variables()
    del told["wheel"]
    with machines.second_gateway() as second:
        before = machines.state()
        try:
            run = machines.play(gateways="all", **told)
            assert run.status == 0, run.output
            shared = "FilterCommand: /etc/proxsmtp-tp/filters/sample-filter.sh"
            assert settings(machines.gateway) == {"MaxConnections: 500", "RuleInterface: lan", shared}
            assert settings(second) == {"MaxConnections: 2000", "RuleInterface: eth1", shared}
        finally:
            run = machines.play(gateways="all", **told, state="absent")
        assert run.status == 0, run.output
        assert changes(before, machines.state()) == []
