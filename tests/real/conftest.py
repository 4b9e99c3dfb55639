"""The lab and its mail servers, started once for each module of tests."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.network import GatewayNetwork, gateway_network
from tests.real.postfix_pair import PostfixPair

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A directory that everybody may enter: Postfix and filters run as other users."""
    with tempfile.TemporaryDirectory(prefix="proxsmtp-real.") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="module")
def lab() -> Iterator[GatewayNetwork]:
    """Sender, gateway and MX."""
    with gateway_network() as network:
        yield network


@pytest.fixture(scope="module")
def postfix_pair(lab: GatewayNetwork, directory: Path) -> Iterator[PostfixPair]:
    """A Postfix on the sender, another on the MX."""
    pair = PostfixPair.open(lab, directory)
    yield pair
    lab.sender.stop_all()
    lab.mx.stop_all()
