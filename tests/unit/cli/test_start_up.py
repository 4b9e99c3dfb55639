"""What a command imports: scripts and timers start some of them every few seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
from proxsmtp_tp.cli.main import main
try:
    main(sys.argv[2:])
except SystemExit:
    pass
if "serve" in sys.argv:
    import proxsmtp_tp.service.launch, proxsmtp_tp.net.connection
print(*sorted(set(sys.argv[1].split(",")) & sys.modules.keys()), file=sys.stderr)
"""
NETLINK = "pyroute2,iptc,setuptools"
"""Two tenths of a second: only for what reads or changes rules."""
LOOP = "uvloop,asyncio,ssl"


@pytest.mark.parametrize(
    ("arguments", "not_imported"),
    [
        (["--version"], f"{NETLINK},{LOOP}"),
        (["status", "--help"], f"{NETLINK},{LOOP},importlib.metadata"),
        (["serve", "--help"], NETLINK),
    ],
    ids=" ".join,
)
def test_no_more_than_it_needs(arguments: list[str], not_imported: str) -> None:
    command = [sys.executable, "-c", CODE, not_imported, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.split() == []
