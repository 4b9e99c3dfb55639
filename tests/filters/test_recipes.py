"""The addresses in the recipes of docs/filters.md are those at which Debian's packages listen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.filters.recipes import PAGE

SHIPPED = {
    "clamd /run/clamav/clamd.ctl": ("/lib/systemd/system/clamav-daemon.socket", r"ListenStream=/run/clamav/clamd\.ctl"),
    "rspamd http://127.0.0.1:11333": ("/etc/rspamd/rspamd.conf", r'bind_socket = "localhost:11333"'),
    "milter /run/opendkim/opendkim.sock": ("/etc/opendkim.conf", r"Socket\s+local:/run/opendkim/opendkim\.sock"),
    "milter /run/opendmarc/opendmarc.sock": ("/etc/opendmarc.conf", r"Socket local:/run/opendmarc/opendmarc\.sock"),
    "milter /var/lib/amavis/amavisd-milter.sock": (
        "/etc/init.d/amavisd-milter",
        r'MILTERSOCKET="/var/lib/amavis/amavisd-milter\.sock"',
    ),
    "milter /var/spool/MIMEDefang/mimedefang.sock": (
        "/lib/systemd/system/mimedefang.service",
        r"SOCKET=/var/spool/MIMEDefang/mimedefang\.sock",
    ),
}
MASKS = {"/etc/opendkim.conf": "007", "/etc/opendmarc.conf": "0002"}
"""With these the group may write, which connecting to a socket needs (unix(7))."""


@pytest.mark.parametrize("address", SHIPPED)
def test_address(address: str) -> None:
    path, words = SHIPPED[address]
    assert re.search(rf"^Filter: \w+ +{re.escape(address)}", PAGE, re.MULTILINE)
    assert re.search(words, Path(path).read_text())


@pytest.mark.parametrize("path", MASKS)
def test_the_group_may_open_the_socket(path: str) -> None:
    assert re.search(rf"^UMask\s+{MASKS[path]}$", Path(path).read_text(), re.MULTILINE)
