"""Fixtures of the gateway tests: three namespaces, and a box that rules are installed on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.gateway.box import Box
from tests.gateway.network import Network

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
def box(net: Network, tmp_path: Path) -> Iterator[Box]:
    """The gateway, and what install-rules does there."""
    found = Box(net, tmp_path / "state")
    yield found
    found.close()
