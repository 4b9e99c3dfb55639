"""The process of python-iptables starts quickly: each command for the rules starts it several times."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from proxsmtp_tp.gateway import iptables
from proxsmtp_tp.gateway.errors import GatewayError

START = """
import sys
from proxsmtp_tp.gateway.xtables_worker import import_iptc

started = []
sys.addaudithook(lambda event, given: started.append(" ".join(given[1])) if event == "subprocess.Popen" else None)
import_iptc()
print(sorted({*started, *(sys.modules.keys() & {"setuptools", "pkg_resources"})}))
"""


def test_it_searches_no_library_by_compiling_and_imports_no_setuptools() -> None:
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "['/sbin/ldconfig -p']"


def test_folders_that_the_administrator_names_come_first() -> None:
    code = (
        "import os; from proxsmtp_tp.gateway.xtables_worker import import_iptc; import_iptc();"
        " print(os.environ['IPTABLES_LIBDIR'].split(':')[0], os.environ['XTABLES_LIBDIR'])"
    )
    given = {"IPTABLES_LIBDIR": "/nonexistent", "XTABLES_LIBDIR": "/usr"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, env=given
    )
    assert done.stdout.split() == ["/nonexistent", "/usr"]


def test_each_job_has_its_own_answer_or_reason() -> None:
    wanted: list[dict[str, Any]] = [{"version": version, "action": "list", "tables": []} for version in (4, 6)]
    assert iptables.work(wanted) == [{"chains": []}, {"chains": []}]
    with pytest.raises(GatewayError, match=r"\Aip6tables: KeyError: 'nonsense'\Z"):
        iptables.work([wanted[0], {"version": 6, "action": "nonsense"}])


def test_the_library_may_end_the_process_of_a_job() -> None:
    """libxtables calls exit(3), or crashes: the other job is still done."""
    code = """
import os, sys
from proxsmtp_tp.gateway import xtables_worker
def perform(job):
    os.write(2, b"libxtables: no")
    os.kill(os.getpid(), 9) if job == 1 else os._exit(job)
xtables_worker.perform = perform
print([child.end() for child in [xtables_worker.Child(job) for job in (0, 1, 2)]])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == str([[status, "", "libxtables: no"] for status in (0, -9, 2)])
