"""A directory for the sockets and files of daemons, once for each module."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """It is short, because the path of a socket may have 107 octets, and open for daemons that run as other users."""
    with tempfile.TemporaryDirectory(prefix="proxsmtp-f.") as name:
        path = Path(name)
        path.chmod(0o777)
        yield path
