"""Dates are written as by the standard library, in every time zone, and without its modules."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.telemetry import dates

if TYPE_CHECKING:
    from collections.abc import Iterator

LOADED = """
import sys
import proxsmtp_tp.net.proxy, proxsmtp_tp.service.master, proxsmtp_tp.service.worker
print(*sorted(sys.modules))
"""


@pytest.fixture(params=["UTC", "EST5EDT", "IST-5:30", "NST3:30", "<+14>-14"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize("seconds", [0, 951782400, 1751500000, 1795903199, 4102444799])
def test_it_is_that_of_the_standard_library(seconds: int) -> None:
    assert dates.date(seconds) == formatdate(seconds, localtime=True)


def test_a_worker_loads_no_modules_for_dates_and_versions() -> None:
    """They take 5 MiB in each worker."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", LOADED]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    loaded = {name for name in done.stdout.split() if name.startswith(("email", "importlib.metadata", "zipfile"))}
    assert not loaded
