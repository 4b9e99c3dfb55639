"""A directory for the sockets and files of daemons, and the scripted milter, once for each module."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.filters.daemons import daemon
from tests.filters.scripted import Scripted

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """It is short, because the path of a socket may have 107 octets, and open for daemons that run as other users."""
    with tempfile.TemporaryDirectory(prefix="proxsmtp-f.") as name:
        path = Path(name)
        path.chmod(0o777)
        yield path


@pytest.fixture(scope="module")
def scripted(directory: Path) -> Iterator[Scripted]:
    """One process for all tests of this module."""
    filter_ = Scripted(directory)
    filter_.plan.write_text("{}")
    script = Path(__file__).with_name("scripted_milter.py")
    with daemon(["/usr/bin/python3", script, filter_.plan, filter_.seen, filter_.socket], filter_.socket):
        yield filter_
