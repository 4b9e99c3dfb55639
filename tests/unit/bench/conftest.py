"""Fixtures of these tests."""

from __future__ import annotations

import resource
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _settings_of_the_process() -> Iterator[None]:
    """A bench changes the handler of SIGTERM and the limit of descriptors: the next tests get the old ones."""
    handler, limit = signal.getsignal(signal.SIGTERM), resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    signal.signal(signal.SIGTERM, handler)
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
