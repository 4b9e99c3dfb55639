"""A start is told at the level notice: version, addresses and workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.service.version import VERSION
from tests.faults.daemon import WORKERS, Daemon
from tests.unit.net.proxy_harness import until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("level", "told"), [(2, 1), (1, 0)])
def test_the_notice_of_a_start(tmp_path: Path, level: int, told: int) -> None:
    daemon = Daemon(tmp_path, f"LogLevel: {level}")
    try:
        asyncio.run(until(lambda: daemon.ready, "the daemon is ready"))
    finally:
        daemon.end()
    notice = f"started: version {VERSION}, listening on {tmp_path}/in, {WORKERS} workers"
    assert daemon.log.read_text().count(notice) == told
