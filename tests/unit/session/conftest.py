"""A playbook that nobody asserted proves nothing: it fails its test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.session.playbook import Playbook

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _every_playbook_asserted() -> Iterator[None]:
    Playbook.unasserted.clear()
    yield
    assert not Playbook.unasserted, "a playbook was played but never asserted"
