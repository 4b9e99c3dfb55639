"""doctor: whether TempDirectory has the space that the daemon will need."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxsmtp_tp.filters import spool_space
from proxsmtp_tp.gateway.doctor import daemon_view

MB = 1 << 20


@pytest.mark.parametrize(
    ("total", "free", "limit", "said"),
    [
        (10_000, 5000, 0, None),
        (10_000, 127, 0, "has less than 128 MB left, and the last 64 MB stay free"),
        (10_000, 5000, 9000, None),
        (10_000, 5000, 9990, "its file system has 10000 MB, less than SpoolLimit (9990 MB)"),
        (200, 100, 0, None),
        (200, 73, 0, "has less than 74 MB left, and the last 10 MB stay free"),
    ],
)
def test_space(total: int, free: int, limit: int, said: str | None) -> None:
    found = daemon_view._short_of_space(total * MB, free * MB, Path("/spool"), limit * MB)
    assert (found or "").endswith(said or "")
    assert (found is None) == (said is None)


def test_the_reserve_is_the_daemons() -> None:
    assert (daemon_view._RESERVE, daemon_view._RESERVE_PART) == (spool_space.RESERVE, spool_space.RESERVE_PART)
