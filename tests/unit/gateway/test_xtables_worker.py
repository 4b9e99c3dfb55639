"""The process of python-iptables starts quickly: each command for the rules starts it several times."""

from __future__ import annotations

import subprocess
import sys

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
