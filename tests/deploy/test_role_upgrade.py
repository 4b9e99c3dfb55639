"""The role upgrades a gateway under load, and restores the old version where the new one does not come up.

Each test goes on from the last one's machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.gateway import changes
from tests.deploy.load import load
from tests.deploy.machines import variables
from tests.deploy.prepare import BROKEN_VERSION, NEXT_VERSION
from tools.deb import VERSION

if TYPE_CHECKING:
    from tests.deploy.machines import Machines

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module", autouse=True)
def before(machines: Machines) -> dict[str, list[str]]:
    """The gateway as it was before the role installed the first version."""
    state = machines.state()
    run = machines.play(**variables())
    assert run.status == 0, run.output
    assert machines.daemon_version() == VERSION
    return state


def test_an_upgrade_refuses_and_loses_no_mail(machines: Machines) -> None:
    with load(machines):
        run = machines.play(**variables(NEXT_VERSION))
    assert run.status == 0, run.output
    assert machines.daemon_version() == NEXT_VERSION
    assert machines.rules_in_place()


def test_an_upgrade_that_does_not_start_is_rolled_back(machines: Machines) -> None:
    with load(machines):
        run = machines.play(**variables(BROKEN_VERSION, max_connections=77))
    assert run.status != 0
    assert f"{NEXT_VERSION} runs as before" in run.output
    assert machines.daemon_version() == NEXT_VERSION
    assert "77" not in machines.gateway.run("cat", "/etc/proxsmtp-tp/gateway.conf")
    assert machines.rules_in_place()


def test_absent_leaves_nothing_of_any_version(machines: Machines, before: dict[str, list[str]]) -> None:
    run = machines.play(state="absent")
    assert run.status == 0, run.output
    assert changes(before, machines.state()) == []
