"""Fixtures of the gateway tests: three namespaces, and a host that rules are installed on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.gateway.daemon_host import DaemonHost
from tests.gateway.network import Network
from tests.gateway.rules_host import RulesHost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def net() -> Iterator[Network]:
    """Client, gateway and server."""
    assert os.geteuid() == 0, "the gateway tests need root: make test runs them in namespaces of their own"
    network = Network()
    yield network
    network.close()


@pytest.fixture
def host(net: Network, tmp_path: Path) -> Iterator[RulesHost]:
    """The gateway, and what install-rules does there."""
    found = RulesHost(net, tmp_path / "state")
    yield found
    found.close()


@pytest.fixture(scope="module")
def redirect() -> Iterator[DaemonHost]:
    """Mode redirect, transparent to the client."""
    host = DaemonHost(
        RuleMode="redirect", TransparentProxy="client",
        RuleSource="192.0.2.0/24, 203.0.113.0/24, 2001:db8:1::/64",
    )  # fmt: skip
    yield host
    host.close()


@pytest.fixture(scope="module")
def tproxy() -> Iterator[DaemonHost]:
    """Mode tproxy, transparent to both sides."""
    host = DaemonHost(RuleMode="tproxy", TransparentProxy="full", Instance="tproxy")
    yield host
    host.close()
