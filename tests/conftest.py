"""What holds for all tests, however pytest is started."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

from proxsmtp_tp.service.version import BUILD
from tests import child_processes

# The tests start thousands of processes. Where each compiles the package again, a daemon takes twice as long to start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

LONG = (
    "tests/deploy/test_role.py",
    "tests/deploy/test_role_package.py",
    "tests/deploy/test_role_upgrade.py",
    "tests/deploy/test_package.py",
    "tests/deploy/test_newer.py",
    "tests/deploy/test_inventory.py",
    "tests/deploy/test_service.py",
    "tests/deploy/test_firewalls.py",
    "tests/deploy/test_first_upgrade.py",
    "tests/deploy/test_maintenance.py",
    "tests/mta/test_between.py",
    "tests/mta/test_envelope.py",
    "tests/mta/test_smuggling.py",
    "tests/mta/test_existing.py",
    "tests/real/",
    "tests/conformance/",
    "tests/gateway/test_life.py",
    "tests/gateway/test_refuse_mail.py",
    "tests/gateway/test_doctor",
    "tests/gateway/test_unreachable.py",
    "tests/gateway/test_crash.py",
    "tests/gateway/test_fail.py",
    "tests/gateway/test_staged_faults.py",
    "tests/gateway/",
    "tests/faults/",
    "tests/fuzz/",
    "tests/unit/service/",
)
"""Files and folders whose tests take long, the longest first: no process is left alone with one of them at the end."""


EXPECTED = "compiled" if Path(__file__).parents[1].name == "compiled" else "pure"
"""The build that these tests are for: `make compiled` makes the copy of the tree that has the other one."""


def pytest_sessionstart() -> None:
    """Before anything is collected."""
    if BUILD != EXPECTED:
        raise pytest.UsageError(
            f"these tests are for the {EXPECTED} build, and the {BUILD} one runs: see `make compiled`"
        )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which build it was."""
    terminalreporter.write_line(f"the {BUILD} build ran")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Longest first. The order in a file stays. proxsmtpd 1.10 alone is tested once, with the pure build."""
    if EXPECTED == "compiled":
        others = [
            item for item in items if item.nodeid.startswith("tests/conformance/") and "[original-" in item.nodeid
        ]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]
    items.sort(key=lambda item: next((at for at, path in enumerate(LONG) if item.nodeid.startswith(path)), len(LONG)))


def pytest_collection_finish() -> None:
    """The garbage collector does not look through the thousands of collected tests again: a sixth of their CPU time."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Before the fixtures of the test."""
    child_processes.a_test_begins()
