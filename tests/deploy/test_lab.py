"""The same acceptance in the lab's namespaces: what a deployed gateway must do, the plain daemon does, too."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.gateway import Instance
from proxsmtp_tp.lab.network import GatewayNetwork, Host, gateway_network
from proxsmtp_tp.lab.scenario import SETUPS, Setup
from tests.deploy import acceptance
from tests.real.postfix_pair import PostfixPair
from tools.deb import TREE

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Namespace:
    """A host of the lab as a machine of the acceptance."""

    host: Host

    def run(self, *command: str, text: str = "", seconds: float = 120.0, check: bool = True) -> str:
        """Run to the end inside; its output. Raises LabError if it fails (and `check`), or takes longer."""
        return self.host.run(*command, text=text, seconds=seconds, check=check).stdout


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A directory that everybody may enter: Postfix and filters run as other users."""
    with tempfile.TemporaryDirectory(prefix="proxsmtp-lab.") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="module")
def lab() -> Iterator[GatewayNetwork]:
    """Under names of its own: the containers' networks have the plain ones."""
    with gateway_network("lab-") as network:
        yield network


@pytest.fixture(scope="module")
def site(lab: GatewayNetwork, folder: Path) -> acceptance.Site:
    """With the Postfixes that the tests of real mail use."""
    PostfixPair.open(lab, folder)
    sender, gateway, mx = (Namespace(host) for host in (lab.sender, lab.gateway, lab.mx))
    return acceptance.Site(sender, gateway, mx, str(folder / "sender/mail/new"), str(folder / "mx/mail/new"))


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
def test_the_acceptance(site: acceptance.Site, lab: GatewayNetwork, folder: Path, setup: Setup) -> None:
    directives = {
        "FilterCommand": str(TREE / "proxsmtp_tp/lab/sample-filter.sh"),
        "TransparentProxy": setup.transparency,
        "RuleMode": setup.mode,
        "RuleInterface": "lan",
    }
    with Instance(lab.gateway, folder, directives, setup.name).running():
        acceptance.accept(site, setup)
