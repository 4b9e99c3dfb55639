"""The three machines, started once for all tests of this folder. Each test leaves the gateway as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.deploy.machines import Machines, running_machines

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """Sender, gateway and MX; nothing of ours on the gateway."""
    with running_machines(tmp_path_factory.mktemp("machines")) as found:
        yield found
